//! Rooms as their members see them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use starling_protocol::{Member, Message, MessageId, Room, RoomId, Timestamp, UserId};
use uuid::Uuid;

use crate::error::unknown_reference;
use crate::members::add_members;
use crate::messages::load;
use crate::row::{role, room_type, user_ids};
use crate::{Repository, Result};

struct RoomRow {
    id: i32,
    name: Option<String>,
    room_type: String,
    created_by: i32,
    created_at: DateTime<Utc>,
    last_seq: i64,
    unread_count: i64,
    last_message_id: Option<Uuid>,
}

impl RoomRow {
    fn into_room(
        self,
        last_message: Option<Message>,
        members: Option<Vec<Member>>,
    ) -> Result<Room> {
        Ok(Room {
            id: RoomId(self.id),
            name: self.name,
            room_type: room_type(&self.room_type)?,
            created_by: UserId(self.created_by),
            created_at: self.created_at.into(),
            last_seq: self.last_seq,
            unread_count: self.unread_count,
            last_message,
            members,
        })
    }
}

async fn members_of(db: &mut PgConnection, room: RoomId) -> Result<Vec<Member>> {
    let rows = sqlx::query!(
        "SELECT
           rm.user_id, u.username, u.display_name, u.avatar_url,
           rm.role, rm.joined_at, rm.last_read_seq, rm.last_delivered_seq
         FROM room_members rm
         JOIN users u ON u.id = rm.user_id
         WHERE rm.room_id = $1
           AND rm.left_at IS NULL
         ORDER BY rm.joined_at, rm.id",
        room.0,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Member {
                user_id: UserId(row.user_id),
                username: row.username,
                display_name: row.display_name,
                avatar_url: row.avatar_url,
                role: role(&row.role)?,
                joined_at: row.joined_at.into(),
                last_read_seq: row.last_read_seq,
                last_delivered_seq: row.last_delivered_seq,
            })
        })
        .collect()
}

