// The judge sees what is wrong: a history that holds, and one change for each promise.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge } from '../smoke/judge.mjs';

/** Two members, two messages. */
function sound() {
  const message = (seq, sender) => ({
    room: 1, seq, id: `m${seq}`, clientId: `c${seq}`, sender, content: `text ${seq}`,
  });
  const messages = [message(1, 7), message(2, 8)];
  return [
    { kind: 'room', room: 1, members: [7, 8] },
    ...[7, 8].map((user) => ({ kind: 'connected', user, connection: `${user}.1`, instance: 'a', transport: 'websocket' })),
    ...messages.map(({ room, sender, clientId, content }) => ({ kind: 'send', user: sender, room, clientId, content })),
    ...messages.map(({ room, sender, clientId, id, seq }) => ({ kind: 'acked', user: sender, room, clientId, id, seq })),
    ...[7, 8].flatMap((user) => messages.flatMap((m) => [
      { kind: 'heard', user, connection: `${user}.1`, by: 'live', ...m },
      { kind: 'applied', user, room: 1, seq: m.seq, id: m.id },
    ])),
    ...messages.map((m) => ({ kind: 'stored', ...m })),
  ];
}

const at = (events, kind, n = 0) => events.indexOf(events.filter((event) => event.kind === kind)[n]);

test('a history that holds has no violations', () => {
  assert.deepEqual(judge(sound()).violations, []);
});

const CHANGES = {
  'an acknowledged message that is not stored': (events) => events.splice(at(events, 'stored', 1), 1),
  'a message that a member never got': (events) => events.splice(at(events, 'applied', 3), 1),
  'a message that a member got twice': (events) => events.push({ ...events[at(events, 'applied', 1)] }),
  'a live message that came twice on one connection': (events) => events.splice(at(events, 'heard', 1) + 1, 0, { ...events[at(events, 'heard', 1)] }),
  'live messages in the wrong order': (events) => {
    const [a, b] = [at(events, 'heard', 0), at(events, 'heard', 1)];
    [events[a], events[b]] = [events[b], events[a]];
  },
  'a clientId that is stored twice': (events) => events.push({ ...events[at(events, 'stored', 1)], seq: 3, id: 'm3' }),
  'a gap': (events) => { events[at(events, 'stored', 1)].seq = 3; },
  'two answers for one clientId': (events) => events.push({ ...events[at(events, 'acked', 1)], seq: 9 }),
  'a message that nobody sent': (events) => events.splice(at(events, 'send', 1), 1),
  'another content than was sent': (events) => { events[at(events, 'stored', 1)].content = 'else'; },
  'a sender whose messages changed places': (events) => {
    events.filter(({ kind }) => kind === 'send').forEach((send) => { send.user = 7; });
    events.filter(({ kind }) => ['stored', 'heard'].includes(kind)).forEach((message) => { message.sender = 7; });
    const [a, b] = [at(events, 'send', 0), at(events, 'send', 1)];
    [events[a], events[b]] = [events[b], events[a]];
  },
  'a message to one who is not in the room': (events) => { events[at(events, 'room')].members = [7]; },
};

for (const [what, change] of Object.entries(CHANGES)) {
  test(`it sees ${what}`, () => {
    const events = sound();
    change(events);
    assert.notDeepEqual(judge(events).violations, []);
  });
}
