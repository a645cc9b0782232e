// What happens in the page, kept for the test: events by name, and every frame of every WebSocket. A SIP message that
// arrives is also an event: `NOTIFY` for a request, `200 REGISTER` for a response.

const events = [];
const waiting = [];
const frames = [];
const sockets = [];

/** Reports an event with a plain value. */
export function report(name, detail = {}) {
  events.push({ name, detail });
  for (const waiter of [...waiting]) {
    const found = nth(waiter.name, waiter.count);
    if (found) {
      waiting.splice(waiting.indexOf(waiter), 1);
      waiter.resolve(found.detail);
    }
  }
}

function nth(name, count) {
  return events.filter((event) => event.name === name)[count - 1];
}

function wait(name, count) {
  const found = nth(name, count);
  if (found) return Promise.resolve(found.detail);
  return new Promise((resolve) => waiting.push({ name, count, resolve }));
}

const latin1 = (buffer) => String.fromCharCode(...new Uint8Array(buffer));

function nameOf(text) {
  if (text === "\r\n") return "pong";
  const [first, second] = text.split(" ", 2);
  return first === "SIP/2.0" ? `${second} ${text.match(/^CSeq: *\d+ +(\w+)/im)?.[1]}` : first;
}

/** The browser's WebSocket, with every frame and the close code kept. */
window.WebSocket = class extends window.WebSocket {
  constructor(...args) {
    super(...args);
    const state = { url: args[0], open: false };
    this.number = sockets.push(state) - 1;
    this.addEventListener("open", () => (state.open = true));
    this.addEventListener("close", ({ code }) => {
      Object.assign(state, { open: false, code });
      report("socket-closed", { socket: this.number, code });
    });
    this.addEventListener("message", ({ data }) => {
      const binary = typeof data !== "string";
      const text = binary ? latin1(data) : data;
      frames.push({ socket: this.number, direction: "in", binary, text });
      report(nameOf(text), { text });
    });
  }

  send(data) {
    frames.push({ socket: this.number, direction: "out", binary: typeof data !== "string", text: String(data) });
    super.send(data);
  }
};

/**
 * Resolves, when ICE is connected and audio has gone out and come in, to what the connection's statistics say. Asks until
 * `deadline_ms` has passed, then gives what there is.
 */
export async function media(connection, deadline_ms = 10_000) {
  const started = performance.now();
  for (;;) {
    const summary = { ice: connection.iceConnectionState, received: 0, sent: 0, candidate: undefined };
    for (const entry of (await connection.getStats()).values()) {
      if (entry.type === "inbound-rtp" && entry.kind === "audio") summary.received += entry.bytesReceived;
      if (entry.type === "outbound-rtp" && entry.kind === "audio") summary.sent += entry.bytesSent;
      if (entry.type === "local-candidate") summary.candidate ??= entry.address;
    }
    const flows = ["connected", "completed"].includes(summary.ice) && summary.received > 0 && summary.sent > 0;
    if (flows || performance.now() - started > deadline_ms) return summary;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

window.record = { events, frames, sockets, wait };
