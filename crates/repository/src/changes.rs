//! Changing stored messages: edit, delete, reactions. Each locks the message's
//! row, so changes of one message come one after the other.

use starling_protocol::{Message, MessageId, Role, Timestamp, UserId};

use crate::messages::load;
use crate::pool::Work;
use crate::row::role;
use crate::{Repository, Result};

/// What came of a change. Messages carry receipts if the acting user sent them.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly always the large one")]
pub enum Change {
    /// Done: the message as it is now.
    Changed(Message),
    /// It was so already.
    Unchanged(Message),
    /// There is no such message in a room that the user is in.
    NotFound,
    /// The user may see it, but not do this.
    Forbidden,
    /// It is deleted.
    Deleted,
}

/// A message whose row the transaction holds.
struct Held {
    sender: UserId,
    deleted: bool,
    /// What the acting user is in the room.
    role: Role,
}

async fn hold(tx: &mut Work, user: UserId, id: MessageId) -> Result<Option<Held>> {
    let found = sqlx::query!(
        "SELECT m.sender_id, m.deleted_at, rm.role
         FROM messages m
         JOIN room_members rm
           ON rm.room_id = m.room_id
          AND rm.user_id = $2
          AND rm.left_at IS NULL
         WHERE m.id = $1
         FOR NO KEY UPDATE OF m",
        id.0,
        user.0,
    )
    .fetch_optional(&mut **tx)
    .await?;
    let Some(found) = found else { return Ok(None) };
    Ok(Some(Held {
        sender: UserId(found.sender_id),
        deleted: found.deleted_at.is_some(),
        role: role(&found.role)?,
    }))
}

/// Commits, if something was changed, and answers with the message as it is.
async fn finish(mut tx: Work, user: UserId, id: MessageId, changed: bool) -> Result<Change> {
    let Some(message) = load(&mut tx, user, &[id.0]).await?.pop() else {
        return Ok(Change::NotFound);
    };
    if !changed {
        return Ok(Change::Unchanged(message));
    }
    tx.commit().await?;
    Ok(Change::Changed(message))
}

impl Repository {
    /// Replaces the content of one's own message, which counts as an edit even if
    /// the content is the same.
    ///
    /// # Errors
    /// The database failed; nothing is changed.
    #[tracing::instrument(name = "db.messages.edit", skip(self, content, now))]
    pub async fn edit(
        &self,
        user: UserId,
        id: MessageId,
        content: &str,
        now: Timestamp,
    ) -> Result<Change> {
        let mut tx = self.begin().await?;
        let Some(held) = hold(&mut tx, user, id).await? else { return Ok(Change::NotFound) };
        if held.sender != user {
            return Ok(Change::Forbidden);
        }
        if held.deleted {
            return Ok(Change::Deleted);
        }
        sqlx::query!(
            "UPDATE messages
             SET content = $2,
                 edited_at = greatest(created_at, edited_at, $3)
             WHERE id = $1",
            id.0,
            content,
            now.utc(),
        )
        .execute(&mut *tx)
        .await?;
        finish(tx, user, id, true).await
    }

    /// Deletes one's own message, or any as owner or admin: content, metadata and
    /// reactions are gone for good, its place in the room stays.
    ///
    /// # Errors
    /// The database failed; nothing is changed.
    #[tracing::instrument(name = "db.messages.delete", skip(self, now))]
    pub async fn delete(&self, user: UserId, id: MessageId, now: Timestamp) -> Result<Change> {
        let mut tx = self.begin().await?;
        let Some(held) = hold(&mut tx, user, id).await? else { return Ok(Change::NotFound) };
        if held.sender != user && held.role < Role::Admin {
            return Ok(Change::Forbidden);
        }
        if held.deleted {
            return finish(tx, user, id, false).await;
        }
        sqlx::query!(
            "UPDATE messages
             SET content = '',
                 metadata = '{}',
                 deleted_at = greatest(created_at, $2)
             WHERE id = $1",
            id.0,
            now.utc(),
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!("DELETE FROM reactions WHERE message_id = $1", id.0).execute(&mut *tx).await?;
        finish(tx, user, id, true).await
    }

    /// Chooses an emoji for a message; twice is once.
    ///
    /// # Errors
    /// The database failed; nothing is changed.
    #[tracing::instrument(name = "db.reactions.add", skip(self, emoji, now))]
    pub async fn add_reaction(
        &self,
        user: UserId,
        id: MessageId,
        emoji: &str,
        now: Timestamp,
    ) -> Result<Change> {
        let mut tx = self.begin().await?;
        let Some(held) = hold(&mut tx, user, id).await? else { return Ok(Change::NotFound) };
        if held.deleted {
            return Ok(Change::Deleted);
        }
        let done = sqlx::query!(
            "INSERT INTO reactions (message_id, user_id, emoji, created_at)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (message_id, emoji, user_id) DO NOTHING",
            id.0,
            user.0,
            emoji,
            now.utc(),
        )
        .execute(&mut *tx)
        .await?;
        finish(tx, user, id, done.rows_affected() > 0).await
    }

    /// Takes an emoji back; what isn't there is fine.
    ///
    /// # Errors
    /// The database failed; nothing is changed.
    #[tracing::instrument(name = "db.reactions.remove", skip(self, emoji))]
    pub async fn remove_reaction(
        &self,
        user: UserId,
        id: MessageId,
        emoji: &str,
    ) -> Result<Change> {
        let mut tx = self.begin().await?;
        if hold(&mut tx, user, id).await?.is_none() {
            return Ok(Change::NotFound);
        }
        let done = sqlx::query!(
            "DELETE FROM reactions
             WHERE message_id = $1
               AND user_id = $2
               AND emoji = $3",
            id.0,
            user.0,
            emoji,
        )
        .execute(&mut *tx)
        .await?;
        finish(tx, user, id, done.rows_affected() > 0).await
    }
}
