import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { member, message, room } from '@/testing/fixtures';
import { deliveryOf, seenBy } from './delivery';
import type { Ask } from './events';
import { People } from './people';
import { IDLE_MS, PresenceBook } from './presence';
import { ReceiptBatches } from './receipts';
import * as list from './room-list';
import { Typing } from './typing';

beforeEach(() => { vi.useFakeTimers(); });
afterEach(() => { vi.useRealTimers(); });

const asker = () => vi.fn((..._: unknown[]) => Promise.resolve({ lastReadSeq: 9, presence: [] }));

describe('how far a message has come', () => {
  const own = (receipts?: { recipients: number; delivered: number; read: number }) =>
    message(5, { senderId: 1, ...(receipts ? { receipts } : {}) });

  test('follows the counts of the server', () => {
    expect(deliveryOf(own({ recipients: 2, delivered: 1, read: 0 }))).toBe('sent');
    expect(deliveryOf(own({ recipients: 2, delivered: 2, read: 1 }))).toBe('delivered');
    expect(deliveryOf(own({ recipients: 2, delivered: 2, read: 2 }))).toBe('read');
    expect(deliveryOf(own({ recipients: 0, delivered: 0, read: 0 }))).toBe('sent');
  });

  test('or the watermarks of the members, where they know more', () => {
    const members = [member(1), member(2, { lastReadSeq: 5 }), member(3, { lastDeliveredSeq: 7 })];
    expect(deliveryOf(own({ recipients: 2, delivered: 0, read: 0 }), members)).toBe('delivered');
    expect(deliveryOf(own(), [member(1), member(2, { lastReadSeq: 5 })])).toBe('read');
  });

  test('does not take one who joined later for a reader', () => {
    const late = member(3, { lastReadSeq: 9, joinedAt: '2026-12-01T00:00:00.000Z' });
    expect(deliveryOf(own({ recipients: 1, delivered: 0, read: 0 }), [member(1), member(2), late])).toBe('sent');
  });

  test('names who has seen it', () => {
    const members = [member(1), member(2, { lastReadSeq: 5 }), member(3, { lastDeliveredSeq: 5 }), member(4)];
    const { read, delivered, waiting } = seenBy(own(), members);
    expect([read, delivered, waiting].map((some) => some.map(({ userId }) => userId))).toEqual([[2], [3], [4]]);
  });
});

describe('the list of rooms', () => {
  const rooms = [room(1, { createdAt: '2026-11-02T00:00:00.000Z' }), room(2, { lastSeq: 4, unreadCount: 1 })];

  test('counts what others wrote above what is read, once, and moves the room up', () => {
    const said = message(5, { roomId: 2 });
    const once = list.withMessage(rooms, said, 1, 3);
    expect(once.map(({ id }) => id)).toEqual([2, 1]);
    expect(once[0]).toMatchObject({ unreadCount: 2, lastSeq: 5 });
    expect(list.withMessage(once, said, 1, 3)[0]).toMatchObject({ unreadCount: 2 });
    expect(list.withMessage(rooms, message(5, { roomId: 2, senderId: 1 }), 1, 3)[0]).toMatchObject({ unreadCount: 1 });
    expect(list.withMessage(rooms, said, 1, 5)[0]).toMatchObject({ unreadCount: 1 });
  });

  test('is read to the end or in part', () => {
    expect(list.withRead([room(2, { lastSeq: 9, unreadCount: 5 })], 2, 9)[0]?.unreadCount).toBe(0);
    expect(list.withRead([room(2, { lastSeq: 9, unreadCount: 5 })], 2, 7)[0]?.unreadCount).toBe(2);
  });

  test('is not set back by an answer that events have overtaken', () => {
    const ahead = list.withMessage(rooms, message(5, { roomId: 2 }), 1, 3);
    const merged = list.withFresh(ahead, [room(2, { lastSeq: 4, unreadCount: 1, name: 'Renamed' }), room(3)]);
    expect(merged.map(({ id }) => id)).toEqual([2, 3]);
    expect(merged[0]).toMatchObject({ name: 'Renamed', lastSeq: 5, unreadCount: 2 });
    expect(list.withFresh(undefined, rooms)).toHaveLength(2);
  });

  test('takes only what a broadcast knows of everybody', () => {
    const [renamed] = list.withRoom([room(2, { unreadCount: 3 })], room(2, { name: 'New', unreadCount: 0 }));
    expect(renamed).toMatchObject({ name: 'New', unreadCount: 3 });
  });

  test('shows the state of the last message in direct rooms', () => {
    const direct = room(3, { roomType: 'direct', name: null, lastMessage: message(1, { roomId: 3, senderId: 1 }) });
    const status = { roomId: 3, messageIds: ['m1'], userId: 2, status: 'delivered' as const, at: '' };
    expect(list.withStatus([direct], status)[0]?.lastMessage?.receipts).toEqual({ recipients: 1, delivered: 1, read: 0 });
  });
});

