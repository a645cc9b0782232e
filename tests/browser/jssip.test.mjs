// JsSIP in a real browser, through sipring: registration, requests from a UDP server, calls with WebRTC media.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Browser } from "./support/browser.mjs";
import { Proxy } from "./support/proxy.mjs";
import { token, uriOf } from "./support/sip.mjs";
import { Upstream } from "./support/upstream.mjs";

let proxy;
let upstream;
let browser;

before(async () => {
  proxy = await Proxy.start();
  upstream = await Upstream.listen(proxy.ports.upstream, proxy.ports.udp);
  browser = await Browser.start("jssip");
});

after(async () => {
  await browser?.stop();
  await upstream?.close();
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/** A page whose JsSIP is registered as `user` over `transport`, closed when the test ends. */
async function phone(t, user, transport = "wss") {
  const client = await browser.open("jssip");
  t.after(() => client.close());
  await client.call("start", { url: proxy.url(transport), user });
  client.user = user;
  client.address = `sip:${user}@example.com`;
  await client.event("registered");
  client.registration = await client.message("200 REGISTER");
  client.contact = await client.call("contact");
  return client;
}

/** Checks a request's only delivery: one frame, Request-URI = Contact, and the response that came back. */
async function delivered(client, method, body, response) {
  assert.notEqual(response.status, 477, "a living client must never be answered 477");
  assert.equal(response.status, 200, response.startLine);
  assert.equal(response.all("via").length, 1, "our Via is popped on the way back");
  const frames = (await client.received(body)).filter(({ text }) => text.startsWith(`${method} `));
  assert.equal(frames.length, 1, `${method} is delivered once`);
  assert.equal(frames[0].text.split(" ")[1], client.contact, "the Request-URI is the Contact exactly");
}

for (const transport of ["wss", "ws"]) {
  describe(`JsSIP over ${transport.toUpperCase()}`, () => {
    test("registers, with transport=ws in its Contact", async (t) => {
      const client = await phone(t, `reg-${transport}`, transport);
      assert.deepEqual(client.registration.all("contact").map(uriOf), [client.contact]);
      assert.match(client.contact, /^sip:[^@]+@[a-z0-9]+\.invalid;transport=ws$/);
      const [register] = (await client.frames()).filter(({ direction }) => direction === "out");
      assert.match(register.text, new RegExp(`^Via: SIP/2.0/${transport.toUpperCase()} `, "m"));
    });

    test("receives a NOTIFY outside a dialog from a UDP server, never 477", async (t) => {
      const client = await phone(t, `notify-${transport}`, transport);
      const body = `Messages-Waiting: yes ${token()}`;
      const fields = [["event", "message-summary"], ["subscription-state", "active"], ["content-type", "text/plain"]];
      const response = await upstream.request({ method: "NOTIFY", to: client.address, fields, body });
      await delivered(client, "NOTIFY", body, response);
      assert.deepEqual(await client.event("notify"), { event: "message-summary", body });
    });

    test("receives a MESSAGE from a UDP server", async (t) => {
      const client = await phone(t, `message-${transport}`, transport);
      const body = `hello ${token()}`;
      const fields = [["content-type", "text/plain"]];
      const response = await upstream.request({ method: "MESSAGE", to: client.address, fields, body });
      await delivered(client, "MESSAGE", body, response);
      assert.deepEqual(await client.event("message"), { from: "sip:core@127.0.0.1", body });
    });

    test("answers OPTIONS from a UDP server", async (t) => {
      const client = await phone(t, `options-${transport}`, transport);
      const response = await upstream.request({ method: "OPTIONS", to: client.address });
      assert.equal(response.status, 200, response.startLine);
      assert.match(response.header("allow"), /INVITE/, "the browser's own answer");
    });
  });
}

test("a subscription: the NOTIFYs inside the dialog find the browser by the Record-Route, never 477", async (t) => {
  const client = await phone(t, "subscriber");
  await client.call("subscribe", "sip:core-presence@example.com", "presence");
  const subscribe = await upstream.nextRequest("SUBSCRIBE");
  const routes = subscribe.all("record-route");
  assert.ok(routes.length > 0, "the SUBSCRIBE is Record-Routed");
  const tag = token();
  upstream.respond(subscribe, 200, "OK", { tag, fields: [["contact", upstream.contact], ["expires", "300"]] });
  await client.event("subscribed");
  for (const cseq of [1, 2]) {
    const body = `open ${cseq} ${token()}`;
    const response = await upstream.request({
      method: "NOTIFY",
      to: client.address,
      uri: uriOf(subscribe.header("contact")),
      routes,
      dialog: {
        callId: subscribe.header("call-id"),
        from: `${subscribe.header("to")};tag=${tag}`,
        to: subscribe.header("from"),
        cseq,
      },
      fields: [
        ["event", "presence"],
        ["subscription-state", "active;expires=300"],
        ["content-type", "text/plain"],
      ],
      body,
    });
    await delivered(client, "NOTIFY", body, response);
    assert.deepEqual(await client.event("subscription"), { isFinal: false, body });
  }
});

test("a MESSAGE whose body has the byte 0xFF arrives in a binary frame and the browser stays connected", async (t) => {
  const client = await phone(t, "binary");
  const mark = token();
  const fields = [["content-type", "application/octet-stream"]];
  const body = `${mark} \xff\xfe`;
  const response = await upstream.request({ method: "MESSAGE", to: client.address, fields, body });
  assert.equal(response.status, 200, response.startLine);
  await client.event("message");
  const [frame] = await client.received(mark);
  assert.equal(frame.binary, true);
  assert.ok(frame.text.endsWith(`\r\n\r\n${body}`), "the bytes of the body are unchanged");

  const later = { method: "MESSAGE", to: client.address, fields: [["content-type", "text/plain"]], body: "later" };
  assert.equal((await upstream.request(later)).status, 200);
  assert.equal((await client.event("message")).body, "later");
  const [second] = await client.received("\r\n\r\nlater");
  assert.deepEqual([second.socket, second.binary], [frame.socket, false], "a text frame on the same WebSocket");
  assert.deepEqual(await client.sockets(), [{ url: proxy.url("wss"), open: true }]);
});

test("a MESSAGE from the browser reaches the UDP server and its answer comes back", async (t) => {
  const client = await phone(t, "sender");
  const body = `grüße ${token()}`;
  await client.call("message", "sip:core-inbox@example.com", body);
  const request = await upstream.nextRequest("MESSAGE");
  assert.equal(Buffer.from(request.body, "latin1").toString("utf8"), body);
  upstream.respond(request, 202, "Accepted", { tag: token() });
  assert.deepEqual(await client.event("message-sent"), { status: 202 });
});

test("refreshes its registration and unregisters; then a request is answered 480", async (t) => {
  const client = await phone(t, "leaver");
  await client.call("refresh");
  const refreshed = await client.message("200 REGISTER");
  assert.equal(refreshed.header("call-id"), client.registration.header("call-id"));
  assert.equal(parseInt(refreshed.header("cseq")), parseInt(client.registration.header("cseq")) + 1);
  assert.deepEqual(refreshed.all("contact").map(uriOf), [client.contact], "the binding is refreshed, not doubled");

  await client.call("unregister");
  assert.equal((await client.event("unregistered")).status, 200);
  const body = `nobody ${token()}`;
  const fields = [["content-type", "text/plain"]];
  const response = await upstream.request({ method: "MESSAGE", to: client.address, fields, body });
  assert.equal(response.status, 480, response.startLine);
  assert.deepEqual(await client.received(body), []);
});

test("a plain-RTP INVITE from a UDP server is refused by the browser, and its 488 comes back", async (t) => {
  const client = await phone(t, "picky");
  const fields = [["content-type", "application/sdp"]];
  const body = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0", "m=audio 4000 RTP/AVP 0", ""];
  const answer = upstream.request({ method: "INVITE", to: client.address, fields, body: body.join("\r\n") });
  await client.event("ringing");
  await client.call("answer");
  const response = await answer;
  assert.equal(response.status, 488, response.startLine);
  assert.ok(response.provisional.includes(100) && response.provisional.includes(180), `${response.provisional}`);
});

/** `caller` calls `callee`, who answers; resolves when media flows both ways. */
async function converse(caller, callee) {
  await caller.call("invite", callee.address);
  assert.deepEqual(await callee.event("ringing"), { from: caller.address });
  await callee.call("answer");
  await Promise.all([caller.event("confirmed"), callee.event("confirmed")]);
  for (const client of [caller, callee]) {
    const media = await client.call("media");
    assert.match(media.ice, /^(connected|completed)$/, `${client.user}: ${JSON.stringify(media)}`);
    assert.ok(media.received > 0 && media.sent > 0, `${client.user}: audio bytes: ${JSON.stringify(media)}`);
  }
}

test("two browsers talk: media flows both ways, DTMF by INFO arrives, the caller hangs up", async (t) => {
  const caller = await phone(t, "alice");
  const callee = await phone(t, "bob");
  await converse(caller, callee);
  await caller.call("dtmf", "5");
  assert.deepEqual(await callee.event("dtmf"), { tone: "5" });
  await callee.call("dtmf", "7");
  assert.deepEqual(await caller.event("dtmf"), { tone: "7" });
  await caller.call("hangup");
  assert.equal((await caller.event("ended")).originator, "local");
  assert.equal((await callee.event("ended")).originator, "remote");
});

test("two browsers talk, one over WS and one over WSS, and the callee hangs up", async (t) => {
  const caller = await phone(t, "carol", "ws");
  const callee = await phone(t, "dave");
  await converse(caller, callee);
  await callee.call("hangup");
  assert.equal((await callee.event("ended")).originator, "local");
  assert.equal((await caller.event("ended")).originator, "remote");
});

test("a caller who gives up cancels the call: the callee stops ringing", async (t) => {
  const caller = await phone(t, "erin");
  const callee = await phone(t, "frank");
  await caller.call("invite", callee.address);
  await callee.event("ringing");
  await caller.event("progress");
  await caller.call("hangup");
  assert.deepEqual(await callee.event("failed"), { originator: "remote", cause: "Canceled" });
  assert.deepEqual(await caller.event("failed"), { originator: "local", cause: "Canceled" });
});

test("a user with two pages: both ring, one answers, the other is cancelled", async (t) => {
  const caller = await phone(t, "grace");
  const first = await phone(t, "heidi");
  const second = await phone(t, "heidi", "ws");
  await caller.call("invite", first.address);
  await Promise.all([first.event("ringing"), second.event("ringing")]);
  await second.call("answer");
  await Promise.all([caller.event("confirmed"), second.event("confirmed")]);
  assert.equal((await first.event("failed")).originator, "remote");
  const [cancel] = await first.received("CANCEL ");
  assert.match(cancel.text, /^Reason: SIP\s*;\s*cause=200\b/im);
  await caller.call("hangup");
  assert.equal((await second.event("ended")).originator, "remote");
});

test("a page that closes is gone: a request is answered 480, and the next page of that user gets its own", async (t) => {
  const leaving = await phone(t, "ivan");
  await leaving.page.close();
  const fields = [["content-type", "text/plain"]];
  const gone = await answerWhenGone({ method: "MESSAGE", to: leaving.address, fields, body: "one" });
  assert.equal(gone.status, 480, gone.startLine);
  const back = await phone(t, "ivan");
  const body = `two ${token()}`;
  const response = await upstream.request({ method: "MESSAGE", to: back.address, fields, body });
  await delivered(back, "MESSAGE", body, response);
});

/** The answer to `request` once the proxy has seen the connection end: within a second of it. */
async function answerWhenGone(request) {
  const deadline = Date.now() + 1_000;
  for (;;) {
    const response = await upstream.request(request);
    if (response.status !== 200 || Date.now() > deadline) return response;
  }
}
