// Headless Chromium with a page for each SIP client library, served from 127.0.0.1 and bundled from node_modules.

import { once } from "node:events";
import { createServer } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { SipMessage } from "./sip.mjs";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const WAIT_MS = 30_000;

// The first lines let Chromium run as root without a network; the others give WebRTC a microphone and let ICE use
// the loopback interface, which it skips otherwise, by address and not by an mDNS name that nobody would resolve.
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--ignore-certificate-errors",
  "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--allow-loopback-in-peer-connection",
  "--disable-features=WebRtcHideLocalIpsWithMdns", "--autoplay-policy=no-user-gesture-required",
];

/** A browser and the server of its pages. */
export class Browser {
  /** Starts both. `library` is the name of a script in `page/`. */
  static async start(...libraries) {
    const browser = new Browser();
    const scripts = new Map();
    for (const library of libraries) scripts.set(`/${library}.js`, await bundle(library));
    const answer = (request, response) => {
      const script = scripts.get(request.url);
      if (script) response.setHeader("Content-Type", "text/javascript").end(script);
      else if (scripts.has(`${request.url}.js`)) {
        response.setHeader("Content-Type", "text/html").end(`<!doctype html><meta charset="utf-8">
          <title>SIP client</title><audio autoplay></audio><script src="${request.url}.js"></script>`);
      } else response.writeHead(404).end();
    };
    browser.server = createServer(answer).listen(0, "127.0.0.1");
    browser.secure = createSecureServer(answer).listen(0, "127.0.0.1");
    await Promise.all([once(browser.server, "listening"), once(browser.secure, "listening")]);
    browser.chromium = await chromium.launch({ executablePath: EXECUTABLE, headless: true, args: FLAGS });
    return browser;
  }

  /** What its pages send in Origin. */
  get origin() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  /** The same of its pages over HTTPS, which need `certify` first. */
  get secureOrigin() {
    return `https://127.0.0.1:${this.secure.address().port}`;
  }

  /** Gives it a certificate. */
  certify(key, cert) {
    this.secure.setSecureContext({ key, cert });
  }

  /** A client in a browser context of its own that has `cookies`: page `library` of `origin`, not yet connected. */
  async open(library, cookies = [], origin = this.origin) {
    const context = await this.chromium.newContext({ ignoreHTTPSErrors: true });
    await context.addCookies(cookies);
    const page = await context.newPage();
    const client = new Client(page);
    page.on("pageerror", (error) => client.faults.push(error.message));
    await page.goto(`${origin}/${library}`);
    return client;
  }

  /** Closes everything. */
  async stop() {
    await this.chromium.close();
    for (const server of [this.server, this.secure]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }
}

/** A page with a SIP client in it: calls the page's `phone` object and waits for what it reports. */
export class Client {
  faults = [];
  #seen = new Map();

  constructor(page) {
    this.page = page;
  }

  /** Calls a method of the page's phone and resolves to what it gives back. */
  call(method, ...args) {
    return this.page.evaluate(([name, values]) => window.phone[name](...values), [method, args]);
  }

  /** Waits for the next event of that name which this client reported; each one is given once, in order. */
  async event(name) {
    const count = (this.#seen.get(name) ?? 0) + 1;
    this.#seen.set(name, count);
    const wait = this.page.evaluate(([event, nth]) => window.record.wait(event, nth), [name, count]);
    return withTimeout(wait, async () => `${name} (${count}.) never came; the page saw:\n${await this.story()}`);
  }

  /** The next SIP message under that name (`NOTIFY`, `200 REGISTER`) that arrived on the page's WebSocket. */
  async message(name) {
    return new SipMessage(Buffer.from((await this.event(name)).text, "utf8"));
  }

  /** What arrived on and was sent through the page's WebSockets: `{socket, direction, binary, text}`, in order. */
  frames() {
    return this.page.evaluate(() => window.record.frames);
  }

  /** The frames that arrived and whose text includes `part`. */
  async received(part) {
    return (await this.frames()).filter(({ direction, text }) => direction === "in" && text.includes(part));
  }

  /** The state of the page's WebSockets, in order of opening: `{url, open}`, and `code` once closed. */
  sockets() {
    return this.page.evaluate(() => window.record.sockets);
  }

  /** Every event that the page reported, and page errors, one a line. */
  async story() {
    const events = await this.page.evaluate(() => window.record.events.map(({ name, detail }) => [name, detail]));
    const frames = (await this.frames()).map(({ direction, text }) => `${direction} ${text.split("\r\n")[0]}`);
    return [...events.map((event) => JSON.stringify(event)), ...frames, ...this.faults].join("\n");
  }

  /** Closes the page with everything that it holds. */
  async close() {
    await this.page.context().close();
  }
}

async function bundle(library) {
  const entry = fileURLToPath(new URL(`../page/${library}.js`, import.meta.url));
  const result = await build({ entryPoints: [entry], bundle: true, write: false, format: "iife", logLevel: "warning" });
  return result.outputFiles[0].text;
}

async function withTimeout(promise, describe) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(async () => reject(new Error(await describe())), WAIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
