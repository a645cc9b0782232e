// A foreign program as a child process: its output is kept for the report of a failed test, it is ended by its id.

import { spawn } from "node:child_process";

const END_MS = 3_000;

/** A running program. */
export class Peer {
  output = "";
  #waiting = [];

  /** Starts `program`; `name` is what reports call it. */
  constructor(name, program, args, options = {}) {
    this.name = name;
    this.child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], ...options });
    this.child.stdin.on("error", () => {}); // it may end before it has read everything
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => this.#hear(text));
    }
    this.ended = new Promise((resolve) => {
      this.child.once("error", (error) => resolve(`could not start: ${error.message}`));
      this.child.once("close", (code, signal) => resolve(code ?? signal));
    });
    this.ended.then((end) => {
      for (const { reject, wanted } of this.#waiting) reject(new Error(`${name} ended (${end}) before ${wanted}`));
      this.#waiting = [];
    });
  }

  /** Resolves to the match when `pattern` has been printed after position `from` of the output. */
  printed(pattern, { from = 0, timeout_ms = 30_000 } = {}) {
    return new Promise((resolve, reject) => {
      const waiter = { wanted: pattern, from, resolve, reject };
      const late = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        reject(new Error(`${this.name} has not printed ${pattern} in ${timeout_ms} ms`));
      };
      const timer = setTimeout(late, timeout_ms);
      this.ended.then(() => clearTimeout(timer));
      waiter.timer = timer;
      this.#waiting.push(waiter);
      this.#look();
    });
  }

  /** Writes a line to its standard input. */
  say(line) {
    this.child.stdin.write(`${line}\n`);
  }

  /** Ends it by SIGTERM, by SIGKILL when it does not obey; resolves to its exit code or signal. */
  async stop() {
    this.child.kill("SIGTERM");
    const timer = setTimeout(() => this.child.kill("SIGKILL"), END_MS);
    const end = await this.ended;
    clearTimeout(timer);
    return end;
  }

  #hear(text) {
    this.output += text;
    this.#look();
  }

  #look() {
    this.#waiting = this.#waiting.filter((waiter) => {
      const match = this.output.slice(waiter.from).match(waiter.wanted);
      if (!match) return true;
      clearTimeout(waiter.timer);
      waiter.resolve(match);
      return false;
    });
  }
}

/**
 * Runs `work`, then ends what it added to the list that it is given. When it fails, the error tells what each of them
 * and the `proxy` had printed since `work` began.
 */
export async function withPeers(proxy, work) {
  const peers = [];
  const begun = proxy.output.length;
  try {
    return await work(peers);
  } catch (error) {
    const logs = peers.map(({ name, output }) => `--- ${name}:\n${output.slice(-6_000)}`);
    error.message += `\n${logs.join("\n")}\n--- sipring:\n${proxy.output.slice(begun).slice(-6_000)}`;
    throw error;
  } finally {
    await Promise.all(peers.map((peer) => peer.stop()));
  }
}
