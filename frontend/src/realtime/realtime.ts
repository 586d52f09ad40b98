/**
 * One session's live state: the connection, and everything that its events keep up to date. Made when
 * somebody logs in, stopped when the session ends.
 */
import type { QueryClient } from '@tanstack/react-query';
import { accessToken, accounts, forget } from '@/auth/sessions';
import { api } from '@/lib/api';
import { uuid } from '@/lib/ids';
import { lock } from '@/lib/locks';
import { Store } from '@/lib/store';
import type { Member, Message, MessageStatus, Room, SessionReady, User } from '@/protocol';
import { Conversation } from './conversation';
import { Link } from './link';
import { Outbox } from './outbox';
import { outboxDb } from './outbox-db';
import { People } from './people';
import { PresenceBook } from './presence';
import { ReceiptBatches } from './receipts';
import * as list from './room-list';
import { Typing } from './typing';

export const ROOMS = ['rooms'] as const;
export const roomKey = (id: number) => ['room', id] as const;

/** Conversations that stay in memory, the open one included. */
const KEPT = 20;

export interface Listeners {
  /** Somebody else wrote, just now. */
  incoming(message: Message, room: Room | undefined): void;
  /** We are no longer in a room. */
  removed(room: Room | undefined, roomId: number): void;
}

export class Realtime {
  readonly me: number;
  readonly link: Link;
  readonly outbox: Outbox;
  readonly typing: Typing;
  readonly presence: PresenceBook;
  readonly people: People;
  readonly receipts: ReceiptBatches;
  /** The room that is shown. */
  readonly active = new Store<number | null>(null);
  listeners: Listeners = { incoming: () => undefined, removed: () => undefined };
  #queries: QueryClient;
  #conversations = new Map<number, Conversation>();
  #readSeqs = new Map<number, number>();
  #channel: BroadcastChannel;
  #wasReady = false;

