//! Login sessions and their refresh tokens.

use starling_protocol::{SessionId, Timestamp, UserId};

use crate::{Repository, Result};

/// What came of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The old token is spent, the new one serves.
    Rotated {
        /// It keeps its id.
        session: SessionId,
        /// Whose it is.
        user: UserId,
    },
    /// The token was spent before: the session has been ended.
    Reused {
        /// Which.
        session: SessionId,
        /// Whose it was.
        user: UserId,
    },
    /// No such token, or its session has ended or expired.
    Unknown,
}

impl Repository {
    /// Begins a login session with its first refresh token.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.logins.create", skip(self, refresh_hash, now, expires_at))]
    pub async fn create_login(
        &self,
        session: SessionId,
        user: UserId,
        refresh_hash: &[u8],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<()> {
        sqlx::query!(
            "WITH session AS (
               INSERT INTO login_sessions (id, user_id, created_at, refreshed_at, expires_at)
               VALUES ($1, $2, $4, $4, $5)
             )
             INSERT INTO refresh_tokens (hash, session_id, created_at)
             VALUES ($3, $1, $4)",
            session.0,
            user.0,
            refresh_hash,
            now.utc(),
            expires_at.utc(),
        )
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(())
    }

    /// Spends a refresh token for a new one. Of two uses at once one rotates and
    /// the other is a reuse, which ends the session.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.logins.rotate", skip_all)]
    pub async fn rotate_refresh(
        &self,
        old_hash: &[u8],
        new_hash: &[u8],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Rotation> {
        let mut tx = self.begin().await?;
        let found = sqlx::query!(
            "SELECT t.spent_at, s.id, s.user_id, s.ended_at, s.expires_at
             FROM refresh_tokens t
             JOIN login_sessions s ON s.id = t.session_id
             WHERE t.hash = $1
             FOR NO KEY UPDATE OF t, s",
            old_hash,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(found) = found else { return Ok(Rotation::Unknown) };
        if found.ended_at.is_some() || found.expires_at <= now.utc() {
            return Ok(Rotation::Unknown);
        }
        let (session, user) = (SessionId(found.id), UserId(found.user_id));
        if found.spent_at.is_some() {
            sqlx::query!(
                "UPDATE login_sessions SET ended_at = $2 WHERE id = $1",
                found.id,
                now.utc(),
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            return Ok(Rotation::Reused { session, user });
        }
        sqlx::query!(
            "UPDATE refresh_tokens SET spent_at = $2 WHERE hash = $1",
            old_hash,
            now.utc(),
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "INSERT INTO refresh_tokens (hash, session_id, created_at) VALUES ($1, $2, $3)",
            new_hash,
            found.id,
            now.utc(),
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE login_sessions SET refreshed_at = $2, expires_at = $3 WHERE id = $1",
            found.id,
            now.utc(),
            expires_at.utc(),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Rotation::Rotated { session, user })
    }

    /// Whether the session exists and has not been ended. Its access tokens carry
    /// their own expiry.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.logins.alive", skip(self))]
    pub async fn login_alive(&self, session: SessionId) -> Result<bool> {
        let found = sqlx::query!(
            "SELECT id FROM login_sessions WHERE id = $1 AND ended_at IS NULL",
            session.0,
        )
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(found.is_some())
    }

    /// Ends a session and says whose it was; `None` when it had ended before.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.logins.end", skip(self, now))]
    pub async fn end_login(&self, session: SessionId, now: Timestamp) -> Result<Option<UserId>> {
        let ended = sqlx::query!(
            "UPDATE login_sessions
             SET ended_at = $2
             WHERE id = $1
               AND ended_at IS NULL
             RETURNING user_id",
            session.0,
            now.utc(),
        )
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(ended.map(|row| UserId(row.user_id)))
    }
}
