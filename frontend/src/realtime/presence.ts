/** Who is there, and telling the server when we are not. */
import { Store } from '@/lib/store';
import { local } from '@/lib/storage';
import type { Presence } from '@/protocol';
import type { Ask } from './events';

export const IDLE_MS = 5 * 60_000;
const CHECK_MS = 10_000;
/** All tabs of the browser share this time. */
const ACTIVE = 'starling.active';
/** As many as one query takes. */
const BATCH = 200;
const SIGNS = ['pointerdown', 'pointermove', 'keydown', 'wheel', 'touchstart', 'focus'] as const;

export class PresenceBook extends Store<ReadonlyMap<number, Presence>> {
  #ask: Ask;
  #wanted = new Set<number>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #interval: ReturnType<typeof setInterval> | undefined;
  #away = false;
  #lastSign = Date.now();

  constructor(ask: Ask) {
    super(new Map());
    this.#ask = ask;
  }

  apply(presence: Presence): void {
    this.set(new Map(this.get()).set(presence.userId, presence));
  }

  /** Asks about people of whom nothing is known yet; those asked for together share a query. */
  want(userIds: readonly number[]): void {
    for (const id of userIds) if (!this.get().has(id)) this.#wanted.add(id);
    if (this.#wanted.size > 0) this.#timer ??= setTimeout(() => void this.#query(), 50);
  }

  /** After a time without connection nothing of it is sure. */
  refresh(): void {
    for (const id of this.get().keys()) this.#wanted.add(id);
    void this.#query();
    this.#away = false;
    this.#check();
  }

  /** Watches for signs of life. */
  watch(): void {
    for (const sign of SIGNS) window.addEventListener(sign, this.#onSign, { passive: true, capture: true });
    this.#interval = setInterval(() => this.#check(), CHECK_MS);
  }

  close(): void {
    for (const sign of SIGNS) window.removeEventListener(sign, this.#onSign, { capture: true });
    clearTimeout(this.#timer);
    clearInterval(this.#interval);
  }

  #onSign = () => {
    const now = Date.now();
    if (now - this.#lastSign < 1000 && !this.#away) return;
    this.#lastSign = now;
    local.write(ACTIVE, now);
    if (this.#away) this.#check();
  };

  #check(): void {
    const last = Math.max(this.#lastSign, local.read<number>(ACTIVE) ?? 0);
    const away = Date.now() - last >= IDLE_MS;
    if (away === this.#away) return;
    this.#away = away;
    this.#ask('presence:set', { status: away ? 'away' : 'online' }).catch(() => { this.#away = !away; });
  }

  async #query(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const userIds = [...this.#wanted].slice(0, BATCH);
    if (userIds.length === 0) return;
    for (const id of userIds) this.#wanted.delete(id);
    try {
      const { presence } = await this.#ask('presence:query', { userIds });
      const next = new Map(this.get());
      for (const one of presence) next.set(one.userId, one);
      this.set(next);
    } catch {
      for (const id of userIds) this.#wanted.add(id);
      return;
    }
    if (this.#wanted.size > 0) void this.#query();
  }
}
