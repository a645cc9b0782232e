// A whole call between two baresips: ringing, answer, media, hold by each side, the end by either.

/** `caller` calls `callee`; once both have talked and held, `last` hangs up. */
export async function wholeCall(caller, callee, last) {
  await caller.command("dial", callee.uri);
  await callee.event("CALL_INCOMING");
  await caller.event("CALL_RINGING");
  await callee.command("accept");
  await both(caller, callee, "CALL_ESTABLISHED");
  await both(caller, callee, "CALL_RTPESTAB");
  for (const [holder, held] of [[caller, callee], [callee, caller]]) {
    await reoffered(held, /a=sendonly/, () => holder.command("hold"));
    await reoffered(held, /a=sendrecv/, () => holder.command("resume"));
  }
  await last.command("hangup");
  await both(caller, callee, "CALL_CLOSED");
}

/** Each of two waits for its event of that type. */
export async function both(one, other, type) {
  await Promise.all([one.event(type), other.event(type)]);
}

/** Does `work`, and waits until a re-INVITE with that in its session description has reached `phone`, and its ACK. */
async function reoffered(phone, description, work) {
  const from = phone.peer.output.length;
  await work();
  const invite = new RegExp(`\\nINVITE [^]*?\\n${description.source}[^]*?\\nACK `);
  await phone.peer.printed(invite, { from });
}
