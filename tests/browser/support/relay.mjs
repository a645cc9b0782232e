// A TCP relay between a client and the proxy, which fails as networks do.

import net from "node:net";
import { once } from "node:events";

/** Passes on what both sides say, on any number of connections. */
export class Relay {
  #pairs = new Set();
  #server = net.createServer((client) => this.#accept(client));

  /** Listens on a port of 127.0.0.1 and passes everything on to `port` of `host`. */
  static async to(port, host = "127.0.0.1") {
    const relay = new Relay();
    relay.target = { port, host };
    relay.#server.listen(0, "127.0.0.1");
    await once(relay.#server, "listening");
    relay.port = relay.#server.address().port;
    return relay;
  }

  /** How many connections stand, the silent ones among them. */
  get connections() {
    return this.#pairs.size;
  }

  /** Resets every connection, toward both sides. */
  reset() {
    for (const { client, server } of this.#pairs) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
  }

  /**
   * What happens when a device changes its network: its own system ends every connection, and the proxy hears neither of
   * that nor anything else; what it says goes nowhere.
   */
  vanish() {
    for (const pair of this.#pairs) {
      pair.isSilent = true;
      pair.client.resetAndDestroy();
    }
  }

  /** Ends everything. */
  async close() {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.reset();
    await closed;
  }

  #accept(client) {
    const server = net.connect(this.target);
    const pair = { client, server, isSilent: false };
    this.#pairs.add(pair);
    const pass = (from, to) => {
      from.on("data", (bytes) => !pair.isSilent && to.write(bytes));
      from.on("end", () => !pair.isSilent && to.end());
      from.on("error", () => !pair.isSilent && to.resetAndDestroy());
    };
    pass(client, server);
    pass(server, client);
    client.setNoDelay();
    server.setNoDelay().on("close", () => this.#pairs.delete(pair));
  }
}
