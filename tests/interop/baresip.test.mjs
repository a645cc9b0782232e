// baresip and baresip, each over UDP, TCP and TLS: registrations, whole calls with media, hold and resume, refusals.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { Proxy } from "../browser/support/proxy.mjs";
import { Baresip } from "./support/baresip.mjs";
import { balance, metrics, reached } from "./support/books.mjs";
import { both, wholeCall } from "./support/call.mjs";
import { host } from "./support/network.mjs";
import { withPeers } from "./support/peer.mjs";

const EDGE = host(1);
const PAIRS = [["udp", "udp"], ["tcp", "tcp"], ["tls", "tls"], ["udp", "tls"], ["tls", "tcp"]];

let proxy;

before(async () => {
  proxy = await Proxy.run(configuration(), { admin: `${EDGE}:9090`, host: EDGE });
});

after(async () => {
  if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
});

/** Two registered phones, which `work` is given. */
function phones([calling, called], addresses, work) {
  return withPeers(proxy, async (peers) => {
    const begun = (user, transport, at) => Baresip.start(peers, {
      user: `${user}-${calling}-${called}`, address: host(addresses + at), transport,
      proxy: `${EDGE}:${transport === "tls" ? 5061 : 5060}`, ca: proxy.certificate,
    });
    const [caller, callee] = await Promise.all([begun("alice", calling, 0), begun("bob", called, 1)]);
    await work(caller, callee);
  });
}

describe("baresip and baresip", { concurrency: PAIRS.length }, () => {
  for (const [index, pair] of PAIRS.entries()) {
    test(`${pair.join(" to ")}: calls that either side ends, a refusal and a CANCEL`, () =>
      phones(pair, 2 + 2 * index, async (caller, callee) => {
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

test("phones unregister when they end", async () => {
  await reached(proxy, ({ bindings }) => bindings === 0, "bindings are left");
  const { registrations } = await metrics(proxy);
  assert.ok(registrations >= 4 * PAIRS.length, `each registered and left: ${registrations}`);
});

test("the proxy's books balance", () => balance(proxy));

function configuration() {
  return `
[node]
name = "interop-baresip"
domains = ["example.com"]
shards = 2

[[listen]]
transport = "udp"
address = "${EDGE}:5060"

[[listen]]
transport = "tcp"
address = "${EDGE}:5060"

[[listen]]
transport = "tls"
address = "${EDGE}:5061"
certificate = "local"

[[certificate]]
name = "local"
cert = "cert.pem"
key = "key.pem"

[[route]]
domain = "example.com"
to = "location"

[timers]
t1 = "100ms"

[admin]
address = "${EDGE}:9090"
`;
}
