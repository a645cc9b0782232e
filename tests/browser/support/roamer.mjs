// Clients that lose their connection in a call and come back by themselves, on another: what both pages do, and what each
// must see of it.

import assert from "node:assert/strict";
import { Relay } from "./relay.mjs";
import { SipMessage, token } from "./sip.mjs";

/** How a connection is lost: see {@link Relay}. */
export const LOSSES = ["reset", "vanish"];

/** Everything that {@link goesOn} may be asked, for clients of these libraries. */
export const cells = (libraries) =>
  libraries.flatMap((library) => LOSSES.flatMap((loss) => ["answered", "on hold"].flatMap((state) =>
    ["the peer", "the browser"].map((last) => ({ library, loss, state, last })))));

/** A page of `browser` whose client has registered, by the options of its `start`; closed when the test ends. */
export async function phone(t, browser, library, { user, domain = "example.com", ...options }) {
  const client = await browser.open(library);
  t.after(() => client.close());
  client.user = user;
  client.address = `sip:${user}@${domain}`;
  await client.call("start", { user, domain, ...options });
  await client.event("registered");
  return client;
}

/** One that connects through a relay of its own to the WSS listener at `port` of `host`. */
export async function roamer(t, browser, library, { port, host, ...options }) {
  const relay = await Relay.to(port, host);
  t.after(() => relay.close());
  const client = await phone(t, browser, library, { ...options, url: `wss://127.0.0.1:${relay.port}/` });
  return Object.assign(client, { relay });
}

/** The client loses its connection in that way, comes back by itself, and has registered. */
export async function lose(client, loss) {
  client.relay[loss]();
  await client.event("disconnected");
  await client.event("registered");
}

/** `caller` calls `callee`, who answers and knows that this was heard. */
export async function converse(caller, callee) {
  await caller.call("invite", callee.address);
  await callee.event("ringing");
  await callee.call("answer");
  await Promise.all([caller.event("confirmed"), callee.event("confirmed")]);
  await acknowledged(callee);
}

/**
 * The ACK to the last INVITE that reached the client is there. One that is on its way when the connection ends is lost:
 * JsSIP repeats no 200 on another, by which the other side would know.
 */
async function acknowledged(client) {
  const { message: invite } = (await requests(client, "INVITE")).at(-1);
  let ack;
  do ack = await client.message("ACK");
  while (parseInt(ack.header("cseq")) !== parseInt(invite.header("cseq")));
}

/** `from` sends a re-INVITE that `to` accepts. */
async function reinvite(from, to, method) {
  await from.call(method).catch(async ({ message }) => {
    assert.fail([message, "--- who asked saw:", await from.story(), "--- who was asked saw:", await to.story()].join("\n"));
  });
  await acknowledged(to);
}

/** The requests with that method which reached the client, as `{socket, message}`. */
export async function requests(client, method) {
  const frames = (await client.received("")).filter(({ text }) => text.startsWith(`${method} `));
  return frames.map(({ socket, text }) => ({ socket, message: new SipMessage(Buffer.from(text)) }));
}

/** The one such request came on the client's last connection, and only there. */
async function arrivedOnce(client, method) {
  const last = (await client.sockets()).length - 1;
  assert.deepEqual((await requests(client, method)).map(({ socket }) => socket), [last], `${method} arrives once`);
}

/**
 * The call of `client`, a roamer, with `peer` goes on when the client's connection is lost while the call is in `state`
 * ("answered", "on hold"), until `last` ("the peer", "the browser") hangs up: each request arrives on the new connection, once.
 */
export async function goesOn({ client, peer, state, loss, last }) {
  // The one that is lost has called, or was called.
  if (last === "the peer") await converse(client, peer);
  else await converse(peer, client);
  if (state === "on hold") {
    await reinvite(peer, client, "hold");
    await client.call("settled");
  }
  const before = (await requests(client, "INVITE")).length;
  await lose(client, loss);

  await reinvite(peer, client, state === "on hold" ? "unhold" : "hold");
  const invites = await requests(client, "INVITE");
  assert.deepEqual(invites.slice(before).map(({ socket }) => socket), [1], "the re-INVITE arrives once");
  await peer.call("dtmf", "5");
  assert.deepEqual(await client.event("dtmf"), { tone: "5" });
  await arrivedOnce(client, "INFO");
  const body = `are you there? ${token()}`;
  await peer.call("message", client.address, body);
  assert.deepEqual(await client.event("message"), { from: peer.address, body });
  assert.equal((await peer.event("message-sent")).status, 200);
  await arrivedOnce(client, "MESSAGE");

  const [leaver, left] = last === "the peer" ? [peer, client] : [client, peer];
  await leaver.call("hangup");
  await Promise.all([leaver.event("ended"), left.event("ended")]);
  const byes = await requests(left, "BYE");
  assert.equal(byes.length, 1, "BYE arrives once");
  const answer = await leaver.message("200 BYE");
  assert.equal(answer.header("call-id"), byes[0].message.header("call-id"));
  if (left === client) await arrivedOnce(client, "BYE");
}
