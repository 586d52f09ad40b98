// Work in order: one task at a time for each key.

import { unavailable } from './failure.mjs';

export class KeyedQueue {
  #tails = new Map();
  #waiting = 0;
  #max;

  /** Beyond `max` waiting tasks a new one is refused, so that nothing grows while PostgreSQL is away. */
  constructor(max) {
    this.#max = max;
  }

  /** Runs `task` after all that were given for `key` before, and answers what it answers. */
  async run(key, task) {
    if (this.#waiting >= this.#max) throw unavailable();
    this.#waiting += 1;
    const before = this.#tails.get(key);
    const done = before ? before.then(task, task) : task();
    this.#tails.set(key, done);
    try {
      return await done;
    } finally {
      this.#waiting -= 1;
      if (this.#tails.get(key) === done) this.#tails.delete(key);
    }
  }
}
