//! Many users, rooms and logins at once, for load tests.

use starling_protocol::{RoomId, SessionId, Timestamp, UserId};
use uuid::Uuid;

use crate::{Repository, Result};

/// Rows a statement: far below the statement timeout.
const CHUNK: usize = 20_000;

impl Repository {
    /// Makes sure of `count` users named `<prefix>1`, `<prefix>2` …, who share one
    /// password hash, and answers them in this order. Those that exist stay as
    /// they are, so a second run adds only what is missing.
    ///
    /// # Errors
    /// The database failed; a part may be stored.
    #[tracing::instrument(name = "db.seed.users", skip(self, password_hash, now))]
    pub async fn bulk_users(
        &self,
        count: u32,
        password_hash: &str,
        name_prefix: &str,
        now: Timestamp,
    ) -> Result<Vec<(UserId, String)>> {
        let names: Vec<String> = (1..=count).map(|n| format!("{name_prefix}{n}")).collect();
        let mut users = Vec::with_capacity(names.len());
        for names in names.chunks(CHUNK) {
            sqlx::query!(
                "INSERT INTO users (username, email, password_hash, display_name, created_at)
                 SELECT n.name, n.name || '@seed.invalid', $2, n.name, $3
                 FROM unnest($1::text[]) AS n (name)
                 ON CONFLICT (lower(username)) DO NOTHING",
                names,
                password_hash,
                now.utc(),
            )
            .execute(&mut *self.connection().await?)
            .await?;
            let rows = sqlx::query!(
                "SELECT u.id, u.username
                 FROM unnest($1::text[]) WITH ORDINALITY AS n (name, place)
                 JOIN users u ON lower(u.username) = lower(n.name)
                 ORDER BY n.place",
                names,
            )
            .fetch_all(&mut *self.connection().await?)
            .await?;
            users.extend(rows.into_iter().map(|row| (UserId(row.id), row.username)));
        }
        Ok(users)
    }

    /// Makes one group for each list of members, named `<prefix> 1` and so on. The
    /// first of a list is the owner; repeats are ignored, empty lists are skipped.
    ///
    /// # Errors
    /// The database failed, or a user does not exist; a part may be stored.
    #[tracing::instrument(name = "db.seed.rooms", skip_all)]
    pub async fn bulk_rooms(
        &self,
        members: &[Vec<UserId>],
        name_prefix: &str,
        now: Timestamp,
    ) -> Result<Vec<RoomId>> {
        let mut rooms = Vec::with_capacity(members.len());
        let lists: Vec<&Vec<UserId>> = members.iter().filter(|list| !list.is_empty()).collect();
        for (part, lists) in lists.chunks(CHUNK).enumerate() {
            let owners: Vec<i32> =
                lists.iter().filter_map(|list| list.first()).map(|id| id.0).collect();
            let names: Vec<String> =
                (1..=owners.len()).map(|n| format!("{name_prefix} {}", part * CHUNK + n)).collect();
            // Ids first: so it is known which room each list becomes.
            let ids = sqlx::query!(
                r#"SELECT nextval(pg_get_serial_sequence('rooms', 'id'))::int AS "id!"
                   FROM generate_series(1, $1::int)"#,
                i32::try_from(owners.len()).unwrap_or(i32::MAX),
            )
            .fetch_all(&mut *self.connection().await?)
            .await?;
            let ids: Vec<i32> = ids.into_iter().map(|row| row.id).collect();
            sqlx::query!(
                "INSERT INTO rooms (id, name, room_type, created_by, created_at, last_activity_at)
                 SELECT r.id, r.name, 'group', r.owner, $4, $4
                 FROM unnest($1::int[], $2::text[], $3::int[]) AS r (id, name, owner)",
                &ids,
                &names,
                &owners,
                now.utc(),
            )
            .execute(&mut *self.connection().await?)
            .await?;
            let stays: Vec<(i32, i32, bool)> = ids
                .iter()
                .zip(lists)
                .flat_map(|(room, list)| {
                    list.iter().enumerate().map(move |(place, user)| (*room, user.0, place == 0))
                })
                .collect();
            for stays in stays.chunks(CHUNK) {
                let stay_rooms: Vec<i32> = stays.iter().map(|stay| stay.0).collect();
                let stay_users: Vec<i32> = stays.iter().map(|stay| stay.1).collect();
                let stay_owners: Vec<bool> = stays.iter().map(|stay| stay.2).collect();
                sqlx::query!(
                    "INSERT INTO room_members
                       (room_id, user_id, role, joined_at, joined_seq, last_delivered_seq, last_read_seq)
                     SELECT s.room_id, s.user_id, CASE WHEN s.owner THEN 'owner' ELSE 'member' END, $4, 0, 0, 0
                     FROM unnest($1::int[], $2::int[], $3::bool[]) AS s (room_id, user_id, owner)
                     ON CONFLICT (room_id, user_id) WHERE left_at IS NULL DO NOTHING",
                    &stay_rooms,
                    &stay_users,
                    &stay_owners,
                    now.utc(),
                )
                .execute(&mut *self.connection().await?)
                .await?;
            }
            rooms.extend(ids.into_iter().map(RoomId));
        }
        Ok(rooms)
    }

    /// Begins login sessions without refresh tokens: their access tokens serve
    /// until they expire.
    ///
    /// # Errors
    /// The database failed; a part may be stored.
    #[tracing::instrument(name = "db.seed.logins", skip_all)]
    pub async fn bulk_logins(
        &self,
        logins: &[(SessionId, UserId)],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<()> {
        for logins in logins.chunks(CHUNK) {
            let ids: Vec<Uuid> = logins.iter().map(|(session, _)| session.0).collect();
            let users: Vec<i32> = logins.iter().map(|(_, user)| user.0).collect();
            sqlx::query!(
                "INSERT INTO login_sessions (id, user_id, created_at, refreshed_at, expires_at)
                 SELECT l.id, l.user_id, $3, $3, $4
                 FROM unnest($1::uuid[], $2::int[]) AS l (id, user_id)",
                &ids,
                &users,
                now.utc(),
                expires_at.utc(),
            )
            .execute(&mut *self.connection().await?)
            .await?;
        }
        Ok(())
    }
}
