import type { Member, Message, Room } from '@/protocol';

export function message(seq: number, more: Partial<Message> = {}): Message {
  return {
    id: `m${seq}`, roomId: 1, senderId: 2, seq, content: `text ${seq}`, messageType: 'text',
    createdAt: new Date(Date.UTC(2026, 10, 24, 8, 0, seq)).toISOString(), editedAt: null, deletedAt: null,
    clientId: null, replyTo: null, metadata: {}, reactions: [], ...more,
  };
}

export const messages = (from: number, to: number): Message[] =>
  Array.from({ length: to - from + 1 }, (_, index) => message(from + index));

export function member(userId: number, more: Partial<Member> = {}): Member {
  return {
    userId, username: `user${userId}`, displayName: `User ${userId}`, avatarUrl: null, role: 'member',
    joinedAt: '2026-11-01T00:00:00.000Z', lastReadSeq: 0, lastDeliveredSeq: 0, ...more,
  };
}

export function room(id: number, more: Partial<Room> = {}): Room {
  return {
    id, name: `Room ${id}`, roomType: 'group', createdBy: 1, createdAt: '2026-11-01T00:00:00.000Z',
    lastSeq: 0, unreadCount: 0, lastMessage: null, ...more,
  };
}