impl Repository {
    /// Makes a group whose owner is its creator. `None` when one of them does not
    /// exist; then nothing is stored.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.rooms.create_group", skip_all)]
    pub async fn create_group(
        &self,
        creator: UserId,
        name: &str,
        others: &[UserId],
        now: Timestamp,
    ) -> Result<Option<RoomId>> {
        let mut tx = self.begin().await?;
        let created = sqlx::query!(
            "WITH room AS (
               INSERT INTO rooms (name, room_type, created_by, created_at, last_activity_at)
               VALUES ($2, 'group', $1, $3, $3)
               RETURNING id
             )
             INSERT INTO room_members
               (room_id, user_id, role, joined_at, joined_seq, last_delivered_seq, last_read_seq)
             SELECT room.id, $1, 'owner', $3, 0, 0, 0
             FROM room
             RETURNING room_id",
            creator.0,
            name,
            now.utc(),
        )
        .fetch_one(&mut *tx)
        .await;
        let room = match created {
            Ok(row) => RoomId(row.room_id),
            Err(error) if unknown_reference(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let others: Vec<UserId> = others.iter().copied().filter(|id| *id != creator).collect();
        if !add_members(&mut tx, room, &others, now).await? {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(room))
    }

    /// Opens the direct room of two users: the flag says whether it is new. Of two
    /// calls at once one creates it, and both name the same room. Whoever had left
    /// it is in again. The creator becomes owner, the other a member. `None` when
    /// one of the two does not exist.
    ///
    /// # Errors
    /// The database failed, or the two are the same user.
    #[tracing::instrument(name = "db.rooms.create_direct", skip_all)]
    pub async fn create_direct(
        &self,
        a: UserId,
        b: UserId,
        now: Timestamp,
    ) -> Result<Option<(RoomId, bool)>> {
        let (low, high) = (a.min(b).0, a.max(b).0);
        let mut tx = self.begin().await?;
        let created = sqlx::query!(
            "INSERT INTO rooms
               (room_type, created_by, created_at, last_activity_at, direct_low, direct_high)
             VALUES ('direct', $1, $2, $2, $3, $4)
             ON CONFLICT (direct_low, direct_high) DO NOTHING
             RETURNING id",
            a.0,
            now.utc(),
            low,
            high,
        )
        .fetch_optional(&mut *tx)
        .await;
        let created = match created {
            Ok(row) => row.map(|row| row.id),
            Err(error) if unknown_reference(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if let Some(id) = created {
            sqlx::query!(
                "INSERT INTO room_members
                   (room_id, user_id, role, joined_at, joined_seq, last_delivered_seq, last_read_seq)
                 VALUES ($1, $2, 'owner', $4, 0, 0, 0), ($1, $3, 'member', $4, 0, 0, 0)",
                id,
                a.0,
                b.0,
                now.utc(),
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            return Ok(Some((RoomId(id), true)));
        }
        let found = sqlx::query!(
            "SELECT id
             FROM rooms
             WHERE direct_low = $1
               AND direct_high = $2
             FOR NO KEY UPDATE",
            low,
            high,
        )
        .fetch_one(&mut *tx)
        .await?;
        add_members(&mut tx, RoomId(found.id), &[a, b], now).await?;
        tx.commit().await?;
        Ok(Some((RoomId(found.id), false)))
    }

    /// The user's rooms without their members, newest activity first.
    ///
    /// # Errors
    /// The database failed, or a row is impossible.
    #[tracing::instrument(name = "db.rooms.list", skip(self))]
    pub async fn rooms_of(&self, user: UserId) -> Result<Vec<Room>> {
        let mut db = self.connection().await?;
        let rows = sqlx::query_as!(
            RoomRow,
            r#"SELECT
                 r.id, r.name, r.room_type, r.created_by, r.created_at, r.last_seq,
                 (
                   SELECT count(*)
                   FROM messages m
                   WHERE m.room_id = r.id
                     AND m.seq > rm.last_read_seq
                     AND m.sender_id <> rm.user_id
                 ) AS "unread_count!",
                 newest.id AS "last_message_id?"
               FROM room_members rm
               JOIN rooms r ON r.id = rm.room_id
               LEFT JOIN messages newest ON newest.room_id = r.id AND newest.seq = r.last_seq
               WHERE rm.user_id = $1
                 AND rm.left_at IS NULL
               ORDER BY r.last_activity_at DESC, r.id DESC"#,
            user.0,
        )
        .fetch_all(&mut *db)
        .await?;
        let ids: Vec<Uuid> = rows.iter().filter_map(|row| row.last_message_id).collect();
        let mut newest: HashMap<MessageId, Message> =
            load(&mut db, user, &ids).await?.into_iter().map(|m| (m.id, m)).collect();
        rows.into_iter()
            .map(|row| {
                let last = row.last_message_id.and_then(|id| newest.remove(&MessageId(id)));
                row.into_room(last, None)
            })
            .collect()
    }

    /// One of the user's rooms with its members; `None` if it isn't one.
    ///
    /// # Errors
    /// The database failed, or a row is impossible.
    #[tracing::instrument(name = "db.rooms.get", skip(self))]
    pub async fn room_for(&self, user: UserId, room: RoomId) -> Result<Option<Room>> {
        Ok(self.rooms_for(&[user], room).await?.pop().map(|(_, room)| room))
    }

    /// The same room, with its members, as each of these members sees it; users
    /// that are not in it are left out.
    ///
    /// # Errors
    /// The database failed, or a row is impossible.
    #[tracing::instrument(name = "db.rooms.views", skip(self, users))]
    pub async fn rooms_for(&self, users: &[UserId], room: RoomId) -> Result<Vec<(UserId, Room)>> {
        let mut db = self.connection().await?;
        let rows = sqlx::query!(
            r#"SELECT
                 rm.user_id,
                 r.id, r.name, r.room_type, r.created_by, r.created_at, r.last_seq,
                 (
                   SELECT count(*)
                   FROM messages m
                   WHERE m.room_id = r.id
                     AND m.seq > rm.last_read_seq
                     AND m.sender_id <> rm.user_id
                 ) AS "unread_count!",
                 newest.id AS "last_message_id?",
                 newest.sender_id AS "last_sender_id?"
               FROM room_members rm
               JOIN rooms r ON r.id = rm.room_id
               LEFT JOIN messages newest ON newest.room_id = r.id AND newest.seq = r.last_seq
               WHERE rm.room_id = $1
                 AND rm.user_id = ANY($2)
                 AND rm.left_at IS NULL
               ORDER BY rm.joined_at, rm.id"#,
            room.0,
            &user_ids(users),
        )
        .fetch_all(&mut *db)
        .await?;
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        // As its sender sees it: one statement serves all.
        let ids: Vec<Uuid> = first.last_message_id.into_iter().collect();
        let sender = UserId(first.last_sender_id.unwrap_or_default());
        let last = load(&mut db, sender, &ids).await?.pop();
        let members = members_of(&mut db, room).await?;
        rows.into_iter()
            .map(|row| {
                let user = UserId(row.user_id);
                let mut last = last.clone();
                if let Some(message) = last.as_mut().filter(|message| message.sender_id != user) {
                    message.receipts = None;
                }
                let row = RoomRow {
                    id: row.id,
                    name: row.name,
                    room_type: row.room_type,
                    created_by: row.created_by,
                    created_at: row.created_at,
                    last_seq: row.last_seq,
                    unread_count: row.unread_count,
                    last_message_id: None,
                };
                Ok((user, row.into_room(last, Some(members.clone()))?))
            })
            .collect()
    }

    /// The user's rooms, by id.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.rooms.ids", skip(self))]
    pub async fn room_ids_of(&self, user: UserId) -> Result<Vec<RoomId>> {
        let rows = sqlx::query!(
            "SELECT room_id
             FROM room_members
             WHERE user_id = $1
               AND left_at IS NULL
             ORDER BY room_id",
            user.0,
        )
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| RoomId(row.room_id)).collect())
    }

    /// The direct room of two users.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.rooms.direct_room", skip(self))]
    pub async fn direct_room(&self, one: UserId, other: UserId) -> Result<Option<RoomId>> {
        let found = sqlx::query!(
            "SELECT id
             FROM rooms
             WHERE direct_low = least($1::int, $2::int)
               AND direct_high = greatest($1::int, $2::int)",
            one.0,
            other.0,
        )
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(found.map(|row| RoomId(row.id)))
    }

    /// Those of the users who are in so many rooms or more.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.rooms.crowded", skip_all)]
    pub async fn in_many_rooms(&self, users: &[UserId], many: i64) -> Result<Vec<UserId>> {
        let ids: Vec<i32> = users.iter().map(|user| user.0).collect();
        let rows = sqlx::query!(
            "SELECT user_id
             FROM room_members
             WHERE user_id = ANY($1)
               AND left_at IS NULL
             GROUP BY user_id
             HAVING count(*) >= $2
             ORDER BY user_id",
            &ids,
            many,
        )
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| UserId(row.user_id)).collect())
    }

