// SIP text as a test server needs it (RFC 3261 §7): reading a message into start line, header fields and body, and
// writing one. Bytes are kept as latin1 text, so that a body which is not UTF-8 goes through unchanged. Absent on
// purpose: header folding, comma splitting inside quotes; the peers of these tests send neither.

import { randomBytes } from "node:crypto";

const COMPACT = new Map([
  ["v", "via"], ["f", "from"], ["t", "to"], ["i", "call-id"], ["m", "contact"],
  ["l", "content-length"], ["c", "content-type"], ["o", "event"], ["k", "supported"],
]);

/** One SIP message that was received. */
export class SipMessage {
  constructor(bytes) {
    const text = bytes.toString("latin1");
    const end = text.indexOf("\r\n\r\n");
    if (end < 0) throw new Error(`not a SIP message: ${JSON.stringify(text.slice(0, 80))}`);
    const [startLine, ...lines] = text.slice(0, end).split("\r\n");
    this.startLine = startLine;
    this.body = text.slice(end + 4);
    this.fields = lines.map((line) => {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon).trim().toLowerCase();
      return [COMPACT.get(name) ?? name, line.slice(colon + 1).trim()];
    });
    const words = startLine.split(" ");
    this.status = words[0] === "SIP/2.0" ? Number(words[1]) : undefined;
    this.method = this.status === undefined ? words[0] : this.header("cseq").split(" ").at(-1);
    this.uri = this.status === undefined ? words[1] : undefined;
  }

  /** Whether this is a request. */
  get isRequest() {
    return this.status === undefined;
  }

  /** The first value under that name (lower case), or undefined. */
  header(name) {
    return this.fields.find(([key]) => key === name)?.[1];
  }

  /** Every header field line under that name, in order; a line may hold several comma-separated values. */
  all(name) {
    return this.fields.filter(([key]) => key === name).map(([, value]) => value);
  }

  /** The tag parameter of From or To. */
  tag(name) {
    return this.header(name)?.match(/;\s*tag=([^;\s]+)/)?.[1];
  }
}

/** A random token, fit for tags, branches and Call-IDs. */
export const token = () => randomBytes(8).toString("hex");

/** The URI inside a name-addr, or the value up to its parameters. */
export function uriOf(value) {
  return value.match(/<([^>]+)>/)?.[1] ?? value.split(";")[0].trim();
}

/** Bytes of a request. `fields` are `[name, value]` pairs; Content-Length is added. */
export function buildRequest({ method, uri, fields, body = "" }) {
  return serialize(`${method} ${uri} SIP/2.0`, fields, body);
}

/** Bytes of a response to `request` (RFC 3261 §8.2.6): Via, From, To, Call-ID, CSeq and Record-Route are copied. */
export function buildResponse(request, status, reason, { tag = "", fields = [], body = "" } = {}) {
  const copied = request.fields
    .filter(([name]) => ["via", "record-route", "from", "to", "call-id", "cseq"].includes(name))
    .map(([name, value]) => (name === "to" && tag && !request.tag("to") ? [name, `${value};tag=${tag}`] : [name, value]));
  return serialize(`SIP/2.0 ${status} ${reason}`, [...copied, ...fields], body);
}

function serialize(startLine, fields, body) {
  const bytes = Buffer.from(body, "latin1");
  const lines = fields.map(([name, value]) => `${canonical(name)}: ${value}`);
  const head = [startLine, ...lines, `Content-Length: ${bytes.length}`, "", ""].join("\r\n");
  return Buffer.concat([Buffer.from(head, "latin1"), bytes]);
}

function canonical(name) {
  if (name === "call-id") return "Call-ID";
  if (name === "cseq") return "CSeq";
  return name.replace(/(^|-)[a-z]/g, (letters) => letters.toUpperCase());
}
