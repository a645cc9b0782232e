// baresip and linphone, each over UDP, TCP and TLS: registrations, whole calls with media, hold and resume, refusals.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { Proxy } from "../browser/support/proxy.mjs";
import { Baresip } from "./support/baresip.mjs";
import { balance, metrics, reached } from "./support/books.mjs";
import { both, wholeCall } from "./support/call.mjs";
import { LOCATION, configure } from "./support/edge.mjs";
import { Linphone } from "./support/linphone.mjs";
import { host } from "./support/network.mjs";
import { withPeers } from "./support/peer.mjs";

const EDGE = host(1);
const PAIRS = [["udp", "udp"], ["tcp", "tcp"], ["tls", "tls"], ["udp", "tls"], ["tls", "tcp"]];
const TRANSPORTS = ["udp", "tcp", "tls"];
const PHONES = 2 * PAIRS.length + 2 * TRANSPORTS.length;

let proxy;

before(async () => {
  proxy = await Proxy.run(configure(EDGE, ["udp", "tcp", "tls"], LOCATION), { admin: `${EDGE}:9090`, host: EDGE });
});

after(async () => {
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/** How a phone reaches the proxy. */
function by(transport) {
  return { transport, proxy: `${EDGE}:${transport === "tls" ? 5061 : 5060}`, ca: proxy.certificate };
}

/** Two registered baresips, which `work` is given. */
function pair([calling, called], addresses, work) {
  return withPeers(proxy, async (peers) => {
    const begun = (user, transport, at) =>
      Baresip.start(peers, { user: `${user}-${calling}-${called}`, address: host(addresses + at), ...by(transport) });
    const [caller, callee] = await Promise.all([begun("alice", calling, 0), begun("bob", called, 1)]);
    await work(caller, callee);
  });
}

describe("baresip and baresip", { concurrency: PAIRS.length }, () => {
  for (const [index, transports] of PAIRS.entries()) {
    test(`${transports.join(" to ")}: calls that either side ends, a refusal and a CANCEL`, () =>
      pair(transports, 2 + 2 * index, async (caller, callee) => {
        await wholeCall(caller, callee, caller);
        await wholeCall(callee, caller, caller);

        await caller.command("dial", callee.uri);
        await callee.event("CALL_INCOMING");
        await callee.command("hangup");
        const { param } = await caller.event("CALL_CLOSED");
        await callee.event("CALL_CLOSED");
        assert.match(param, /486/, "the callee was busy");

        await caller.command("dial", callee.uri);
        await callee.event("CALL_INCOMING");
        await caller.event("CALL_RINGING");
        await caller.command("hangup");
        await both(caller, callee, "CALL_CLOSED");
      }));
  }
});

describe("linphone and baresip", { concurrency: TRANSPORTS.length }, () => {
  for (const [index, transport] of TRANSPORTS.entries()) {
    test(`${transport}: calls from and to each other, which either side ends`, () =>
      withPeers(proxy, async (peers) => {
        const linphone = await Linphone.start(peers, { user: `carol-${transport}`, ...by(transport) });
        const address = host(2 + index);
        const baresip = await Baresip.start(peers, { user: `dave-${transport}`, address, ...by(transport) });

        await baresip.command("dial", linphone.uri);
        await baresip.event("CALL_ESTABLISHED");
        await linphone.printed(/Media streams established/);
        await baresip.command("hangup");
        await linphone.printed(/Call \d+ with .* ended/);
        await baresip.event("CALL_CLOSED");

        linphone.say(`call ${baresip.uri}`);
        await baresip.event("CALL_INCOMING");
        await baresip.command("accept");
        await baresip.event("CALL_ESTABLISHED");
        await linphone.printed(/Media streams established/);
        linphone.say("terminate");
        await baresip.event("CALL_CLOSED");
      }));
  }
});

test("phones unregister when they end", async () => {
  await reached(proxy, ({ bindings }) => bindings === 0, "bindings are left");
  const { registrations } = await metrics(proxy);
  assert.ok(registrations >= 2 * PHONES, `each registered and left: ${registrations}`);
});

test("the proxy's books balance", () => balance(proxy));
