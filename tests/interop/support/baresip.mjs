// baresip without sound hardware, driven by its control port: commands in, events out, both JSON in netstrings.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Peer } from "./peer.mjs";

const MODULES = "/usr/lib/baresip/modules";
const WAIT_MS = 30_000;
const CONTROL = 4444;

/** A telephone made of baresip. */
export class Baresip {
  #events = [];
  #waiting = [];
  #unread = Buffer.alloc(0);

  /**
   * Starts one for `user@domain` that has `address` for itself and sends everything to `proxy` (`host:port`) over
   * `transport`; `ca` is the file with the authority of TLS, `password` is what it proves itself by, `expires` for how
   * many seconds it registers. Resolves when it is registered and takes commands.
   */
  static async start(peers, options) {
    const phone = Baresip.#run(peers, options);
    await phone.peer.printed(/baresip is ready/);
    await phone.peer.printed(/ 200 OK .*\[\d+ binding/);
    phone.control = net.connect(CONTROL, options.address);
    phone.control.on("data", (bytes) => phone.#hear(bytes)).on("error", () => {});
    await once(phone.control, "connect");
    return phone;
  }

  /** Starts one likewise and resolves when it says that its registration was refused. */
  static async refused(peers, options) {
    await Baresip.#run(peers, options).peer.printed(/reg: .*: 40[13] \w+/);
  }

  static #run(peers, { user, domain = "example.com", address, transport, proxy, ca, password, expires = 600 }) {
    const phone = new Baresip();
    phone.name = `baresip ${user}`;
    phone.uri = `sip:${user}@${domain}`;
    phone.directory = mkdtempSync(join(tmpdir(), "sipring-baresip-"));
    const outbound = `outbound="sip:${proxy};transport=${transport}"`;
    const proof = password ? `;auth_user=${user};auth_pass=${password}` : "";
    const accounts = `<${phone.uri};transport=${transport}>;${outbound};regint=${expires};answermode=manual${proof}\n`;
    writeFileSync(join(phone.directory, "accounts"), accounts);
    writeFileSync(join(phone.directory, "config"), configuration(address, ca));
    phone.peer = new Peer(phone.name, "baresip", ["-4", "-s", "-n", address, "-f", phone.directory]);
    peers.push(phone);
    return phone;
  }

  /** Gives a command; resolves when it is obeyed. */
  async command(command, params = "") {
    const token = `${command} ${this.#events.length}`;
    const text = JSON.stringify({ command, params, token });
    this.control.write(`${Buffer.byteLength(text)}:${text},`);
    const answer = await this.#take((message) => message.response && message.token === token, command);
    assert.ok(answer.ok, `${this.name}: ${command} ${params}: ${answer.data}`);
  }

  /** The next event of that type, each given once. */
  event(type) {
    return this.#take((message) => message.event && message.type === type, type);
  }

  /** What it printed: its log and every SIP message. */
  get output() {
    const told = this.#events.map((event) => JSON.stringify(event)).join("\n");
    return `${this.peer.output}\n${told}`;
  }

  /** Ends it; it unregisters on its way. */
  async stop() {
    const end = await this.peer.stop();
    this.control?.destroy();
    rmSync(this.directory, { recursive: true, force: true });
    return end;
  }

  #hear(bytes) {
    this.#unread = Buffer.concat([this.#unread, bytes]);
    for (;;) {
      const colon = this.#unread.indexOf(":");
      const end = colon + 1 + Number(this.#unread.subarray(0, Math.max(colon, 0)).toString());
      if (colon < 0 || this.#unread.length <= end) return;
      const message = JSON.parse(this.#unread.subarray(colon + 1, end).toString());
      this.#unread = this.#unread.subarray(end + 1);
      const index = this.#waiting.findIndex(({ wanted }) => wanted(message));
      if (index < 0) this.#events.push(message);
      else this.#waiting.splice(index, 1)[0].resolve(message);
    }
  }

  #take(wanted, what) {
    const index = this.#events.findIndex(wanted);
    if (index >= 0) return Promise.resolve(this.#events.splice(index, 1)[0]);
    return new Promise((resolve, reject) => {
      const waiter = { wanted };
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        reject(new Error(`${this.name}: ${what} did not come in ${WAIT_MS} ms`));
      }, WAIT_MS);
      waiter.resolve = (message) => {
        clearTimeout(timer);
        resolve(message);
      };
      this.#waiting.push(waiter);
    });
  }
}

function configuration(address, ca) {
  return `
poll_method epoll
sip_listen ${address}:5060
${ca ? `sip_cafile ${ca}` : ""}
call_local_timeout 120
call_max_calls 4
audio_player aubridge,ear
audio_source ausine,440
audio_alert aubridge,bell
audio_level no
ausrc_srate 48000
ausrc_channels 2
rtcp_mux no
net_interface ${address}
module_path ${MODULES}
module g711.so
module ausine.so
module aubridge.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen ${address}:${CONTROL}
`;
}
