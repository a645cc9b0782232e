// The proxy's configuration in the tests of this folder.

const PORTS = { udp: 5060, tcp: 5060, tls: 5061, ws: 8080, wss: 8443 };

/**
 * Two shards at `address`, with the usual ports of these transports; `more` is what else it says. By default all timers are
 * short, so that the books are closed soon.
 */
export function configure(address, transports, more, { domains = ["example.com"], t1_ms = 100 } = {}) {
  const listeners = transports.map((transport) => `
[[listen]]
transport = "${transport}"
address = "${address}:${PORTS[transport]}"
${["tls", "wss"].includes(transport) ? 'certificate = "local"' : ""}`);
  return `
[node]
name = "interop"
domains = ${JSON.stringify(domains)}
shards = 2
${listeners.join("\n")}

[[certificate]]
name = "local"
cert = "cert.pem"
key = "key.pem"

[timers]
t1 = "${t1_ms}ms"

[admin]
address = "${address}:9090"
${more}`;
}

/** The route of what is for the proxy's own users. */
export const LOCATION = `
[[route]]
domain = "example.com"
to = "location"
`;
