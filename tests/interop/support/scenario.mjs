// Scenarios of sipp from short descriptions: each method adds a step, `xml` writes the file. The steps keep what a
// dialog needs: CSeq numbers, the branch that CANCEL and the ACK to a refusal share with their INVITE (RFC 3261 §9.1,
// §17.1.1.3), the route set, and both ends' From and To. What a step receives is checked as it comes: a request has
// been through a proxy, a request in a dialog names the Contact.

const SDP = ["v=0", "o=- 1 1 IN IP[local_ip_type] [local_ip]", "s=-", "c=IN IP[media_ip_type] [media_ip]", "t=0 0",
  "m=audio [media_port] RTP/AVP 0", "a=rtpmap:0 PCMU/8000"];
const CONTACT = "<sip:[local_ip]:[local_port];transport=[transport]>";
const APART_MS = 30;
const LAST_MS = 200;
const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/"/g, "&quot;");

/** One side of a sipp conversation. */
class Scenario {
  steps = [];
  lost = "";
  cseq = 0;

  /** `[local, remote]`: From and To of the requests that this side sends. */
  constructor(local, remote) {
    this.local = local;
    this.remote = remote;
  }

  /**
   * From here on, loses so many percent of what it receives, and of its requests that it repeats until they are answered.
   * Everything else is sent once for each time that its cause is received, and sipp repeats nothing that it has lost.
   */
  loses(percent) {
    this.lost = percent ? ` lost="${percent}"` : "";
    return this;
  }

  /** Waits so many milliseconds. */
  pause(duration_ms) {
    return this.step(`<pause milliseconds="${duration_ms}"/>`);
  }

  /**
   * Waits for a response; `opens` when it makes the dialog (Contact, route set and To tag are kept), `asks` when it
   * challenges (the challenge is kept for {@link proof}).
   */
  status(status, { opens = false, asks = false, fields = {} } = {}) {
    const kept = opens ? [keep("to", "To:", "&lt;.*")] : [];
    if (opens) this.remote = "[$to]";
    const flags = `${opens ? ' rrs="true"' : ""}${asks ? ' auth="true"' : ""}`;
    return this.receive(`response="${status}"${flags}`, [...kept, ...checks(fields)]);
  }

  /** A response that may come first. */
  maybe(status) {
    return this.step(`<recv response="${status}" optional="true"/>`);
  }

  /** Waits for a request inside the dialog. */
  request(method, { fields = {} } = {}) {
    const target = check("target", `^${method} sip:[0-9.]+:[0-9]+`, 'search_in="msg"');
    return this.receive(`request="${method}"`, [target, ...checks(fields)]);
  }

  /** Answers the request received last; `fields` come before its body, if `sdp` asks for one. */
  respond(status, { sdp = false, fields = [], again = false, to = "[last_To:]" } = {}) {
    const copied = ["[last_Via:]", "[last_Record-Route:]", "[last_From:]", to, "[last_Call-ID:]", "[last_CSeq:]"];
    const contact = status < 300 ? [`Contact: ${CONTACT}`] : [];
    return this.send([`SIP/2.0 ${status} Answer`, ...copied, ...contact, ...fields], { sdp, again });
  }

  /**
   * Sends a request inside the dialog, to the peer's Contact by the route set. It waits a little behind a response or ACK
   * of ours: as messages of two transactions they might overtake each other, which a scenario cannot say.
   */
  inside(method, { sdp = false, fields = [], cseq = ++this.cseq } = {}) {
    if (this.steps.at(-1)?.startsWith("<send")) this.pause(APART_MS);
    const head = [`${method} [next_url] SIP/2.0`, via("[branch]"), "[routes]", ...this.ends(), `CSeq: ${cseq} ${method}`];
    const contact = ["INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"].includes(method) ? [`Contact: ${CONTACT}`] : [];
    if (method === "INVITE") this.invited = cseq;
    return this.send([...head, "Max-Forwards: 70", ...contact, ...fields], { sdp, again: method !== "ACK" });
  }

  /** Sends the ACK to a 2xx: inside the dialog, with the number of the INVITE (RFC 3261 §13.2.2.4). */
  ack() {
    return this.inside("ACK", { cseq: this.invited });
  }

  /** A request inside the dialog and its 200. */
  ask(method, options) {
    return this.inside(method, options).status(200);
  }

