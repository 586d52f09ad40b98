// Made from crates/protocol: change the Rust types, then run `just types`.

export type Timestamp = string;

export type UserId = number;

export type RoomId = number;

export type MessageId = string;

export type ClientId = string;

export type SessionId = string;

export type User = { 
/**
 * Its id.
 */
id: UserId, 
/**
 * The unique name, in the case in which it was registered.
 */
username: string, 
/**
 * The name to show.
 */
displayName: string, 
/**
 * A picture.
 */
avatarUrl: string | null, 
/**
 * When the last socket closed.
 */
lastSeen: Timestamp | null, 
/**
 * When the account was made.
 */
createdAt: Timestamp, 
/**
 * Only in answers to the user itself.
 */
email?: string, };

export type RoomType = "direct" | "group";

export type Role = "member" | "admin" | "owner";

export type Room = { 
/**
 * Its id.
 */
id: RoomId, 
/**
 * Null for direct rooms.
 */
name: string | null, 
/**
 * Direct or group.
 */
roomType: RoomType, 
/**
 * Who made it.
 */
createdBy: UserId, 
/**
 * When.
 */
createdAt: Timestamp, 
/**
 * The `seq` of the newest message, 0 in an empty room.
 */
lastSeq: number, 
/**
 * Others' messages above the caller's `lastReadSeq`.
 */
unreadCount: number, 
/**
 * The newest message.
 */
lastMessage: Message | null, 
/**
 * In answers and events about a single room.
 */
members?: Array<Member>, };

export type Member = { 
/**
 * Who.
 */
userId: UserId, 
/**
 * Its unique name.
 */
username: string, 
/**
 * The name to show.
 */
displayName: string, 
/**
 * A picture.
 */
avatarUrl: string | null, 
/**
 * What it may do.
 */
role: Role, 
/**
 * Since when.
 */
joinedAt: Timestamp, 
/**
 * Everything up to here is read.
 */
lastReadSeq: number, 
/**
 * Everything up to here is delivered.
 */
lastDeliveredSeq: number, };

export type MessageType = "text" | "image" | "file" | "system";

export type Message = { 
/**
 * Its id.
 */
id: MessageId, 
/**
 * Where it was said.
 */
roomId: RoomId, 
/**
 * By whom.
 */
senderId: UserId, 
/**
 * Its place in the room: 1, 2, 3 … without gap or repeat.
 */
seq: number, 
/**
 * The text, verbatim; empty once deleted.
 */
content: string, 
/**
 * The kind of content.
 */
messageType: MessageType, 
/**
 * When it was stored.
 */
createdAt: Timestamp, 
/**
 * When the content last changed.
 */
editedAt: Timestamp | null, 
/**
 * When it was deleted.
 */
deletedAt: Timestamp | null, 
/**
 * The sender's own id for it.
 */
clientId: ClientId | null, 
/**
 * The message it answers.
 */
replyTo: MessageId | null, 
/**
 * What the client attached.
 */
metadata: Record<string, unknown>, 
/**
 * Emoji, and who chose them.
 */
reactions: Array<Reaction>, 
/**
 * On the caller's own messages only.
 */
receipts?: Receipts, };

export type Reaction = { 
/**
 * 1–32 characters.
 */
emoji: string, 
/**
 * Never empty.
 */
userIds: Array<UserId>, };

export type Receipts = { 
/**
 * Members other than the sender when it was sent.
 */
recipients: number, 
/**
 * Of these, whose client said that it arrived.
 */
delivered: number, 
/**
 * Of these, who have read it.
 */
read: number, };

export type PresenceStatus = "online" | "away" | "offline";

export type Presence = { 
/**
 * Who.
 */
userId: UserId, 
/**
 * How.
 */
status: PresenceStatus, 
/**
 * When the last socket closed.
 */
lastSeen: Timestamp | null, };

export type Code = "validation_failed" | "unauthorized" | "forbidden" | "not_found" | "conflict" | "payload_too_large" | "rate_limited" | "unavailable";

export type Failure = { 
/**
 * The stable code.
 */
code: Code, 
/**
 * A sentence for people.
 */
message: string, 
/**
 * Milliseconds to wait before trying again; on every `rate_limited`.
 */
retryAfterMs?: number, 
/**
 * Reason by field, on `validation_failed`.
 */
fields?: { [key in string]: string }, };

export type ErrorBody = { 
/**
 * What went wrong.
 */
error: Failure, };

export type MessageSend = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * 1–4000 characters, stored verbatim.
 */
content: string, 
/**
 * Makes a repeated send harmless.
 */
clientId?: ClientId | null, 
/**
 * `text` when absent.
 */
messageType?: MessageType, 
/**
 * A message of the same room.
 */
replyTo?: MessageId | null, 
/**
 * At most 4 KiB.
 */
metadata?: Record<string, unknown>, };

export type MessageDelivered = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * 1–100 ids.
 */
messageIds: Array<MessageId>, };

export type MessageRead = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * The newest message that was read.
 */
messageId: MessageId, };

export type MessageEdit = { 
/**
 * One's own message.
 */
messageId: MessageId, 
/**
 * 1–4000 characters.
 */
content: string, };

export type MessageDelete = { 
/**
 * The message.
 */
messageId: MessageId, };

