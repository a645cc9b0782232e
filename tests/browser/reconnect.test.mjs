// Browsers that lose their connection in the middle of a call and come back on another: JsSIP and SIP.js, with passwords,
// behind a relay that fails as networks do. The other side is JsSIP on a connection that stays.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { balance, metrics } from "../interop/support/books.mjs";
import { Browser } from "./support/browser.mjs";
import { Proxy } from "./support/proxy.mjs";
import { Relay } from "./support/relay.mjs";
import { SipMessage, token } from "./support/sip.mjs";

const PASSWORD = "wonderland";
const TEST_MS = 60_000;
const GRACE_MS = 10_000; // the default with passwords
const SIPJS_T2_MS = 4_000; // RFC 3261 §17.1.1.1: the longest time between two copies
const TIMERS = '[timers]\nt1 = "100ms"\n'; // so that the books are closed soon
const LOSSES = ["reset", "vanish"];
const LIBRARIES = ["jssip", "sipjs"];

const CELLS = LIBRARIES.flatMap((library) => LOSSES.flatMap((loss) => ["answered", "on hold"].flatMap((state) =>
  ["the peer", "the browser"].map((last) => ({ library, loss, state, last })))));
const USERS = Object.fromEntries(Array.from({ length: 40 }, (_, number) => [`user${number}`, PASSWORD]));

let proxy;
let browser;
let users = 0;

before(async () => {
  proxy = await Proxy.start({ users: USERS, more: TIMERS });
  browser = await Browser.start(...LIBRARIES);
});

