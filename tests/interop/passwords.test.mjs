// Passwords: baresip, linphone and sipp answer our challenges over UDP, TCP and TLS, stay registered by refreshes of their
// own, call each other, and leave; with a wrong password none of them gets in. baresip 1.0 and sipp 3.6 know MD5 only,
// and give up when anything else is offered beside it (against RFC 8760 §2.4); linphone knows SHA-256, too.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { Proxy } from "../browser/support/proxy.mjs";
import { Baresip } from "./support/baresip.mjs";
import { balance, metrics, reached } from "./support/books.mjs";
import { wholeCall } from "./support/call.mjs";
import { Linphone } from "./support/linphone.mjs";
import { LOCATION, configure } from "./support/edge.mjs";
import { host } from "./support/network.mjs";
import { withPeers } from "./support/peer.mjs";
import { Callee, Caller, Registrant, proof } from "./support/scenario.mjs";
import { Sipp } from "./support/sipp.mjs";
import { answers, stayAndLeave } from "./support/trace.mjs";

const TRANSPORTS = ["udp", "tcp", "tls"];
const EXPIRES_S = 5;
const REFRESHES = 3;
const PASSWORD = "wonderland";
const NAMES = ["alice", "bob", "carol", "dave", "erin", "frank"];
const USERS = Object.fromEntries(
  ["caller", ...NAMES.flatMap((name) => TRANSPORTS.map((transport) => `${name}-${transport}`))]
    .map((user) => [user, PASSWORD]));

/** The proxies by the one algorithm that each offers. */
const edges = { "MD5": { address: host(1) }, "SHA-256": { address: host(2) } };

before(async () => {
  await Promise.all(Object.entries(edges).map(async ([algorithm, edge]) => {
    const { address } = edge;
    const admin = `${address}:9090`;
    edge.proxy = await Proxy.run(configuration(address, algorithm), { admin, host: address, users: USERS });
  }));
});

after(async () => {
  for (const { proxy } of Object.values(edges)) {
    if (proxy) assert.equal(await proxy.stop(), 0, `sipring ended badly:\n${proxy.output}`);
  }
});

/** What a phone needs to prove itself at the proxy of that algorithm. */
function by(algorithm, transport) {
  const { proxy, address } = edges[algorithm];
  const port = transport === "tls" ? 5061 : 5060;
  return { transport, proxy: `${address}:${port}`, ca: proxy.certificate, password: PASSWORD, expires: EXPIRES_S, trace: true };
}

/** See {@link stayAndLeave}; on a stream the first proof holds, while each datagram proves itself. */
async function stay(phones, transport) {
  await stayAndLeave(phones, REFRESHES);
  if (transport === "udp") return;
  for (const phone of phones) {
    const asked = answers(phone, "REGISTER").filter((status) => status === 401);
    assert.equal(asked.length, 1, `${phone.name} was asked again on its connection`);
  }
}

/** Over UDP every call is asked for the password; on a connection that has proved it none is. */
function assertChallenged(caller, transport) {
  const statuses = answers(caller, "INVITE");
  const asked = statuses.includes(407);
  assert.equal(asked, transport === "udp", `${caller.name}, INVITEs over ${transport}: ${statuses}`);
  assert.ok(statuses.includes(200), `${caller.name}, INVITEs over ${transport}: ${statuses}`);
}

/** Calls a linphone, which answers by itself, from another one. */
async function callLinphone(caller, callee) {
  caller.say(`call ${callee.uri}`);
  await Promise.all([caller, callee].map((phone) => phone.printed(/Media streams established/)));
  caller.say("terminate");
  await Promise.all([caller, callee].map((phone) => phone.printed(/Call \d+ with .* ended/)));
}