export type ReactionChange = { 
/**
 * The message.
 */
messageId: MessageId, 
/**
 * 1–32 characters.
 */
emoji: string, };

export type RoomRef = { 
/**
 * The room.
 */
roomId: RoomId, };

export type PresenceSet = { 
/**
 * `online` or `away`.
 */
status: PresenceStatus, };

export type PresenceQuery = { 
/**
 * 1–200 ids.
 */
userIds: Array<UserId>, };

export type RoomSync = { 
/**
 * 1–50 rooms.
 */
rooms: Array<SyncFrom>, };

export type SyncFrom = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * The newest `seq` that the client has, 0 for none.
 */
afterSeq: number, };

export type SyncedRoom = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * At most 100, ascending `seq`.
 */
messages: Array<Message>, 
/**
 * The newest `seq` of the room.
 */
lastSeq: number, 
/**
 * There is more: ask again from the last of these.
 */
more: boolean, };

export type SessionReady = { 
/**
 * Who this connection is.
 */
userId: UserId, 
/**
 * The server that holds it.
 */
instance: string, 
/**
 * The server's clock.
 */
serverTime: Timestamp, 
/**
 * Every active membership.
 */
rooms: Array<ReadyRoom>, };

export type ReadyRoom = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * The newest `seq`.
 */
lastSeq: number, 
/**
 * The caller's watermark.
 */
lastReadSeq: number, };

export type ReceiptStatus = "delivered" | "read";

export type MessageStatus = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * Messages of the one who gets this event.
 */
messageIds: Array<MessageId>, 
/**
 * Who got or read them.
 */
userId: UserId, 
/**
 * How far they came.
 */
status: ReceiptStatus, 
/**
 * When.
 */
at: Timestamp, };

export type MessagesOffline = { 
/**
 * At most 50, oldest first.
 */
messages: Array<Message>, 
/**
 * Counts from 1 within a connection.
 */
batch: number, 
/**
 * Messages still to come after this batch.
 */
remaining: number, };

export type RoomRead = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * The reader's watermark.
 */
lastReadSeq: number, };

export type TypingUpdate = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * Who.
 */
userId: UserId, 
/**
 * Begins or stopped.
 */
isTyping: boolean, };

export type SessionRevoked = { 
/**
 * Why.
 */
reason: string, };

export type SyncRequired = { 
/**
 * Rooms to sync.
 */
rooms: Array<RoomHead>, };

export type RoomHead = { 
/**
 * The room.
 */
roomId: RoomId, 
/**
 * The newest `seq`.
 */
lastSeq: number, };

export type ServerDraining = { 
/**
 * A jittered delay.
 */
reconnectInMs: number, };

export type EventError = { 
/**
 * The event.
 */
event: string, 
/**
 * The stable code.
 */
code: Code, 
/**
 * A sentence for people.
 */
message: string, 
/**
 * On `rate_limited`.
 */
retryAfterMs?: number, };

export type Register = { 
/**
 * 3–32 of `[a-zA-Z0-9_.-]`, unique without regard to case.
 */
username: string, 
/**
 * Unique without regard to case.
 */
email: string, 
/**
 * At least 8 characters, at most 72 bytes.
 */
password: string, 
/**
 * The username when absent.
 */
displayName?: string | null, };

export type Login = { 
/**
 * The username or the e-mail address.
 */
username: string, 
/**
 * The password.
 */
password: string, };

export type Refresh = { 
/**
 * The newest refresh token of the session.
 */
refreshToken: string, };

export type Authenticated = { 
/**
 * The caller.
 */
user: User, 
/**
 * A JWT for the `Authorization` header and the Socket.IO handshake.
 */
accessToken: string, 
/**
 * Good for one refresh.
 */
refreshToken: string, 
/**
 * Seconds until the access token ends.
 */
expiresIn: number, };

export type UserPatch = { 
/**
 * 1–64 characters.
 */
displayName?: string, 
/**
 * Up to 2048 characters; `null` clears it.
 */
avatarUrl?: string | null, };

export type RoomCreate = { 
/**
 * Direct or group.
 */
roomType: RoomType, 
/**
 * 1–100 characters, for groups only.
 */
name?: string | null, 
/**
 * The others; exactly one for a direct room.
 */
memberIds: Array<UserId>, };

export type RoomPatch = { 
/**
 * 1–100 characters.
 */
name: string, };

export type MembersAdd = { 
/**
 * Who joins.
 */
userIds: Array<UserId>, };

export type MemberPatch = { 
/**
 * `owner` hands the room over.
 */
role: Role, };

export type UserBody = { 
/**
 * The user.
 */
user: User, };

export type UsersBody = { 
/**
 * The users.
 */
users: Array<User>, };

export type RoomBody = { 
/**
 * The room, with its members.
 */
room: Room, };

export type RoomsBody = { 
/**
 * Newest activity first.
 */
rooms: Array<Room>, };

export type HistoryPage = { 
/**
 * Ascending `seq`.
 */
messages: Array<Message>, 
/**
 * For `before`; null when the page holds the oldest message.
 */
nextBefore: number | null, 
/**
 * For `after`; null when the page holds the newest message.
 */
nextAfter: number | null, };

export type SearchPage = { 
/**
 * Newest first.
 */
messages: Array<Message>, 
/**
 * Opaque; for `before`.
 */
nextBefore: string | null, };
