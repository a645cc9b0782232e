// What a phone that prints its SIP messages has seen.

import assert from "node:assert/strict";

const STAY_MS = 60_000;
const MESSAGE = "(?:(?!\\r?\\n\\r?\\n)[^])*?"; // more of the same message

/** The statuses of the responses to `method`, in their order. */
export function answers({ output }, method) {
  const response = new RegExp(`^SIP/2\\.0 (\\d+) ${MESSAGE}^CSeq: *\\d+ ${method}`, "gm");
  return [...output.matchAll(response)].map(([, status]) => Number(status));
}

/**
 * Waits until each phone has been granted so many refreshes, which it asks for by itself, then ends it: it must have been
 * asked for its password first and have unregistered last.
 */
export async function stayAndLeave(phones, refreshes) {
  await Promise.all(phones.map(({ peer }) => peer.printed(granted(1 + refreshes), { timeout_ms: STAY_MS })));
  await Promise.all(phones.map((phone) => phone.stop()));
  for (const phone of phones) {
    const statuses = answers(phone, "REGISTER");
    assert.equal(statuses[0], 401, `${phone.name} was asked for its password: ${statuses}`);
    assert.ok(statuses.every((status) => [200, 401].includes(status)), `${phone.name}: ${statuses}`);
    const last = farewell(phone);
    assert.equal(last.at(-1), 200, `${phone.name} has left: ${last}`);
  }
}

/** What is printed when so many REGISTERs have been granted. */
function granted(times) {
  const once = `^SIP/2\\.0 200 ${MESSAGE}^CSeq: *\\d+ REGISTER[^]*?`;
  return new RegExp(`(?:${once}){${times}}`, "m");
}

/** The statuses of the responses to the REGISTERs that remove a phone's binding. */
function farewell({ output }) {
  const start = output.search(/^(?:Contact:.*;expires=0|Expires: 0)\r?$/m);
  return start < 0 ? [] : answers({ output: output.slice(start) }, "REGISTER");
}
