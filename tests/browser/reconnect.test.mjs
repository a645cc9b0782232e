// Browsers that lose their connection in the middle of a call and come back on another: JsSIP and SIP.js, with passwords,
// behind a relay that fails as networks do. The other side is JsSIP on a connection that stays.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { balance, metrics } from "../interop/support/books.mjs";
import { Browser } from "./support/browser.mjs";
import { Proxy } from "./support/proxy.mjs";
import { LOSSES, cells, converse, goesOn, lose, phone, requests, roamer } from "./support/roamer.mjs";

const PASSWORD = "wonderland";
const TEST_MS = 180_000;
const GRACE = "30s"; // the longest: nobody is late on a machine that has other things to do
const TIMERS = '[timers]\nt1 = "100ms"\n'; // so that the books are closed soon
const LIBRARIES = ["jssip", "sipjs"];

const CELLS = cells(LIBRARIES);
const USERS = Object.fromEntries(Array.from({ length: 40 }, (_, number) => [`user${number}`, PASSWORD]));

let proxy;
let browser;
let users = 0;

before(async () => {
  proxy = await Proxy.start({ users: USERS, grace: GRACE, more: TIMERS });
  browser = await Browser.start(...LIBRARIES);
});

after(async () => {
  await browser?.stop();
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/** A name that nobody has had, and its password. */
const somebody = () => ({ user: `user${users++}`, password: PASSWORD });

/** A page whose client, JsSIP, stays connected. */
const stays = (t) => phone(t, browser, "jssip", { url: proxy.url("wss"), ...somebody() });

/** One whose connection can be lost. */
const roams = (t, library) => roamer(t, browser, library, { port: proxy.ports.wss, ...somebody() });

describe("a call goes on after the reconnect", { concurrency: 4 }, () => {
  for (const { library, loss, state, last } of CELLS) {
    test(`${library}, ${state}, ${loss}: ${last} hangs up`, { timeout: TEST_MS }, async (t) => {
      const peer = await stays(t);
      const client = await roams(t, library);
      await goesOn({ client, peer, state, loss, last });
    });
  }
});

describe("a caller is lost while the other side rings", { concurrency: 2 }, () => {
  for (const loss of LOSSES) {
    test(`${loss}: JsSIP has forgotten the call, and the other side hears CANCEL`, { timeout: TEST_MS }, async (t) => {
      const callee = await stays(t);
      const caller = await roams(t, "jssip");
      await caller.call("invite", callee.address);
      await callee.event("ringing");
      await caller.event("progress");
      await lose(caller, loss);
      assert.equal((await caller.event("failed")).originator, "local", "JsSIP gave the call up");
      assert.deepEqual(await callee.event("failed"), { originator: "remote", cause: "Canceled" });
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
      const callee = await stays(t);
      const caller = await roams(t, "sipjs");
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
