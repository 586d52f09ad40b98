//! Open sockets (`user_sessions`): what support and operators look at, and what
//! is left to clean up when an instance dies.

use starling_protocol::{Timestamp, UserId};

use crate::{Repository, Result};

impl Repository {
    /// A socket opened on an instance.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.sockets.open", skip(self, socket_id, now))]
    pub async fn socket_opened(
        &self,
        user: UserId,
        socket_id: &str,
        instance: &str,
        now: Timestamp,
    ) -> Result<()> {
        sqlx::query!(
            "INSERT INTO user_sessions (user_id, socket_id, server_instance, connected_at, last_heartbeat)
             VALUES ($1, $2, $3, $4, $4)
             ON CONFLICT (socket_id) DO UPDATE
             SET user_id = excluded.user_id,
                 server_instance = excluded.server_instance,
                 connected_at = excluded.connected_at,
                 last_heartbeat = excluded.last_heartbeat",
            user.0,
            socket_id,
            instance,
            now.utc(),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A socket closed; one that is unknown is fine.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.sockets.close", skip_all)]
    pub async fn socket_closed(&self, socket_id: &str) -> Result<()> {
        sqlx::query!("DELETE FROM user_sessions WHERE socket_id = $1", socket_id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The instance lives, and so do its sockets.
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
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The instance starts or stops: it has no sockets.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.sockets.forget_instance", skip(self))]
    pub async fn forget_instance(&self, instance: &str) -> Result<()> {
        sqlx::query!("DELETE FROM user_sessions WHERE server_instance = $1", instance)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Removes sockets of instances that died, and says how many.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.sockets.forget_stale", skip_all)]
    pub async fn forget_stale(&self, older_than: Timestamp) -> Result<u64> {
        let done =
            sqlx::query!("DELETE FROM user_sessions WHERE last_heartbeat < $1", older_than.utc(),)
                .execute(&self.pool)
                .await?;
        Ok(done.rows_affected())
    }
}
