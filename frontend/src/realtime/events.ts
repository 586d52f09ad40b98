/** Names and payloads of the Socket.IO events, in one table. */
import type {
  EventError, Message, MessageDelete, MessageDelivered, MessageEdit, MessageRead, MessageSend, MessagesOffline, MessageStatus, Presence,
  PresenceQuery, PresenceSet, Reaction, ReactionChange, Room, RoomRead, RoomRef, RoomSync, ServerDraining, SessionReady,
  SessionRevoked, SyncedRoom, SyncRequired, TypingUpdate,
} from '@/protocol';

/** Client to server: payload, and what the acknowledgement brings. */
export interface Requests {
  'message:send': [MessageSend, { message: Message }];
  'message:delivered': [MessageDelivered, object];
  'message:read': [MessageRead, { lastReadSeq: number }];
  'message:edit': [MessageEdit, { message: Message }];
  'message:delete': [MessageDelete, object];
  'reaction:add': [ReactionChange, { reactions: Reaction[] }];
  'reaction:remove': [ReactionChange, { reactions: Reaction[] }];
  'typing:start': [RoomRef, object];
  'typing:stop': [RoomRef, object];
  'presence:set': [PresenceSet, object];
  'presence:query': [PresenceQuery, { presence: Presence[] }];
  'room:sync': [RoomSync, { rooms: SyncedRoom[] }];
}

/** Server to client. */
export interface Events {
  'session:ready': SessionReady;
  'message:new': Message;
  'message:updated': Message;
  'message:status': MessageStatus;
  'messages:offline': MessagesOffline;
  'room:new': Room;
  'room:updated': Room;
  'room:removed': RoomRef;
  'room:read': RoomRead;
  'typing:update': TypingUpdate;
  'presence:update': Presence;
  'session:revoked': SessionRevoked;
  'sync:required': SyncRequired;
  'server:draining': ServerDraining;
  error: EventError;
}

/** Sends a request and waits for its acknowledgement; rejects with an `ApiError`. */
export type Ask = <E extends keyof Requests>(event: E, payload: Requests[E][0]) => Promise<Requests[E][1]>;
