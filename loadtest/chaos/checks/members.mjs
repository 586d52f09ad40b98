// Promise 1 and 3 for members, over all their connections: everything, each once, the same for all.

import { key, messagesOf, place } from './model.mjs';

/** A violation names so many seqs at most. */
const NAMED = 10;

export function checkMembers({ records, final, model, violate }) {
  const byDevice = new Map();
  const pushed = new Map();
  const told = new Map();
  const note = (map, who, room, seq) => {
    const seqs = map.get(key(who, room)) ?? new Set();
    map.set(key(who, room), seqs.add(seq));
  };
  const ids = new Map();
  for (const record of records) {
    for (const { room, seq, id } of messagesOf(record)) {
      note(byDevice, record.device, room, seq);
      if (record.kind !== 'sync') note(pushed, record.user, room, seq);
      const known = ids.get(place(room, seq)) ?? id;
      if (known !== id) violate(3, 'two-at-one-place', { room, seq, ids: [known, id], device: record.device, t: record.t });
      ids.set(place(room, seq), known);
    }
    if (record.kind === 'ack' && record.ok) note(byDevice, record.device, record.room, record.seq);
    if (record.kind === 'sync:required') {
      for (const { roomId, lastSeq } of record.rooms) {
        const who = key(record.user, roomId);
        told.set(who, Math.max(told.get(who) ?? 0, lastSeq));
      }
    }
  }
  const lastSeqs = new Map(final.rooms.map(({ id, lastSeq }) => [id, lastSeq]));
  // Who is away has time to come back; everybody else must have everything.
  const present = final.devices.filter(({ conn }) => conn);
  for (const { name, rooms } of present) {
    for (const room of rooms) missing('missing-for-member', byDevice.get(key(name, room)), room, { device: name }, () => true);
  }
  for (const user of new Set(present.map((device) => device.user))) {
    const { rooms } = present.find((device) => device.user === user);
    // Nobody owes a sender its own messages once it has been away.
    for (const room of rooms) {
      const heard = told.get(key(user, room)) ?? 0;
      missing('never-sent-by-itself', pushed.get(key(user, room)), room, { user }, (seq) => seq > heard
        && model.byPlace.get(place(room, seq))?.sender !== user);
    }
  }

  function missing(kind, has, room, who, counts) {
    const lacking = [];
    for (let seq = 1; seq <= (lastSeqs.get(room) ?? 0); seq += 1) {
      if (!has?.has(seq) && model.byPlace.has(place(room, seq)) && counts(seq)) lacking.push(seq);
    }
    if (lacking.length > 0) violate(1, kind, { ...who, room, count: lacking.length, seqs: lacking.slice(0, NAMED) });
  }
}
