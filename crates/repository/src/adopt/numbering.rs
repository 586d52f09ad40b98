//! Gives every message its `seq`, in the order of (created_at, id).
//!
//! A room is in one of three states, all told by the database, so that this can
//! end at any moment and go on later:
//!
//! - not numbered: `rooms.last_seq` is NULL;
//! - being numbered: still NULL, and `starling_adoption_rooms` says how far it is;
//! - numbered: `last_seq` is set. Rooms made since the trigger is there begin so.
//!
//! Whoever inserts a message holds the room's row until its transaction ends: the
//! trigger of `db/compat` for Node.js servers, this for itself. In a room that is
//! not numbered the trigger leaves `seq` NULL, in one that is it counts on. So
//! when this holds the row and finds no message without `seq`, there is none, and
//! none can come before `last_seq` is set.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::ddl::{begin, is_busy, persist};
use super::{AdoptError, Say};

/// Messages a transaction, which is how long a room's writers wait: some 50 ms.
const BATCH: i64 = 1000;
/// Rooms looked at together; small ones are numbered together too.
const ROOMS: i64 = 200;
/// Progress is told this often.
const EVERY: Duration = Duration::from_secs(2);
/// Statements that join a batch to its rows by their ids and nothing else: with a
/// table that grows while the planner looks away, it would rather read it whole.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off;
    SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off;
    SET LOCAL jit = off";

/// What was done.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Numbered {
    pub rooms: u64,
    pub messages: u64,
}

/// Numbers all rooms that are not.
pub(super) async fn run(db: &mut PgConnection, say: Say<'_>) -> Result<Numbered, AdoptError> {
    let mut done = Numbered::default();
    let mut told = Instant::now();
    let mut first_round = true;
    loop {
        let mut after = i32::MIN;
        let mut found = false;
        loop {
            let rooms = waiting(db, after).await?;
            let Some((last, _)) = rooms.last() else { break };
            (after, found) = (*last, true);
            for group in groups(&rooms, first_round) {
                let (rooms, messages) = match group[..] {
                    // Waits for the room's lock while it holds no other.
                    [room] => (1, one(db, room).await?),
                    _ => several(db, &group).await?,
                };
                done.rooms += rooms;
                done.messages += messages;
                if told.elapsed() >= EVERY {
                    told = Instant::now();
                    say(&format!("  {} messages in {} rooms numbered", done.messages, done.rooms));
                }
            }
        }
        if !found {
            return Ok(done);
        }
        // What is left was locked by others: now room by room.
        first_round = false;
    }
}

/// Rooms that are not numbered, with how many messages they have, at most one
/// more than a batch.
async fn waiting(db: &mut PgConnection, after: i32) -> Result<Vec<(i32, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT
             r.id,
             (
               SELECT count(*)
               FROM (
                 SELECT
                 FROM messages m
                 WHERE m.room_id = r.id
                   AND m.seq IS NULL
                 LIMIT $3
               ) AS sample
             ) AS "size!"
           FROM rooms r
           WHERE r.last_seq IS NULL
             AND r.id > $1
           ORDER BY r.id
           LIMIT $2"#,
        after,
        ROOMS,
        BATCH + 1,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.size)).collect())
}

/// Neighbours that fit into a batch together; a large room stands alone.
fn groups(rooms: &[(i32, i64)], together: bool) -> Vec<Vec<i32>> {
    let mut groups: Vec<Vec<i32>> = Vec::new();
    let mut room_left = 0;
    for (room, size) in rooms {
        match groups.last_mut() {
            Some(group) if together && *size <= room_left => group.push(*room),
            _ => {
                groups.push(vec![*room]);
                room_left = BATCH;
            }
        }
        room_left -= size;
    }
    groups
}

