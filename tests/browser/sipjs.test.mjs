// SIP.js in a real browser, through sipring, alone and with JsSIP at the other end.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./support/browser.mjs";
import { Proxy } from "./support/proxy.mjs";
import { token, uriOf } from "./support/sip.mjs";
import { Upstream } from "./support/upstream.mjs";

let proxy;
let upstream;
let browser;

before(async () => {
  proxy = await Proxy.start({ shards: 1 });
  upstream = await Upstream.listen(proxy.ports.upstream, proxy.ports.udp);
  browser = await Browser.start("jssip", "sipjs");
});

after(async () => {
  await browser?.stop();
  await upstream?.close();
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/** A page whose client `library` is registered as `user`, closed when the test ends. */
async function phone(t, library, user, options = {}) {
  const client = await browser.open(library);
  t.after(() => client.close());
  await client.call("start", { url: proxy.url("wss"), user, ...options });
  client.address = `sip:${user}@example.com`;
  await client.event("registered");
  client.registration = await client.message("200 REGISTER");
  client.contact = await client.call("contact");
  return client;
}

test("SIP.js registers, refreshes and unregisters; then a request is answered 480", async (t) => {
  const client = await phone(t, "sipjs", "reg");
  assert.deepEqual(client.registration.all("contact").map(uriOf), [client.contact]);
  await client.call("refresh");
  const refreshed = await client.message("200 REGISTER");
  assert.deepEqual(refreshed.all("contact").map(uriOf), [client.contact], "the binding is refreshed, not doubled");
  await client.call("unregister");
  await client.event("unregistered");
  const response = await upstream.request({ method: "OPTIONS", to: client.address });
  assert.equal(response.status, 480, response.startLine);
});

test("SIP.js receives NOTIFY and MESSAGE from a UDP server, never 477", async (t) => {
  const client = await phone(t, "sipjs", "listener");
  const body = `body ${token()}`;
  const plain = ["content-type", "text/plain"];
  const event = [["event", "message-summary"], ["subscription-state", "active"], plain];
  const notify = await upstream.request({ method: "NOTIFY", to: client.address, fields: event, body });
  assert.equal(notify.status, 200, notify.startLine);
  assert.deepEqual(await client.event("notify"), { event: "message-summary", body });
  const message = await upstream.request({ method: "MESSAGE", to: client.address, fields: [plain], body });
  assert.equal(message.status, 200, message.startLine);
  assert.deepEqual(await client.event("message"), { from: "sip:core@127.0.0.1", body });
  assert.equal((await client.received(body)).length, 2, "each was delivered once");
});

test("SIP.js sends a MESSAGE to another page and to the UDP server", async (t) => {
  const sender = await phone(t, "sipjs", "sender");
  const receiver = await phone(t, "jssip", "receiver");
  const body = `across ${token()}`;
  await sender.call("message", receiver.address, body);
  assert.deepEqual(await receiver.event("message"), { from: sender.address, body });
  assert.deepEqual(await sender.event("message-sent"), { status: 200 });
  await sender.call("message", "sip:core-inbox@example.com", body);
  const request = await upstream.nextRequest("MESSAGE");
  assert.equal(request.body, body);
  upstream.respond(request, 202, "Accepted", { tag: token() });
  assert.deepEqual(await sender.event("message-sent"), { status: 202 });
});

test("SIP.js keeps its connection alive by CRLF: each ping is answered and nothing closes", async (t) => {
  const client = await phone(t, "sipjs", "pinger", { keepAlive: 1 });
  await client.event("pong");
  await client.event("pong");
  assert.deepEqual(await client.sockets(), [{ url: proxy.url("wss"), open: true }]);
  const pings = (await client.frames()).filter(({ direction, text }) => direction === "out" && text === "\r\n\r\n");
  assert.ok(pings.length >= 2);
});

for (const [from, to] of [["sipjs", "sipjs"], ["sipjs", "jssip"], ["jssip", "sipjs"]]) {
  test(`a call from ${from} to ${to}: media flows both ways, either side hangs up`, async (t) => {
    const caller = await phone(t, from, `caller-${from}-${to}`);
    const callee = await phone(t, to, `callee-${from}-${to}`);
    for (const hangsUp of [caller, callee]) {
      await caller.call("invite", callee.address);
      assert.deepEqual(await callee.event("ringing"), { from: caller.address });
      await callee.call("answer");
      await Promise.all([caller.event("confirmed"), callee.event("confirmed")]);
      for (const client of [caller, callee]) {
        const media = await client.call("media");
        assert.match(media.ice, /^(connected|completed)$/, `${client.address}: ${JSON.stringify(media)}`);
        assert.ok(media.received > 0 && media.sent > 0, `${client.address}: ${JSON.stringify(media)}`);
      }
      await hangsUp.call("hangup");
      await Promise.all([caller.event("ended"), callee.event("ended")]);
    }
  });
}
