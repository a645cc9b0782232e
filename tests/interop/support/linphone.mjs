// linphonec without sound hardware, driven by its console.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Peer } from "./peer.mjs";

const REGISTER_TRIES = 50;
const QUIT_MS = 5_000;

/** A telephone made of linphone, which answers every call by itself. */
export class Linphone {
  #heard = 0;

  /**
   * Starts one for `user@domain` that sends everything to `proxy` (`host:port`) over `transport`; `ca` is the file with
   * the authority of TLS. Resolves when it is registered.
   */
  static async start(peers, { user, domain = "example.com", transport, proxy, ca }) {
    const phone = new Linphone();
    phone.name = `linphone ${user}`;
    phone.uri = `sip:${user}@${domain}`;
    phone.directory = mkdtempSync(join(tmpdir(), "sipring-linphone-"));
    mkdirSync(join(phone.directory, ".local/share/linphone"), { recursive: true });
    writeFileSync(join(phone.directory, "linphonerc"), configuration(phone.uri, transport, proxy, ca));
    // Its output goes to us line by line.
    phone.peer = new Peer(phone.name, "stdbuf", ["-oL", "linphonec", "-c", "linphonerc", "-a"], {
      cwd: phone.directory, env: { ...process.env, HOME: phone.directory },
    });
    peers.push(phone);
    phone.peer.say("soundcard use files");
    await phone.#registered();
    return phone;
  }

  /** Gives a command: `call sip:…`, `terminate`. */
  say(command) {
    this.peer.say(command);
  }

  /** Waits until it prints that, behind what was waited for last. */
  async printed(pattern) {
    const match = await this.peer.printed(pattern, { from: this.#heard });
    this.#heard += match.index + match[0].length;
  }

  /** What it printed. */
  get output() {
    return this.peer.output;
  }

  /** Ends it; it unregisters on its way. */
  async stop() {
    this.peer.say("quit");
    let timer;
    await Promise.race([this.peer.ended, new Promise((resolve) => (timer = setTimeout(resolve, QUIT_MS)))]);
    clearTimeout(timer);
    const end = await this.peer.stop();
    rmSync(this.directory, { recursive: true, force: true });
    return end;
  }

  /** It says so only when it is asked. */
  async #registered() {
    for (let tries = 0; ; tries++) {
      this.peer.say("status register");
      const known = this.peer.printed(/registered, identity=/, { timeout_ms: 200 });
      if (await known.then(() => true, () => tries > REGISTER_TRIES)) break;
    }
    await this.printed(/registered, identity=/);
  }
}

function configuration(uri, transport, proxy, ca) {
  const port = (name) => (name === transport ? (name === "udp" ? -1 : -2) : 0); // any port; none, but connections; no
  return `
[sip]
sip_port=${port("udp")}
sip_tcp_port=${port("tcp")}
sip_tls_port=${port("tls")}
verify_server_certs=1
verify_server_cn=0
root_ca=${ca}
guess_hostname=0
default_proxy=0

[video]
enabled=0

[proxy_0]
reg_proxy=<sip:${proxy};transport=${transport}>
reg_route=<sip:${proxy};transport=${transport};lr>
reg_identity=${uri}
reg_expires=600
reg_sendregister=1
publish=0
`;
}
