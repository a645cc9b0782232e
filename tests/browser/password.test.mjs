// Passwords: JsSIP and SIP.js answer our challenges, and nobody gets in without.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Browser } from "./support/browser.mjs";
import { Proxy } from "./support/proxy.mjs";
import { token } from "./support/sip.mjs";
import { Upstream } from "./support/upstream.mjs";

const USERS = { "jssip-user": "wonderland", "sipjs-user": "looking:glass", "core-user": "x" };

let proxy;
let upstream;
let browser;

before(async () => {
  proxy = await Proxy.start({ users: USERS });
  upstream = await Upstream.listen(proxy.ports.upstream, proxy.ports.udp);
  browser = await Browser.start("jssip", "sipjs");
});

after(async () => {
  await browser?.stop();
  await upstream?.close();
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/** A page whose client `library` starts to register, closed when the test ends. */
async function open(t, library, options = {}) {
  const user = `${library}-user`;
  const client = await browser.open(library);
  t.after(() => client.close());
  await client.call("start", { url: proxy.url("wss"), user, password: USERS[user], ...options });
  client.address = `sip:${user}@example.com`;
  return client;
}

/** The statuses of all answers to REGISTER so far. */
async function answers(client) {
  const frames = await client.received("REGISTER\r\n");
  return frames.map(({ text }) => Number(text.split(" ")[1]));
}

for (const library of ["jssip", "sipjs"]) {
  describe(`${library} with a password`, () => {
    test("registers by digest, refreshes, is reached, and leaves", async (t) => {
      const client = await open(t, library);
      await client.event("registered");
      assert.deepEqual(await answers(client), [401, 200]);
      await client.message("200 REGISTER");
      await client.call("refresh");
      const refreshed = await client.message("200 REGISTER");
      assert.equal(refreshed.all("contact").length, 1, "one binding, refreshed");
      assert.deepEqual(await answers(client), [401, 200, 200], "asked for its password once");
      const body = `hello ${token()}`;
      const fields = [["content-type", "text/plain"]];
      const response = await upstream.request({ method: "MESSAGE", to: client.address, fields, body });
      assert.equal(response.status, 200, response.startLine);
      await client.call("unregister");
      await client.event("unregistered");
      const gone = await upstream.request({ method: "OPTIONS", to: client.address });
      assert.equal(gone.status, 480, gone.startLine);
      assert.deepEqual(await answers(client), [401, 200, 200, 200]);
    });

    test("is refused with a wrong password", async (t) => {
      const client = await open(t, library, { password: "guess" });
      assert.equal((await client.event("registration-failed")).status, 401);
      assert.deepEqual(await answers(client), [401, 401]);
    });
  });
}

test("a MESSAGE from one browser to the other is asked for no password again", async (t) => {
  const from = await open(t, "jssip");
  const to = await open(t, "sipjs");
  await from.event("registered");
  await to.event("registered");
  const body = `hi ${token()}`;
  await from.call("message", to.address, body);
  assert.deepEqual(await to.event("message"), { from: from.address, body });
  assert.equal((await from.event("message-sent")).status, 200);
  assert.equal((await from.received("SIP/2.0 407")).length, 0);
});

test("a MESSAGE before any REGISTER is answered with the password", async (t) => {
  const to = await open(t, "sipjs");
  await to.event("registered");
  const from = await open(t, "jssip", { register: false });
  await from.event("connected");
  const body = `early ${token()}`;
  await from.call("message", to.address, body);
  assert.deepEqual(await to.event("message"), { from: from.address, body });
  assert.equal((await from.event("message-sent")).status, 200);
  assert.equal((await from.received("SIP/2.0 407")).length, 1);
});

test("two users with passwords call each other", async (t) => {
  const caller = await open(t, "jssip");
  const callee = await open(t, "sipjs");
  await caller.event("registered");
  await callee.event("registered");
  await caller.call("invite", callee.address);
  await callee.event("ringing");
  await callee.call("answer");
  await caller.event("confirmed");
  await callee.event("confirmed");
  await callee.call("hangup");
  await caller.event("ended");
});
