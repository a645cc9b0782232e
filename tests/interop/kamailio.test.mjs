// Kamailio as the core behind the proxy. Numbers that begin with 9 (over UDP) or 8 (over TCP) go to it and come back for
// the user behind the digit, so that the proxy stands twice in the call; core.example.com has its registrar there, and
// clients of the proxy reach it by Path (RFC 3327); private.example.com likewise, and there the core asks for passwords.
// Phones are sipp, baresip, linphone and, in a browser, JsSIP and SIP.js.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { Browser } from "../browser/support/browser.mjs";
import { Proxy } from "../browser/support/proxy.mjs";
import { Relay } from "../browser/support/relay.mjs";
import { token } from "../browser/support/sip.mjs";
import { Baresip } from "./support/baresip.mjs";
import { balance, metrics, reached } from "./support/books.mjs";
import { wholeCall } from "./support/call.mjs";
import { LOCATION, configure } from "./support/edge.mjs";
import { Kamailio } from "./support/kamailio.mjs";
import { Linphone } from "./support/linphone.mjs";
import { host, nextPort } from "./support/network.mjs";
import { withPeers } from "./support/peer.mjs";
import { Callee, Caller, registration } from "./support/scenario.mjs";
import { Sipp, contactOf } from "./support/sipp.mjs";
import { answers, stayAndLeave } from "./support/trace.mjs";

const EDGE = host(1);
const CORE = host(2);
const PAIRS = [["udp", "udp"], ["tcp", "tcp"], ["udp", "tcp"], ["tcp", "udp"]];
const PASSWORD = "wonderland";
const EXPIRES_S = 5;
const REFRESHES = 3;
const PROXIED = 3; // hops of a call through the core: the proxy, the core, the proxy

let proxy;
let core;
let browser;
let users = 0;

before(async () => {
  proxy = await Proxy.run(configuration(), { admin: `${EDGE}:9090`, host: EDGE });
  core = await Kamailio.start(CORE, EDGE, PASSWORD);
  browser = await Browser.start("jssip", "sipjs");
});

