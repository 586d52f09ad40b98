//! Open sockets (`user_sessions`) and the instances that hold them
//! (`server_instances`): what support and operators look at, and what is left to
//! clean up when an instance dies.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use starling_protocol::{Timestamp, UserId};

use crate::pool::Work;
use crate::{Repository, Result};

/// The lock of the one who sweeps: two at once would do the same.
const SWEEPING: i64 = 0x7374_6172_6c69_6e67;

/// A row of `user_sessions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSocket {
    /// Whose it is.
    pub user: UserId,
    /// Unique over all instances.
    pub socket_id: String,
    /// Since when.
    pub connected_at: Timestamp,
}

/// What a sweep removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Instances whose lease had run out.
    pub instances: Vec<String>,
    /// Their sockets.
    pub sockets: u64,
}

fn columns(sockets: &[OpenSocket]) -> (Vec<i32>, Vec<String>, Vec<chrono::DateTime<chrono::Utc>>) {
    (
        sockets.iter().map(|socket| socket.user.0).collect(),
        sockets.iter().map(|socket| socket.socket_id.clone()).collect(),
        sockets.iter().map(|socket| socket.connected_at.utc()).collect(),
    )
}

impl Repository {
    /// The instance lives, and will be believed to for this long. Answers whether it
    /// was believed to until now: if not, its sockets may have been swept.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.sockets.renew", skip(self))]
    pub async fn renew_instance(&self, instance: &str, lease: Duration) -> Result<bool> {
        let lease = PgInterval {
            months: 0,
            days: 0,
            microseconds: i64::try_from(lease.as_micros()).unwrap_or(i64::MAX),
        };
        let found = sqlx::query!(
            r#"WITH before AS (
                 SELECT alive_until > now() AS alive
                 FROM server_instances
                 WHERE instance = $1
               ), renewed AS (
                 INSERT INTO server_instances (instance, alive_until)
                 VALUES ($1, now() + $2)
                 ON CONFLICT (instance) DO UPDATE
                 SET alive_until = excluded.alive_until
               )
               SELECT coalesce((SELECT alive FROM before), false) AS "alive!""#,
            instance,
            lease,
        )
        .fetch_one(&mut *self.connection().await?)
        .await?;
        Ok(found.alive)
    }

    /// Sockets opened and closed on an instance; closed ones that are unknown are fine.
    ///
    /// # Errors
    /// The database failed; nothing is written.
    #[tracing::instrument(name = "db.sockets.change", skip_all)]
    pub async fn sockets_changed(
        &self,
        instance: &str,
        opened: &[OpenSocket],
        closed: &[String],
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        if !closed.is_empty() {
            sqlx::query!("DELETE FROM user_sessions WHERE socket_id = ANY($1)", closed)
                .execute(&mut *tx)
                .await?;
        }
        insert(&mut tx, instance, opened).await?;
        tx.commit().await?;
        Ok(())
    }

    /// These are the instance's sockets, and no others.
    ///
    /// # Errors
    /// The database failed; nothing is written.
    #[tracing::instrument(name = "db.sockets.replace", skip_all)]
    pub async fn sockets_are(&self, instance: &str, open: &[OpenSocket]) -> Result<()> {
        let mut tx = self.begin().await?;
        let (_, ids, _) = columns(open);
        sqlx::query!(
            "DELETE FROM user_sessions WHERE server_instance = $1 AND NOT socket_id = ANY($2)",
            instance,
            &ids,
        )
        .execute(&mut *tx)
        .await?;
        insert(&mut tx, instance, open).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The sockets of the instance live, for programs that go by `last_heartbeat`.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.sockets.heartbeat", skip(self, now))]
    pub async fn heartbeat(&self, instance: &str, now: Timestamp) -> Result<()> {
        sqlx::query!(
            "UPDATE user_sessions SET last_heartbeat = $2 WHERE server_instance = $1",
            instance,
            now.utc(),
        )
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(())
    }

    /// The instance starts or stops: it has no sockets, and nobody waits for it.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.sockets.forget_instance", skip(self))]
    pub async fn forget_instance(&self, instance: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query!("DELETE FROM server_instances WHERE instance = $1", instance)
            .execute(&mut *tx)
            .await?;
        sqlx::query!("DELETE FROM user_sessions WHERE server_instance = $1", instance)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Removes instances whose lease ran out, with their sockets. Of several that
    /// sweep at once one does, the others find nothing.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.sockets.sweep", skip_all)]
    pub async fn sweep_instances(&self) -> Result<Swept> {
        let mut tx = self.begin().await?;
        let mine = sqlx::query!(r#"SELECT pg_try_advisory_xact_lock($1) AS "mine!""#, SWEEPING)
            .fetch_one(&mut *tx)
            .await?
            .mine;
        if !mine {
            return Ok(Swept::default());
        }
        // One that renews its lease right now is left alone: its row is looked at
        // again once it is locked.
        let dead = sqlx::query!(
            "DELETE FROM server_instances WHERE alive_until < now() RETURNING instance"
        )
        .fetch_all(&mut *tx)
        .await?;
        let instances: Vec<String> = dead.into_iter().map(|row| row.instance).collect();
        let mut sockets = 0;
        if !instances.is_empty() {
            sockets = sqlx::query!(
                "DELETE FROM user_sessions WHERE server_instance = ANY($1)",
                &instances
            )
            .execute(&mut *tx)
            .await?
            .rows_affected();
        }
        tx.commit().await?;
        Ok(Swept { instances, sockets })
    }

    /// Removes sockets of instances that have no lease, as those of other programs,
    /// and whose heartbeat stopped. Says how many.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.sockets.forget_stale", skip_all)]
    pub async fn forget_stale(&self, older_than: Timestamp) -> Result<u64> {
        let done = sqlx::query!(
            "DELETE FROM user_sessions s
             WHERE s.last_heartbeat < $1
               AND NOT EXISTS (
                 SELECT 1 FROM server_instances i WHERE i.instance = s.server_instance
               )",
            older_than.utc(),
        )
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(done.rows_affected())
    }
}

async fn insert(tx: &mut Work, instance: &str, opened: &[OpenSocket]) -> Result<()> {
    if opened.is_empty() {
        return Ok(());
    }
    let (users, ids, times) = columns(opened);
    // A user that does not exist would fail all the others.
    sqlx::query!(
        "INSERT INTO user_sessions (user_id, socket_id, server_instance, connected_at, last_heartbeat)
         SELECT u.id, o.socket_id, $1, o.at, greatest(o.at, now())
         FROM unnest($2::int[], $3::text[], $4::timestamptz[]) AS o (user_id, socket_id, at)
         JOIN users u ON u.id = o.user_id
         ON CONFLICT (socket_id) DO UPDATE
         SET user_id = excluded.user_id,
             server_instance = excluded.server_instance,
             connected_at = excluded.connected_at,
             last_heartbeat = excluded.last_heartbeat",
        instance,
        &users,
        &ids,
        &times,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
