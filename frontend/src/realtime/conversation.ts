/**
 * What this client holds of one room: a contiguous window of its messages, by `seq`.
 *
 * The window usually ends at the newest message; after a jump to an old one it does not, and then new
 * messages only raise `lastSeq`. A gap is never shown: what does not follow is asked for by `room:sync`.
 */
import { Store } from '@/lib/store';
import type { HistoryPage, Message, MessageStatus, Receipts, SyncedRoom } from '@/protocol';

export interface ConversationState {
  status: 'idle' | 'loading' | 'ready' | 'error';
  /** Ascending `seq`, without gap. */
  messages: readonly Message[];
  hasOlder: boolean;
  hasNewer: boolean;
  loadingOlder: boolean;
  loadingNewer: boolean;
  /** The newest `seq` that is known of, held or not. */
  lastSeq: number;
  /** Everything up to here was read when the room was opened: the divider stands after it. */
  dividerAfter: number | null;
}

export interface Source {
  history(cursor: { before?: number; after?: number; limit?: number }): Promise<HistoryPage>;
  /** Null when there is no connection, or no such room any more. */
  sync(afterSeq: number): Promise<SyncedRoom | null>;
}

export const PAGE = 50;
/** Whoever scrolls wants more of it, and fewer waits. */
const MORE = 100;
/** Beyond this the far end of the window is let go: memory stays bounded however long one scrolls. */
export const WINDOW = 600;
/** Whoever missed more than this gets the newest page in place of all. */
const CATCH_UP = 300;
/** After a time without connection, edits and reactions of so many messages are looked at again. */
const REFRESH = 100;

const EMPTY: ConversationState = {
  status: 'idle', messages: [], hasOlder: false, hasNewer: false, loadingOlder: false, loadingNewer: false, lastSeq: 0, dividerAfter: null,
};

export class Conversation extends Store<ConversationState> {
  readonly roomId: number;
  #source: Source;
  /** Counts jumps and reloads: an answer to an earlier one is dropped. */
  #epoch = 0;
  #syncing: Promise<void> | null = null;
  #syncedFrom = 0;
  #seen = new Map<string, { delivered: Set<number>; read: Set<number> }>();

  constructor(roomId: number, source: Source, lastSeq = 0) {
    super({ ...EMPTY, lastSeq });
    this.roomId = roomId;
    this.#source = source;
  }

  get first(): number | null {
    return this.get().messages[0]?.seq ?? null;
  }

  get last(): number | null {
    return this.get().messages.at(-1)?.seq ?? null;
  }

  find(id: string): Message | undefined {
    return this.get().messages.find((one) => one.id === id);
  }

  /** Loads the newest page, unless something is held already. */
  async open(): Promise<void> {
    const { status } = this.get();
    if (status === 'idle' || status === 'error') await this.latest();
  }

  /** The newest page, in place of what is held. */
  latest(): Promise<void> {
    return this.#load(() => this.#source.history({ limit: PAGE }), (page) => this.#window(page, false));
  }

