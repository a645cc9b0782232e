// The program under test: its configuration, start, readiness and stop.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort } from "./ports.mjs";

const REPOSITORY = fileURLToPath(new URL("../../../", import.meta.url));
const BINARY =
  process.env.SIPRING_BINARY ?? join(process.env.CARGO_TARGET_DIR ?? join(REPOSITORY, "target"), "release/sipring");
const START_MS = 60_000;
const STOP_MS = 30_000;

/** A running sipring. */
export class Proxy {
  /**
   * Starts one with listeners for UDP, WS and WSS and one upstream, all on 127.0.0.1, and `shards` shards; if given,
   * `users` (name to password) have to prove who they are, by what `auth` says, and are waited for while `grace` lasts when
   * their connection is lost; pages of `origins` may connect; `keys` (a JWK Set) sign tokens; `more` tables end its
   * configuration.
   */
  static async start({ shards = 2, users, grace, auth = users ? digest(grace) : "", origins = [], keys, more = "" } = {}) {
    const ports = {};
    for (const name of ["udp", "ws", "wss", "admin", "upstream"]) ports[name] = await freePort();
    const text = configuration(ports, shards, origins) + auth + more;
    const proxy = await Proxy.run(text, { admin: `127.0.0.1:${ports.admin}`, users, keys });
    return Object.assign(proxy, { ports });
  }

  /**
   * Starts one with a configuration, which finds `cert.pem` and `key.pem` for `host` and `users.txt` (and `jwks.json`)
   * beside it, and resolves when `/readyz` of its `admin` address answers 200.
   */
  static async run(text, { admin, host = "127.0.0.1", users = {}, keys }) {
    const proxy = new Proxy();
    proxy.admin = admin;
    proxy.directory = mkdtempSync(join(tmpdir(), "sipring-tests-"));
    proxy.output = "";
    makeCertificate(proxy.directory, host);
    const file = join(proxy.directory, "sipring.toml");
    const lines = Object.entries(users).map(([name, password]) => `${name}:${password}\n`);
    writeFileSync(join(proxy.directory, "users.txt"), lines.join(""), { mode: 0o600 });
    if (keys) writeFileSync(join(proxy.directory, "jwks.json"), JSON.stringify(keys));
    writeFileSync(file, text);
    proxy.child = spawn(BINARY, ["--config", file], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [proxy.child.stdout, proxy.child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (proxy.output += text));
    }
    proxy.ended = new Promise((resolve) => {
      proxy.child.once("exit", (code, signal) => resolve({ code, signal }));
      proxy.child.once("error", (error) => resolve({ error }));
    });
    await proxy.#ready();
    return proxy;
  }

  /** The file with the key of its certificate. */
  get key() {
    return join(this.directory, "key.pem");
  }

  /** The file with its certificate, which is its own authority. */
  get certificate() {
    return join(this.directory, "cert.pem");
  }

  /** URL of the WebSocket listener; `transport` is `ws` or `wss`. */
  url(transport) {
    return `${transport}://127.0.0.1:${this.ports[transport]}/`;
  }

  /** Ends it by SIGTERM, waits, and resolves to its exit code; by SIGKILL when it does not obey. */
  async stop() {
    this.child.kill("SIGTERM");
    const timer = setTimeout(() => this.child.kill("SIGKILL"), STOP_MS);
    const end = await this.ended;
    clearTimeout(timer);
    rmSync(this.directory, { recursive: true, force: true });
    return end.code;
  }

  async #ready() {
    const deadline = Date.now() + START_MS;
    const url = `http://${this.admin}/readyz`;
    let end;
    this.ended.then((value) => (end = value));
    while (Date.now() < deadline && !end) {
      const answer = await fetch(url, { signal: AbortSignal.timeout(1_000) }).catch(() => undefined);
      if (answer?.status === 200) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    this.child.kill("SIGKILL");
    const why = end?.error?.message ?? (end ? `ended with ${end.code ?? end.signal}` : "was not ready in time");
    throw new Error(`${BINARY} ${why}\n${this.output}`);
  }
}

function makeCertificate(directory, host) {
  execFileSync("openssl", [
    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
    "-subj", `/CN=${host}`, "-addext", `subjectAltName=IP:${host}`,
    "-keyout", join(directory, "key.pem"), "-out", join(directory, "cert.pem"),
  ], { stdio: "pipe" });
}

const digest = (grace = "10s") => `
[auth]
method = "digest"
users = "users.txt"

[registrar]
expires_min = "5s"
grace = "${grace}"
`;

function configuration(ports, shards, origins) {
  return `
[node]
name = "browser-tests"
domains = ["example.com"]
shards = ${shards}
secret_file = "secret"

[[listen]]
transport = "udp"
address = "127.0.0.1:${ports.udp}"

[[listen]]
transport = "ws"
address = "127.0.0.1:${ports.ws}"
origins = ${JSON.stringify(origins)}

[[listen]]
transport = "wss"
address = "127.0.0.1:${ports.wss}"
origins = ${JSON.stringify(origins)}
certificate = "local"

[[certificate]]
name = "local"
cert = "cert.pem"
key = "key.pem"

[[upstream]]
name = "core"
targets = ["sip:127.0.0.1:${ports.upstream};transport=udp"]

[[route]]
user = "^core-"
domain = "example.com"
to = "upstream:core"

[[route]]
domain = "example.com"
to = "location"

[admin]
address = "127.0.0.1:${ports.admin}"
`;
}
