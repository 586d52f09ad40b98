/** What events change in the list of rooms. Pure: lists in, lists out. */
import type { Message, MessageStatus, Room } from '@/protocol';
import { merged } from './conversation';

export const activityOf = (room: Room): string => {
  const said = room.lastMessage?.createdAt;
  return said && said > room.createdAt ? said : room.createdAt;
};

export function sorted(rooms: readonly Room[]): Room[] {
  return rooms.toSorted((a, b) => activityOf(b).localeCompare(activityOf(a)) || b.id - a.id);
}

const change = (rooms: readonly Room[], id: number, how: (room: Room) => Room): Room[] =>
  rooms.map((room) => (room.id === id ? how(room) : room));

/** A message that may be new: one that the list knows already changes nothing but itself. */
export function withMessage(rooms: readonly Room[], message: Message, me: number, readSeq: number): Room[] {
  return sorted(change(rooms, message.roomId, (room) => {
    if (message.seq < room.lastSeq) return room;
    if (message.seq === room.lastSeq) return { ...room, lastMessage: merged(room.lastMessage ?? undefined, message) };
    const unread = message.senderId !== me && message.seq > readSeq ? 1 : 0;
    return { ...room, lastSeq: message.seq, lastMessage: message, unreadCount: room.unreadCount + unread };
  }));
}

export function withUpdate(rooms: readonly Room[], message: Message): Room[] {
  return change(rooms, message.roomId, (room) =>
    (room.lastMessage?.id === message.id ? { ...room, lastMessage: merged(room.lastMessage, message) } : room));
}

/** Only direct rooms show the state of their last message: one recipient is all of them. */
export function withStatus(rooms: readonly Room[], { roomId, messageIds, status }: MessageStatus): Room[] {
  return change(rooms, roomId, (room) => {
    const last = room.lastMessage;
    if (room.roomType !== 'direct' || !last || !messageIds.includes(last.id)) return room;
    const read = status === 'read' ? 1 : last.receipts?.read ?? 0;
    return { ...room, lastMessage: { ...last, receipts: { recipients: 1, delivered: 1, read } } };
  });
}

export function withRead(rooms: readonly Room[], roomId: number, lastReadSeq: number): Room[] {
  return change(rooms, roomId, (room) => {
    if (room.unreadCount === 0) return room;
    const left = Math.max(0, Math.min(room.unreadCount, room.lastSeq - lastReadSeq));
    return { ...room, unreadCount: left };
  });
}

/** An answer of the server may be older than what events have told meanwhile. */
export function withFresh(held: readonly Room[] | undefined, fresh: readonly Room[]): Room[] {
  const known = new Map(held?.map((room) => [room.id, room]));
  return sorted(fresh.map((room) => {
    const ahead = known.get(room.id);
    if (!ahead || ahead.lastSeq <= room.lastSeq) return room;
    return { ...room, lastSeq: ahead.lastSeq, lastMessage: ahead.lastMessage, unreadCount: ahead.unreadCount };
  }));
}

/** Name and members; what else a broadcast says of a room may be somebody else's view of it. */
export function withRoom(rooms: readonly Room[], { id, name }: Room): Room[] {
  return change(rooms, id, (room) => (room.name === name ? room : { ...room, name }));
}
