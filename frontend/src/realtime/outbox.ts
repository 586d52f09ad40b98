/**
 * Messages on their way. Each is stored in IndexedDB before it is sent and stays there until the server has
 * acknowledged it, so that a reload, a crash or a lost connection loses none; the `clientId` makes a repeated
 * send harmless. A room's messages go one after the other, in the order in which they were written, by
 * whichever tab holds the room's lock.
 */
import { ApiError } from '@/lib/http';
import type { Lock } from '@/lib/locks';
import { Store } from '@/lib/store';
import type { Message, MessageSend } from '@/protocol';

export interface Pending {
  clientId: string;
  userId: number;
  roomId: number;
  content: string;
  replyTo: string | null;
  metadata: Record<string, unknown>;
  createdAt: string;
  /** Sorts what was written in the same millisecond. */
  order: number;
  state: 'sending' | 'failed';
  /** Why the server refused it. */
  reason: string | null;
}

/** Where they are kept. */
export interface OutboxStore {
  list(userId: number): Promise<Pending[]>;
  put(pending: Pending): Promise<void>;
  remove(clientId: string): Promise<void>;
  clear(userId: number): Promise<void>;
}

interface Parts {
  userId: number;
  store: OutboxStore;
  send(message: MessageSend): Promise<Message>;
  lock: Lock;
  /** Tells the other tabs that the store has changed. */
  announce(): void;
  /** What the server has stored goes to the conversation. */
  stored(message: Message): void;
  wait?(ms: number): Promise<void>;
}

export type Outgoing = ReadonlyMap<number, readonly Pending[]>;

/** Refusals that time heals: the same send is tried again. */
const PASSING = new Set(['rate_limited', 'unavailable']);
/** So often in a row, then people decide. */
const TRIES = 6;
const PAUSE_MS = 1000;

const NONE: readonly Pending[] = [];

export class Outbox extends Store<Outgoing> {
  #parts: Parts;
  #draining = new Set<number>();
  #again = new Set<number>();
  #order = 0;
  #closed = false;

  constructor(parts: Parts) {
    super(new Map());
    this.#parts = parts;
  }

  of(roomId: number): readonly Pending[] {
    return this.get().get(roomId) ?? NONE;
  }

  /** Reads what an earlier page or another tab left. */
  async load(): Promise<void> {
    const all = await this.#parts.store.list(this.#parts.userId).catch(() => null);
    if (!all || this.#closed) return;
    all.sort((a, b) => a.order - b.order);
    const rooms = new Map<number, Pending[]>();
    for (const one of all) rooms.set(one.roomId, [...rooms.get(one.roomId) ?? [], one]);
    this.set(rooms);
  }

  /** Shows it at once, stores it, and sends it as soon as that is possible. */
  async add(message: Pick<Pending, 'clientId' | 'roomId' | 'content' | 'replyTo' | 'metadata'>): Promise<void> {
    this.#order = Math.max(this.#order + 1, Date.now() * 1000);
    const pending: Pending = {
      ...message, userId: this.#parts.userId, createdAt: new Date().toISOString(), order: this.#order, state: 'sending', reason: null,
    };
    await this.#change(pending);
    await this.drain(pending.roomId);
  }

  async retry(clientId: string): Promise<void> {
    const pending = this.#find(clientId);
    if (!pending) return;
    await this.#change({ ...pending, state: 'sending', reason: null });
    await this.drain(pending.roomId);
  }

  async discard(clientId: string): Promise<void> {
    const pending = this.#find(clientId);
    if (!pending) return;
    this.#drop(pending);
    await this.#parts.store.remove(clientId).catch(() => undefined);
    this.#parts.announce();
  }

  /** The message came back as stored, be it by a broadcast. */
  confirm({ clientId }: Message): void {
    const pending = clientId ? this.#find(clientId) : undefined;
    if (pending) void this.discard(pending.clientId);
  }

  /** There is a connection again: all that waits goes out. */
  async resume(): Promise<void> {
    await this.load();
    await Promise.all([...this.get().keys()].map((roomId) => this.drain(roomId)));
  }

  /** The session is over: nothing of this user stays in the browser. */
  async clear(): Promise<void> {
    this.#closed = true;
    this.set(new Map());
    await this.#parts.store.clear(this.#parts.userId).catch(() => undefined);
  }

  close(): void {
    this.#closed = true;
  }

  /** Sends what waits in a room, in order, until there is nothing more or no connection. */
  async drain(roomId: number): Promise<void> {
    if (this.#draining.has(roomId)) {
      this.#again.add(roomId);
      return;
    }
    this.#draining.add(roomId);
    try {
      await this.#parts.lock(`starling-outbox-${this.#parts.userId}-${roomId}`, () => this.#drain(roomId));
    } finally {
      this.#draining.delete(roomId);
      if (this.#again.delete(roomId) && this.of(roomId).some((one) => one.state === 'sending')) void this.drain(roomId);
    }
  }

  async #drain(roomId: number): Promise<void> {
    const { wait = (ms) => new Promise((done) => setTimeout(done, ms)) } = this.#parts;
    let tries = 0;
    while (!this.#closed) {
      const next = await this.#next(roomId);
      if (!next) return;
      try {
        const message = await this.#parts.send({
          roomId, content: next.content, clientId: next.clientId, replyTo: next.replyTo, metadata: next.metadata,
        });
        tries = 0;
        if (this.#closed) return;
        this.#parts.stored(message);
        await this.discard(next.clientId);
      } catch (error) {
        const { code, retryAfterMs, message } = error instanceof ApiError ? error : new ApiError(0, { code: 'network', message: String(error) });
        // No connection: the next one brings us back here.
        if (code === 'network') {
          this.#again.delete(roomId);
          return;
        }
        tries += 1;
        if (PASSING.has(code) && tries < TRIES) await wait(retryAfterMs ?? PAUSE_MS * tries);
        else {
          tries = 0;
          await this.#change({ ...next, state: 'failed', reason: message });
        }
      }
    }
  }

  /** The oldest that waits: by the store, which other tabs change too, or by what is shown if that can't be read. */
  async #next(roomId: number): Promise<Pending | undefined> {
    const stored = await this.#parts.store.list(this.#parts.userId).catch(() => null);
    const all = (stored ?? this.of(roomId)).filter((one) => one.roomId === roomId && one.state === 'sending');
    return all.sort((a, b) => a.order - b.order)[0];
  }

  #find(clientId: string): Pending | undefined {
    for (const list of this.get().values()) {
      const found = list.find((one) => one.clientId === clientId);
      if (found) return found;
    }
    return undefined;
  }

  async #change(pending: Pending): Promise<void> {
    const list = this.of(pending.roomId);
    const known = list.some((one) => one.clientId === pending.clientId);
    const next = known ? list.map((one) => (one.clientId === pending.clientId ? pending : one)) : [...list, pending];
    this.set(new Map(this.get()).set(pending.roomId, next));
    // A browser without IndexedDB still sends; it only forgets on reload.
    await this.#parts.store.put(pending).catch(() => undefined);
    this.#parts.announce();
  }

  #drop(pending: Pending): void {
    const rest = this.of(pending.roomId).filter((one) => one.clientId !== pending.clientId);
    const rooms = new Map(this.get());
    if (rest.length > 0) rooms.set(pending.roomId, rest);
    else rooms.delete(pending.roomId);
    this.set(rooms);
  }
}