describe('receipts', () => {
  test('of a burst go out together, at most a hundred at a time', async () => {
    const ask = asker();
    const receipts = new ReceiptBatches({ ask: ask, read: vi.fn() });
    for (let seq = 1; seq <= 130; seq += 1) receipts.delivered(message(seq));
    await vi.advanceTimersByTimeAsync(100);
    expect(ask.mock.calls.map(([event, payload]) => [event, (payload as { messageIds: string[] }).messageIds.length]))
      .toEqual([['message:delivered', 100], ['message:delivered', 30]]);
  });

  test('of reading are asked for once, for the newest, and wait for a connection', async () => {
    const lost = Object.assign(new Error('away'), { code: 'network' });
    const ask = asker().mockRejectedValueOnce(lost);
    const read = vi.fn();
    const receipts = new ReceiptBatches({ ask: ask, read });
    for (const seq of [7, 9, 8]) receipts.read(message(seq));
    await vi.advanceTimersByTimeAsync(200);
    expect(ask).toHaveBeenCalledTimes(1);
    expect(read).not.toHaveBeenCalled();
    receipts.flushRead();
    await vi.advanceTimersByTimeAsync(0);
    expect(ask).toHaveBeenLastCalledWith('message:read', { roomId: 1, messageId: 'm9' });
    expect(read).toHaveBeenCalledWith(1, 9);
    receipts.flushRead();
    expect(ask).toHaveBeenCalledTimes(2);
  });
});

describe('typing', () => {
  test('is told every two seconds at most, and stopped once', () => {
    const ask = asker();
    const typing = new Typing(ask);
    for (let i = 0; i < 30; i += 1) {
      typing.start(1);
      vi.advanceTimersByTime(100);
    }
    typing.stop();
    typing.stop();
    expect(ask.mock.calls.map(([event]) => event)).toEqual(['typing:start', 'typing:start', 'typing:stop']);
  });

  test('of others ends by itself when no stop comes', () => {
    const typing = new Typing(asker());
    typing.apply({ roomId: 1, userId: 2, isTyping: true });
    typing.apply({ roomId: 1, userId: 3, isTyping: true });
    expect(typing.get().get(1)).toEqual([2, 3]);
    typing.apply({ roomId: 1, userId: 2, isTyping: false });
    vi.advanceTimersByTime(6000);
    expect(typing.get().get(1)).toBeUndefined();
  });
});

describe('presence', () => {
  test('is away after five idle minutes, and online at the next sign of life', async () => {
    const ask = asker();
    const presence = new PresenceBook(ask);
    presence.watch();
    window.dispatchEvent(new Event('keydown'));
    await vi.advanceTimersByTimeAsync(IDLE_MS + 20_000);
    expect(ask).toHaveBeenLastCalledWith('presence:set', { status: 'away' });
    window.dispatchEvent(new Event('pointermove'));
    expect(ask).toHaveBeenLastCalledWith('presence:set', { status: 'online' });
    expect(ask).toHaveBeenCalledTimes(2);
    presence.close();
  });

  test('of people asked for together is one query, and each is asked for once', async () => {
    const ask = vi.fn((_: string, { userIds }: { userIds: number[] }) =>
      Promise.resolve({ presence: userIds.map((userId) => ({ userId, status: 'online', lastSeen: null })) }));
    const presence = new PresenceBook(ask as unknown as Ask);
    presence.want([2, 3]);
    presence.want([3, 4]);
    await vi.advanceTimersByTimeAsync(60);
    presence.want([2, 3, 4]);
    await vi.advanceTimersByTimeAsync(60);
    expect(ask).toHaveBeenCalledTimes(1);
    expect(presence.get().get(4)?.status).toBe('online');
  });
});

describe('people', () => {
  test('unknown ones are fetched together, and never with an empty list', async () => {
    const users = vi.fn((ids: number[]) => Promise.resolve(ids.map((id) => ({
      id, username: `u${id}`, displayName: `User ${id}`, avatarUrl: null, lastSeen: null, createdAt: '',
    }))));
    const people = new People({ users });
    people.want(1);
    people.want(2);
    people.want(1);
    await vi.advanceTimersByTimeAsync(30);
    people.want(2);
    await vi.advanceTimersByTimeAsync(100);
    expect(users.mock.calls).toEqual([[[1, 2]]]);
    expect(people.get().get(2)?.displayName).toBe('User 2');
  });
});
