// What a phone that prints its SIP messages has seen.

const MESSAGE = "(?:(?!\\r?\\n\\r?\\n)[^])*?"; // more of the same message

/** The statuses of the responses to `method`, in their order. */
export function answers({ output }, method) {
  const response = new RegExp(`^SIP/2\\.0 (\\d+) ${MESSAGE}^CSeq: *\\d+ ${method}`, "gm");
  return [...output.matchAll(response)].map(([, status]) => Number(status));
}

/** Resolves when `phone` has been granted its registration so many times. */
export function granted({ peer }, times, timeout_ms) {
  const once = `^SIP/2\\.0 200 ${MESSAGE}^CSeq: *\\d+ REGISTER[^]*?`;
  return peer.printed(new RegExp(`(?:${once}){${times}}`, "m"), { timeout_ms });
}

/** The statuses of the responses to the REGISTERs that remove a phone's binding. */
export function farewell({ output }) {
  const start = output.search(/^(?:Contact:.*;expires=0|Expires: 0)\r?$/m);
  return start < 0 ? [] : answers({ output: output.slice(start) }, "REGISTER");
}