  /** The peer's request inside the dialog, answered 200. */
  serve(method, { sdp = false, fields = [] } = {}) {
    return this.request(method).respond(200, { sdp, fields, again: method === "INVITE" });
  }

  /** From, To and Call-ID of our requests. */
  ends() {
    return [`From: ${this.local}`, `To: ${this.remote}`, "Call-ID: [call_id]"];
  }

  /** Sends these lines; `again` repeats them over UDP until something is received. */
  send(lines, { sdp = false, again = false } = {}) {
    const body = sdp ? ["Content-Type: application/sdp", "Content-Length: [len]", "", ...SDP] : ["Content-Length: 0", ""];
    const lost = again && !lines[0].startsWith("SIP/") ? this.lost : "";
    const first_ms = lost ? 250 : 500;
    return this.step(`<send${again ? ` retrans="${first_ms}"` : ""}${lost}><![CDATA[\n${[...lines, ...body].join("\n")}\n]]></send>`);
  }

  /** The number of the next step. */
  get next() {
    return this.steps.length;
  }

  /** The whole file. Who speaks last stays a little, so that it is heard before its connections end with it. */
  get xml() {
    const last = this.steps.at(-1).startsWith("<send") ? [`<pause milliseconds="${LAST_MS}"/>`] : [];
    const used = [...this.steps.join("").matchAll(/assign_to="(\w+)"/g)].map(([, name]) => name);
    const reference = used.length ? [`<Reference variables="${[...new Set(used)].join(",")}"/>`] : [];
    const inner = [...this.steps, ...last, ...reference].join("\n");
    return `<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="interop">\n${inner}\n</scenario>\n`;
  }

  /** Waits for what is described so, and does something with it. */
  receive(what, actions = []) {
    return this.step(`<recv ${what}${this.lost}>${actions.length ? `<action>${actions.join("")}</action>` : ""}</recv>`);
  }

  /** Adds a step. */
  step(text) {
    this.steps.push(text);
    return this;
  }
}

/** Who begins: its first request is for `[service]` at the domain. */
export class Caller extends Scenario {
  constructor(domain = "example.com") {
    super(`<sip:caller@${domain}>;tag=[pid]caller[call_number]`, `<sip:[service]@${domain}>`);
    this.target = `sip:[service]@${domain}`;
  }

