//! Reading messages.

use std::collections::HashMap;

use sqlx::PgConnection;
use starling_protocol::event::{SyncFrom, SyncedRoom};
use starling_protocol::http::HistoryPage;
use starling_protocol::{Message, MessageId, RoomId, UserId};
use uuid::Uuid;

use crate::row::{MessageRow, complete, message_ids, receipts_by_id};
use crate::{Repository, Result};

/// Which part of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The newest messages.
    Newest,
    /// The newest below this `seq`.
    Before(i64),
    /// The oldest above this `seq`.
    After(i64),
}

/// Where a room stands. A copy of its messages that was taken at the same head is
/// what the room holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomHead {
    /// The highest `seq` that was given out.
    pub last_seq: i64,
    /// Id and `seq` of the newest message; `None` in an empty room.
    pub newest: Option<(MessageId, i64)>,
    /// Another one after every change of a message or reaction, none twice; nil
    /// before the first.
    pub version: Uuid,
}

/// How far a room is, and which change its messages saw last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The room.
    pub room: RoomId,
    /// The highest `seq` that was given out.
    pub seq: i64,
    /// As [`RoomHead::version`].
    pub version: Uuid,
}

/// Messages by id, in the given order, whoever may see them; receipts as `viewer`
/// sees them.
pub(crate) async fn load(
    db: &mut PgConnection,
    viewer: UserId,
    ids: &[Uuid],
) -> Result<Vec<Message>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as!(
        MessageRow,
        "SELECT
           m.id, m.room_id, m.sender_id, m.seq, m.content, m.message_type,
           m.created_at, m.edited_at, m.deleted_at, m.client_id, m.reply_to,
           m.metadata, m.recipients, m.receipt_rows
         FROM messages m
         WHERE m.id = ANY($1)",
        ids,
    )
    .fetch_all(&mut *db)
    .await?;
    let mut rows: HashMap<Uuid, MessageRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    let rows = ids.iter().filter_map(|id| rows.remove(id)).collect();
    complete(db, viewer, rows).await
}

impl Repository {
    /// A message of one of the user's rooms, with receipts if it is the user's own.
    ///
    /// # Errors
    /// The database failed, or a row is impossible.
    #[tracing::instrument(name = "db.messages.get", skip(self))]
    pub async fn message_for(&self, user: UserId, id: MessageId) -> Result<Option<Message>> {
        Ok(self.messages_for(user, &[id]).await?.pop())
    }

    /// Messages in the given order; those that are unknown or of rooms that the
    /// user is not in are left out.
    ///
    /// # Errors
    /// The database failed, or a row is impossible.
    #[tracing::instrument(name = "db.messages.list", skip(self, ids))]
    pub async fn messages_for(&self, user: UserId, ids: &[MessageId]) -> Result<Vec<Message>> {
        let mut db = self.connection().await?;
        let allowed = sqlx::query!(
            r#"SELECT w.id AS "id!"
               FROM unnest($2::uuid[]) WITH ORDINALITY AS w (id, place)
               JOIN messages m ON m.id = w.id
               JOIN room_members rm
                 ON rm.room_id = m.room_id
                AND rm.user_id = $1
                AND rm.left_at IS NULL
               ORDER BY w.place"#,
            user.0,
            &message_ids(ids),
        )
        .fetch_all(&mut *db)
        .await?;
        let ids: Vec<Uuid> = allowed.into_iter().map(|row| row.id).collect();
        load(&mut db, user, &ids).await
    }