after(async () => {
  await browser?.stop();
  if (core) assert.equal(await core.stop(), 0, `kamailio ended badly:\n${core.output}`);
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/**
 * A caller at `server` calls `prefix` and a user of `domain`, whose phone is registered at `registrar`; both must see
 * what they expect.
 */
function converse({ caller, callee, transports, server = EDGE, registrar = EDGE, domain = "example.com", prefix = "", calls = 2 }) {
  const [calling, called] = transports;
  return withPeers(proxy, async (peers) => {
    const user = `user${++users}`;
    const port = nextPort();
    const [address, transport] = [host(4), called];
    // Over UDP the flow of the REGISTER is the callee's own: a Path leads there, whatever the Contact says.
    const registrant = new Sipp(peers, "REGISTER", registration(domain, contactOf({ address, port, transport })), {
      address, transport, target: `${registrar}:5060`, user, port: transport === "udp" ? port : nextPort(),
    });
    await registrant.passed();
    const phone = new Sipp(peers, `callee over ${called}`, callee, { address, transport, port, calls });
    await phone.listening();
    const options = { address: host(3), transport: calling, target: `${server}:5060`, user: prefix + user, calls };
    const sides = [new Sipp(peers, `caller over ${calling}`, caller, options), phone];
    const verdicts = await Promise.allSettled(sides.map((side) => side.passed()));
    const failed = verdicts.filter(({ status }) => status === "rejected");
    const story = () => `${failed.map(({ reason }) => reason.message).join("\n")}\n--- kamailio:\n${core.output.slice(-4_000)}`;
    assert.equal(failed.length, 0, failed.length ? story() : "");
  });
}

/** The kinds of conversation that each way through the core has to carry. */
const CONVERSATIONS = {
  "both sides change the session and ask for information, the caller hangs up": (domain, hops) => ({
    caller: new Caller(domain).call()
      .inside("INVITE", { sdp: true }).maybe(100).status(200).ack().ask("INFO")
      .serve("INVITE", { sdp: true }).request("ACK").serve("INFO").ask("BYE"),
    callee: new Callee({ hops }).answer()
      .serve("INVITE", { sdp: true }).request("ACK").serve("INFO")
      .inside("INVITE", { sdp: true }).maybe(100).status(200).ack().ask("INFO").serve("BYE"),
  }),
  "the callee hangs up": (domain, hops) => ({
    caller: new Caller(domain).call().serve("BYE"),
    callee: new Callee({ hops }).answer().ask("BYE"),
  }),
  "the caller cancels": (domain, hops) => ({
    caller: new Caller(domain).begin("INVITE").maybe(100).status(180).cancel().status(200).refused(487),
    // The core answers the CANCEL by one process and passes the 487 on by another: it must not be the faster one.
    callee: new Callee({ hops }).arrives("INVITE").reply(180).cancel().pause(300).replyLate(487).acknowledged(),
  }),
  "the callee is busy": (domain, hops) => ({
    caller: new Caller(domain).begin("INVITE").maybe(100).refused(486),
    callee: new Callee({ hops }).arrives("INVITE").reply(486, { again: true }).acknowledged(),
  }),
  "a MESSAGE": (domain, hops) => ({
    caller: new Caller(domain).begin("MESSAGE").status(200),
    callee: new Callee({ hops }).arrives("MESSAGE").reply(200),
  }),
  "a subscription and its NOTIFY": (domain, hops) => ({
    caller: new Caller(domain).begin("SUBSCRIBE", { fields: ["Event: presence"] }).status(200, { opens: true })
      .serve("NOTIFY"),
    callee: new Callee({ hops }).arrives("SUBSCRIBE").reply(200, { fields: ["Expires: 300"] })
      .ask("NOTIFY", { fields: ["Event: presence", "Subscription-State: terminated"] }),
  }),
};

/** Every conversation on one way, for each pairing of transports. */
function each(title, { domain = "example.com", hops, pairs = PAIRS, ...way }) {
  describe(title, { concurrency: 8 }, () => {
    for (const [name, sides] of Object.entries(CONVERSATIONS)) {
      for (const transports of pairs) {
        test(`${name}: ${transports.join(" to ")}`, () =>
          converse({ transports, domain, ...way, ...sides(domain, hops) }));
      }
    }
  });
}

each("through the core over UDP and back", { prefix: "9", hops: PROXIED });
each("through the core over TCP and back", { prefix: "8", hops: PROXIED });
each("from a client to a phone of the core", { domain: "core.example.com", registrar: CORE, hops: 2 });
each("from a phone of the core to a client", { server: CORE, hops: 2 });
each("from a phone of the core to a client that is registered there", {
  domain: "core.example.com", server: CORE, hops: 2, pairs: [["udp", "udp"], ["tcp", "udp"]],
});
each("between clients that are registered at the core", {
  domain: "core.example.com", hops: PROXIED, pairs: [["udp", "udp"], ["tcp", "udp"]],
});

describe("browsers behind the proxy", () => {
  /** A page whose client is registered as `user`, closed when the test ends. */
  async function phone(t, user, options) {
    const client = await open(t, user, options);
    await client.event("registered");
    client.contact = await client.call("contact");
    return client;
  }

  /** A page whose client, JsSIP unless `library` is another, begins to register. */
  async function open(t, user, { library = "jssip", domain = "example.com", transport = "wss", ...options } = {}) {
    const client = await browser.open(library);
    t.after(() => client.close());
    const url = transport === "wss" ? `wss://${EDGE}:8443/` : `ws://${EDGE}:8080/`;
    await client.call("start", { url, user, domain, ...options });
    client.user = user;
    client.address = `sip:${user}@${domain}`;
    return client;
  }

  /** `caller` calls `target`, `callee` answers, both hear each other and send digits; then `last` hangs up. */
  async function talk(caller, callee, target, last) {
    await caller.call("invite", target);
    await callee.event("ringing");
    await callee.call("answer");
    await Promise.all([caller.event("confirmed"), callee.event("confirmed")]);
    for (const client of [caller, callee]) {
      const media = await client.call("media");
      assert.ok(media.received > 0 && media.sent > 0, `${client.user}: audio bytes: ${JSON.stringify(media)}`);
    }
    await caller.call("dtmf", "5");
    assert.deepEqual(await callee.event("dtmf"), { tone: "5" });
    await callee.call("dtmf", "7");
    assert.deepEqual(await caller.event("dtmf"), { tone: "7" });
    await last.call("hangup");
    assert.equal((await last.event("ended")).originator, "local");
    assert.equal((await (last === caller ? callee : caller).event("ended")).originator, "remote");
  }

  for (const [digit, transport] of [["9", "wss"], ["8", "ws"]]) {
    test(`two browsers talk through the core by ${digit}, one over WSS and one over ${transport.toUpperCase()}`, async (t) => {
      const caller = await phone(t, `alice${digit}`);
      const callee = await phone(t, `bob${digit}`, { transport });
      await talk(caller, callee, `sip:${digit}${callee.user}@example.com`, caller);
      await talk(callee, caller, `sip:${digit}${caller.user}@example.com`, caller);
    });
  }

  test("a caller gives up, and one is refused", async (t) => {
    const caller = await phone(t, "carol");
    const callee = await phone(t, "dave");
    await caller.call("invite", "sip:9dave@example.com");
    await callee.event("ringing");
    await caller.event("progress");
    await caller.call("hangup");
    assert.deepEqual(await callee.event("failed"), { originator: "remote", cause: "Canceled" });
    assert.deepEqual(await caller.event("failed"), { originator: "local", cause: "Canceled" });
    await caller.call("invite", "sip:9dave@example.com");
    await callee.event("ringing");
    await callee.call("hangup");
    assert.equal((await caller.event("failed")).originator, "remote");
  });

  for (const transport of ["udp", "tcp"]) {
    test(`the core's own NOTIFY and MESSAGE reach it by its address over ${transport.toUpperCase()}`, async (t) => {
      const client = await phone(t, `erin-${transport}`);
      const next = `sip:${EDGE}:5060;transport=${transport}`;
      const fields = ["Event: message-summary", "Subscription-State: active", "Content-Type: text/plain"];
      const notified = await core.request("NOTIFY", client.address, next, fields, "Messages-Waiting: yes");
      assert.equal(notified, 200);
      assert.deepEqual(await client.event("notify"), { event: "message-summary", body: "Messages-Waiting: yes" });
      assert.equal(await core.request("MESSAGE", client.address, next, ["Content-Type: text/plain"], "hello"), 200);
      assert.equal((await client.event("message")).body, "hello");
    });
  }

  test("registered at the core: a phone's MESSAGE and a call reach it by Path", async (t) => {
    const domain = "core.example.com";
    const callee = await phone(t, "frank", { domain });
    const caller = await phone(t, "grace", { domain });
    await withPeers(proxy, async (peers) => {
      const message = new Caller(domain).begin("MESSAGE", { fields: ["Content-Type: text/plain"] }).status(200);
      const options = { address: host(3), transport: "udp", target: `${CORE}:5060`, user: "frank" };
      await new Sipp(peers, "sender", message, options).passed();
    });
    await callee.event("message");
    await talk(caller, callee, callee.address, callee);
  });

  test("registered at the core with a password: calls prove it, and a wrong one gets nowhere", async (t) => {
    const options = { domain: "private.example.com", password: PASSWORD };
    const callee = await phone(t, "heidi", options);
    const caller = await phone(t, "ivan", options);
    await talk(caller, callee, callee.address, callee);
    for (const status of [401, 407]) assert.equal((await caller.received(`SIP/2.0 ${status}`)).length, 1, `${status}`);
    await callee.message("200 REGISTER");
    await callee.call("refresh");
    await callee.message("200 REGISTER");
    await callee.call("unregister");
    await callee.event("unregistered");
    await caller.call("invite", callee.address);
    assert.equal((await caller.event("failed")).cause, "Not Found");

    const stranger = await open(t, "judy", { ...options, password: "guess" });
    assert.equal((await stranger.event("registration-failed")).status, 401);
  });
});

describe("browsers that the core has registered and that come back on another connection", () => {
  const domain = "core.example.com";
  const plain = "Content-Type: text/plain";

  /** The core sends a MESSAGE by that Path; its final status. */
  const ask = (client, path, body) =>
    core.request("MESSAGE", client.contact, `sip:${EDGE}:5060`, [`Route: ${path}`, plain], body);

  for (const [library, loss] of [["jssip", "reset"], ["jssip", "vanish"], ["sipjs", "reset"], ["sipjs", "vanish"]]) {
    test(`${library}, ${loss}: the old Path is answered 430, the new one leads there`, async (t) => {
      const relay = await Relay.to(8443, EDGE);
      t.after(() => relay.close());
      const client = await browser.open(library);
      t.after(() => client.close());
      const user = `roamer${++users}`;
      await client.call("start", { url: `wss://127.0.0.1:${relay.port}/`, user, domain });
      await client.event("registered");
      client.contact = await client.call("contact");

      const paths = [await core.path(user)];
      const bodies = ["early", "stale", "late", "looked up"].map((word) => `${word} ${token()}`);
      assert.equal(await ask(client, paths[0], bodies[0]), 200);
      const { flows_closed_pong: silent } = await metrics(proxy);
      relay[loss]();
      await client.event("disconnected");
      await client.event("registered");
      paths.push(await core.path(user));
      assert.notEqual(paths[1], paths[0], "the core has another Path");
      // Of a connection that vanished a ping finds out.
      if (loss === "vanish") await reached(proxy, ({ flows_closed_pong }) => flows_closed_pong > silent, "it is not closed");
      assert.equal(await ask(client, paths[0], bodies[1]), 430);
      assert.equal(await ask(client, paths[1], bodies[2]), 200);
      // By the core's own location service.
      const address = `sip:${user}@${domain}`;
      assert.equal(await core.request("MESSAGE", address, `sip:${CORE}:5060`, [plain], bodies[3]), 200);
      for (const [index, sockets] of [[0, [0]], [1, []], [2, [1]], [3, [1]]]) {
        const frames = await client.received(bodies[index]);
        assert.deepEqual(frames.map(({ socket }) => socket), sockets, bodies[index]);
      }
    });
  }
});

describe("baresip, registered at the core by way of the proxy", { concurrency: 3 }, () => {
  for (const [index, transports] of [["udp", "tcp"], ["tcp", "tls"], ["tls", "udp"]].entries()) {
    test(`${transports.join(" and ")}: calls that either side ends`, () => withPeers(proxy, async (peers) => {
      const [caller, callee] = await Promise.all(transports.map((transport, at) => Baresip.start(peers, {
        user: `${["henry", "iris"][at]}-${transport}`, domain: "core.example.com", address: host(5 + 2 * index + at),
        transport, proxy: `${EDGE}:${transport === "tls" ? 5061 : 5060}`, ca: proxy.certificate,
      })));
      await wholeCall(caller, callee, caller);
      await wholeCall(callee, caller, caller);
    }));
  }
});

describe("phones with a password at the core", { concurrency: true }, () => {
  const by = (transport) => ({
    domain: "private.example.com", transport, proxy: `${EDGE}:${transport === "tls" ? 5061 : 5060}`, ca: proxy.certificate,
    password: PASSWORD, expires: EXPIRES_S, trace: true,
  });

  for (const [index, transport] of ["udp", "tcp", "tls"].entries()) {
    test(`${transport}: baresip calls linphone, both stay registered and leave`, () => withPeers(proxy, async (peers) => {
      const [caller, callee] = await Promise.all([
        Baresip.start(peers, { user: `kate-${transport}`, address: host(5 + 2 * index), ...by(transport) }),
        Linphone.start(peers, { user: `leo-${transport}`, ...by(transport) }),
      ]);
      await caller.command("dial", callee.uri);
      await caller.event("CALL_ESTABLISHED");
      await callee.printed(/Media streams established/);
      await caller.command("hangup");
      await callee.printed(/Call \d+ with .* ended/);
      await caller.event("CALL_CLOSED");
      assert.deepEqual(answers(caller, "INVITE").filter((status) => [200, 407].includes(status)), [407, 200]);
      await stayAndLeave([caller, callee], REFRESHES);
    }));

    test(`${transport}: a baresip with a wrong password says that it was refused`, () => withPeers(proxy, (peers) => {
      const options = { user: `mike-${transport}`, address: host(6 + 2 * index), ...by(transport), password: "guess" };
      return Baresip.refused(peers, options);
    }));
  }
});

test("the proxy's books balance", () => balance(proxy));

function configuration() {
  const more = `
[[upstream]]
name = "core-udp"
targets = ["sip:${CORE}:5060;transport=udp"]
from = ["${CORE}/32"]

[[upstream]]
name = "core-tcp"
targets = ["sip:${CORE}:5060;transport=tcp"]

[[route]]
domain = "core.example.com"
to = "upstream:core-udp"

[[route]]
domain = "private.example.com"
to = "upstream:core-udp"

[[route]]
user = "^9"
domain = "example.com"
to = "upstream:core-udp"

[[route]]
user = "^8"
domain = "example.com"
to = "upstream:core-tcp"

[limits]
ping_interval = "2s"
pong_timeout = "1s"
${LOCATION}`;
  const domains = ["example.com", "core.example.com", "private.example.com"];
  return configure(EDGE, ["udp", "tcp", "tls", "ws", "wss"], more, { domains });
}
