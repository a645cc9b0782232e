// The proxy's metrics, and what must hold in them once all is quiet.

import assert from "node:assert/strict";

const QUIET_MS = 20_000;

/** The sum over all shards of every metric of a proxy's admin address, by its name without `sipring_` and `_total`. */
export async function metrics({ admin }) {
  const text = await (await fetch(`http://${admin}/metrics`)).text();
  const sums = {};
  for (const [, name, value] of text.matchAll(/^sipring_(\w+?)(?:_total)?(?:\{.*\})? ([0-9.e+]+)$/gm)) {
    sums[name] = (sums[name] ?? 0) + Number(value);
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
 * Waits until no transaction lives, then checks that every message that came in has exactly one outcome, and that
 * nothing was dropped but what `allowed` names.
 */
export async function balance(proxy, allowed = []) {
  const end = await reached(proxy, ({ transactions }) => transactions === 0, "transactions are left");
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