    /// A page of a room's history, ascending; `None` if the user is not in it.
    /// An empty page beside messages has cursors that lead back to them.
    ///
    /// # Errors
    /// The database failed, or a row is impossible.
    #[tracing::instrument(name = "db.messages.history", skip(self))]
    pub async fn history(
        &self,
        user: UserId,
        room: RoomId,
        page: Page,
        limit: i64,
    ) -> Result<Option<HistoryPage>> {
        let mut db = self.connection().await?;
        let head = sqlx::query!(
            "SELECT r.last_seq
             FROM rooms r
             JOIN room_members rm
               ON rm.room_id = r.id
              AND rm.user_id = $2
              AND rm.left_at IS NULL
             WHERE r.id = $1",
            room.0,
            user.0,
        )
        .fetch_optional(&mut *db)
        .await?;
        let Some(head) = head else { return Ok(None) };
        let rows = match page {
            Page::After(seq) => {
                sqlx::query_as!(
                    MessageRow,
                    "SELECT
                       m.id, m.room_id, m.sender_id, m.seq, m.content, m.message_type,
                       m.created_at, m.edited_at, m.deleted_at, m.client_id, m.reply_to,
                       m.metadata, m.recipients, m.receipt_rows
                     FROM messages m
                     WHERE m.room_id = $1
                       AND m.seq > $2
                     ORDER BY m.seq
                     LIMIT $3",
                    room.0,
                    seq,
                    limit,
                )
                .fetch_all(&mut *db)
                .await?
            }
            Page::Newest | Page::Before(_) => {
                let before = if let Page::Before(seq) = page { seq } else { i64::MAX };
                let mut rows = sqlx::query_as!(
                    MessageRow,
                    "SELECT
                       m.id, m.room_id, m.sender_id, m.seq, m.content, m.message_type,
                       m.created_at, m.edited_at, m.deleted_at, m.client_id, m.reply_to,
                       m.metadata, m.recipients, m.receipt_rows
                     FROM messages m
                     WHERE m.room_id = $1
                       AND m.seq < $2
                     ORDER BY m.seq DESC
                     LIMIT $3",
                    room.0,
                    before,
                    limit,
                )
                .fetch_all(&mut *db)
                .await?;
                rows.reverse();
                rows
            }
        };
        // seq has no gaps: the ends of the page say all.
        let (next_before, next_after) = match (rows.first(), rows.last()) {
            (Some(first), Some(last)) => (
                Some(first.seq).filter(|seq| *seq > 1),
                Some(last.seq).filter(|seq| *seq < head.last_seq),
            ),
            _ if head.last_seq == 0 => (None, None),
            _ => match page {
                Page::Newest => (None, None),
                Page::Before(_) => (Some(1), Some(0)),
                Page::After(_) => (Some(head.last_seq + 1), Some(head.last_seq)),
            },
        };
        let messages = complete(&mut db, user, rows).await?;
        Ok(Some(HistoryPage { messages, next_before, next_after }))
    }

    /// Where the room stands; `None` if the user is not in it.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.messages.head", skip(self))]
    pub async fn room_head(&self, user: UserId, room: RoomId) -> Result<Option<RoomHead>> {
        let found = sqlx::query!(
            r#"SELECT r.last_seq, m.id AS "id?", m.seq AS "seq?", c.version AS "version?"
               FROM room_members rm
               JOIN rooms r ON r.id = rm.room_id
               LEFT JOIN LATERAL (
                 SELECT id, seq
                 FROM messages
                 WHERE room_id = rm.room_id
                 ORDER BY seq DESC
                 LIMIT 1
               ) AS m ON true
               LEFT JOIN room_changes c ON c.room_id = rm.room_id
               WHERE rm.room_id = $1
                 AND rm.user_id = $2
                 AND rm.left_at IS NULL"#,
            room.0,
            user.0,
        )
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(found.map(|row| RoomHead {
            last_seq: row.last_seq,
            newest: row.id.zip(row.seq).map(|(id, seq)| (MessageId(id), seq)),
            version: row.version.unwrap_or_default(),
        }))
    }

    /// Completes messages that came from elsewhere with the receipts of those that
    /// the user sent.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.messages.receipts", skip(self, messages))]
    pub async fn add_receipts(&self, user: UserId, messages: &mut [Message]) -> Result<()> {
        let own = messages.iter().filter(|message| message.sender_id == user);
        let ids: Vec<Uuid> = own.map(|message| message.id.0).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut db = self.connection().await?;
        let mut receipts = receipts_by_id(&mut db, &ids).await?;
        for message in messages.iter_mut().filter(|message| message.sender_id == user) {
            message.receipts = receipts.remove(&message.id.0);
        }
        Ok(())
    }

