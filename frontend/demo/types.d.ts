// Types of app.js for the checker only; the server does not serve this file.
export interface Session { user: { id: number; displayName: string }; accessToken: string; refreshToken: string }
export interface Member { userId: number; username: string; displayName: string }
export interface Receipts { recipients: number; delivered: number; read: number }
export interface Message {
  id: string; roomId: number; senderId: number; seq: number; content: string; createdAt: string;
  editedAt: string | null; deletedAt: string | null; clientId: string | null;
  reactions?: { emoji: string; userIds: number[] }[]; receipts?: Receipts;
}
export interface RoomData {
  id: number; name: string | null; roomType: 'direct' | 'group'; createdAt: string; lastSeq: number;
  unreadCount: number; lastMessage: Message | null; members?: Member[];
}
/** A message that is not stored yet; `lost` means that the connection, not the server, failed it. */
export interface Pending {
  roomId: number; clientId: string; content: string; createdAt: string; state?: 'sending' | 'failed'; error?: string; lost?: boolean;
}
/**
 * A room as the page holds it: `messages` by seq, complete from `from` to `have`, with perhaps some
 * beyond a gap; `lastSeq` is the highest seq known to exist.
 */
export interface Room extends RoomData {
  messages: Map<number, Message>; from: number; have: number; pending: Pending[];
  readSeq: number; readAsked: number; loaded: boolean; loading: boolean; membersAsked: boolean;
  syncTimer: number; syncAfter?: number; typing: Map<number, number>; draft: string;
}
export interface Presence { userId: number; status: 'online' | 'away' | 'offline'; lastSeen: string | null }