    /// The room's members, by id.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.rooms.member_ids", skip(self))]
    pub async fn member_ids(&self, room: RoomId) -> Result<Vec<UserId>> {
        let rows = sqlx::query!(
            "SELECT user_id
             FROM room_members
             WHERE room_id = $1
               AND left_at IS NULL
             ORDER BY user_id",
            room.0,
        )
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| UserId(row.user_id)).collect())
    }

    /// Whether the user is in the room now.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.rooms.is_member", skip(self))]
    pub async fn is_member(&self, room: RoomId, user: UserId) -> Result<bool> {
        let found = sqlx::query!(
            "SELECT id
             FROM room_members
             WHERE room_id = $1
               AND user_id = $2
               AND left_at IS NULL",
            room.0,
            user.0,
        )
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(found.is_some())
    }

    /// Those of these users who are in a room with the user, by id; always also
    /// the user itself, if it is among them.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.rooms.sharing", skip(self, others))]
    pub async fn sharing_a_room(&self, user: UserId, others: &[UserId]) -> Result<Vec<UserId>> {
        let rows = sqlx::query!(
            r#"SELECT DISTINCT o.id AS "id!"
               FROM unnest($2::int[]) AS o (id)
               WHERE (o.id = $1 AND EXISTS (SELECT 1 FROM users u WHERE u.id = $1))
                  OR EXISTS (
                    SELECT 1
                    FROM room_members mine
                    JOIN room_members theirs ON theirs.room_id = mine.room_id
                    WHERE mine.user_id = $1
                      AND mine.left_at IS NULL
                      AND theirs.user_id = o.id
                      AND theirs.left_at IS NULL
                  )
               ORDER BY 1"#,
            user.0,
            &user_ids(others),
        )
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows.into_iter().map(|row| UserId(row.id)).collect())
    }
}