/// Numbers small rooms in one transaction. Rooms that somebody holds are left for
/// later, so this never waits for one room while it holds another.
async fn several(db: &mut PgConnection, rooms: &[i32]) -> Result<(u64, u64), AdoptError> {
    let mut tx = begin(db).await?;
    sqlx::raw_sql(BY_INDEX).execute(&mut *tx).await?;
    match number_whole(&mut tx, rooms).await {
        Ok(done) => {
            tx.commit().await?;
            Ok(done)
        }
        Err(error) if is_busy(&error) => {
            tx.rollback().await?;
            Ok((0, 0))
        }
        Err(error) => Err(error.into()),
    }
}

async fn number_whole(tx: &mut PgConnection, rooms: &[i32]) -> Result<(u64, u64), sqlx::Error> {
    // Rooms with a mark are half numbered and go on from it, one by one. That
    // table is no part of Starling's schema, hence no macro.
    let locked: Vec<i32> = sqlx::query_scalar(
        "SELECT r.id
         FROM rooms r
         WHERE r.id = ANY($1)
           AND r.last_seq IS NULL
           AND NOT EXISTS (SELECT FROM starling_adoption_rooms a WHERE a.room_id = r.id)
         ORDER BY r.id
         FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(rooms)
    .fetch_all(&mut *tx)
    .await?;
    // In a statement of its own: it must see what was committed before the locks.
    let done = sqlx::query!(
        r#"WITH numbered AS (
             SELECT
               m.id,
               row_number() OVER (PARTITION BY m.room_id ORDER BY m.created_at, m.id) AS seq
             FROM messages m
             WHERE m.room_id = ANY($1)
               AND m.seq IS NULL
           ),
           done AS (
             UPDATE messages m
             SET seq = n.seq,
                 message_type = coalesce(m.message_type, 'text'),
                 metadata = coalesce(m.metadata, '{}'),
                 recipients = (
                   SELECT count(*)
                   FROM message_receipts r
                   WHERE r.message_id = m.id
                     AND r.user_id <> m.sender_id
                 )
             FROM numbered n
             WHERE m.id = n.id
             RETURNING m.room_id, m.created_at
           ),
           heads AS (
             SELECT d.room_id, count(*) AS last_seq, max(d.created_at) AS newest
             FROM done d
             GROUP BY d.room_id
           ),
           closed AS (
             UPDATE rooms r
             SET last_seq = coalesce(h.last_seq, 0),
                 last_activity_at = greatest(r.created_at, h.newest)
             FROM unnest($1::int[]) AS w (id)
             LEFT JOIN heads h ON h.room_id = w.id
             WHERE r.id = w.id
             RETURNING r.last_seq
           )
           SELECT count(*) AS "rooms!", coalesce(sum(c.last_seq), 0)::bigint AS "messages!"
           FROM closed c"#,
        &locked,
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok((done.rooms.unsigned_abs(), done.messages.unsigned_abs()))
}

/// How far a room is.
struct Mark {
    numbered: i64,
    after: Option<(DateTime<Utc>, Uuid)>,
}

/// Numbers a room of any size, a batch a transaction.
async fn one(db: &mut PgConnection, room: i32) -> Result<u64, AdoptError> {
    let what = format!("numbering the messages of room {room}");
    let mut numbered = 0;
    loop {
        let (count, closed) = persist(db, &what, async |tx| {
            sqlx::raw_sql(BY_INDEX).execute(&mut *tx).await?;
            number_some(tx, room).await
        })
        .await?;
        numbered += count;
        if closed {
            return Ok(numbered);
        }
    }
}

/// One batch of a room. Says how many it was, and whether the room is done.
async fn number_some(tx: &mut PgConnection, room: i32) -> Result<(u64, bool), sqlx::Error> {
    let locked = sqlx::query!(
        "SELECT id FROM rooms WHERE id = $1 AND last_seq IS NULL FOR NO KEY UPDATE",
        room,
    )
    .fetch_optional(&mut *tx)
    .await?;
    if locked.is_none() {
        return Ok((0, true));
    }
    let mark = mark(tx, room).await?;
    let (after_at, after_id) = mark.after.unzip();
    let done = sqlx::query!(
        r#"WITH numbered AS (
             SELECT
               m.id,
               m.created_at,
               $2::bigint + row_number() OVER (ORDER BY m.created_at, m.id) AS seq
             FROM messages m
             WHERE m.room_id = $1
               AND m.seq IS NULL
               AND (m.created_at, m.id) > (
                 coalesce($3::timestamptz, '-infinity'),
                 coalesce($4::uuid, '00000000-0000-0000-0000-000000000000')
               )
             ORDER BY m.created_at, m.id
             LIMIT $5
           ),
           done AS (
             UPDATE messages m
             SET seq = n.seq,
                 message_type = coalesce(m.message_type, 'text'),
                 metadata = coalesce(m.metadata, '{}'),
                 recipients = (
                   SELECT count(*)
                   FROM message_receipts r
                   WHERE r.message_id = m.id
                     AND r.user_id <> m.sender_id
                 )
             FROM numbered n
             WHERE m.id = n.id
             RETURNING m.id, m.created_at, m.seq
           )
           SELECT
             d.id AS "id!",
             d.created_at AS "created_at!",
             d.seq AS "seq!",
             count(*) OVER () AS "count!"
           FROM done d
           ORDER BY d.seq DESC
           LIMIT 1"#,
        room,
        mark.numbered,
        after_at,
        after_id,
        BATCH,
    )
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(last) = done {
        sqlx::query(
            "INSERT INTO starling_adoption_rooms (room_id, numbered, created_at, message_id)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (room_id) DO UPDATE
             SET numbered = excluded.numbered,
                 created_at = excluded.created_at,
                 message_id = excluded.message_id",
        )
        .bind(room)
        .bind(last.seq)
        .bind(last.created_at)
        .bind(last.id)
        .execute(&mut *tx)
        .await?;
        return Ok((last.count.unsigned_abs(), false));
    }
    // Nothing above the mark. Below it there may be messages whose time is older
    // than their commit: they come next.
    let left = sqlx::query!(
        r#"SELECT EXISTS (
             SELECT FROM messages m WHERE m.room_id = $1 AND m.seq IS NULL
           ) AS "left!""#,
        room,
    )
    .fetch_one(&mut *tx)
    .await?
    .left;
    if left {
        sqlx::query(
            "UPDATE starling_adoption_rooms
             SET created_at = NULL,
                 message_id = NULL
             WHERE room_id = $1",
        )
        .bind(room)
        .execute(&mut *tx)
        .await?;
        return Ok((0, false));
    }
    sqlx::query!(
        "UPDATE rooms r
         SET last_seq = $2,
             last_activity_at = greatest(
               r.created_at,
               (SELECT max(m.created_at) FROM messages m WHERE m.room_id = r.id)
             )
         WHERE r.id = $1",
        room,
        mark.numbered,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM starling_adoption_rooms WHERE room_id = $1")
        .bind(room)
        .execute(&mut *tx)
        .await?;
    Ok((0, true))
}

/// Of a table that is no part of Starling's schema, hence no macro.
async fn mark(tx: &mut PgConnection, room: i32) -> Result<Mark, sqlx::Error> {
    let row = sqlx::query(
        "SELECT numbered, created_at, message_id
         FROM starling_adoption_rooms
         WHERE room_id = $1",
    )
    .bind(room)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(Mark { numbered: 0, after: None }) };
    let at: Option<DateTime<Utc>> = row.try_get("created_at")?;
    let id: Option<Uuid> = row.try_get("message_id")?;
    Ok(Mark { numbered: row.try_get("numbered")?, after: at.zip(id) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_rooms_go_together_and_large_ones_alone() {
        let rooms = [(1, 400), (2, 600), (3, 1), (4, 1001), (5, 0), (6, 7)];
        assert_eq!(groups(&rooms, true), [vec![1, 2], vec![3], vec![4], vec![5, 6]]);
        assert_eq!(groups(&rooms, false).len(), 6);
    }
}
