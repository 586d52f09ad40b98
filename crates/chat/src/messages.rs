//! Messages: sent, changed, read back.

use starling_protocol::event::{MessageSend, RoomSync, ServerEvent, SyncedRoom};
use starling_protocol::http::{HistoryPage, SearchPage};
use starling_protocol::{
    Failure, Message, MessageId, MessageType, Reaction, RoomId, Timestamp, UserId, limits,
};
use starling_repository::{Change, NewMessage, Page};
use uuid::Uuid;

use crate::ports::{CACHED_MESSAGES, Except, Limited, Target};
use crate::writer::Sending;
use crate::{Chat, no_room, storage, validate};

fn no_message() -> Failure {
    Failure::not_found("There is no such message, or you are not in its room.")
}

/// As everybody may see it: receipts are the sender's alone.
pub(crate) fn for_room(mut message: Message) -> Message {
    message.receipts = None;
    message
}

impl Chat {
    /// Takes a message; [`Sending::stored`] returns when it is committed. What one
    /// caller takes first is stored first. `message:new` goes to the room unless
    /// the `clientId` was stored before.
    ///
    /// # Errors
    /// `rate_limited` above 10 a second, `validation_failed`, `not_found`,
    /// `conflict`, `unavailable`.
    pub async fn send(&self, user: UserId, send: MessageSend) -> Result<Sending, Failure> {
        self.count_send(user).await?;
        validate::content(&send.content)?;
        validate::metadata(&send.metadata)?;
        if send.message_type == MessageType::System {
            return Err(Failure::field("messageType", "clients can't send system messages"));
        }
        self.writer.enqueue(NewMessage {
            id: MessageId(Uuid::now_v7()),
            room_id: send.room_id,
            sender_id: user,
            content: send.content,
            message_type: send.message_type,
            client_id: send.client_id,
            reply_to: send.reply_to,
            metadata: send.metadata,
            created_at: Timestamp::now(),
        })
    }

    /// Counts one send of the user, also one whose payload can't be read.
    ///
    /// # Errors
    /// `rate_limited`.
    pub async fn count_send(&self, user: UserId) -> Result<(), Failure> {
        self.limits.take(Limited::Messages(user)).await.map_err(|wait| {
            metrics::counter!("starling_rate_limited_total", "what" => "messages").increment(1);
            Failure::rate_limited("You send too fast. Wait a moment.", wait)
        })
    }

    /// Changes the content of one's own message.
    ///
    /// # Errors
    /// `validation_failed`, `not_found`, `forbidden`, `conflict` when it is
    /// deleted, `unavailable`.
    pub async fn edit(
        &self,
        user: UserId,
        id: MessageId,
        content: &str,
    ) -> Result<Message, Failure> {
        validate::content(content)?;
        let _order = self.message_order.lock(id).await;
        let change = self.repository.edit(user, id, content, Timestamp::now()).await;
        self.changed(change, "Only its sender can edit a message.")
    }

    /// Deletes a message; again is fine.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `unavailable`.
    pub async fn delete(&self, user: UserId, id: MessageId) -> Result<Message, Failure> {
        let _order = self.message_order.lock(id).await;
        let change = self.repository.delete(user, id, Timestamp::now()).await;
        self.changed(change, "Only its sender, the owner and admins can delete a message.")
    }

    /// Chooses an emoji for a message; again is fine.
    ///
    /// # Errors
    /// `validation_failed`, `not_found`, `conflict` when it is deleted,
    /// `unavailable`.
    pub async fn add_reaction(
        &self,
        user: UserId,
        id: MessageId,
        emoji: &str,
    ) -> Result<Vec<Reaction>, Failure> {
        validate::text("emoji", emoji, limits::EMOJI_CHARS)?;
        let _order = self.message_order.lock(id).await;
        let change = self.repository.add_reaction(user, id, emoji, Timestamp::now()).await;
        self.changed(change, "You can't react to this message.").map(|m| m.reactions)
    }