    /// What the user missed in each of these rooms, at most `limit` messages a
    /// room, in the order of the request. Rooms that the user is not in are left
    /// out, and so is a room's second mention.
    ///
    /// # Errors
    /// The database failed, or a row is impossible.
    #[tracing::instrument(name = "db.messages.sync", skip(self, from))]
    pub async fn sync(
        &self,
        user: UserId,
        from: &[SyncFrom],
        limit: i64,
    ) -> Result<Vec<SyncedRoom>> {
        let mut db = self.connection().await?;
        let mut rooms: Vec<i32> = Vec::with_capacity(from.len());
        let mut after: Vec<i64> = Vec::with_capacity(from.len());
        for SyncFrom { room_id, after_seq } in from {
            if !rooms.contains(&room_id.0) {
                rooms.push(room_id.0);
                after.push(*after_seq);
            }
        }
        let heads = sqlx::query!(
            "SELECT r.id, r.last_seq
             FROM rooms r
             JOIN room_members rm
               ON rm.room_id = r.id
              AND rm.user_id = $1
              AND rm.left_at IS NULL
             WHERE r.id = ANY($2)",
            user.0,
            &rooms,
        )
        .fetch_all(&mut *db)
        .await?;
        let heads: HashMap<i32, i64> =
            heads.into_iter().map(|row| (row.id, row.last_seq)).collect();
        let (rooms, after): (Vec<i32>, Vec<i64>) =
            rooms.into_iter().zip(after).filter(|(room, _)| heads.contains_key(room)).unzip();
        let rows = sqlx::query_as!(
            MessageRow,
            "SELECT
               m.id, m.room_id, m.sender_id, m.seq, m.content, m.message_type,
               m.created_at, m.edited_at, m.deleted_at, m.client_id, m.reply_to,
               m.metadata, m.recipients, m.receipt_rows
             FROM unnest($1::int[], $2::bigint[]) AS f (room_id, after_seq)
             CROSS JOIN LATERAL (
               SELECT *
               FROM messages n
               WHERE n.room_id = f.room_id
                 AND n.seq > f.after_seq
               ORDER BY n.seq
               LIMIT $3
             ) AS m
             ORDER BY m.room_id, m.seq",
            &rooms,
            &after,
            limit,
        )
        .fetch_all(&mut *db)
        .await?;
        let mut found: HashMap<RoomId, Vec<Message>> = HashMap::new();
        for message in complete(&mut db, user, rows).await? {
            found.entry(message.room_id).or_default().push(message);
        }
        Ok(rooms
            .into_iter()
            .zip(after)
            .map(|(room, after)| {
                let messages = found.remove(&RoomId(room)).unwrap_or_default();
                let last = messages.last().map_or(after, |message| message.seq);
                // What was stored between the two statements counts.
                let last_seq = heads.get(&room).copied().unwrap_or_default();
                let last_seq = if messages.is_empty() { last_seq } else { last_seq.max(last) };
                SyncedRoom { room_id: RoomId(room), messages, last_seq, more: last < last_seq }
            })
            .collect())
    }

    /// Messages of a room above `after`, up to `through`, ascending, at most `limit`
    /// of them, as everybody may see them.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub async fn messages_between(
        &self,
        room: RoomId,
        after: i64,
        through: i64,
        limit: i64,
    ) -> Result<Vec<Message>> {
        let mut db = self.connection().await?;
        let rows = sqlx::query_as!(
            MessageRow,
            "SELECT
               id, room_id, sender_id, seq, content, message_type, created_at, edited_at,
               deleted_at, client_id, reply_to, metadata, recipients, receipt_rows
             FROM messages
             WHERE room_id = $1
               AND seq > $2
               AND seq <= $3
             ORDER BY seq
             LIMIT $4",
            room.0,
            after,
            through,
            limit,
        )
        .fetch_all(&mut *db)
        .await?;
        // Receipts are the sender's alone, and nobody has this id.
        complete(&mut db, UserId(0), rows).await
    }

    /// Messages in the given order, as everybody in their rooms may see them.
    ///
    /// # Errors
    /// The database failed, or a row is impossible.
    #[tracing::instrument(name = "db.messages.everybody", skip_all)]
    pub async fn messages_as_everybody(&self, ids: &[MessageId]) -> Result<Vec<Message>> {
        let mut db = self.connection().await?;
        // Receipts are the sender's alone, and nobody has this id.
        load(&mut db, UserId(0), &message_ids(ids)).await
    }

    /// The newest `seq` of each room that exists.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Head>> {
        let ids: Vec<i32> = rooms.iter().map(|room| room.0).collect();
        let rows = sqlx::query!(
            r#"SELECT
                 r.id AS "id!", r.last_seq AS "last_seq!",
                 coalesce(c.version, '00000000-0000-0000-0000-000000000000') AS "version!"
               FROM rooms r
               LEFT JOIN room_changes c ON c.room_id = r.id
               WHERE r.id = ANY($1)"#,
            &ids,
        )
        .fetch_all(&mut *self.connection().await?)
        .await?;
        let head = |id, seq, version| Head { room: RoomId(id), seq, version };
        Ok(rows.into_iter().map(|row| head(row.id, row.last_seq, row.version)).collect())
    }
}
