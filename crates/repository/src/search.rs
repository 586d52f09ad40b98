//! Word search over the messages of one's rooms.

use starling_protocol::http::SearchPage;
use starling_protocol::{MessageId, RoomId, UserId};
use uuid::Uuid;

use crate::row::{MessageRow, complete};
use crate::{Repository, Result};

/// Where the next page of a search begins: below this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchCursor(MessageId);

impl SearchCursor {
    /// Reads the `nextBefore` of an earlier page; `None` if it can't be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(|id| Self(MessageId(id)))
    }
}

impl std::fmt::Display for SearchCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Repository {
    /// Messages that hold all these words, without regard to case, newest first:
    /// in one room or in all, always only in rooms that the user is in.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.messages.search", skip(self, words))]
    pub async fn search(
        &self,
        user: UserId,
        words: &str,
        room: Option<RoomId>,
        before: Option<SearchCursor>,
        limit: i64,
    ) -> Result<SearchPage> {
        let mut db = self.connection().await?;
        let mut rows = sqlx::query_as!(
            MessageRow,
            "SELECT
               m.id, m.room_id, m.sender_id, m.seq, m.content, m.message_type,
               m.created_at, m.edited_at, m.deleted_at, m.client_id, m.reply_to,
               m.metadata, m.recipients, m.receipt_rows
             FROM messages m
             WHERE to_tsvector('simple', m.content) @@ plainto_tsquery('simple', $2)
               AND m.deleted_at IS NULL
               AND m.room_id IN (
                 SELECT rm.room_id
                 FROM room_members rm
                 WHERE rm.user_id = $1
                   AND rm.left_at IS NULL
                   AND ($3::int IS NULL OR rm.room_id = $3)
               )
               AND (
                 $4::uuid IS NULL
                 OR (m.created_at, m.id) < (SELECT c.created_at, c.id FROM messages c WHERE c.id = $4)
               )
             ORDER BY m.created_at DESC, m.id DESC
             LIMIT $5",
            user.0,
            words,
            room.map(|room| room.0),
            before.map(|before| before.0.0),
            limit + 1,
        )
        .fetch_all(&mut *db)
        .await?;
        let limit = usize::try_from(limit).unwrap_or_default();
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_before = if more {
            rows.last().map(|row| SearchCursor(MessageId(row.id)).to_string())
        } else {
            None
        };
        Ok(SearchPage { messages: complete(&mut db, user, rows).await?, next_before })
    }
}
