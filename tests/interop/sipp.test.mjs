// sipp on both sides of the proxy: callers and registered callees over UDP and TCP, in every pairing. The proxy's T1 is
// 100 ms, so that what has to time out does it in seconds. A test passes when both sipps have seen exactly their
// scenario; at the end the proxy's books must balance.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { Proxy } from "../browser/support/proxy.mjs";
import { balance } from "./support/books.mjs";
import { LOCATION, configure } from "./support/edge.mjs";
import { host } from "./support/network.mjs";
import { withPeers } from "./support/peer.mjs";
import { Callee, Caller, registration } from "./support/scenario.mjs";
import { Sipp } from "./support/sipp.mjs";

const EDGE = host(1);
const PAIRS = [["udp", "udp"], ["tcp", "tcp"], ["udp", "tcp"], ["tcp", "udp"]];
// Who loses datagrams sends a BYE eight times before the proxy forgets that it was answered (Timer J, RFC 3261 §17.2.2) and
// sends it to a callee that has hung up: less than one run in a thousand loses all of them in some call.
const T1_MS = 250;

let proxy;
let users = 0;

before(async () => {
  proxy = await Proxy.run(configure(EDGE, ["udp", "tcp"], LOCATION, { t1_ms: T1_MS }), { admin: `${EDGE}:9090` });
});

