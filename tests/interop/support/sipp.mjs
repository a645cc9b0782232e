// sipp with our scenarios, and its own judgement of them.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import assert from "node:assert/strict";
import { nextPort } from "./network.mjs";
import { Peer } from "./peer.mjs";

const TIMEOUT_S = 60;

/** A sipp that runs one scenario for so many calls. */
export class Sipp {
  #kept = {};

  /**
   * Starts it at `address`, from where it speaks `transport`. A caller needs the `target` (`host:port`) and may have a
   * `user` whom it calls and a `rate` of calls a second.
   */
  constructor(peers, name, scenario, options) {
    const { address, transport, calls = 1, port = nextPort(), target, user, rate = 20 } = options;
    Object.assign(this, { name, address, transport, calls, port });
    this.directory = mkdtempSync(join(tmpdir(), "sipring-sipp-"));
    writeFileSync(this.#file("scenario.xml"), scenario.xml);
    const calling = target ? ["-s", user, "-r", `${rate}`, target] : [];
    this.peer = new Peer(name, "sipp", [
      "-sf", this.#file("scenario.xml"), "-i", address, "-p", `${port}`, "-mp", `${port + 2}`, "-t", `${transport[0]}1`,
      "-m", `${calls}`, "-nostdin", "-trace_err", "-error_file", this.#file("errors"), "-trace_stat", "-stf",
      this.#file("statistics"), "-fd", "1", "-timeout", `${TIMEOUT_S}`, "-timeout_error", ...calling,
    ], { env: { ...process.env, TERM: "xterm" } });
    peers.push(this);
    this.ended = this.peer.ended;
  }

  /** Its Contact. */
  get contact() {
    return contactOf(this);
  }

  /** Resolves when it listens. */
  async listening() {
    const wanted = `${hex(this.address)}:${this.port.toString(16).toUpperCase().padStart(4, "0")} 00000000:0000`;
    for (let tries = 0; tries < 200; tries++) {
      if (readFileSync(`/proc/net/${this.transport}`, "latin1").includes(wanted)) return this;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`${this.name} does not listen`);
  }

  /** Waits for the end and judges: every call went as the scenario says, and nothing came that it does not know. */
  async passed() {
    const code = await this.ended;
    const seen = { code };
    for (const name of ["SuccessfulCall", "FailedCall", "FailedUnexpectedMessage", "OutOfCallMsgs"]) {
      seen[name] = this.total(name);
    }
    const wanted = { code: 0, SuccessfulCall: this.calls, FailedCall: 0, FailedUnexpectedMessage: 0, OutOfCallMsgs: 0 };
    assert.deepEqual(seen, wanted, `${this.name} is not content`);
  }

  /** A total of its statistics, by the name of the column without `(C)`. */
  total(name) {
    const [head, ...rows] = this.#read("statistics").trim().split("\n").map((line) => line.split(";"));
    return Number(rows.at(-1)?.[head.indexOf(`${name}(C)`)]);
  }

  /** What it complained of. */
  get output() {
    return this.#read("errors");
  }

  /** Ends it. */
  async stop() {
    await this.peer.stop();
    for (const name of ["errors", "statistics"]) this.#kept[name] = this.#read(name);
    rmSync(this.directory, { recursive: true, force: true });
  }

  #file(name) {
    return join(this.directory, name);
  }

  #read(name) {
    if (name in this.#kept) return this.#kept[name];
    return existsSync(this.#file(name)) ? readFileSync(this.#file(name), "latin1") : "";
  }
}

/** The Contact of who listens there. */
export function contactOf({ address, port, transport }) {
  return `sip:${address}:${port};transport=${transport}`;
}

/** An address as /proc/net shows it. */
function hex(address) {
  const bytes = address.split(".").reverse();
  return bytes.map((byte) => Number(byte).toString(16).toUpperCase().padStart(2, "0")).join("");
}
