// A telephone made of SIP.js.

import { media, report } from "./record.js";
import { Core, Inviter, Messager, Registerer, RegistererState, SessionState, UserAgent } from "sip.js";

const CALL = { sessionDescriptionHandlerOptions: { constraints: { audio: true, video: false } } };

const RETRY_MS = 500;

let agent;
let registerer;
let session;
let unsettled = 0;
const waiting = [];

followAnswers(Core.SessionDialog.prototype);

window.phone = {
  /**
   * Connects to `url` and registers `user` at `domain`; does both again when the connection is lost. `keepAlive` (seconds)
   * sends CRLF CRLF.
   */
  async start({ url, user, domain = "example.com", password, register = true, expires = 600, keepAlive = 0 }) {
    agent = new UserAgent({
      uri: UserAgent.makeURI(`sip:${user}@${domain}`),
      logLevel: "error",
      authorizationUsername: user,
      authorizationPassword: password,
      transportOptions: { server: url, keepAliveInterval: keepAlive, keepAliveDebounce: keepAlive && 2 },
      sessionDescriptionHandlerFactoryOptions: { peerConnectionConfiguration: { iceServers: [] } },
      delegate: {
        onMessage: (message) => {
          report("message", { from: message.request.from.uri.toString(), body: message.request.body });
          message.accept();
        },
        onNotify: (notification) => {
          report("notify", { event: notification.request.getHeader("event"), body: notification.request.body });
          notification.accept();
        },
        onInvite: (invitation) => {
          watch(invitation);
          report("ringing", { from: invitation.remoteIdentity.uri.toString() });
        },
        onConnect: () => report("connected"),
        onDisconnect: (error) => {
          report("disconnected");
          if (error) comeBack();
        },
      },
    });
    await agent.start();
    registerer = new Registerer(agent, { expires, refreshFrequency: 50 });
    registerer.stateChange.addListener((state) => {
      if (state === RegistererState.Unregistered) report("unregistered");
    });
    if (register) enroll();
  },

  /** REGISTERs again, at once. */
  refresh: () => void registerer.register(),

  /** Removes our binding. */
  unregister: () => void registerer.unregister(),
  /** Our Contact URI. */
  contact: () => agent.contact.uri.toString(),

  /** Sends a MESSAGE; reports `message-sent` with the final status. */
  message(target, body) {
    const answered = ({ message }) => report("message-sent", { status: message.statusCode });
    new Messager(agent, UserAgent.makeURI(target), body).message({
      requestDelegate: { onAccept: answered, onReject: answered },
    });
  },

  /** Calls with audio. */
  invite(target) {
    const inviter = new Inviter(agent, UserAgent.makeURI(target), CALL);
    watch(inviter);
    inviter.invite({
      requestDelegate: { onReject: ({ message }) => report("failed", { status: message.statusCode }) },
    });
  },

  /** Takes the call that rings. */
  answer: () => void session.accept(CALL),
  /** Ends the call. */
  hangup: () => void session.bye(),
  /** Resolves when no 200 of ours will be looked at again (see {@link followAnswers}). */
  settled: () => (unsettled === 0 ? undefined : new Promise((resolve) => waiting.push(resolve))),
  /** See {@link media}. */
  media: () => media(session.sessionDescriptionHandler.peerConnection),
};

function enroll() {
  registerer.register({
    requestDelegate: {
      onAccept: () => report("registered"),
      onReject: ({ message }) => report("registration-failed", { status: message.statusCode }),
    },
  });
}

/**
 * Counts the 200s to INVITEs that SIP.js may yet repeat. It looks only when the time for the next copy has come whether the
 * ACK is there, and takes a re-INVITE that is open at that time for the one that it answered: the old 200 goes out again,
 * JsSIP acknowledges it under the number of the new re-INVITE, and SIP.js ends the call.
 */
function followAnswers(dialogs) {
  const timers = new WeakMap();
  for (const name of ["start2xxRetransmissionTimer", "startReInvite2xxRetransmissionTimer"]) {
    const start = dialogs[name];
    dialogs[name] = function () {
      const before = timers.get(this);
      start.call(this);
      if (timers.get(this) !== before) unsettled += 1;
    };
  }
  Object.defineProperty(dialogs, "invite2xxTimer", {
    get() {
      return timers.get(this);
    },
    set(timer) {
      timers.set(this, timer);
      if (timer !== undefined || --unsettled > 0) return;
      for (const resolve of waiting.splice(0)) resolve();
    },
  });
}

/** What SIP.js leaves to its users: connects until that succeeds, and registers again. */
async function comeBack() {
  for (;;) {
    const connected = await agent.reconnect().then(() => true, () => false);
    if (connected) return enroll();
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function watch(fresh) {
  session = fresh;
  fresh.delegate = {
    onInfo: (info) => {
      report("dtmf", { tone: info.request.body.match(/^Signal *= *(.)/m)?.[1] });
      info.accept();
    },
  };
  fresh.stateChange.addListener((state) => {
    if (state === SessionState.Established) report("confirmed");
    if (state === SessionState.Terminated) report("ended");
  });
}