after(async () => {
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/** Registers a callee's Contact as `user`. */
async function register(peers, user, callee) {
  const { address, transport, contact } = callee;
  const registrant = new Sipp(peers, `${callee.name}'s REGISTER`, registration("example.com", contact), {
    address, transport, target: `${EDGE}:5060`, user,
  });
  await registrant.passed();
}

/** Runs a caller against callees that are registered as one user; all of them must see what they expect. */
function converse({ caller, callees, transports: [calling, called], calls = 1, rate }) {
  return withPeers(proxy, async (peers) => {
    const user = `user${++users}`;
    const sides = [];
    for (const [index, scenario] of callees.entries()) {
      const name = `callee ${index + 1} over ${called}`;
      const side = new Sipp(peers, name, scenario, { address: host(3 + index), transport: called, calls });
      sides.push(await side.listening());
      await register(peers, user, side);
    }
    const options = { address: host(2), transport: calling, target: `${EDGE}:5060`, user, calls, rate };
    sides.unshift(new Sipp(peers, `caller over ${calling}`, caller, options));
    const verdicts = await Promise.allSettled(sides.map((side) => side.passed()));
    const failed = verdicts.filter(({ status }) => status === "rejected");
    assert.equal(failed.length, 0, failed.map(({ reason }) => reason.message).join("\n"));
    return sides;
  });
}

/** A test for each pairing of transports. */
function each(title, describeSides, { pairs = PAIRS, calls = 3 } = {}) {
  for (const transports of pairs) {
    test(`${title}: ${transports.join(" to ")}`, () => converse({ transports, calls, ...describeSides(transports) }));
  }
}

/** Both sides of a call to one callee. */
const pair = (caller, callee) => () => ({ caller, callees: [callee] });

describe("sipp through sipring", { concurrency: 8 }, () => {
  each("a call that the caller ends", pair(new Caller().call().ask("BYE"), new Callee().answer().serve("BYE")));

  each("both sides change the session, the callee hangs up", pair(
    new Caller().call()
      .inside("INVITE", { sdp: true }).maybe(100).status(200).ack()
      .serve("INVITE", { sdp: true }).request("ACK")
      .serve("BYE"),
    new Callee().answer()
      .serve("INVITE", { sdp: true }).request("ACK")
      .inside("INVITE", { sdp: true }).maybe(100).status(200).ack()
      .ask("BYE"),
  ));

  each("a long dialog: session refreshes and INFO from both sides", () => {
    const caller = new Caller().call();
    const callee = new Callee().answer();
    for (let round = 0; round < 15; round++) {
      for (const method of ["UPDATE", "INFO"]) {
        caller.ask(method).serve(method);
        callee.serve(method).ask(method);
      }
    }
    return { caller: caller.ask("BYE"), callees: [callee.serve("BYE")] };
  });

  // A CANCEL right behind the 100 may find the INVITE on its way from shard to shard, and the callee would hear nothing.
  each("a caller cancels before it rings", pair(
    new Caller().begin("INVITE").status(100).pause(500).cancel().status(200).maybe(180).refused(487),
    new Callee().arrives("INVITE").pause(1_500).reply(180).cancelled(),
  ));

  each("a caller cancels while it rings", pair(
    new Caller().begin("INVITE").maybe(100).status(180).cancel().status(200).refused(487),
    new Callee().arrives("INVITE").reply(180).cancelled(),
  ));

  each("a CANCEL crosses the 200: the call stands, and is ended", pair(
    new Caller().begin("INVITE").maybe(100).status(180).cancel().status(200)
      .status(200, { opens: true }).ack().ask("BYE"),
    new Callee().arrives("INVITE", { routes: 1 }).reply(180).cancel().replyLate(200).request("ACK").serve("BYE"),
  ), { pairs: PAIRS.slice(0, 2) });

  for (const [status, seen] of [[302, 302], [404, 404], [486, 486], [500, 500], [503, 500], [603, 603]]) {
    const moved = status === 302 ? { fields: { Contact: "sip:elsewhere@192.0.2.1" } } : {};
    const fields = status === 302 ? ["Contact: <sip:elsewhere@192.0.2.1>"] : [];
    each(`a callee answers ${status}`, pair(
      new Caller().begin("INVITE").maybe(100).refused(seen, moved),
      new Callee().arrives("INVITE").reply(status, { fields, again: true }).acknowledged(),
    ), { pairs: PAIRS.slice(0, 2) });
  }

  each("a callee that never answers is given up", pair(
    new Caller().begin("INVITE").status(100).refused(408),
    new Callee().arrives("INVITE").pause(64 * T1_MS + 1_000), // Timer B (RFC 3261 §17.1.1.2)
  ), { pairs: PAIRS.slice(0, 2) });

  each("MESSAGE, and one that is refused", pair(
    new Caller().begin("MESSAGE").status(200).begin("MESSAGE").status(415),
    new Callee().arrives("MESSAGE").reply(200).arrives("MESSAGE").reply(415),
  ));

  each("a subscription: NOTIFYs find the subscriber, it refreshes and leaves", pair(
    new Caller().begin("SUBSCRIBE", { fields: ["Event: presence", "Expires: 300"] }).status(200, { opens: true })
      .serve("NOTIFY").serve("NOTIFY")
      .ask("SUBSCRIBE", { fields: ["Event: presence", "Expires: 300"] }).serve("NOTIFY")
      .ask("SUBSCRIBE", { fields: ["Event: presence", "Expires: 0"] }).serve("NOTIFY"),
    new Callee().arrives("SUBSCRIBE").reply(200, { fields: ["Expires: 300"] })
      .ask("NOTIFY", notifying("active")).ask("NOTIFY", notifying("active"))
      .serve("SUBSCRIBE", { fields: ["Expires: 300"] }).ask("NOTIFY", notifying("active"))
      .serve("SUBSCRIBE", { fields: ["Expires: 0"] }).ask("NOTIFY", notifying("terminated")),
  ));

  each("a transfer: REFER, its NOTIFYs, BYE", pair(
    new Caller().call().inside("REFER", { fields: ["Refer-To: <sip:carol@example.com>"] }).status(202)
      .serve("NOTIFY").serve("NOTIFY").ask("BYE"),
    new Callee().answer().request("REFER", { fields: { "Refer-To": "sip:carol@example.com" } }).respond(202)
      .ask("NOTIFY", notifying("active", "refer")).ask("NOTIFY", notifying("terminated", "refer")).serve("BYE"),
  ));

  each("reliable provisional responses: PRACK, and UPDATE before the answer", pair(
    new Caller().begin("INVITE", { fields: ["Supported: 100rel"] }).maybe(100)
      .status(183, { opens: true, fields: { RSeq: "1" } })
      .ask("PRACK", { fields: ["RAck: 1 1 INVITE"] }).ask("UPDATE").status(200).ack().ask("BYE"),
    new Callee().arrives("INVITE", { routes: 1, fields: { Supported: "100rel" } })
      .reply(183, { fields: ["Require: 100rel", "RSeq: 1"] })
      .request("PRACK", { fields: { RAck: "1 1 INVITE" } }).respond(200).serve("UPDATE")
      .replyLate(200).request("ACK").serve("BYE"),
  ), { pairs: PAIRS.slice(0, 2) });

  // Over UDP sipp discards the repeated 200s by itself; over TCP it wants to be told of each.
  for (const [transport, repeated] of [["udp", (it) => it.pause(1_800)], ["tcp", (it) => it.status(200).status(200)]]) {
    test(`a 200 is repeated until its ACK comes: ${transport} to udp`, async () => {
      const caller = repeated(new Caller().begin("INVITE").maybe(100).maybe(180).status(200, { opens: true }));
      const callees = [new Callee().answer().serve("BYE")];
      const [, callee] = await converse({ caller: caller.ack().ask("BYE"), callees, transports: [transport, "udp"] });
      assert.ok(callee.total("Retransmissions") >= 2, "the callee repeated its 200");
    });
  }

  each("two phones ring, one answers, the other is cancelled", () => ({
    caller: new Caller().call().ask("BYE"),
    callees: [
      new Callee().arrives("INVITE").reply(180).pause(300).reply(200, { sdp: true, again: true })
        .request("ACK").serve("BYE"),
      new Callee().arrives("INVITE").reply(180).cancelled({ Reason: "cause=200" }),
    ],
  }));

  each("two phones ring, both refuse: the caller gets one answer", () => ({
    caller: new Caller().begin("INVITE").maybe(100).maybe(180).maybe(180).refused(486),
    callees: [
      new Callee().arrives("INVITE").reply(180).reply(486, { again: true }).acknowledged(),
      new Callee().arrives("INVITE").reply(180).pause(200).reply(480, { again: true }).acknowledged(),
    ],
  }));

  each("two phones ring, one declines for all: the other is cancelled", () => ({
    caller: new Caller().begin("INVITE").maybe(100).maybe(180).maybe(180).refused(603),
    callees: [
      new Callee().arrives("INVITE").reply(180).pause(300).reply(603, { again: true }).acknowledged(),
      new Callee().arrives("INVITE").reply(180).cancelled(),
    ],
  }));

  test("a tenth of the datagrams is lost on each side: no call is", async () => {
    const caller = new Caller().loses(10).call().pause(50).ask("BYE");
    // A lost ACK would let the BYE come first, which a scenario cannot say.
    const callee = new Callee().loses(10).arrives("INVITE").loses(0).reply(180).reply(200, { sdp: true, again: true })
      .request("ACK").loses(10).serve("BYE").pause(5_000);
    const sides = await converse({ caller, callees: [callee], transports: ["udp", "udp"], calls: 100, rate: 50 });
    for (const side of sides) assert.ok(side.total("Retransmissions") > 0, `${side.name} had to repeat something`);
  });
});

test("the proxy's books balance", () => balance(proxy));

/** What makes a NOTIFY one. */
function notifying(state, event = "presence") {
  return { fields: [`Event: ${event}`, `Subscription-State: ${state}`] };
}