  constructor(user: User, queries: QueryClient) {
    this.me = user.id;
    this.#queries = queries;
    this.#channel = new BroadcastChannel(`starling-${user.id}`);
    this.#channel.onmessage = ({ data }) => {
      if (data === 'outbox') void this.outbox.load();
    };
    this.link = new Link({ token: accessToken });
    this.outbox = new Outbox({
      userId: user.id,
      store: outboxDb,
      lock,
      send: (message) => this.link.ask('message:send', message).then((answer) => answer.message),
      announce: () => this.#channel.postMessage('outbox'),
      stored: (message) => this.#take(message),
    });
    this.typing = new Typing(this.link.ask);
    this.presence = new PresenceBook(this.link.ask);
    this.people = new People(api);
    this.people.learn([user]);
    this.receipts = new ReceiptBatches({ ask: this.link.ask, read: (roomId, seq) => this.#setRead(roomId, seq) });
    this.#listen();
  }

  start(): void {
    this.presence.watch();
    void this.outbox.load();
    this.link.open();
  }

  /** What this user left in the browser goes with the session. */
  stop(): void {
    this.link.close();
    this.receipts.close();
    this.presence.close();
    this.typing.clear();
    this.#channel.close();
    this.outbox.close();
    if (!accounts().some(({ id }) => id === this.me)) void this.outbox.clear();
  }

  conversation(roomId: number): Conversation {
    const held = this.#conversations.get(roomId);
    this.#conversations.delete(roomId);
    const conversation = held ?? new Conversation(roomId, {
      history: async (cursor) => {
        const page = await api.history(roomId, cursor);
        this.#meet(page.messages);
        return page;
      },
      sync: async (afterSeq) => {
        const answer = await this.link.ask('room:sync', { rooms: [{ roomId, afterSeq }] }).catch(() => null);
        const synced = answer?.rooms[0] ?? null;
        if (synced) {
          this.#meet(synced.messages);
          for (const message of synced.messages) if (message.senderId !== this.me) this.receipts.delivered(message);
        }
        return synced;
      },
    }, this.room(roomId)?.lastSeq ?? 0);
    this.#conversations.set(roomId, conversation);
    for (const id of this.#conversations.keys()) {
      if (this.#conversations.size <= KEPT) break;
      if (id !== this.active.get()) this.#conversations.delete(id);
    }
    return conversation;
  }

  room(roomId: number): Room | undefined {
    return this.#queries.getQueryData<Room[]>(ROOMS)?.find((one) => one.id === roomId);
  }

  members(roomId: number): readonly Member[] {
    return this.#queries.getQueryData<Room>(roomKey(roomId))?.members ?? [];
  }

  /** Everything up to here is read, as far as this client knows. */
  readSeq(roomId: number): number {
    const own = this.members(roomId).find((one) => one.userId === this.me)?.lastReadSeq ?? 0;
    return Math.max(own, this.#readSeqs.get(roomId) ?? 0);
  }

  send(roomId: number, content: string, reply: Message | null): void {
    const metadata = reply ? { replyToSeq: reply.seq } : {};
    void this.outbox.add({ clientId: uuid(), roomId, content, replyTo: reply?.id ?? null, metadata });
  }

  async edit(message: Message, content: string): Promise<void> {
    const answer = await this.link.ask('message:edit', { messageId: message.id, content });
    this.#change(answer.message);
  }

  async remove(message: Message): Promise<void> {
    await this.link.ask('message:delete', { messageId: message.id });
  }

  async react(message: Message, emoji: string): Promise<void> {
    const mine = message.reactions.some((one) => one.emoji === emoji && one.userIds.includes(this.me));
    await this.link.ask(mine ? 'reaction:remove' : 'reaction:add', { messageId: message.id, emoji });
  }

  /** The room was read to this message, by the eyes of a person. */
  markRead(message: Message): void {
    if (message.seq <= this.readSeq(message.roomId)) return;
    this.receipts.read(message);
  }

  /** A room that we made or learned of by an answer. */
  takeRoom(room: Room): void {
    this.people.learn(room.members ?? []);
    this.#queries.setQueryData(roomKey(room.id), room);
    const known = this.room(room.id);
    if (known) this.#rooms((rooms) => list.withRoom(rooms, room));
    else this.#rooms((rooms) => list.sorted([...rooms, room]));
  }

  /** Left, or removed. */
  dropRoom(roomId: number): void {
    this.#rooms((rooms) => rooms.filter((one) => one.id !== roomId));
    this.#conversations.delete(roomId);
    for (const pending of this.outbox.of(roomId)) void this.outbox.discard(pending.clientId);
    this.#queries.removeQueries({ queryKey: roomKey(roomId) });
  }

  #listen(): void {
    const { link } = this;
    link.on('session:ready', (ready) => this.#onReady(ready));
    link.on('message:new', (message) => this.#onNew(message));
    link.on('message:updated', (message) => this.#change(message));
    link.on('messages:offline', ({ messages }, acknowledge) => {
      this.#meet(messages);
      for (const message of messages) this.#take(message);
      acknowledge?.();
    });
    link.on('message:status', (status) => this.#onStatus(status));
    link.on('room:new', (room) => this.takeRoom(room));
    link.on('room:updated', (room) => this.takeRoom({ ...this.#queries.getQueryData<Room>(roomKey(room.id)), ...room }));
    link.on('room:removed', ({ roomId }) => {
      const room = this.#queries.getQueryData<Room>(roomKey(roomId)) ?? this.room(roomId);
      if (!room) return;
      this.dropRoom(roomId);
      this.listeners.removed(room, roomId);
    });
    link.on('room:read', ({ roomId, lastReadSeq }) => this.#setRead(roomId, lastReadSeq));
    link.on('typing:update', (update) => this.typing.apply(update));
    link.on('presence:update', (presence) => this.presence.apply(presence));
    link.on('session:revoked', () => forget(this.me, 'revoked'));
    link.on('sync:required', ({ rooms }) => {
      for (const { roomId, lastSeq } of rooms) this.#conversations.get(roomId)?.heard(lastSeq);
      void this.#queries.invalidateQueries({ queryKey: ROOMS });
    });
  }

  #onReady({ rooms }: SessionReady): void {
    for (const { roomId, lastReadSeq } of rooms) {
      this.#readSeqs.set(roomId, Math.max(lastReadSeq, this.#readSeqs.get(roomId) ?? 0));
    }
    const active = this.active.get();
    if (this.#wasReady) {
      // What is not shown is read again when it is opened; what is shown is brought up to date.
      for (const id of [...this.#conversations.keys()]) if (id !== active) this.#conversations.delete(id);
      void this.#queries.invalidateQueries({ queryKey: ['room'] });
      this.typing.clear();
      this.presence.refresh();
    }
    void this.#queries.invalidateQueries({ queryKey: ROOMS });
    const conversation = active === null ? undefined : this.#conversations.get(active);
    const head = rooms.find(({ roomId }) => roomId === active);
    if (conversation && head) {
      conversation.heard(head.lastSeq);
      if (this.#wasReady) void conversation.refresh();
    }
    this.#wasReady = true;
    this.presence.want([]);
    this.receipts.flushRead();
    void this.outbox.resume();
  }

  #onNew(message: Message): void {
    const known = this.room(message.roomId);
    const isNew = message.seq > (known?.lastSeq ?? 0);
    this.#meet([message]);
    this.#take(message);
    if (message.senderId === this.me) return;
    this.receipts.delivered(message);
    this.typing.apply({ roomId: message.roomId, userId: message.senderId, isTyping: false });
    if (isNew) this.listeners.incoming(message, this.room(message.roomId));
  }

  #take(message: Message): void {
    if (message.senderId === this.me) this.outbox.confirm(message);
    this.#conversations.get(message.roomId)?.receive(message);
    if (!this.room(message.roomId)) void this.#queries.invalidateQueries({ queryKey: ROOMS });
    else this.#rooms((rooms) => list.withMessage(rooms, message, this.me, this.readSeq(message.roomId)));
  }

  #change(message: Message): void {
    this.#conversations.get(message.roomId)?.update(message);
    this.#rooms((rooms) => list.withUpdate(rooms, message));
    this.#queries.setQueryData<Message | null>(['message', message.roomId, message.seq], (held) => (held ? message : held));
  }

  #onStatus(status: MessageStatus): void {
    const conversation = this.#conversations.get(status.roomId);
    conversation?.applyStatus(status);
    this.#rooms((rooms) => list.withStatus(rooms, status));
    const seqs = status.messageIds.map((id) => conversation?.find(id)?.seq ?? 0);
    const seq = Math.max(0, ...seqs);
    if (seq === 0) return;
    this.#queries.setQueryData<Room>(roomKey(status.roomId), (room) => room && {
      ...room,
      members: room.members?.map((one) => (one.userId !== status.userId ? one : {
        ...one,
        lastDeliveredSeq: Math.max(one.lastDeliveredSeq, seq),
        lastReadSeq: status.status === 'read' ? Math.max(one.lastReadSeq, seq) : one.lastReadSeq,
      })) ?? [],
    });
  }

  #setRead(roomId: number, lastReadSeq: number): void {
    this.#readSeqs.set(roomId, Math.max(lastReadSeq, this.#readSeqs.get(roomId) ?? 0));
    this.#rooms((rooms) => list.withRead(rooms, roomId, lastReadSeq));
    const room = this.room(roomId);
    // Somebody may have read a part only: then the server counts what is left.
    if (room && room.unreadCount > 0) void this.#queries.invalidateQueries({ queryKey: ROOMS });
  }

  #meet(messages: readonly Message[]): void {
    for (const { senderId } of messages) this.people.want(senderId);
  }

  #rooms(change: (rooms: Room[]) => Room[]): void {
    this.#queries.setQueryData<Room[]>(ROOMS, (rooms) => rooms && change(rooms));
  }
}
