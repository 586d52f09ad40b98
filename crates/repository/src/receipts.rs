//! Delivered, read, and what is still undelivered.
//!
//! A message either has a row in `message_receipts` for each recipient or none at
//! all (`messages.receipt_rows`); then the watermarks of `room_members` tell.
//! Each unit of work locks the user's membership first, so that two of one user
//! come one after the other, and those of different users never meet.

use std::collections::BTreeMap;

use sqlx::{Postgres, Transaction};
use starling_protocol::{MessageId, RoomId, Timestamp, UserId};
use uuid::Uuid;

use crate::row::message_ids;
use crate::{Repository, Result};

/// Messages without rows that one call names for each sender: the newest. Older
/// ones count in `receipts` all the same.
const NAMED: i64 = 200;

/// Messages of one sender that came further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Who is to be told.
    pub sender_id: UserId,
    /// Ascending `seq`.
    pub message_ids: Vec<MessageId>,
}

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

/// A membership that the transaction holds.
struct Stay {
    id: i64,
    joined_seq: i64,
    delivered: i64,
    read: i64,
}

async fn hold(
    tx: &mut Transaction<'static, Postgres>,
    user: UserId,
    room: RoomId,
) -> Result<Option<Stay>> {
    let found = sqlx::query!(
        "SELECT id, joined_seq, last_delivered_seq, last_read_seq
         FROM room_members
         WHERE room_id = $1
           AND user_id = $2
           AND left_at IS NULL
         FOR NO KEY UPDATE",
        room.0,
        user.0,
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(found.map(|row| Stay {
        id: row.id,
        joined_seq: row.joined_seq,
        delivered: row.last_delivered_seq,
        read: row.last_read_seq,
    }))
}

/// Collects messages by sender, in the order of `seq`.
#[derive(Default)]
struct Gathered(BTreeMap<UserId, BTreeMap<i64, MessageId>>);

impl Gathered {
    fn add(&mut self, sender: i32, seq: i64, id: Uuid) {
        self.0.entry(UserId(sender)).or_default().insert(seq, MessageId(id));
    }

    fn into_progress(self) -> Vec<Progress> {
        self.0
            .into_iter()
            .map(|(sender_id, ids)| Progress {
                sender_id,
                message_ids: ids.into_values().collect(),
            })
            .collect()
    }

    /// Others' messages without rows in `(above, upto]`: the newest of each sender.
    async fn add_without_rows(
        &mut self,
        tx: &mut Transaction<'static, Postgres>,
        user: UserId,
        room: RoomId,
        above: i64,
        upto: i64,
    ) -> Result<()> {
        if above >= upto {
            return Ok(());
        }
        let rows = sqlx::query!(
            r#"SELECT n.id AS "id!", n.sender_id AS "sender_id!", n.seq AS "seq!"
               FROM (
                 SELECT
                   m.id, m.sender_id, m.seq,
                   row_number() OVER (PARTITION BY m.sender_id ORDER BY m.seq DESC) AS place
                 FROM messages m
                 WHERE m.room_id = $1
                   AND m.seq > $2
                   AND m.seq <= $3
                   AND m.sender_id <> $4
                   AND NOT m.receipt_rows
               ) AS n
               WHERE n.place <= $5"#,
            room.0,
            above,
            upto,
            user.0,
            NAMED,
        )
        .fetch_all(&mut **tx)
        .await?;
        for row in rows {
            self.add(row.sender_id, row.seq, row.id);
        }
        Ok(())
    }
}

impl Repository {
    /// These messages arrived at a client of the user. Answers what is newly
    /// delivered, by sender; `None` if the user is not in the room. Ids that are
    /// unknown, of another room or the user's own are ignored.
    ///
    /// In a room of more than `receipt_rows_max_members` members it means all
    /// messages up to the highest given one; so it does, in any room, for messages
    /// without receipt rows, if one of them is given.
    ///
    /// # Errors
    /// The database failed; nothing is marked.
    #[tracing::instrument(name = "db.receipts.delivered", skip(self, ids, now))]
    pub async fn delivered(
        &self,
        user: UserId,
        room: RoomId,
        ids: &[MessageId],
        now: Timestamp,
        receipt_rows_max_members: i64,
    ) -> Result<Option<Vec<Progress>>> {
        let mut tx = self.pool.begin().await?;
        let Some(stay) = hold(&mut tx, user, room).await? else { return Ok(None) };
        let given = sqlx::query!(
            "SELECT id, seq, receipt_rows
             FROM messages
             WHERE id = ANY($1)
               AND room_id = $2
               AND sender_id <> $3",
            &message_ids(ids),
            room.0,
            user.0,
        )
        .fetch_all(&mut *tx)
        .await?;
        let Some(highest) = given.iter().map(|row| row.seq).max() else {
            return Ok(Some(Vec::new()));
        };
        let members = sqlx::query!(
            r#"SELECT count(*) AS "count!"
               FROM room_members
               WHERE room_id = $1
                 AND left_at IS NULL"#,
            room.0,
        )
        .fetch_one(&mut *tx)
        .await?
        .count;
        let large = members > receipt_rows_max_members;
        let mut gathered = Gathered::default();

        let with_rows: Vec<Uuid> =
            given.iter().filter(|row| row.receipt_rows).map(|row| row.id).collect();
        let marked = sqlx::query!(
            "UPDATE message_receipts r
             SET delivered_at = $4
             FROM messages m
             WHERE m.id = r.message_id
               AND m.room_id = $1
               AND r.user_id = $2
               AND r.delivered_at IS NULL
               AND r.message_id = ANY($3)
             RETURNING m.id, m.sender_id, m.seq",
            room.0,
            user.0,
            &with_rows,
            now.utc(),
        )
        .fetch_all(&mut *tx)
        .await?;
        for row in marked {
            gathered.add(row.sender_id, row.seq, row.id);
        }
        if large {
            let marked = sqlx::query!(
                "UPDATE message_receipts r
                 SET delivered_at = $4
                 FROM messages m
                 WHERE m.id = r.message_id
                   AND m.room_id = $1
                   AND m.seq <= $3
                   AND r.user_id = $2
                   AND r.delivered_at IS NULL
                 RETURNING m.id, m.sender_id, m.seq",
                room.0,
                user.0,
                highest,
                now.utc(),
            )
            .fetch_all(&mut *tx)
            .await?;
            for row in marked {
                gathered.add(row.sender_id, row.seq, row.id);
            }
        }

        let mut upto = stay.delivered;
        if large {
            upto = upto.max(highest);
        } else {
            let without = given.iter().filter(|row| !row.receipt_rows).map(|row| row.seq).max();
            upto = upto.max(without.unwrap_or_default());
            // Messages with rows move the watermark too, but not past one without,
            // whose only mark it is.
            let first_without = sqlx::query!(
                "SELECT min(seq) AS seq
                 FROM messages
                 WHERE room_id = $1
                   AND seq > $2
                   AND seq <= $3
                   AND sender_id <> $4
                   AND NOT receipt_rows",
                room.0,
                upto,
                highest,
                user.0,
            )
            .fetch_one(&mut *tx)
            .await?
            .seq;
            upto = upto.max(first_without.map_or(highest, |seq| seq - 1));
        }
        gathered.add_without_rows(&mut tx, user, room, stay.delivered, upto).await?;
        if upto > stay.delivered {
            sqlx::query!(
                "UPDATE room_members SET last_delivered_seq = $2 WHERE id = $1",
                stay.id,
                upto,
            )
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(Some(gathered.into_progress()))
    }

    /// Everything in the room up to this message is read, and delivered too, except
    /// what is in `hold`: that is still to be sent to the client. The watermarks
    /// never go back. `None` if the user is not in the room or the message isn't.
    ///
    /// # Errors
    /// The database failed; nothing is marked.
    #[tracing::instrument(name = "db.receipts.read", skip(self, held, now))]
    pub async fn read(
        &self,
        user: UserId,
        room: RoomId,
        message: MessageId,
        held: &[MessageId],
        now: Timestamp,
    ) -> Result<Option<ReadOutcome>> {
        let mut tx = self.pool.begin().await?;
        let Some(stay) = hold(&mut tx, user, room).await? else { return Ok(None) };
        let found = sqlx::query!(
            r#"SELECT
                 m.seq,
                 (
                   SELECT min(h.seq)
                   FROM messages h
                   WHERE h.id = ANY($3)
                     AND h.room_id = $2
                 ) AS lowest_held,
                 (
                   SELECT min(f.joined_seq)
                   FROM room_members f
                   WHERE f.room_id = $2
                     AND f.user_id = $4
                     AND f.left_at IS NOT NULL
                 ) AS first_joined
               FROM messages m
               WHERE m.id = $1
                 AND m.room_id = $2"#,
            message.0,
            room.0,
            &message_ids(held),
            user.0,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(found) = found else { return Ok(None) };
        let upto = found.seq;
        // Up to the watermark all is read already. Only who returned and has not
        // read since may have left something unread behind.
        let returned = found.first_joined.filter(|_| stay.read == stay.joined_seq);
        let above = returned.unwrap_or(stay.read);
        let held_ids = message_ids(held);
        let mut gathered = Gathered::default();
        if above < upto {
            let marked = sqlx::query!(
                "UPDATE message_receipts r
                 SET read_at = $5,
                     delivered_at = CASE
                       WHEN r.message_id = ANY($6) THEN r.delivered_at
                       ELSE coalesce(r.delivered_at, $5)
                     END
                 FROM messages m
                 WHERE m.id = r.message_id
                   AND m.room_id = $1
                   AND m.seq > $3
                   AND m.seq <= $4
                   AND m.receipt_rows
                   AND r.user_id = $2
                   AND r.read_at IS NULL
                 RETURNING m.id, m.sender_id, m.seq",
                room.0,
                user.0,
                above,
                upto,
                now.utc(),
                &held_ids,
            )
            .fetch_all(&mut *tx)
            .await?;
            for row in marked {
                gathered.add(row.sender_id, row.seq, row.id);
            }
        }
        // Read while they were held, by an earlier call, and not held any more.
        sqlx::query!(
            "UPDATE message_receipts r
             SET delivered_at = $4
             FROM messages m
             WHERE m.id = r.message_id
               AND m.room_id = $1
               AND m.seq <= $3
               AND r.user_id = $2
               AND r.delivered_at IS NULL
               AND NOT r.message_id = ANY($5)",
            room.0,
            user.0,
            upto,
            now.utc(),
            &held_ids,
        )
        .execute(&mut *tx)
        .await?;
        gathered.add_without_rows(&mut tx, user, room, stay.read, upto).await?;
        let last_read_seq = stay.read.max(upto);
        let delivered = found.lowest_held.map_or(upto, |seq| upto.min(seq - 1));
        let delivered = stay.delivered.max(delivered);
        let advanced = last_read_seq > stay.read;
        if advanced || delivered > stay.delivered {
            sqlx::query!(
                "UPDATE room_members
                 SET last_read_seq = $2,
                     last_delivered_seq = $3
                 WHERE id = $1",
                stay.id,
                last_read_seq,
                delivered,
            )
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(Some(ReadOutcome { last_read_seq, advanced, progress: gathered.into_progress() }))
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
        // In whole milliseconds, as the cursor holds them, also for rows that
        // another program wrote.
        let rows = sqlx::query!(
            r#"SELECT u.id AS "id!", u.room_id AS "room_id!", u.seq AS "seq!", u.at AS "at!"
               FROM (
                 SELECT m.id, m.room_id, m.seq, date_trunc('milliseconds', m.created_at) AS at
                 FROM message_receipts r
                 JOIN messages m ON m.id = r.message_id
                 JOIN room_members rm
                   ON rm.room_id = m.room_id
                  AND rm.user_id = r.user_id
                  AND rm.left_at IS NULL
                 WHERE r.user_id = $1
                   AND r.delivered_at IS NULL
                 UNION ALL
                 SELECT m.id, m.room_id, m.seq, date_trunc('milliseconds', m.created_at) AS at
                 FROM room_members rm
                 JOIN messages m
                   ON m.room_id = rm.room_id
                  AND m.seq > rm.last_delivered_seq
                  AND m.sender_id <> rm.user_id
                  AND NOT m.receipt_rows
                 WHERE rm.user_id = $1
                   AND rm.left_at IS NULL
               ) AS u
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
        .fetch_all(&self.pool)
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
        let row = sqlx::query!(
            r#"SELECT
                 (
                   SELECT count(*)
                   FROM message_receipts r
                   JOIN messages m ON m.id = r.message_id
                   JOIN room_members rm
                     ON rm.room_id = m.room_id
                    AND rm.user_id = r.user_id
                    AND rm.left_at IS NULL
                   WHERE r.user_id = $1
                     AND r.delivered_at IS NULL
                 )
                 + (
                   SELECT count(*)
                   FROM room_members rm
                   JOIN messages m
                     ON m.room_id = rm.room_id
                    AND m.seq > rm.last_delivered_seq
                    AND m.sender_id <> rm.user_id
                    AND NOT m.receipt_rows
                   WHERE rm.user_id = $1
                     AND rm.left_at IS NULL
                 ) AS "count!""#,
            user.0,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(row.count)
    }
}
