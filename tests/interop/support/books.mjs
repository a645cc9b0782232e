// The proxy's metrics, and what must hold in them once all is quiet.

import assert from "node:assert/strict";

const QUIET_MS = 60_000;

/**
 * The sums over all shards of every metric of a proxy, by name without `sipring_` and `_total`; transactions also by side,
 * as `server_transactions` and `client_transactions`.
 */
export async function metrics({ admin }) {
  const text = await (await fetch(`http://${admin}/metrics`)).text();
  const sums = { server_transactions: 0, client_transactions: 0 };
  for (const [, name, labels = "", value] of text.matchAll(/^sipring_(\w+?)(?:_total)?(?:\{(.*)\})? ([0-9.e+]+)$/gm)) {
    const side = labels.match(/side="(\w+)"/)?.[1];
    for (const key of side ? [name, `${side}_${name}`] : [name]) sums[key] = (sums[key] ?? 0) + Number(value);
  }
  return sums;
}

/** Waits until `test` holds for the metrics and returns them. */
export async function reached(proxy, test, what) {
  const deadline = Date.now() + QUIET_MS;
  for (;;) {
    const now = await metrics(proxy);
    if (test(now)) return now;
    if (Date.now() > deadline) assert.fail(`${what}: ${JSON.stringify(now)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/**
 * Waits until every request has its outcome (client transactions over UDP that were refused stay for 32 s, RFC 3261
 * §17.1.1.2, and add nothing), then checks that every message that came in has exactly one outcome, and that nothing was
 * dropped but what `allowed` names.
 */
export async function balance(proxy, allowed = []) {
  const end = await reached(proxy, (now) => now.server_transactions === 0, "transactions are left");
  const sum = (...names) => names.reduce((total, name) => total + end[name], 0);
  const requests = sum("requests_answered", "requests_relayed", "transactions_expired", "retransmissions_absorbed",
    "acks_forwarded", "dropped_ack");
  assert.equal(end.requests_received, requests, `requests and what came of them: ${JSON.stringify(end)}`);
  const responses = sum("responses_forwarded", "responses_absorbed", "dropped_stray_response",
    "dropped_foreign_response", "dropped_response_without_via");
  assert.equal(end.responses_received, responses, `responses and what came of them: ${JSON.stringify(end)}`);
  const dropped = Object.entries(end).filter(([name, count]) => name.startsWith("dropped_") && count > 0);
  assert.deepEqual(dropped.filter(([name]) => !allowed.includes(name)), [], "nothing is dropped");
  assert.ok(end.requests_forwarded > 0, "the traffic went through the proxy");
  return end;
}
