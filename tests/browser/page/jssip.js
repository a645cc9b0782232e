// A telephone made of JsSIP.

import { media, report } from "./record.js";
import JsSIP from "jssip";

const CALL = { mediaConstraints: { audio: true, video: false }, pcConfig: { iceServers: [] } };

let agent;
let session;
let subscriber;

window.phone = {
  /**
   * Connects to `url` and registers `user` at `domain`, with `password` if it is asked for one, or with the token `jwt`
   * unasked; does both again when the connection is lost.
   */
  start({ url, user, domain = "example.com", password, jwt, register = true, expires = 600 }) {
    agent = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(url)],
      uri: `sip:${user}@${domain}`,
      register,
      register_expires: expires,
      password,
      ...(jwt && { authorization_jwt: `Bearer ${jwt}` }),
      connection_recovery_min_interval: 1,
      connection_recovery_max_interval: 2,
    });
    agent.on("connected", () => report("connected"));
    agent.on("disconnected", () => report("disconnected"));
    agent.on("registered", () => report("registered"));
    agent.on("unregistered", ({ response, cause }) => report("unregistered", { status: response?.status_code, cause }));
    agent.on("registrationFailed", ({ response, cause }) => {
      report("registration-failed", { status: response?.status_code, cause });
    });
    agent.on("newMessage", ({ originator, request }) => {
      if (originator === "remote") report("message", { from: request.from.uri.toString(), body: request.body });
    });
    agent.on("sipEvent", ({ event, request }) => report("notify", { event: event?.event, body: request.body }));
    agent.on("newRTCSession", ({ originator, session: fresh }) => {
      session = fresh;
      watch(fresh);
      if (originator === "remote") report("ringing", { from: fresh.remote_identity.uri.toString() });
    });
    agent.start();
  },

  /** REGISTERs again, at once. */
  refresh: () => agent.register(),
  /** Removes our binding. */
  unregister: () => agent.unregister(),
  /** Unregisters and disconnects. */
  stop: () => agent.stop(),
  /** Our Contact URI. */
  contact: () => agent.contact.uri.toString(),

  /** Sends a MESSAGE; reports `message-sent` with the final status. */
  message(target, body) {
    agent.sendMessage(target, body, {
      eventHandlers: {
        succeeded: ({ response }) => report("message-sent", { status: response.status_code }),
        failed: ({ response, cause }) => report("message-sent", { status: response?.status_code, cause }),
      },
    });
  },

  /** SUBSCRIBEs; reports `subscription` for each NOTIFY of it. */
  subscribe(target, event) {
    subscriber = agent.subscribe(target, event, "text/plain", { expires: 300 });
    subscriber.on("accepted", () => report("subscribed"));
    subscriber.on("notify", (isFinal, request, body) => report("subscription", { isFinal, body }));
    subscriber.on("terminated", (code, reason) => report("subscription-ended", { code, reason }));
    subscriber.subscribe();
  },

  /** Calls with audio. */
  invite: (target) => void agent.call(target, CALL),
  /** Takes the call that rings. */
  answer: () => session.answer(CALL),
  /** Ends the call, or refuses the one that rings. */
  hangup: () => session.terminate(),
  /** JsSIP repeats a 200 no more once it has the ACK. */
  settled: () => {},
  /** Puts the other side on hold; resolves when it agreed. */
  hold: () => reinvite("hold"),
  /** Takes it off hold; resolves when it agreed. */
  unhold: () => reinvite("unhold"),
  /** Sends a DTMF digit in an INFO. */
  dtmf: (digit) => session.sendDTMF(digit, { transportType: "INFO" }),
  /** See {@link media}. */
  media: () => media(session.connection),
};

/** Resolves when the re-INVITE was accepted; rejects when it was refused, which JsSIP ends the call for, or never sent. */
function reinvite(method) {
  return new Promise((resolve, reject) => {
    session.once("ended", ({ cause }) => reject(new Error(`${method}: ${cause}`)));
    if (!session[method]({}, resolve)) reject(new Error(`${method}: not now`));
  });
}

function watch(fresh) {
  fresh.on("progress", ({ response }) => report("progress", { status: response?.status_code }));
  fresh.on("confirmed", () => report("confirmed"));
  fresh.on("newDTMF", ({ originator, dtmf }) => {
    if (originator === "remote") report("dtmf", { tone: dtmf.tone });
  });
  fresh.on("ended", ({ originator, cause }) => report("ended", { originator, cause }));
  fresh.on("failed", ({ originator, cause }) => report("failed", { originator, cause }));
}
