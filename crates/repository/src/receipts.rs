//! One mark at a time, and what is still undelivered.

use starling_protocol::{MessageId, RoomId, Timestamp, UserId};

use crate::marks::{Mark, MarkProgress, Marked, Progress};
use crate::{Repository, Result};

/// What came of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOutcome {
    /// The watermark now.
    pub last_read_seq: i64,
    /// Whether this moved it.
    pub advanced: bool,
    /// Newly read.
    pub progress: Vec<Progress>,
}

/// A place in the order of undelivered messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfflineCursor {
    created_at: Timestamp,
    room_id: RoomId,
    seq: i64,
}

impl OfflineCursor {
    /// The place right after this message.
    #[must_use]
    pub fn after(message: &Undelivered) -> Self {
        Self { created_at: message.created_at, room_id: message.room_id, seq: message.seq }
    }
}

/// A message that did not arrive at a recipient yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undelivered {
    /// Its id.
    pub message_id: MessageId,
    /// Its room.
    pub room_id: RoomId,
    /// Its place there.
    pub seq: i64,
    /// When it was stored.
    pub created_at: Timestamp,
}

impl Repository {
    /// One [`MarkProgress::Delivered`]. Answers what is newly delivered, by sender;
    /// `None` if the user is not in the room.
    ///
    /// # Errors
    /// The database failed; nothing is marked.
    pub async fn delivered(
        &self,
        user: UserId,
        room: RoomId,
        ids: &[MessageId],
        now: Timestamp,
        receipt_rows_max_members: i64,
    ) -> Result<Option<Vec<Progress>>> {
        let progress = MarkProgress::Delivered(ids.to_vec());
        let mark = Mark { user_id: user, room_id: room, progress };
        let mut done = self.mark(&[mark], now, receipt_rows_max_members).await?;
        if done.answers.first() != Some(&Marked::Delivered) {
            return Ok(None);
        }
        Ok(Some(done.moved.pop().map(|moved| moved.delivered).unwrap_or_default()))
    }

    /// One [`MarkProgress::Read`]. `None` if the user is not in the room or the
    /// message isn't.
    ///
    /// # Errors
    /// The database failed; nothing is marked.
    pub async fn read(
        &self,
        user: UserId,
        room: RoomId,
        message: MessageId,
        held: &[MessageId],
        now: Timestamp,
    ) -> Result<Option<ReadOutcome>> {
        let progress = MarkProgress::Read { message, held: held.to_vec() };
        let mark = Mark { user_id: user, room_id: room, progress };
        // The size of a room matters only to what is delivered.
        let mut done = self.mark(&[mark], now, i64::MAX).await?;
        let Some(Marked::Read { last_read_seq }) = done.answers.first().copied() else {
            return Ok(None);
        };
        let moved = done.moved.pop();
        Ok(Some(ReadOutcome {
            last_read_seq,
            advanced: moved.as_ref().is_some_and(|moved| moved.advanced.is_some()),
            progress: moved.map(|moved| moved.read).unwrap_or_default(),
        }))
    }

    /// What did not arrive at the user yet, in rooms that the user is in, oldest
    /// first by time, room and `seq`.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.receipts.undelivered", skip(self))]
    pub async fn undelivered(
        &self,
        user: UserId,
        after: Option<OfflineCursor>,
        limit: i64,
    ) -> Result<Vec<Undelivered>> {
        let rows = sqlx::query!(
            r#"SELECT u.id AS "id!", u.room_id AS "room_id!", u.seq AS "seq!", u.at AS "at!"
               FROM undelivered_messages($1) AS u
               WHERE $2::timestamptz IS NULL
                  OR (u.at, u.room_id, u.seq) > ($2, $3::int, $4::bigint)
               ORDER BY u.at, u.room_id, u.seq
               LIMIT $5"#,
            user.0,
            after.map(|cursor| cursor.created_at.utc()),
            after.map(|cursor| cursor.room_id.0),
            after.map(|cursor| cursor.seq),
            limit,
        )
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Undelivered {
                message_id: MessageId(row.id),
                room_id: RoomId(row.room_id),
                seq: row.seq,
                created_at: row.at.into(),
            })
            .collect())
    }

    /// How many messages [`Repository::undelivered`] has in all.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.receipts.count_undelivered", skip(self))]
    pub async fn count_undelivered(&self, user: UserId) -> Result<i64> {
        let row =
            sqlx::query!(r#"SELECT count(*) AS "count!" FROM undelivered_messages($1)"#, user.0,)
                .fetch_one(&mut *self.connection().await?)
                .await?;
        Ok(row.count)
    }
}
