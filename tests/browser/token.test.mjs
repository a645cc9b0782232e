// Tokens (RFC 8898): a page that its user logged in to connects by a cookie, or by a token in the URL, and SIP asks
// for nothing; JsSIP shows one in its requests; and beside them passwords are asked for as ever.

import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { Browser } from "./support/browser.mjs";
import { Proxy } from "./support/proxy.mjs";
import { token as word } from "./support/sip.mjs";
import { Upstream } from "./support/upstream.mjs";

const AUTH = `
[auth]
method = ["bearer", "digest"]
users = "users.txt"
jwks_file = "jwks.json"
authz_server = "https://id.example.com"
issuer = "https://id.example.com"
audience = "sip"
leeway = 0
token_grace = "1s"
upgrade_cookie = "sip_token"
`;
const USERS = { "jssip-user": "wonderland", "sipjs-user": "looking:glass" };

const issuer = generateKeyPairSync("ed25519");
const forger = generateKeyPairSync("ed25519");

/** A token for a user, good for so many seconds. */
function tokenOf(user, { life = 600, pair = issuer } = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + life;
  const claims = { iss: "https://id.example.com", aud: "sip", sub: user, exp };
  const message = `${part({ alg: "EdDSA", kid: "1" })}.${part(claims)}`;
  return `${message}.${sign(null, Buffer.from(message), pair.privateKey).toString("base64url")}`;
}

let proxy;
let upstream;
let browser;

before(async () => {
  browser = await Browser.start("jssip", "sipjs");
  const keys = { keys: [{ ...issuer.publicKey.export({ format: "jwk" }), kid: "1" }] };
  proxy = await Proxy.start({ users: USERS, auth: AUTH, keys, origins: [browser.origin, browser.secureOrigin] });
  browser.certify(readFileSync(proxy.key), readFileSync(proxy.certificate));
  upstream = await Upstream.listen(proxy.ports.upstream, proxy.ports.udp);
});

after(async () => {
  await browser?.stop();
  await upstream?.close();
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/** How a page shows a token: cookies of its host, where it is from, and the URL that it connects to. */
const WAYS = {
  "a cookie over WSS": (value) => ({
    cookies: [{ name: "sip_token", value, domain: "127.0.0.1", path: "/", secure: true, sameSite: "Strict" }],
    origin: browser.secureOrigin,
    url: proxy.url("wss"),
  }),
  "a cookie over WS": (value) => ({
    cookies: [{ name: "sip_token", value, domain: "127.0.0.1", path: "/", sameSite: "Strict" }],
    url: proxy.url("ws"),
  }),
  "a token in the URL": (value) => ({ cookies: [], url: `${proxy.url("wss")}?access_token=${value}` }),
};

/** A page whose client starts to register as `user`, closed when the test ends. */
async function open(t, library, user, { cookies, origin, url, ...options }) {
  const client = await browser.open(library, cookies, origin);
  t.after(() => client.close());
  await client.call("start", { url, user, ...options });
  client.address = `sip:${user}@example.com`;
  return client;
}

/** The statuses of all answers to REGISTER so far. */
async function answers(client) {
  const frames = await client.received("REGISTER\r\n");
  return frames.map(({ text }) => Number(text.split(" ")[1]));
}

for (const [name, way] of Object.entries(WAYS)) {
  describe(name, () => {
    for (const library of ["jssip", "sipjs"]) {
      test(`${library} is registered without a challenge, and reached`, async (t) => {
        const user = `${library}-${word()}`;
        const client = await open(t, library, user, way(tokenOf(user)));
        await client.event("registered");
        assert.deepEqual(await answers(client), [200]);
        const body = `hello ${word()}`;
        const fields = [["content-type", "text/plain"]];
        const response = await upstream.request({ method: "MESSAGE", to: client.address, fields, body });
        assert.equal(response.status, 200, response.startLine);
        assert.equal((await client.event("message")).body, body);
      });
    }

    test("two users call each other", async (t) => {
      const [one, other] = [`one-${word()}`, `other-${word()}`];
      const caller = await open(t, "jssip", one, way(tokenOf(one)));
      const callee = await open(t, "sipjs", other, way(tokenOf(other)));
      await caller.event("registered");
      await callee.event("registered");
      await caller.call("invite", callee.address);
      assert.equal((await callee.event("ringing")).from, caller.address);
      await callee.call("answer");
      await caller.event("confirmed");
      await callee.event("confirmed");
      await caller.call("hangup");
      await callee.event("ended");
      assert.equal((await caller.received("SIP/2.0 407")).length, 0);
    });

    test("nobody is registered in another name", async (t) => {
      const client = await open(t, "jssip", "somebody-else", way(tokenOf("mallory")));
      assert.equal((await client.event("registration-failed")).status, 401);
    });

    test("a token of somebody else's making does not connect", async (t) => {
      const forged = tokenOf("jssip-user", { pair: forger });
      const client = await open(t, "jssip", "jssip-user", way(forged));
      assert.equal((await client.event("socket-closed")).code, 1006, "the upgrade was refused");
      assert.equal((await client.sockets())[0].open, false);
    });
  });
}

test("a page of another origin does not connect by the cookie of its visitor", async (t) => {
  // Another port is another origin, but the same site: the cookie is sent.
  const other = createServer(browser.server.listeners("request")[0]).listen(0, "127.0.0.1");
  await once(other, "listening");
  t.after(() => other.close());
  const { cookies, url } = WAYS["a cookie over WS"](tokenOf("jssip-user"));
  const client = await browser.open("jssip", cookies, `http://127.0.0.1:${other.address().port}`);
  t.after(() => client.close());
  await client.call("start", { url, user: "jssip-user" });
  assert.equal((await client.event("socket-closed")).code, 1006, "the upgrade was refused");
});

test("the flow ends with 1008 soon after its token", async (t) => {
  const short = WAYS["a token in the URL"](tokenOf("jssip-short", { life: 3 }));
  const client = await open(t, "jssip", "jssip-short", short);
  await client.event("registered");
  assert.equal((await client.event("socket-closed")).code, 1008);
});

test("JsSIP shows a token in its requests, and nobody else gets it", async (t) => {
  const [from, to] = [`jwt-${word()}`, `jwt-${word()}`];
  const shown = tokenOf(from);
  const sender = await open(t, "jssip", from, { url: proxy.url("wss"), jwt: shown });
  const receiver = await open(t, "jssip", to, { url: proxy.url("wss"), jwt: tokenOf(to) });
  await sender.event("registered");
  await receiver.event("registered");
  assert.deepEqual(await answers(sender), [200], "asked for nothing");
  const body = `hi ${word()}`;
  await sender.call("message", receiver.address, body);
  assert.deepEqual(await receiver.event("message"), { from: sender.address, body });
  assert.equal((await receiver.received(shown)).length, 0, "the token stays here");
  assert.notEqual((await sender.frames()).filter(({ text }) => text.includes(shown)).length, 0);
});

for (const library of ["jssip", "sipjs"]) {
  test(`${library} without a token is asked for its password`, async (t) => {
    const user = `${library}-user`;
    const client = await open(t, library, user, { url: proxy.url("wss"), password: USERS[user] });
    await client.event("registered");
    assert.deepEqual(await answers(client), [401, 200]);
    const [challenge] = await client.received("SIP/2.0 401");
    const schemes = challenge.text.match(/^WWW-Authenticate: \w+/gim).map((line) => line.split(" ")[1]);
    assert.deepEqual(schemes, ["Bearer", "Digest", "Digest"]);
  });
}