after(async () => {
  await browser?.stop();
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/** A page whose client `library` has registered at `url`, closed when the test ends. */
async function phone(t, library, url = proxy.url("wss")) {
  const client = await browser.open(library);
  t.after(() => client.close());
  client.user = `user${users++}`;
  client.address = `sip:${client.user}@example.com`;
  await client.call("start", { url, user: client.user, password: PASSWORD });
  await client.event("registered");
  return client;
}

/** One behind a relay of its own. */
async function roamer(t, library) {
  const relay = await Relay.to(proxy.ports.wss);
  t.after(() => relay.close());
  const client = await phone(t, library, `wss://127.0.0.1:${relay.port}/`);
  return Object.assign(client, { relay });
}

/** The client loses its connection in that way, comes back by itself, and has registered. */
async function lose(client, loss) {
  client.relay[loss]();
  await client.event("disconnected");
  await client.event("registered");
}

/** `caller` calls `callee`, who answers and knows that this was heard. */
async function converse(caller, callee) {
  await caller.call("invite", callee.address);
  await callee.event("ringing");
  await callee.call("answer");
  await Promise.all([caller.event("confirmed"), callee.event("confirmed")]);
  await acknowledged(callee);
}

/**
 * The ACK to the last INVITE that reached the client is there. One that is on its way when the connection ends is lost:
 * JsSIP repeats no 200 on another, by which the other side would know.
 */
async function acknowledged(client) {
  const { message: invite } = (await requests(client, "INVITE")).at(-1);
  let ack;
  do ack = await client.message("ACK");
  while (parseInt(ack.header("cseq")) !== parseInt(invite.header("cseq")));
}

/** `from` sends a re-INVITE that `to` accepts. */
async function reinvite(from, to, method) {
  await from.call(method).catch(async ({ message }) => {
    assert.fail([message, "--- who asked saw:", await from.story(), "--- who was asked saw:", await to.story()].join("\n"));
  });
  await acknowledged(to);
}

/**
 * The client repeats its 200 no more. SIP.js looks only when the time for the next copy has come whether the ACK was there,
 * and takes a re-INVITE that has come meanwhile for the old one: it sends the old answer, and gives the call up. Nothing
 * tells when it has looked, but on a machine fast enough it never repeats one.
 */
async function settled(client) {
  const sent = (await client.frames()).filter(({ direction, text }) => direction === "out" && text.startsWith("SIP/2.0 200 "));
  const answers = sent.map(({ text }) => new SipMessage(Buffer.from(text)).header("cseq")).filter((it) => it.endsWith(" INVITE"));
  if (new Set(answers).size < answers.length) await delay(SIPJS_T2_MS);
}

/** The requests with that method which reached the client, as `{socket, message}`. */
async function requests(client, method) {
  const frames = (await client.received("")).filter(({ text }) => text.startsWith(`${method} `));
  return frames.map(({ socket, text }) => ({ socket, message: new SipMessage(Buffer.from(text)) }));
}

/** The one such request came on the client's last connection, and only there. */
async function arrivedOnce(client, method) {
  const last = (await client.sockets()).length - 1;
  assert.deepEqual((await requests(client, method)).map(({ socket }) => socket), [last], `${method} arrives once`);
}

describe("a call goes on after the reconnect", { concurrency: 4 }, () => {
  for (const { library, loss, state, last } of CELLS) {
    test(`${library}, ${state}, ${loss}: ${last} hangs up`, { timeout: TEST_MS }, async (t) => {
      const peer = await phone(t, "jssip");
      const client = await roamer(t, library);
      // The one that is lost has called, or was called.
      if (last === "the peer") await converse(client, peer);
      else await converse(peer, client);
      if (state === "on hold") {
        await reinvite(peer, client, "hold");
        await settled(client);
      }
      const before = (await requests(client, "INVITE")).length;
      await lose(client, loss);

      await reinvite(peer, client, state === "on hold" ? "unhold" : "hold");
      const invites = await requests(client, "INVITE");
      assert.deepEqual(invites.slice(before).map(({ socket }) => socket), [1], "the re-INVITE arrives once");
      await peer.call("dtmf", "5");
      assert.deepEqual(await client.event("dtmf"), { tone: "5" });
      await arrivedOnce(client, "INFO");
      const body = `are you there? ${token()}`;
      await peer.call("message", client.address, body);
      assert.deepEqual(await client.event("message"), { from: peer.address, body });
      assert.equal((await peer.event("message-sent")).status, 200);
      await arrivedOnce(client, "MESSAGE");

      const [leaver, left] = last === "the peer" ? [peer, client] : [client, peer];
      await leaver.call("hangup");
      await Promise.all([leaver.event("ended"), left.event("ended")]);
      const byes = await requests(left, "BYE");
      assert.equal(byes.length, 1, "BYE arrives once");
      const answer = await leaver.message("200 BYE");
      assert.equal(answer.header("call-id"), byes[0].message.header("call-id"));
      if (left === client) await arrivedOnce(client, "BYE");
    });
  }
});

describe("a caller is lost while the other side rings", { concurrency: 2 }, () => {
  for (const loss of LOSSES) {
    test(`${loss}: JsSIP has forgotten the call, and the other side hears CANCEL within the grace`, { timeout: TEST_MS }, async (t) => {
      const callee = await phone(t, "jssip");
      const caller = await roamer(t, "jssip");
      await caller.call("invite", callee.address);
      await callee.event("ringing");
      await caller.event("progress");
      const lost = performance.now();
      await lose(caller, loss);
      assert.equal((await caller.event("failed")).originator, "local", "JsSIP gave the call up");
      assert.deepEqual(await callee.event("failed"), { originator: "remote", cause: "Canceled" });
      assert.ok(performance.now() - lost < GRACE_MS, "within the grace");
      const [{ message: cancel }] = await requests(callee, "CANCEL");
      assert.match(cancel.header("reason"), /^SIP\s*;\s*cause=487\b/i);
      const [{ socket, message: question }] = await requests(caller, "INFO");
      assert.deepEqual([socket, question.header("cseq"), question.body], [1, "0 INFO", ""]);
      // It can call again at once.
      await converse(caller, callee);
      await callee.call("hangup");
      await caller.event("ended");
    });

    test(`${loss}: SIP.js has kept the call and gets its answer`, { timeout: TEST_MS }, async (t) => {
      const callee = await phone(t, "jssip");
      const caller = await roamer(t, "sipjs");
      await caller.call("invite", callee.address);
      await callee.event("ringing");
      await caller.message("180 INVITE");
      await lose(caller, loss);
      await caller.message("INFO");
      assert.deepEqual(await requests(callee, "CANCEL"), []);
      await callee.call("answer");
      await Promise.all([caller.event("confirmed"), callee.event("confirmed")]);
      for (const client of [caller, callee]) {
        const media = await client.call("media");
        assert.ok(media.received > 0 && media.sent > 0, `${client.user}: audio bytes: ${JSON.stringify(media)}`);
      }
      // The callee's own requests have numbers above that of the question.
      await callee.call("dtmf", "7");
      assert.deepEqual(await caller.event("dtmf"), { tone: "7" });
      await callee.call("hangup");
      await caller.event("ended");
    });
  }
});

test("who came back was known again each time, and the books balance", async () => {
  const end = await metrics(proxy);
  assert.equal(end.callers_asked, 2 * LOSSES.length);
  assert.equal(end.callers_forgot, LOSSES.length);
  assert.ok(end.flows_probed >= (CELLS.length + 4) / 2, `flows that vanished were asked: ${JSON.stringify(end)}`);
  await balance(proxy, ["dropped_response_flow_gone"]);
});
