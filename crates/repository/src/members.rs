//! Changing a room and its members, under the room's lock.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use starling_protocol::{Role, RoomId, RoomType, Timestamp, UserId};

use crate::error::unknown_reference;
use crate::pool::Work;
use crate::row::{role, role_text, room_type, user_ids};
use crate::{Repository, Result};

/// A room that nobody else changes or writes to while this lives. Nothing is
/// stored until [`RoomLock::commit`]; dropping it undoes all.
pub struct RoomLock {
    tx: Work,
    room: RoomId,
    room_type: RoomType,
    created_by: UserId,
    roles: BTreeMap<UserId, Role>,
}

/// Adds users to a room that the transaction has locked or made; those in it stay
/// as they are. False, and the transaction is spoilt, when one does not exist.
pub(crate) async fn add_members(
    db: &mut PgConnection,
    room: RoomId,
    users: &[UserId],
    now: Timestamp,
) -> Result<bool> {
    let added = sqlx::query!(
        "INSERT INTO room_members
           (room_id, user_id, role, joined_at, joined_seq, last_delivered_seq, last_read_seq)
         SELECT r.id, new.id, 'member', $3, r.last_seq, r.last_seq, r.last_seq
         FROM rooms r
         CROSS JOIN (SELECT DISTINCT u.id FROM unnest($2::int[]) AS u (id) ORDER BY 1) AS new
         WHERE r.id = $1
         ON CONFLICT (room_id, user_id) WHERE left_at IS NULL DO NOTHING",
        room.0,
        &user_ids(users),
        now.utc(),
    )
    .execute(db)
    .await;
    match added {
        Ok(_) => Ok(true),
        Err(error) if unknown_reference(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Repository {
    /// Locks a room; waits while another holds it. `None` if there is no such room.
    ///
    /// # Errors
    /// The database failed, or a row is impossible.
    #[tracing::instrument(name = "db.rooms.lock", skip(self))]
    pub async fn lock_room(&self, room: RoomId) -> Result<Option<RoomLock>> {
        let mut tx = self.begin().await?;
        let found = sqlx::query!(
            "SELECT room_type, created_by
             FROM rooms
             WHERE id = $1
             FOR NO KEY UPDATE",
            room.0,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(found) = found else { return Ok(None) };
        let rows = sqlx::query!(
            "SELECT user_id, role
             FROM room_members
             WHERE room_id = $1
               AND left_at IS NULL",
            room.0,
        )
        .fetch_all(&mut *tx)
        .await?;
        let roles = rows
            .into_iter()
            .map(|row| Ok((UserId(row.user_id), role(&row.role)?)))
            .collect::<Result<_>>()?;
        Ok(Some(RoomLock {
            tx,
            room,
            room_type: room_type(&found.room_type)?,
            created_by: UserId(found.created_by),
            roles,
        }))
    }
}

impl RoomLock {
    /// Direct or group.
    #[must_use]
    pub fn room_type(&self) -> RoomType {
        self.room_type
    }

    /// Who made it.
    #[must_use]
    pub fn created_by(&self) -> UserId {
        self.created_by
    }

    /// The members and their roles, with what was changed under this lock.
    #[must_use]
    pub fn roles(&self) -> &BTreeMap<UserId, Role> {
        &self.roles
    }

    /// Gives the group another name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn rename(&mut self, name: &str) -> Result<()> {
        sqlx::query!("UPDATE rooms SET name = $2 WHERE id = $1", self.room.0, name)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Adds members, to whom nothing sent before is unread; those who are in the
    /// room stay as they are. False when one does not exist: nobody is added, and
    /// the lock can only be dropped.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add(&mut self, users: &[UserId], now: Timestamp) -> Result<bool> {
        if !add_members(&mut self.tx, self.room, users, now).await? {
            return Ok(false);
        }
        for user in users {
            self.roles.entry(*user).or_insert(Role::Member);
        }
        Ok(true)
    }

    /// Gives a member another role. A room never has two owners: demote the old
    /// one first.
    ///
    /// # Errors
    /// The database failed, or there would be two owners.
    pub async fn set_role(&mut self, user: UserId, role: Role) -> Result<()> {
        let done = sqlx::query!(
            "UPDATE room_members
             SET role = $3
             WHERE room_id = $1
               AND user_id = $2
               AND left_at IS NULL",
            self.room.0,
            user.0,
            role_text(role),
        )
        .execute(&mut *self.tx)
        .await?;
        if done.rows_affected() > 0 {
            self.roles.insert(user, role);
        }
        Ok(())
    }

    /// Makes another member the owner, and the owner an admin.
    ///
    /// # Errors
    /// The database failed.
    pub async fn hand_over(&mut self, owner: UserId, to: UserId) -> Result<()> {
        // Memberships are locked in the order of their ids, as by who marks receipts.
        sqlx::query!(
            "SELECT id
             FROM room_members
             WHERE room_id = $1
               AND user_id = ANY($2)
               AND left_at IS NULL
             ORDER BY id
             FOR NO KEY UPDATE",
            self.room.0,
            &user_ids(&[owner, to]),
        )
        .fetch_all(&mut *self.tx)
        .await?;
        self.set_role(owner, Role::Admin).await?;
        self.set_role(to, Role::Owner).await
    }

    /// Ends a member's stay; one who isn't in the room is fine.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove(&mut self, user: UserId, now: Timestamp) -> Result<()> {
        sqlx::query!(
            "UPDATE room_members
             SET left_at = $3
             WHERE room_id = $1
               AND user_id = $2
               AND left_at IS NULL",
            self.room.0,
            user.0,
            now.utc(),
        )
        .execute(&mut *self.tx)
        .await?;
        self.roles.remove(&user);
        Ok(())
    }

    /// Stores what was changed and unlocks the room.
    ///
    /// # Errors
    /// The database failed; nothing is stored, unless only its answer was lost.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await?;
        Ok(())
    }
}