describe("phones with passwords", { concurrency: true }, () => {
  for (const [index, transport] of TRANSPORTS.entries()) {
    const address = (number) => host(3 + 3 * index + number);

    test(`MD5 over ${transport}: baresip and baresip`, () => withPeers(edges.MD5.proxy, async (peers) => {
      const phones = await Promise.all(["alice", "bob"].map((name, at) =>
        Baresip.start(peers, { user: `${name}-${transport}`, address: address(at), ...by("MD5", transport) })));
      const [caller, callee] = phones;
      await wholeCall(caller, callee, caller);
      assertChallenged(caller, transport);
      await wholeCall(callee, caller, caller);
      assertChallenged(callee, transport);
      await stay(phones, transport);
    }));

    for (const algorithm of Object.keys(edges)) {
      test(`${algorithm} over ${transport}: linphone and linphone`, () => withPeers(edges[algorithm].proxy, async (peers) => {
        const phones = await Promise.all(["carol", "dave"].map((name) =>
          Linphone.start(peers, { user: `${name}-${transport}`, ...by(algorithm, transport) })));
        const [caller, callee] = phones;
        await callLinphone(caller, callee);
        assertChallenged(caller, transport);
        await stay(phones, transport);
        assert.match(caller.output, new RegExp(`^Authorization: .*algorithm=${algorithm},`, "m"));
      }));

      test(`${algorithm} over ${transport}: a linphone with a wrong password asks for another`, () =>
        withPeers(edges[algorithm].proxy, (peers) =>
          Linphone.refused(peers, { ...by(algorithm, transport), user: `erin-${transport}`, password: "guess" })));
    }

    test(`MD5 over ${transport}: a baresip with a wrong password says that it was refused`, () =>
      withPeers(edges.MD5.proxy, (peers) =>
        Baresip.refused(peers, { ...by("MD5", transport), user: `erin-${transport}`, address: address(2), password: "guess" })));
  }

  for (const transport of ["udp", "tcp"]) {
    test(`MD5 over ${transport}: sipp registers, refreshes, is called by one who proves itself, and leaves`, () =>
      withPeers(edges.MD5.proxy, async (peers) => {
        const user = `frank-${transport}`;
        const answering = new Callee().answer().serve("BYE");
        const callee = new Sipp(peers, "callee", answering, { address: host(12), transport });
        await callee.listening();
        const to = { address: callee.address, transport, target: `${edges.MD5.address}:5060`, user };
        const from = { ...to, address: host(13) };
        const right = [proof(user, PASSWORD)];

        const registrant = new Registrant("example.com", callee.contact)
          .register(60).status(401, { asks: true })
          .register(60, [proof(user, "guess")]).status(401, { asks: true })
          .register(60, right).granted();
        for (let refresh = 0; refresh < REFRESHES; refresh++) registrant.register(60, right).granted();
        await new Sipp(peers, "registrant", registrant, to).passed();

        const caller = new Caller()
          .begin("INVITE").maybe(100).refused(407, { asks: true })
          .begin("INVITE", { fields: [proof("caller", "guess")] }).maybe(100).refused(407, { asks: true })
          .begin("INVITE", { fields: [proof("caller", PASSWORD)] }).maybe(100).maybe(180).status(200, { opens: true }).ack()
          .ask("BYE");
        await Promise.all([new Sipp(peers, "caller", caller, from).passed(), callee.passed()]);

        const leaver = new Registrant("example.com", callee.contact)
          .register(0).status(401, { asks: true })
          .register(0, right).granted({ gone: true });
        await new Sipp(peers, "leaver", leaver, to).passed();
      }));
  }
});

test("nobody is left, and those with a wrong password never were there", async () => {
  for (const { proxy } of Object.values(edges)) {
    await reached(proxy, ({ bindings }) => bindings === 0, "bindings are left");
    const { credentials_refused } = await metrics(proxy);
    assert.ok(credentials_refused >= TRANSPORTS.length, `refused: ${credentials_refused}`);
  }
});

test("the proxies' books balance", async () => {
  for (const { proxy } of Object.values(edges)) await balance(proxy);
});

function configuration(address, algorithm) {
  return configure(address, ["udp", "tcp", "tls"], `
[registrar]
expires_min = "${EXPIRES_S}s"

[auth]
method = "digest"
users = "users.txt"
algorithms = ["${algorithm}"]
${LOCATION}`);
}
