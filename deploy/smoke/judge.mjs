// Judges a history: nothing acknowledged is lost, nothing comes twice, everybody sees one order without gaps.

/** `{violations: [text], counts}`; members must have had time to catch up before the last event. */
export function judge(events) {
  const violations = [];
  const blame = (text) => violations.push(text);
  const of = (kind) => events.filter((event) => event.kind === kind);
  const members = new Map(of('room').map(({ room, members: all }) => [room, all]));

  // One message for a clientId, one for a place.
  const acked = new Map();
  for (const ack of of('acked')) {
    const first = acked.get(ack.clientId);
    if (first && (first.id !== ack.id || first.seq !== ack.seq)) blame(`clientId ${ack.clientId} was acknowledged as ${first.seq} and as ${ack.seq}`);
    acked.set(ack.clientId, ack);
  }
  const sent = new Map(of('send').map((send) => [send.clientId, send]));

  // What is stored: 1, 2, 3 …, each clientId once.
  const stored = new Map();
  const storedIds = new Map();
  for (const message of of('stored')) {
    const list = stored.get(message.room) ?? [];
    stored.set(message.room, list);
    if (message.seq !== list.length + 1) blame(`room ${message.room}: stored seq ${message.seq} follows ${list.length}`);
    list.push(message);
    if (storedIds.has(message.clientId)) blame(`room ${message.room}: clientId ${message.clientId} is stored twice`);
    storedIds.set(message.clientId, message);
    const send = sent.get(message.clientId);
    if (!send) blame(`room ${message.room}: seq ${message.seq} was never sent`);
    else if (send.content !== message.content || send.user !== message.sender || send.room !== message.room) blame(`room ${message.room}: seq ${message.seq} is not what was sent`);
  }
  for (const ack of acked.values()) {
    const message = storedIds.get(ack.clientId);
    if (!message) blame(`room ${ack.room}: acknowledged seq ${ack.seq} is not stored`);
    else if (message.id !== ack.id || message.seq !== ack.seq) blame(`room ${ack.room}: acknowledged as seq ${ack.seq}, stored as ${message.seq}`);
  }

  // A sender's messages to a room lie in the order of sending.
  const places = new Map();
  for (const send of sent.values()) {
    const message = storedIds.get(send.clientId);
    if (!message) continue;
    const key = `${send.user} ${send.room}`;
    if (message.seq <= (places.get(key) ?? 0)) blame(`room ${send.room}: user ${send.user}'s messages changed places at seq ${message.seq}`);
    places.set(key, message.seq);
  }

  // On one connection message:new come in ascending order, each at most once, and say what is stored.
  const last = new Map();
  for (const heard of of('heard')) {
    const truth = stored.get(heard.room)?.[heard.seq - 1];
    if (!truth || truth.id !== heard.id || truth.content !== heard.content || truth.sender !== heard.sender) blame(`user ${heard.user} heard another seq ${heard.seq} in room ${heard.room}`);
    if (!members.get(heard.room)?.includes(heard.user)) blame(`user ${heard.user} is not in room ${heard.room} and heard seq ${heard.seq}`);
    if (heard.by !== 'live') continue;
    const key = `${heard.connection} ${heard.room}`;
    if (heard.seq <= (last.get(key) ?? 0)) blame(`user ${heard.user}, room ${heard.room}: seq ${heard.seq} after ${last.get(key)} on one connection`);
    last.set(key, heard.seq);
  }

  // Every member has everything, once, in order.
  const applied = new Map();
  for (const { user, room, seq, id } of of('applied')) {
    const key = `${user} ${room}`;
    const list = applied.get(key) ?? [];
    applied.set(key, list);
    if (seq !== list.length + 1) blame(`user ${user}, room ${room}: shows seq ${seq} after ${list.length}`);
    list.push(id);
  }
  for (const [room, all] of members) {
    const truth = stored.get(room) ?? [];
    for (const user of all) {
      const shown = applied.get(`${user} ${room}`) ?? [];
      if (shown.length !== truth.length) blame(`user ${user}, room ${room}: shows ${shown.length} of ${truth.length} messages`);
      else if (shown.some((id, i) => id !== truth[i].id)) blame(`user ${user}, room ${room}: shows another message`);
    }
  }

  return {
    violations,
    counts: {
      sent: sent.size,
      acked: acked.size,
      refused: of('refused').length,
      unanswered: [...sent.keys()].filter((id) => !acked.has(id)).length - of('refused').length,
      stored: of('stored').length,
      heard: of('heard').length,
      live: of('heard').filter(({ by }) => by === 'live').length,
      connections: of('connected').length,
    },
  };
}
