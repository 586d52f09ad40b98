//! Sets the watermarks of memberships from the receipts of before.
//!
//! As `receipts.rs` keeps them: up to `last_read_seq` a user has read everything.
//! So it is the newest message that was read, or the one before the first that
//! was not, whichever is lower: what Node.js servers let a user read out of turn
//! stays unread until the user reads past it, and nothing unread is hidden.
//!
//! A stay without watermarks is still to be done; that is all the state there is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::ddl::{Patience, begin, is_busy, persist};
use super::{AdoptError, Say};

/// Messages looked at by a statement, whose receipts it reads.
const BATCH: i64 = 2000;
/// Rooms looked at together, while they have few messages.
const ROOMS: i64 = 200;
/// Users whose receipts are completed by a statement.
const USERS: i64 = 200;
const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Default, Clone, Copy)]
struct Marks {
    read: Option<i64>,
    unread: Option<i64>,
    delivered: Option<i64>,
    undelivered: Option<i64>,
}

impl Marks {
    fn add(&mut self, other: Self) {
        fn merge(a: Option<i64>, b: Option<i64>, pick: fn(i64, i64) -> i64) -> Option<i64> {
            match (a, b) {
                (Some(a), Some(b)) => Some(pick(a, b)),
                (a, b) => a.or(b),
            }
        }
        self.read = merge(self.read, other.read, i64::max);
        self.unread = merge(self.unread, other.unread, i64::min);
        self.delivered = merge(self.delivered, other.delivered, i64::max);
        self.undelivered = merge(self.undelivered, other.undelivered, i64::min);
    }

    fn watermark(reached: Option<i64>, missing: Option<i64>) -> i64 {
        let reached = reached.unwrap_or(0);
        missing.map_or(reached, |seq| reached.min(seq - 1))
    }
}

