// Free ports below the range from which the kernel picks source ports, so that no outgoing connection of these
// tests can take one between the look and the use.

import dgram from "node:dgram";
import net from "node:net";
import { once } from "node:events";

const FIRST = 23_100;
const LAST = 23_899;
let next = FIRST + ((process.pid * 16) % (LAST - FIRST));

/** A port of 127.0.0.1 on which nothing listens, neither TCP nor UDP. Every call gives another one. */
export async function freePort() {
  for (let tried = FIRST; tried <= LAST; tried++) {
    const port = next;
    next = next === LAST ? FIRST : next + 1;
    if ((await isFree(net.createServer(), port)) && (await isFree(dgram.createSocket("udp4"), port))) return port;
  }
  throw new Error(`no free port from ${FIRST} to ${LAST}`);
}

async function isFree(server, port) {
  const bound = new Promise((resolve) => {
    server.once("listening", () => resolve(true));
    server.once("error", () => resolve(false));
  });
  if (server instanceof net.Server) server.listen(port, "127.0.0.1");
  else server.bind(port, "127.0.0.1");
  if (!(await bound)) return false;
  const closed = once(server, "close");
  server.close();
  await closed;
  return true;
}
