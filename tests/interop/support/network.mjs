// Addresses of loopback that belong to one process alone, so that every test may use the well-known ports and two runs
// on one machine never meet. Linux answers on all of 127.0.0.0/8 without being told.

// Bits of a process id that make the network, above the four of a host. Linux gives ids below 2^22: two processes get
// the same network only when their ids differ in the topmost two bits.
const NETWORKS = 2 ** 20;
const HOSTS = 16;

const bits = ((process.pid % NETWORKS) * HOSTS) >>> 0;
let port = 5_100;

/** The address of host `number` (1 to 14) of this process's network. */
export function host(number) {
  if (!(number >= 1 && number < HOSTS - 1)) throw new RangeError(`no host ${number}`);
  const address = bits + number;
  return `127.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** A port that this process has not given out before; the nine behind it (for media) go with it. */
export function nextPort() {
  port += 10;
  return port;
}
