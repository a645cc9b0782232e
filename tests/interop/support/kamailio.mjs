// Kamailio with our configuration, as the core behind the proxy.

import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { token } from "../../browser/support/sip.mjs";
import { Peer } from "./peer.mjs";

const START_MS = 30_000;
const COMMAND_MS = 30_000;
const CONFIGURATION = fileURLToPath(new URL("../kamailio.cfg", import.meta.url));

/** A running Kamailio. */
export class Kamailio {
  /**
   * Starts it at `address`, in front of the proxy at `edge`; `password` is that of everybody at private.example.com.
   * Resolves when it serves.
   */
  static async start(address, edge, password) {
    const core = new Kamailio();
    core.address = address;
    core.directory = mkdtempSync(join(tmpdir(), "sipring-kamailio-"));
    core.peer = new Peer("kamailio", "kamailio", [
      "-f", CONFIGURATION, "-l", `udp:${address}:5060`, "-l", `tcp:${address}:5060`, 
      "-A", `CORE=${address}`, "-A", `EDGE=${edge}:5060`, "-A", `PASSWORD=${password}`,
      "-DD", "-E", "-m", "32", "-M", "4", "-w", core.directory, "-Y", core.directory,
    ], { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` } });
    core.name = "kamailio";
    await core.#serving();
    return core;
  }

  /** Calls one of its commands; `params` as the command lists them. */
  async command(method, params = []) {
    const { result, error } = JSON.parse(await this.#post(JSON.stringify({ jsonrpc: "2.0", method, params, id: 1 })));
    if (error) throw new Error(`kamailio: ${method}: ${error.message}`);
    return result;
  }

  /**
   * Lets it send a request of its own to `uri` by way of `next`; resolves to the final status. `fields` are header lines.
   */
  async request(method, uri, next, fields, body) {
    const head = [`To: <${uri}>`, `From: <sip:core@core.example.com>`, ...fields].map((line) => `${line}\r\n`).join("");
    const answer = await this.command("tm.t_uac_wait", [method, uri, next, ".", head, body]);
    const [status] = [answer].flat();
    return Number.parseInt(status.status ?? status);
  }

  /** The Path of the only binding of that user. */
  async path(user) {
    const { Contacts: contacts } = await this.command("ul.lookup", ["location", user]);
    if (contacts.length !== 1) throw new Error(`kamailio: ${user} has bindings: ${JSON.stringify(contacts)}`);
    return contacts[0].Contact.Path;
  }

  /** Ends the only call of that user: it sends BYE to both sides. */
  async hangUp(user) {
    const calls = [await this.command("dlg.list")].flat();
    const own = calls.filter(({ from_uri: from, to_uri: to }) => [from, to].some((uri) => uri.startsWith(`sip:${user}@`)));
    if (own.length !== 1) throw new Error(`kamailio: ${user} has calls: ${JSON.stringify(own)}`);
    await this.#order("dlg.end_dlg", [own[0].h_entry, own[0].h_id]);
  }

  /** What it printed. */
  get output() {
    return this.peer.output;
  }

  /** Ends it. */
  async stop() {
    const end = await this.peer.stop();
    rmSync(this.directory, { recursive: true, force: true });
    return end;
  }

  /** Posts to its SIP port over TCP, which `fetch` refuses to talk to. */
  #post(body) {
    return new Promise((resolve, reject) => {
      const options = { host: this.address, port: 5060, path: "/RPC", method: "POST", timeout: COMMAND_MS };
      const asked = request({ ...options, headers: { "Content-Length": Buffer.byteLength(body) } }, async (response) => {
        let text = "";
        for await (const part of response.setEncoding("utf8")) text += part;
        resolve(text);
      });
      asked.on("timeout", () => asked.destroy(new Error("kamailio does not answer"))).on("error", reject).end(body);
    });
  }

  /** Lets the process that hears all answers carry out a command: see route COMMAND of its configuration. */
  async #order(method, params) {
    const socket = createSocket("udp4");
    try {
      socket.bind(0, this.address);
      await once(socket, "listening");
      const { address, port } = socket.address();
      const body = JSON.stringify({ jsonrpc: "2.0", method, params, id: 1 });
      const lines = [
        `OPTIONS sip:command@${this.address} SIP/2.0`, `Via: SIP/2.0/UDP ${address}:${port};branch=z9hG4bK${token()}`,
        `From: <sip:tests@${address}>;tag=${token()}`, `To: <sip:command@${this.address}>`, `Call-ID: ${token()}`,
        "CSeq: 1 OPTIONS", "Max-Forwards: 70", "Content-Type: application/json",
        `Content-Length: ${Buffer.byteLength(body)}`, "", body,
      ];
      socket.send(lines.join("\r\n"), 5060, this.address);
      const [answer] = await once(socket, "message", { signal: AbortSignal.timeout(COMMAND_MS) });
      const [status] = answer.toString().split("\r\n");
      if (!status.startsWith("SIP/2.0 200 ")) throw new Error(`kamailio: ${method}: ${status}`);
    } finally {
      socket.close();
    }
  }

  async #serving() {
    const deadline = Date.now() + START_MS;
    let version;
    while (!version) {
      if (Date.now() > deadline || this.peer.child.exitCode !== null) {
        await this.stop();
        throw new Error(`no kamailio:\n${this.output}`);
      }
      version = await this.command("core.version").catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
