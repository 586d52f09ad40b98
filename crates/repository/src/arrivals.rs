//! What a new connection has to know, in one statement.

use starling_protocol::event::ReadyRoom;
use starling_protocol::{MessageId, RoomId, SessionId, Timestamp, UserId};

use crate::{Repository, Result, Undelivered};

/// How things stand for a user who connects, all of the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Whether the login session lives.
    pub alive: bool,
    /// The user's rooms, by id.
    pub rooms: Vec<ReadyRoom>,
    /// What did not arrive yet, oldest first, as [`Repository::undelivered`] gives it.
    pub undelivered: Vec<Undelivered>,
}

impl Repository {
    /// Looks up what a connection begins with: the session, the memberships, and the
    /// oldest `limit` of what is undelivered.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.arrivals.arrival", skip(self, session))]
    pub async fn arrival(&self, user: UserId, session: SessionId, limit: i64) -> Result<Arrival> {
        let row = sqlx::query!(
            r#"SELECT
                 EXISTS (
                   SELECT 1 FROM login_sessions WHERE id = $2 AND ended_at IS NULL
                 ) AS "alive!",
                 mine.rooms AS "rooms!",
                 mine.heads AS "heads!",
                 mine.read AS "read!",
                 missed.ids AS "ids!",
                 missed.rooms AS "missed_rooms!",
                 missed.seqs AS "seqs!",
                 missed.times AS "times!"
               FROM (
                 SELECT
                   coalesce(array_agg(rm.room_id ORDER BY rm.room_id), '{}') AS rooms,
                   coalesce(array_agg(r.last_seq ORDER BY rm.room_id), '{}') AS heads,
                   coalesce(array_agg(rm.last_read_seq ORDER BY rm.room_id), '{}') AS read
                 FROM room_members rm
                 JOIN rooms r ON r.id = rm.room_id
                 WHERE rm.user_id = $1
                   AND rm.left_at IS NULL
               ) AS mine
               CROSS JOIN (
                 SELECT
                   coalesce(array_agg(o.id ORDER BY o.at, o.room_id, o.seq), '{}') AS ids,
                   coalesce(array_agg(o.room_id ORDER BY o.at, o.room_id, o.seq), '{}') AS rooms,
                   coalesce(array_agg(o.seq ORDER BY o.at, o.room_id, o.seq), '{}') AS seqs,
                   coalesce(array_agg(o.at ORDER BY o.at, o.room_id, o.seq), '{}') AS times
                 FROM (
                   SELECT u.id, u.room_id, u.seq, u.at
                   FROM undelivered_messages($1) AS u
                   ORDER BY u.at, u.room_id, u.seq
                   LIMIT $3
                 ) AS o
               ) AS missed"#,
            user.0,
            session.0,
            limit,
        )
        .fetch_one(&mut *self.connection().await?)
        .await?;
        let rooms = row
            .rooms
            .into_iter()
            .zip(row.heads)
            .zip(row.read)
            .map(|((room, last_seq), last_read_seq)| ReadyRoom {
                room_id: RoomId(room),
                last_seq,
                last_read_seq,
            })
            .collect();
        let undelivered = row
            .ids
            .into_iter()
            .zip(row.missed_rooms)
            .zip(row.seqs.into_iter().zip(row.times))
            .map(|((id, room), (seq, at))| Undelivered {
                message_id: MessageId(id),
                room_id: RoomId(room),
                seq,
                created_at: Timestamp::from(at),
            })
            .collect();
        Ok(Arrival { alive: row.alive, rooms, undelivered })
    }
}