    /// Takes an emoji back; what isn't there is fine.
    ///
    /// # Errors
    /// As [`Self::add_reaction`].
    pub async fn remove_reaction(
        &self,
        user: UserId,
        id: MessageId,
        emoji: &str,
    ) -> Result<Vec<Reaction>, Failure> {
        validate::text("emoji", emoji, limits::EMOJI_CHARS)?;
        let _order = self.message_order.lock(id).await;
        let change = self.repository.remove_reaction(user, id, emoji).await;
        self.changed(change, "You can't react to this message.").map(|m| m.reactions)
    }

    fn changed(
        &self,
        change: Result<Change, starling_repository::Error>,
        forbidden: &str,
    ) -> Result<Message, Failure> {
        match change.map_err(storage)? {
            Change::Changed(message) => {
                if let Some(cache) = &self.cache {
                    cache.changed(message.room_id);
                }
                let event = ServerEvent::MessageUpdated(for_room(message.clone()));
                self.fanout.publish(Target::Room(message.room_id), Except::Nobody, event);
                Ok(message)
            }
            Change::Unchanged(message) => Ok(message),
            Change::NotFound => Err(no_message()),
            Change::Forbidden => Err(Failure::forbidden(forbidden)),
            Change::Deleted => Err(Failure::conflict("This message is deleted.")),
        }
    }

    /// A page of a room's history.
    ///
    /// # Errors
    /// `validation_failed`, `not_found`, `unavailable`.
    pub async fn history(
        &self,
        user: UserId,
        room: RoomId,
        before: Option<i64>,
        after: Option<i64>,
        limit: Option<i64>,
    ) -> Result<HistoryPage, Failure> {
        let limit = validate::limit(limit, limits::PAGE_DEFAULT)?;
        let page = match (before, after) {
            (Some(_), Some(_)) => {
                return Err(Failure::field("before", "can't be combined with after"));
            }
            (Some(seq), None) if seq < 0 => {
                return Err(Failure::field("before", "must not be negative"));
            }
            (None, Some(seq)) if seq < 0 => {
                return Err(Failure::field("after", "must not be negative"));
            }
            (Some(seq), None) => Page::Before(seq),
            (None, Some(seq)) => Page::After(seq),
            (None, None) => Page::Newest,
        };
        if let (Page::Newest, Some(cache)) = (page, &self.cache)
            && limit <= CACHED_MESSAGES as i64
        {
            let page = cache.newest_page(&self.repository, user, room, limit).await;
            return page.map_err(storage)?.ok_or_else(no_room);
        }
        self.repository.history(user, room, page, limit).await.map_err(storage)?.ok_or_else(no_room)
    }

    /// Messages of the caller's rooms that hold all these words, newest first.
    ///
    /// # Errors
    /// `validation_failed`, `not_found` for a foreign room, `unavailable`.
    pub async fn search(
        &self,
        user: UserId,
        words: &str,
        room: Option<RoomId>,
        before: Option<&str>,
        limit: Option<i64>,
    ) -> Result<SearchPage, Failure> {
        validate::text("q", words, limits::SEARCH_CHARS)?;
        let limit = validate::limit(limit, limits::PAGE_DEFAULT)?;
        if let Some(room) = room {
            self.require_member(user, room).await?;
        }
        let cursor = match before.map(starling_repository::SearchCursor::parse) {
            Some(None) => return Err(Failure::field("before", "must be a nextBefore of a search")),
            Some(cursor) => cursor,
            None => None,
        };
        self.repository.search(user, words, room, cursor, limit).await.map_err(storage)
    }

    /// What the caller missed in these rooms; foreign rooms are left out.
    ///
    /// # Errors
    /// `validation_failed`, `unavailable`.
    pub async fn sync(&self, user: UserId, request: &RoomSync) -> Result<Vec<SyncedRoom>, Failure> {
        validate::count("rooms", request.rooms.len(), limits::SYNC_ROOMS)?;
        if request.rooms.iter().any(|from| from.after_seq < 0) {
            return Err(Failure::field("rooms", "afterSeq must not be negative"));
        }
        self.repository.sync(user, &request.rooms, limits::SYNC_MESSAGES).await.map_err(storage)
    }

    /// Fails unless the user is in the room.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn require_member(&self, user: UserId, room: RoomId) -> Result<(), Failure> {
        if self.repository.is_member(room, user).await.map_err(storage)? {
            return Ok(());
        }
        Err(no_room())
    }
}
