/** Who types where, and telling the others that we do. */
import { Store } from '@/lib/store';
import type { TypingUpdate } from '@/protocol';
import type { Ask } from './events';

/** The server stops it after 3 s; this is for a stop that never came. */
const FORGET_MS = 6000;
/** A new start keeps it alive; the server lets one a second through. */
const REPEAT_MS = 2000;

export type Typists = ReadonlyMap<number, readonly number[]>;

export class Typing extends Store<Typists> {
  #ask: Ask;
  #timers = new Map<string, ReturnType<typeof setTimeout>>();
  #told: { roomId: number; at: number } | null = null;

  constructor(ask: Ask) {
    super(new Map());
    this.#ask = ask;
  }

  apply({ roomId, userId, isTyping }: TypingUpdate): void {
    const name = `${roomId}/${userId}`;
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
    if (isTyping) this.#timers.set(name, setTimeout(() => this.apply({ roomId, userId, isTyping: false }), FORGET_MS));
    const held = this.get().get(roomId) ?? [];
    if (held.includes(userId) === isTyping) return;
    const next = new Map(this.get());
    const list = isTyping ? [...held, userId] : held.filter((one) => one !== userId);
    if (list.length > 0) next.set(roomId, list);
    else next.delete(roomId);
    this.set(next);
  }

  /** Text was put into the composer of this room. */
  start(roomId: number): void {
    if (this.#told?.roomId === roomId && Date.now() - this.#told.at < REPEAT_MS) return;
    if (this.#told && this.#told.roomId !== roomId) this.stop();
    this.#told = { roomId, at: Date.now() };
    this.#ask('typing:start', { roomId }).catch(() => undefined);
  }

  stop(): void {
    if (!this.#told) return;
    const { roomId } = this.#told;
    this.#told = null;
    this.#ask('typing:stop', { roomId }).catch(() => undefined);
  }

  clear(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.set(new Map());
  }
}
