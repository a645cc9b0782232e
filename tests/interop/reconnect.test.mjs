// Kamailio as the registrar behind the proxy, which asks for passwords and is in every call: browsers that it has
// registered lose their connection in a call and come back on another. What it sends in the call arrives there, once, though
// the Record-Route of the call names the connection that is gone.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { Browser } from "../browser/support/browser.mjs";
import { Proxy } from "../browser/support/proxy.mjs";
import { LOSSES, cells, converse, goesOn, phone, requests, roamer } from "../browser/support/roamer.mjs";
import { balance, metrics } from "./support/books.mjs";
import { configure } from "./support/edge.mjs";
import { Kamailio } from "./support/kamailio.mjs";
import { host } from "./support/network.mjs";

const EDGE = host(1);
const CORE = host(2);
const PASSWORD = "wonderland";
const TEST_MS = 180_000;
const CELLS = cells(["jssip", "sipjs"]);

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

/** Somebody whom the core knows. */
const somebody = () => ({ user: `user${users++}`, domain: "private.example.com", password: PASSWORD });

describe("a call through the core goes on after the reconnect", { concurrency: 4 }, () => {
  for (const { library, loss, state, last } of CELLS) {
    test(`${library}, ${state}, ${loss}: ${last} hangs up`, { timeout: TEST_MS }, async (t) => {
      const peer = await phone(t, browser, "jssip", { url: `wss://${EDGE}:8443/`, ...somebody() });
      const client = await roamer(t, browser, library, { port: 8443, host: EDGE, ...somebody() });
      const path = await core.path(client.user);
      await goesOn({ client, peer, state, loss, last });
      assert.notEqual(await core.path(client.user), path, "the core has another Path");
    });
  }
});

// While the client is away, when it may be on its way back, and when the lost connection may just be found out.
const MOMENTS_MS = [0, 2_000, 3_000];

describe("the core hangs up whenever it likes", { concurrency: 4 }, () => {
  for (const library of ["jssip", "sipjs"]) {
    for (const loss of LOSSES) {
      for (const moment_ms of MOMENTS_MS) {
        test(`${library}, ${loss}: after ${moment_ms} ms`, { timeout: TEST_MS }, async (t) => {
          const peer = await phone(t, browser, "jssip", { url: `wss://${EDGE}:8443/`, ...somebody() });
          const client = await roamer(t, browser, library, { port: 8443, host: EDGE, ...somebody() });
          await converse(peer, client);
          client.relay[loss]();
          await new Promise((resolve) => setTimeout(resolve, moment_ms));
          await core.hangUp(client.user);
          await Promise.all([peer.event("ended"), client.event("ended")]);
          const byes = await requests(client, "BYE");
          assert.equal(byes.length, 1, `BYE arrives once:\n${await client.story()}`);
        });
      }
    }
  }
});

test("what the core sent went to another connection than it named, and the books balance", async () => {
  const { requests_moved: moved } = await metrics(proxy);
  // JsSIP has a GRUU of the core for its Contact, which by itself leads to where the client is.
  const named = CELLS.filter(({ library }) => library === "sipjs");
  const byes = named.filter(({ last }) => last === "the peer").length;
  assert.ok(moved >= 2 * named.length + byes, `re-INVITE, INFO and BYE: ${moved} requests were moved`);
  await balance(proxy, ["dropped_response_flow_gone"]);
});

function configuration() {
  const more = `
[[upstream]]
name = "core"
targets = ["sip:${CORE}:5060;transport=udp"]
from = ["${CORE}/32"]

[[route]]
domain = "private.example.com"
to = "upstream:core"

[registrar]
grace = "30s"
`;
  // A BYE waits 16 s for its answer: browsers on a busy machine take some to come back.
  return configure(EDGE, ["udp", "wss"], more, { domains: ["private.example.com"], t1_ms: 250 });
}
