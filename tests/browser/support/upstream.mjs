// A SIP server on UDP, as stands behind an edge proxy: sends requests through the proxy, answers those that reach it.

import dgram from "node:dgram";
import { once } from "node:events";
import { SipMessage, buildRequest, buildResponse, token } from "./sip.mjs";

const TIMEOUT_MS = 30_000;

/** One UDP socket that speaks SIP. What arrives and is awaited by nobody is kept until somebody asks for it. */
export class Upstream {
  #socket = dgram.createSocket("udp4");
  #arrived = [];
  #waiting = [];

  /** Binds to 127.0.0.1 and `port`; requests go to the proxy's UDP port `proxyPort`. */
  static async listen(port, proxyPort) {
    const upstream = new Upstream();
    upstream.port = port;
    upstream.proxyPort = proxyPort;
    upstream.#socket.on("message", (bytes) => upstream.#receive(bytes));
    upstream.#socket.bind(port, "127.0.0.1");
    await once(upstream.#socket, "listening");
    return upstream;
  }

  /** Our Contact. */
  get contact() {
    return `<sip:core@127.0.0.1:${this.port}>`;
  }

  /**
   * Sends a request and resolves to its final response. `to` is the callee's address; `uri` (default: `to`) the
   * Request-URI; `routes` Route values; `dialog` (`callId`, `from`, `to`, `cseq`) makes it an in-dialog request.
   * The response carries `provisional`, the statuses seen before it.
   */
  async request({ method, to, uri = to, routes = [], dialog, fields = [], body = "" }) {
    const branch = `z9hG4bK${token()}`;
    const cseq = dialog?.cseq ?? 1;
    const common = [
      ["via", `SIP/2.0/UDP 127.0.0.1:${this.port};branch=${branch};rport`],
      ["max-forwards", "70"],
      ...routes.map((route) => ["route", route]),
      ["from", dialog?.from ?? `<sip:core@127.0.0.1>;tag=${token()}`],
      ["call-id", dialog?.callId ?? `${token()}@upstream`],
    ];
    const own = [["to", dialog?.to ?? `<${to}>`], ["cseq", `${cseq} ${method}`], ["contact", this.contact]];
    const bytes = buildRequest({ method, uri, body, fields: [...common, ...own, ...fields] });
    const provisional = [];
    this.#socket.send(bytes, this.proxyPort, "127.0.0.1");
    for (;;) {
      const response = await this.#take(
        (message) => !message.isRequest && message.header("via").includes(branch),
        `a response to ${method} ${uri}`,
      );
      if (method === "INVITE" && response.status >= 300) {
        // RFC 3261 §17.1.1.3: the ACK is the request's, with the To of the response.
        const ack = [...common, ["to", response.header("to")], ["cseq", `${cseq} ACK`]];
        this.#socket.send(buildRequest({ method: "ACK", uri, fields: ack }), this.proxyPort, "127.0.0.1");
      }
      if (response.status >= 200) return Object.assign(response, { provisional });
      provisional.push(response.status);
    }
  }

  /** The next request with that method (retransmissions count as requests of their own). */
  nextRequest(method) {
    return this.#take((message) => message.isRequest && message.method === method, `a ${method} request`);
  }

  /** Answers a request that arrived; the response goes to the proxy, where it came from. */
  respond(request, status, reason, options) {
    this.#socket.send(buildResponse(request, status, reason, options), this.proxyPort, "127.0.0.1");
  }

  /** Closes the socket. */
  async close() {
    const closed = once(this.#socket, "close");
    this.#socket.close();
    await closed;
  }

  #receive(bytes) {
    if (bytes.toString("latin1").trim() === "") return; // keep-alive
    const message = new SipMessage(bytes);
    const index = this.#waiting.findIndex(({ wanted }) => wanted(message));
    if (index < 0) this.#arrived.push(message);
    else this.#waiting.splice(index, 1)[0].resolve(message);
  }

  #take(wanted, what) {
    const index = this.#arrived.findIndex(wanted);
    if (index >= 0) return Promise.resolve(this.#arrived.splice(index, 1)[0]);
    return new Promise((resolve, reject) => {
      const waiter = { wanted };
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        const kept = this.#arrived.map((message) => message.startLine).join(" | ");
        reject(new Error(`upstream: ${what} did not arrive in ${TIMEOUT_MS} ms (unclaimed: ${kept || "nothing"})`));
      }, TIMEOUT_MS);
      waiter.resolve = (message) => {
        clearTimeout(timer);
        resolve(message);
      };
      this.#waiting.push(waiter);
    });
  }
}
