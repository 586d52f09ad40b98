// What happened, as plain events in the order in which this process saw them: for smoke/judge.mjs, or any other
// checker, which needs nothing else.
//
// Each event is `{n, at, kind, …}`: `n` counts them, `at` is milliseconds since 1970.
//
//   room          room, members                                who is in it, before anything is sent
//   connected     user, connection, instance, transport        `session:ready` came
//   disconnected  user, connection, reason
//   send          user, room, clientId, content                the first try; repeats have no event
//   acked         user, room, clientId, id, seq                `ok: true`
//   refused       user, room, clientId, code                   `ok: false` for good
//   heard         user, connection, by, room, seq, id, clientId, sender, content
//                 by: `live` (message:new), `offline` (messages:offline) or `sync` (room:sync)
//   applied       user, room, seq, id                          what the user sees, in the order of the screen
//   stored        room, seq, id, clientId, sender, content     read from the history at the end
//   fault         what                                         what was done to the cluster

import { appendFileSync, writeFileSync } from 'node:fs';

export class History {
  #file;
  #waiting = [];

  /** With a file, every event is a line of JSON there too. */
  constructor(file) {
    this.events = [];
    this.#file = file;
    if (file) writeFileSync(file, '');
  }

  record(kind, fields) {
    const event = { n: this.events.length + 1, at: Date.now(), kind, ...fields };
    this.events.push(event);
    if (!this.#file) return;
    this.#waiting.push(JSON.stringify(event));
    if (this.#waiting.length >= 500) this.flush();
  }

  flush() {
    if (this.#file && this.#waiting.length > 0) appendFileSync(this.#file, `${this.#waiting.splice(0).join('\n')}\n`);
  }
}