/// Sets those of all stays that have none; all rooms are numbered. Says how many.
pub(super) async fn run(db: &mut PgConnection, say: Say<'_>) -> Result<u64, AdoptError> {
    let receipts = sqlx::query!(r#"SELECT EXISTS (SELECT FROM message_receipts) AS "some!""#)
        .fetch_one(&mut *db)
        .await?
        .some;
    let (mut after, mut stays) = (i32::MIN, 0);
    let mut told = Instant::now();
    loop {
        let rooms = sqlx::query!(
            r#"SELECT r.id, r.last_seq AS "last_seq!"
               FROM rooms r
               WHERE r.id > $1
               ORDER BY r.id
               LIMIT $2"#,
            after,
            ROOMS,
        )
        .fetch_all(&mut *db)
        .await?;
        let Some(last) = rooms.last() else { return Ok(stays) };
        after = last.id;
        let mut group = Vec::new();
        let mut size = 0;
        for room in &rooms {
            if size + room.last_seq > BATCH && !group.is_empty() {
                stays += set(db, &group, size, receipts).await?;
                (group, size) = (Vec::new(), 0);
            }
            group.push(room.id);
            size += room.last_seq;
            if told.elapsed() >= EVERY {
                told = Instant::now();
                say(&format!("  watermarks of {stays} memberships set"));
            }
        }
        stays += set(db, &group, size, receipts).await?;
    }
}

/// Sets those of these rooms: several with few messages, or one of any size.
async fn set(
    db: &mut PgConnection,
    rooms: &[i32],
    size: i64,
    receipts: bool,
) -> Result<u64, AdoptError> {
    let mut patience = Patience::new();
    loop {
        match try_set(db, rooms, size, receipts).await {
            Ok(stays) => return Ok(stays),
            Err(error) if is_busy(&error) => {
                patience.again("setting the watermarks of memberships").await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn try_set(
    db: &mut PgConnection,
    rooms: &[i32],
    size: i64,
    receipts: bool,
) -> Result<u64, sqlx::Error> {
    let mut tx = begin(db).await?;
    // Where the room was when the stay began: a message of that very moment came
    // after, as the first message of a room does.
    let stays = sqlx::query!(
        r#"UPDATE room_members rm
           SET joined_seq = coalesce(
                 rm.joined_seq,
                 (
                   SELECT max(m.seq)
                   FROM messages m
                   WHERE m.room_id = rm.room_id
                     AND m.created_at < rm.joined_at
                 ),
                 0
               )
           WHERE rm.room_id = ANY($1)
             AND rm.last_read_seq IS NULL
           RETURNING rm.id::bigint AS "id!""#,
        rooms,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    if stays.is_empty() {
        return Ok(0);
    }
    let mut marks: HashMap<i64, Marks> = HashMap::new();
    let mut above = 0;
    while receipts && above < size {
        // Of one room; of several, all at once.
        let upto = if rooms.len() == 1 { above + BATCH } else { i64::MAX };
        for (stay, more) in gather(db, rooms, above, upto).await? {
            marks.entry(stay).or_default().add(more);
        }
        above = upto;
    }
    let (mut ids, mut read, mut delivered) = (Vec::new(), Vec::new(), Vec::new());
    for stay in &stays {
        let marks = marks.remove(&stay.id).unwrap_or_default();
        // Where nobody kept receipts, nobody has anything unread.
        let (r, d) = if receipts {
            (
                Marks::watermark(marks.read, marks.unread),
                Marks::watermark(marks.delivered, marks.undelivered),
            )
        } else {
            (i64::MAX, i64::MAX)
        };
        ids.push(stay.id);
        read.push(r);
        delivered.push(d);
    }
    let mut tx = begin(db).await?;
    sqlx::query!(
        "UPDATE room_members rm
         SET last_read_seq = greatest(rm.joined_seq, least(w.read, r.last_seq)),
             last_delivered_seq = greatest(rm.joined_seq, least(w.delivered, r.last_seq))
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w (id, read, delivered),
              rooms r
         WHERE rm.id = w.id
           AND r.id = rm.room_id
           AND rm.last_read_seq IS NULL",
        &ids,
        &read,
        &delivered,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(ids.len() as u64)
}

/// What the receipts of these messages say of each stay during which they came.
async fn gather(
    db: &mut PgConnection,
    rooms: &[i32],
    above: i64,
    upto: i64,
) -> Result<Vec<(i64, Marks)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT
             rm.id::bigint AS "id!",
             max(m.seq) FILTER (WHERE r.read_at IS NOT NULL) AS read,
             min(m.seq) FILTER (WHERE r.read_at IS NULL) AS unread,
             max(m.seq) FILTER (WHERE coalesce(r.delivered_at, r.read_at) IS NOT NULL) AS delivered,
             min(m.seq) FILTER (WHERE coalesce(r.delivered_at, r.read_at) IS NULL) AS undelivered
           FROM messages m
           JOIN message_receipts r ON r.message_id = m.id AND r.user_id <> m.sender_id
           JOIN room_members rm
             ON rm.room_id = m.room_id
            AND rm.user_id = r.user_id
            AND rm.joined_seq < m.seq
            AND (rm.left_at IS NULL OR m.created_at <= rm.left_at)
           WHERE m.room_id = ANY($1)
             AND m.seq > $2
             AND m.seq <= $3
             AND rm.last_read_seq IS NULL
           GROUP BY rm.id"#,
        rooms,
        above,
        upto,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let marks = Marks {
                read: row.read,
                unread: row.unread,
                delivered: row.delivered,
                undelivered: row.undelivered,
            };
            (row.id, marks)
        })
        .collect())
}

/// What was read has arrived, also where a server marked only the reading.
/// Says how many receipts it completed.
pub(super) async fn complete_receipts(db: &mut PgConnection) -> Result<u64, AdoptError> {
    let (mut after, mut done) = (i32::MIN, 0);
    loop {
        let users: Vec<i32> =
            sqlx::query!("SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2", after, USERS,)
                .fetch_all(&mut *db)
                .await?
                .into_iter()
                .map(|row| row.id)
                .collect();
        let Some(last) = users.last() else { return Ok(done) };
        after = *last;
        let completed = persist(db, "completing receipts", async |tx| {
            sqlx::query!(
                "UPDATE message_receipts
                 SET delivered_at = read_at
                 WHERE user_id = ANY($1)
                   AND delivered_at IS NULL
                   AND read_at IS NOT NULL",
                &users,
            )
            .execute(tx)
            .await
        })
        .await?;
        done += completed.rows_affected();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_stops_before_what_is_missing() {
        assert_eq!(Marks::watermark(None, None), 0);
        assert_eq!(Marks::watermark(Some(7), None), 7);
        assert_eq!(Marks::watermark(Some(7), Some(9)), 7);
        assert_eq!(Marks::watermark(Some(7), Some(5)), 4);
        assert_eq!(Marks::watermark(None, Some(5)), 0);
    }
}