  /** A page around a message, unless it is held. */
  async jumpTo(seq: number): Promise<void> {
    const [first, last] = [this.first, this.last];
    const { status, hasOlder } = this.get();
    // The oldest of a window that goes on is not shown.
    if (status === 'ready' && first !== null && last !== null && (hasOlder ? seq > first : seq >= first) && seq <= last) return;
    await this.#load(async () => {
      const [before, after] = await Promise.all([
        this.#source.history({ before: seq + 1, limit: PAGE }),
        this.#source.history({ after: seq, limit: PAGE }),
      ]);
      return { messages: [...before.messages, ...after.messages], nextBefore: before.nextBefore, nextAfter: after.nextAfter };
    }, (page) => this.#window(page, page.nextAfter !== null));
  }

  async #load(fetch: () => Promise<HistoryPage>, apply: (page: HistoryPage) => void): Promise<void> {
    const epoch = ++this.#epoch;
    this.#patch({ status: 'loading', loadingOlder: false, loadingNewer: false });
    try {
      const page = await fetch();
      if (epoch !== this.#epoch) return;
      apply(page);
      await this.#catchUp();
    } catch {
      if (epoch === this.#epoch) this.#patch({ status: this.get().messages.length > 0 ? 'ready' : 'error' });
    }
  }

  #window(page: HistoryPage, hasNewer: boolean): void {
    const held = new Map(this.get().messages.map((one) => [one.seq, one]));
    const messages = page.messages.map((one) => merged(held.get(one.seq), one));
    this.#patch({
      status: 'ready', messages, hasOlder: page.nextBefore !== null, hasNewer,
      lastSeq: Math.max(this.get().lastSeq, messages.at(-1)?.seq ?? 0),
    });
  }

  async loadOlder(): Promise<void> {
    const { hasOlder, loadingOlder, status } = this.get();
    const first = this.first;
    if (!hasOlder || loadingOlder || status !== 'ready' || first === null) return;
    const epoch = this.#epoch;
    this.#patch({ loadingOlder: true });
    const page = await this.#source.history({ before: first, limit: MORE }).catch(() => null);
    if (epoch !== this.#epoch) return;
    if (!page) return this.#patch({ loadingOlder: false });
    const all = [...page.messages.filter((one) => one.seq < first), ...this.get().messages];
    const messages = all.slice(0, WINDOW);
    const hasNewer = this.get().hasNewer || messages.length < all.length;
    this.#patch({ messages, hasNewer, hasOlder: page.nextBefore !== null, loadingOlder: false });
  }

  async loadNewer(): Promise<void> {
    const { hasNewer, loadingNewer, status } = this.get();
    const last = this.last;
    if (!hasNewer || loadingNewer || status !== 'ready' || last === null) return;
    const epoch = this.#epoch;
    this.#patch({ loadingNewer: true });
    const page = await this.#source.history({ after: last, limit: MORE }).catch(() => null);
    if (epoch !== this.#epoch) return;
    if (!page) return this.#patch({ loadingNewer: false });
    const all = [...this.get().messages, ...page.messages.filter((one) => one.seq > last)];
    const messages = all.slice(-WINDOW);
    const hasOlder = this.get().hasOlder || messages.length < all.length;
    this.#patch({ messages, hasOlder, hasNewer: page.nextAfter !== null, loadingNewer: false });
    await this.#catchUp();
  }

  /** A message that is new, or heard of again. */
  receive(message: Message): void {
    const state = this.get();
    const last = this.last ?? 0;
    const lastSeq = Math.max(state.lastSeq, message.seq);
    if (message.seq <= last) return this.update(message);
    const follows = message.seq === last + 1 || (state.messages.length === 0 && message.seq === 1);
    if (state.status === 'ready' && !state.hasNewer && follows) {
      const messages = [...state.messages, message].slice(-WINDOW);
      this.#patch({ messages, lastSeq, hasOlder: state.hasOlder || messages.length <= state.messages.length });
      return;
    }
    this.#patch({ lastSeq });
    void this.#catchUp();
  }

  /** A message of the window changed: edited, deleted, reacted to. */
  update(message: Message): void {
    const { messages } = this.get();
    const index = message.seq - (this.first ?? 0);
    const held = messages[index];
    if (held?.id !== message.id) return;
    this.#patch({ messages: messages.with(index, merged(held, message)) });
  }

  /** Somebody got or read messages of ours. */
  applyStatus({ messageIds, userId, status }: MessageStatus): void {
    const ids = new Set(messageIds);
    let changed = false;
    const messages = this.get().messages.map((message) => {
      if (!ids.has(message.id)) return message;
      changed = true;
      const seen = this.#seen.get(message.id) ?? { delivered: new Set(), read: new Set() };
      this.#seen.set(message.id, seen);
      seen.delivered.add(userId);
      if (status === 'read') seen.read.add(userId);
      const { recipients, delivered, read } = message.receipts ?? { recipients: 0, delivered: 0, read: 0 };
      return { ...message, receipts: {
        recipients, delivered: Math.max(delivered, seen.delivered.size), read: Math.max(read, seen.read.size),
      } };
    });
    if (this.#seen.size > 2 * WINDOW) this.#seen.clear();
    if (changed) this.#patch({ messages });
  }

  /** The server says how far the room is: what is missing is asked for. */
  heard(lastSeq: number): void {
    this.#patch({ lastSeq: Math.max(this.get().lastSeq, lastSeq) });
    void this.#catchUp();
  }

  /** There was no connection for a while: what is shown may have been edited, too. */
  async refresh(): Promise<void> {
    const { status, hasNewer, lastSeq } = this.get();
    const last = this.last;
    if (status === 'loading') return;
    if (status !== 'ready' || last === null) return this.latest();
    if (hasNewer) return;
    if (lastSeq - last > CATCH_UP) return this.latest();
    await this.#sync(Math.max((this.first ?? 1) - 1, last - REFRESH));
  }

  /** Lets go of everything but what is shown at once when the room is opened again. */
  rest(): void {
    const { messages, hasNewer, status, hasOlder } = this.get();
    if (status !== 'ready') return;
    if (hasNewer) {
      this.#epoch += 1;
      return this.#patch({ ...EMPTY, lastSeq: this.get().lastSeq });
    }
    const kept = messages.slice(-2 * PAGE);
    this.#patch({ messages: kept, hasOlder: hasOlder || kept.length < messages.length, dividerAfter: null });
  }

  /** Where the divider "new messages" stands: after this `seq`, or nowhere. */
  divide(after: number | null): void {
    this.#patch({ dividerAfter: after });
  }

  async #catchUp(): Promise<void> {
    const { status, hasNewer, lastSeq } = this.get();
    const last = this.last ?? 0;
    if (status !== 'ready' || hasNewer || lastSeq <= last) return;
    if (lastSeq - last > CATCH_UP) return this.latest();
    await this.#sync(last);
  }

  /** One at a time; whoever asks meanwhile is served by the same walk, unless it began too late. */
  #sync(afterSeq: number): Promise<void> {
    if (this.#syncing) return afterSeq < this.#syncedFrom ? this.#syncing.then(() => this.#sync(afterSeq)) : this.#syncing;
    this.#syncedFrom = afterSeq;
    this.#syncing = this.#walk(afterSeq).finally(() => { this.#syncing = null; });
    return this.#syncing;
  }

  async #walk(afterSeq: number): Promise<void> {
    const epoch = this.#epoch;
    let from = afterSeq;
    for (;;) {
      const answer = await this.#source.sync(from);
      if (!answer || epoch !== this.#epoch) return;
      this.#append(answer.messages);
      from = answer.messages.at(-1)?.seq ?? from;
      const behind = Math.max(answer.lastSeq, this.get().lastSeq) > (this.last ?? 0);
      if (answer.messages.length === 0 || !(answer.more || behind)) return;
    }
  }

  #append(messages: readonly Message[]): void {
    const state = this.get();
    const bySeq = new Map(messages.map((one) => [one.seq, one]));
    const list = state.messages.map((one) => (bySeq.has(one.seq) ? merged(one, bySeq.get(one.seq) ?? one) : one));
    for (let next = (list.at(-1)?.seq ?? 0) + 1; bySeq.has(next); next += 1) {
      const message = bySeq.get(next);
      if (message) list.push(message);
    }
    const kept = list.slice(-WINDOW);
    this.#patch({
      messages: kept, hasOlder: state.hasOlder || kept.length < list.length, lastSeq: Math.max(state.lastSeq, messages.at(-1)?.seq ?? 0),
    });
  }

  #patch(change: Partial<ConversationState>): void {
    const state = this.get();
    const same = Object.entries(change).every(([name, value]) => Object.is(state[name as keyof ConversationState], value));
    if (!same) this.set({ ...state, ...change });
  }
}

/** The newer of two readings. Broadcasts may omit the receipts, and their counts only grow. */
export function merged(held: Message | undefined, message: Message): Message {
  if (!held) return message;
  const [a, b] = [held.receipts, message.receipts];
  const receipts: Receipts | undefined = a && b
    ? { recipients: b.recipients || a.recipients, delivered: Math.max(a.delivered, b.delivered), read: Math.max(a.read, b.read) }
    : b ?? a;
  return receipts ? { ...message, receipts } : message;
}