  /** The first request. */
  begin(method, { sdp = method === "INVITE", fields = [], again = true } = {}) {
    this.first = this.next;
    this.remote = `<${this.target}>`;
    this.invited = ++this.cseq;
    const contact = method === "MESSAGE" ? [] : [`Contact: ${CONTACT}`];
    return this.send([...this.#head(method, "[branch]"), ...contact, ...fields], { sdp, again });
  }

  /** INVITE, 100, 180, 200, ACK. */
  call() {
    return this.begin("INVITE").maybe(100).maybe(180).status(200, { opens: true }).ack();
  }

  /** CANCELs the first request. */
  cancel() {
    return this.send(this.#head("CANCEL", this.#branch()), { again: true });
  }

  /** Waits for a refusal of the first request and acknowledges it. */
  refused(status, { asks = false, fields = {} } = {}) {
    const actions = [keep("to", "To:", "&lt;.*"), ...checks(fields)];
    this.steps.push(`<recv response="${status}"${asks ? ' auth="true"' : ""}><action>${actions.join("")}</action></recv>`);
    this.remote = "[$to]";
    return this.send(this.#head("ACK", this.#branch()));
  }

  #branch() {
    return `[branch-${this.next - this.first}]`;
  }

  #head(method, branch) {
    return [`${method} ${this.target} SIP/2.0`, via(branch), ...this.ends(), `CSeq: ${this.invited} ${method}`, "Max-Forwards: 70"];
  }
}

/** Who is called, behind so many `hops`. */
export class Callee extends Scenario {
  constructor({ hops = 1 } = {}) {
    super("[$own];tag=[pid]callee[call_number]", "[$from]");
    this.vias = Array.from({ length: hops + 1 }, (_, index) => `via${index}`);
  }

  /**
   * Waits for the request that begins everything. What later answers to it need is kept: with `routes` so many
   * Record-Route lines, otherwise only what a refusal copies.
   */
  arrives(method, { fields = {}, routes = 0 } = {}) {
    const ends = [keep("from", "From:", "&lt;.*"), keep("own", "To:", "&lt;.*")];
    const vias = this.vias.map((name, index) => keepNth(name, "Via:", index + 1));
    this.routes = Array.from({ length: routes }, (_, index) => `route${index}`);
    const recorded = this.routes.map((name, index) => keepNth(name, "Record-Route:", index + 1));
    const makesDialog = ["INVITE", "SUBSCRIBE"].includes(method) && routes === 0;
    if (makesDialog) recorded.push(check("recorded", "sip:.*;lr", 'search_in="hdr" header="Record-Route:"'));
    this.method = method;
    return this.receive(`request="${method}" rrs="true"`, [...ends, ...vias, ...recorded, ...checks(fields)]);
  }

  /** Answers the first request at once, with our tag. */
  reply(status, options = {}) {
    return this.respond(status, { to: "[last_To:];tag=[pid]callee[call_number]", ...options });
  }

  /** Answers the first request after others have come. */
  replyLate(status) {
    const vias = this.vias.map((name) => `Via: [$${name}]`);
    const routes = this.routes.map((name) => `Record-Route: [$${name}]`);
    const ends = [`From: ${this.remote}`, `To: ${this.local}`, "[last_Call-ID:]", `CSeq: 1 ${this.method}`];
    const contact = status < 300 ? [`Contact: ${CONTACT}`] : [];
    const lines = [`SIP/2.0 ${status} Answer`, ...vias, ...routes, ...ends, ...contact];
    return this.send(lines, { sdp: status < 300, again: true });
  }

  /** INVITE, 180, 200, ACK. */
  answer() {
    return this.arrives("INVITE").reply(180).reply(200, { sdp: true, again: true }).request("ACK");
  }

  /** Waits for the CANCEL and answers it. */
  cancel(fields = {}) {
    return this.receive('request="CANCEL"', checks(fields)).respond(200);
  }

  /** Waits for the CANCEL and obeys it: its 200, the INVITE's 487, the ACK. */
  cancelled(fields = {}) {
    return this.cancel(fields).replyLate(487).acknowledged();
  }

  /** Waits for the ACK to a refusal of ours. */
  acknowledged() {
    return this.receive('request="ACK"');
  }
}

/** Who registers `contact` as `[service]` at `domain`. */
export class Registrant extends Scenario {
  constructor(domain, contact) {
    super(`<sip:[service]@${domain}>;tag=[pid]registrant`, `<sip:[service]@${domain}>`);
    Object.assign(this, { domain, contact });
  }

  /** A REGISTER for so many seconds. */
  register(expires, fields = []) {
    const start = [`REGISTER sip:${this.domain} SIP/2.0`, via("[branch]"), ...this.ends(), `CSeq: ${++this.cseq} REGISTER`];
    const contact = [`Contact: <${this.contact}>`, `Expires: ${expires}`];
    return this.send([...start, "Max-Forwards: 70", ...contact, ...fields], { again: true });
  }

  /** The 200 to it, which names the Contact unless it is `gone`. */
  granted({ gone = false } = {}) {
    return this.status(200, { fields: gone ? {} : { Contact: escape(this.contact) } });
  }
}

/** A REGISTER of `contact` as `[service]`, for so many seconds. */
export function registration(domain, contact, expires = 600) {
  return new Registrant(domain, contact).register(expires).granted();
}

/** The header field that answers the challenge received last. */
export const proof = (user, password) => `[authentication username=${user} password=${password}]`;

const via = (branch) => `Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=${branch};rport`;

const keep = (name, header, pattern) =>
  `<ereg regexp="${pattern}" search_in="hdr" header="${header}" check_it="true" assign_to="${name}"/>`;

const keepNth = (name, header, nth) =>
  `<ereg regexp=".*" search_in="hdr" header="${header}" occurrence="${nth}" check_it="true" assign_to="${name}"/>`;

const check = (name, pattern, where) => `<ereg regexp="${pattern}" ${where} check_it="true" assign_to="${name}"/>`;

/** Header fields that must match: `{ Reason: "cause=200" }`. */
const checks = (fields) =>
  Object.entries(fields).map(([header, pattern], index) =>
    check(`seen${index}`, pattern, `search_in="hdr" header="${header}:"`));
