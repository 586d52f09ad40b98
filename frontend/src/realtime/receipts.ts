/** What this client has received and read, told in batches. */
import type { Message } from '@/protocol';
import type { Ask } from './events';

interface Parts {
  ask: Ask;
  /** What the server holds as read now. */
  read(roomId: number, lastReadSeq: number): void;
}

/** Messages of a burst share one event; nobody sees a tenth of a second. */
const DELIVERED_AFTER_MS = 100;
const READ_AFTER_MS = 150;
/** As many ids as one event takes. */
const BATCH = 100;

export class ReceiptBatches {
  #parts: Parts;
  #delivered = new Map<number, Set<string>>();
  #read = new Map<number, Message>();
  #deliveredTimer: ReturnType<typeof setTimeout> | undefined;
  #readTimer: ReturnType<typeof setTimeout> | undefined;
  /** The newest that was asked for in each room: asking once is enough. */
  #asked = new Map<number, number>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  delivered(message: Message): void {
    const ids = this.#delivered.get(message.roomId) ?? new Set();
    this.#delivered.set(message.roomId, ids.add(message.id));
    this.#deliveredTimer ??= setTimeout(() => this.#flushDelivered(), DELIVERED_AFTER_MS);
  }

  read(message: Message): void {
    if (message.seq <= (this.#asked.get(message.roomId) ?? 0)) return;
    this.#asked.set(message.roomId, message.seq);
    this.#read.set(message.roomId, message);
    this.#readTimer ??= setTimeout(() => this.flushRead(), READ_AFTER_MS);
  }

  /** Whatever could not be told before; also called when a connection is there again. */
  flushRead(): void {
    clearTimeout(this.#readTimer);
    this.#readTimer = undefined;
    for (const message of this.#read.values()) void this.#sendRead(message);
  }

  close(): void {
    clearTimeout(this.#deliveredTimer);
    clearTimeout(this.#readTimer);
  }

  #flushDelivered(): void {
    this.#deliveredTimer = undefined;
    for (const [roomId, ids] of this.#delivered) {
      const all = [...ids];
      for (let i = 0; i < all.length; i += BATCH) {
        // One that is lost is delivered again, and told again, after the next connection.
        this.#parts.ask('message:delivered', { roomId, messageIds: all.slice(i, i + BATCH) }).catch(() => undefined);
      }
    }
    this.#delivered.clear();
  }

  async #sendRead(message: Message): Promise<void> {
    const { roomId, id, seq } = message;
    try {
      const { lastReadSeq } = await this.#parts.ask('message:read', { roomId, messageId: id });
      this.#parts.read(roomId, lastReadSeq);
      if ((this.#read.get(roomId)?.seq ?? 0) <= seq) this.#read.delete(roomId);
    } catch (error) {
      // Without a connection it waits for the next; a refusal is final.
      if ((error as { code?: string }).code !== 'network') {
        this.#read.delete(roomId);
        this.#asked.delete(roomId);
      }
    }
  }
}
