// What happened, in the order in which this process saw it: in memory, and a line of JSON each in a file.

import { createWriteStream, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import path from 'node:path';

/** Runs that are kept. */
const KEPT = 6;

/** Milliseconds, never going back, a day's time all the same. */
export const now = () => Math.round((performance.timeOrigin + performance.now()) * 10) / 10;

export class History {
  #file;

  constructor(folder) {
    this.records = [];
    this.folder = folder;
    if (folder) {
      mkdirSync(folder, { recursive: true });
      this.#file = createWriteStream(path.join(folder, 'history.ndjson'));
    }
  }

  /** `kind` says what happened; the other fields are the checker's (see there). */
  write(kind, fields) {
    const record = { t: now(), kind, ...fields };
    this.records.push(record);
    this.#file?.write(`${JSON.stringify(record)}\n`);
    return record;
  }

  async close() {
    this.#file?.end();
    if (this.#file) await once(this.#file, 'close');
  }
}

/** A new folder for a run; the oldest ones go. */
export function runFolder(base, seed) {
  mkdirSync(base, { recursive: true });
  const old = readdirSync(base).filter((name) => /^\d{8}T\d{6}-/.test(name)).sort();
  old.slice(0, Math.max(0, old.length - KEPT + 1)).forEach((name) => rmSync(path.join(base, name), { recursive: true }));
  const time = new Date().toISOString().replace(/[-:]|\..*/g, '');
  return path.join(base, `${time}-${seed}`);
}
