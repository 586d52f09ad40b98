//! People.

use chrono::{DateTime, Utc};
use starling_protocol::{Timestamp, User, UserId};

use crate::error::violates;
use crate::row::user_ids;
use crate::{Repository, Result};

/// A person to register. The rules have checked it.
#[derive(Clone)]
pub struct NewUser {
    /// Unique without regard to case.
    pub username: String,
    /// Unique without regard to case.
    pub email: String,
    /// A bcrypt hash.
    pub password_hash: String,
    /// The name to show.
    pub display_name: String,
    /// Now.
    pub created_at: Timestamp,
}

/// What came of registering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateUser {
    /// Done; with the e-mail address.
    Created(User),
    /// Somebody has this name.
    UsernameTaken,
    /// Somebody has this address.
    EmailTaken,
}

/// What a password is compared with.
#[derive(Clone)]
pub struct Credentials {
    /// Whose it is.
    pub user_id: UserId,
    /// The stored hash.
    pub password_hash: String,
}

struct UserRow {
    id: i32,
    username: String,
    display_name: String,
    avatar_url: Option<String>,
    last_seen: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    email: Option<String>,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: UserId(row.id),
            username: row.username,
            display_name: row.display_name,
            avatar_url: row.avatar_url,
            last_seen: row.last_seen.map(Into::into),
            created_at: row.created_at.into(),
            email: row.email,
        }
    }
}

impl Repository {
    /// Registers a person; of two at once with the same name, one succeeds.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.users.create", skip_all)]
    pub async fn create_user(&self, new: NewUser) -> Result<CreateUser> {
        let created = sqlx::query_as!(
            UserRow,
            r#"INSERT INTO users (username, email, password_hash, display_name, created_at)
               VALUES ($1, $2, $3, $4, $5)
               RETURNING
                 id, username, display_name, avatar_url, last_seen, created_at,
                 email AS "email?""#,
            new.username,
            new.email,
            new.password_hash,
            new.display_name,
            new.created_at.utc(),
        )
        .fetch_one(&mut *self.connection().await?)
        .await;
        match created {
            Ok(row) => Ok(CreateUser::Created(row.into())),
            // The second name: a unique constraint of the time before an adoption.
            Err(error)
                if violates(&error, "users_username_key")
                    || violates(&error, "users_username_key_node") =>
            {
                Ok(CreateUser::UsernameTaken)
            }
            Err(error)
                if violates(&error, "users_email_key")
                    || violates(&error, "users_email_key_node") =>
            {
                Ok(CreateUser::EmailTaken)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A person as it sees itself, with its e-mail address.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.users.get", skip(self))]
    pub async fn user(&self, id: UserId) -> Result<Option<User>> {
        let row = sqlx::query_as!(
            UserRow,
            r#"SELECT
                 id, username, display_name, avatar_url, last_seen, created_at,
                 email AS "email?"
               FROM users
               WHERE id = $1"#,
            id.0,
        )
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(row.map(Into::into))
    }

    /// People as others see them, by id; unknown ids are left out.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.users.list", skip_all)]
    pub async fn users_by_ids(&self, ids: &[UserId]) -> Result<Vec<User>> {
        let rows = sqlx::query_as!(
            UserRow,
            r#"SELECT
                 id, username, display_name, avatar_url, last_seen, created_at,
                 NULL::text AS email
               FROM users
               WHERE id = ANY($1)
               ORDER BY id"#,
            &user_ids(ids),
        )
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// People whose username or display name begins with this, without regard to
    /// case, by username.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.users.search", skip_all)]
    pub async fn search_users(&self, prefix: &str, limit: i64) -> Result<Vec<User>> {
        let mut pattern = String::with_capacity(prefix.len() + 1);
        for character in prefix.chars() {
            if matches!(character, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern.push('%');
        let rows = sqlx::query_as!(
            UserRow,
            r#"SELECT
                 id, username, display_name, avatar_url, last_seen, created_at,
                 NULL::text AS email
               FROM users
               WHERE lower(username) LIKE lower($1)
                  OR lower(display_name) LIKE lower($1)
               ORDER BY lower(username)
               LIMIT $2"#,
            pattern,
            limit,
        )
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Changes what is given: an absent value stays, `Some(None)` clears the
    /// picture. `None` for an unknown id.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.users.update", skip(self, display_name, avatar_url))]
    pub async fn update_user(
        &self,
        id: UserId,
        display_name: Option<&str>,
        avatar_url: Option<Option<&str>>,
    ) -> Result<Option<User>> {
        let row = sqlx::query_as!(
            UserRow,
            r#"UPDATE users
               SET display_name = coalesce($2, display_name),
                   avatar_url = CASE WHEN $3 THEN $4 ELSE avatar_url END
               WHERE id = $1
               RETURNING
                 id, username, display_name, avatar_url, last_seen, created_at,
                 email AS "email?""#,
            id.0,
            display_name,
            avatar_url.is_some(),
            avatar_url.flatten(),
        )
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(row.map(Into::into))
    }

    /// Whose password to compare for this username or e-mail address. A username
    /// has no `@`, so the two never meet.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.users.credentials", skip_all)]
    pub async fn credentials(&self, login: &str) -> Result<Option<Credentials>> {
        // PostgreSQL can't hold U+0000, so nobody has such a name.
        if login.contains('\0') {
            return Ok(None);
        }
        let row = sqlx::query!(
            "SELECT id, password_hash
             FROM users
             WHERE lower(username) = lower($1)
                OR lower(email) = lower($1)
             LIMIT 1",
            login,
        )
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(row.map(|row| Credentials { user_id: UserId(row.id), password_hash: row.password_hash }))
    }

    /// The last sockets of these people closed. Never goes back.
    ///
    /// # Errors
    /// The database failed.
    #[tracing::instrument(name = "db.users.last_seen", skip_all)]
    pub async fn set_last_seen(&self, ids: &[UserId], now: Timestamp) -> Result<()> {
        // Locked by id: two calls over the same people never deadlock.
        sqlx::query!(
            "UPDATE users u
             SET last_seen = greatest(u.last_seen, $2)
             FROM (
               SELECT id
               FROM users
               WHERE id = ANY($1)
               ORDER BY id
               FOR NO KEY UPDATE
             ) AS locked
             WHERE u.id = locked.id",
            &user_ids(ids),
            now.utc(),
        )
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(())
    }
}
