//! From rows to the protocol's types, and ids to arrays.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use starling_protocol::{
    ClientId, Message, MessageId, MessageType, Reaction, Receipts, Role, RoomId, RoomType, UserId,
};
use uuid::Uuid;

use crate::{Error, Result};

pub(crate) fn user_ids(ids: &[UserId]) -> Vec<i32> {
    ids.iter().map(|id| id.0).collect()
}

pub(crate) fn message_ids(ids: &[MessageId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.0).collect()
}

pub(crate) fn role(text: &str) -> Result<Role> {
    match text {
        "owner" => Ok(Role::Owner),
        "admin" => Ok(Role::Admin),
        "member" => Ok(Role::Member),
        other => Err(Error::corrupt("room_members", "role", other)),
    }
}

pub(crate) fn role_text(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

pub(crate) fn room_type(text: &str) -> Result<RoomType> {
    match text {
        "direct" => Ok(RoomType::Direct),
        "group" => Ok(RoomType::Group),
        other => Err(Error::corrupt("rooms", "room_type", other)),
    }
}

pub(crate) fn message_type(text: &str) -> Result<MessageType> {
    match text {
        "text" => Ok(MessageType::Text),
        "image" => Ok(MessageType::Image),
        "file" => Ok(MessageType::File),
        "system" => Ok(MessageType::System),
        other => Err(Error::corrupt("messages", "message_type", other)),
    }
}

pub(crate) fn message_type_text(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Text => "text",
        MessageType::Image => "image",
        MessageType::File => "file",
        MessageType::System => "system",
    }
}

/// A row of `messages`.
#[derive(Debug)]
pub(crate) struct MessageRow {
    pub id: Uuid,
    pub room_id: i32,
    pub sender_id: i32,
    pub seq: i64,
    pub content: String,
    pub message_type: String,
    pub created_at: DateTime<Utc>,
    pub edited_at: Option<DateTime<Utc>>,
    pub deleted_at: Option<DateTime<Utc>>,
    pub client_id: Option<Uuid>,
    pub reply_to: Option<Uuid>,
    pub metadata: serde_json::Value,
    pub recipients: i32,
    pub receipt_rows: bool,
}

impl MessageRow {
    fn into_message(self, reactions: Vec<Reaction>, receipts: Option<Receipts>) -> Result<Message> {
        let serde_json::Value::Object(metadata) = self.metadata else {
            return Err(Error::corrupt("messages", "metadata", self.metadata.to_string()));
        };
        Ok(Message {
            id: MessageId(self.id),
            room_id: RoomId(self.room_id),
            sender_id: UserId(self.sender_id),
            seq: self.seq,
            content: self.content,
            message_type: message_type(&self.message_type)?,
            created_at: self.created_at.into(),
            edited_at: self.edited_at.map(Into::into),
            deleted_at: self.deleted_at.map(Into::into),
            client_id: self.client_id.map(ClientId),
            reply_to: self.reply_to.map(MessageId),
            metadata,
            reactions,
            receipts,
        })
    }
}

/// Completes messages, in the same order, with their reactions and, on those of
/// `viewer`, with their receipts. At most three statements for any number.
pub(crate) async fn complete(
    db: &mut PgConnection,
    viewer: UserId,
    rows: Vec<MessageRow>,
) -> Result<Vec<Message>> {
    let mut reactions = reactions_of(db, &rows).await?;
    let own: Vec<&MessageRow> = rows.iter().filter(|row| row.sender_id == viewer.0).collect();
    let mut receipts = receipts_of(db, &own).await?;
    rows.into_iter()
        .map(|row| {
            let id = row.id;
            row.into_message(reactions.remove(&id).unwrap_or_default(), receipts.remove(&id))
        })
        .collect()
}

async fn reactions_of(
    db: &mut PgConnection,
    rows: &[MessageRow],
) -> Result<HashMap<Uuid, Vec<Reaction>>> {
    let mut found: HashMap<Uuid, Vec<Reaction>> = HashMap::new();
    let ids: Vec<Uuid> =
        rows.iter().filter(|row| row.deleted_at.is_none()).map(|row| row.id).collect();
    if ids.is_empty() {
        return Ok(found);
    }
    let reactions = sqlx::query!(
        "SELECT message_id, emoji, user_id
         FROM reactions
         WHERE message_id = ANY($1)
         ORDER BY created_at, user_id, emoji",
        &ids,
    )
    .fetch_all(db)
    .await?;
    for row in reactions {
        let list = found.entry(row.message_id).or_default();
        match list.iter_mut().find(|reaction| reaction.emoji == row.emoji) {
            Some(reaction) => reaction.user_ids.push(UserId(row.user_id)),
            None => list.push(Reaction { emoji: row.emoji, user_ids: vec![UserId(row.user_id)] }),
        }
    }
    Ok(found)
}

async fn receipts_of(
    db: &mut PgConnection,
    rows: &[&MessageRow],
) -> Result<HashMap<Uuid, Receipts>> {
    let mut found: HashMap<Uuid, Receipts> = rows
        .iter()
        .map(|row| {
            (row.id, Receipts { recipients: i64::from(row.recipients), ..Receipts::default() })
        })
        .collect();
    let (with, without): (Vec<&MessageRow>, Vec<&MessageRow>) =
        rows.iter().copied().partition(|row| row.receipt_rows);
    if !with.is_empty() {
        let ids: Vec<Uuid> = with.iter().map(|row| row.id).collect();
        let counts = sqlx::query!(
            r#"SELECT
                 message_id,
                 count(delivered_at) AS "delivered!",
                 count(read_at) AS "read!"
               FROM message_receipts
               WHERE message_id = ANY($1)
               GROUP BY message_id"#,
            &ids,
        )
        .fetch_all(&mut *db)
        .await?;
        for row in counts {
            if let Some(receipts) = found.get_mut(&row.message_id) {
                (receipts.delivered, receipts.read) = (row.delivered, row.read);
            }
        }
    }
    watermarks(db, &without.iter().map(|row| row.id).collect::<Vec<_>>(), &mut found).await?;
    Ok(found)
}

/// The receipts of these messages, whoever sent them.
pub(crate) async fn receipts_by_id(
    db: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Receipts>> {
    let rows = sqlx::query!(
        r#"SELECT
             m.id,
             m.recipients,
             m.receipt_rows,
             count(r.delivered_at) AS "delivered!",
             count(r.read_at) AS "read!"
           FROM messages m
           LEFT JOIN message_receipts r
             ON r.message_id = m.id
            AND m.receipt_rows
           WHERE m.id = ANY($1)
           GROUP BY m.id"#,
        ids,
    )
    .fetch_all(&mut *db)
    .await?;
    let without: Vec<Uuid> =
        rows.iter().filter(|row| !row.receipt_rows).map(|row| row.id).collect();
    let mut found = rows
        .into_iter()
        .map(|row| {
            let recipients = i64::from(row.recipients);
            (row.id, Receipts { recipients, delivered: row.delivered, read: row.read })
        })
        .collect();
    watermarks(db, &without, &mut found).await?;
    Ok(found)
}

/// Counts from the members' watermarks, for messages without rows of receipts.
async fn watermarks(
    db: &mut PgConnection,
    ids: &[Uuid],
    found: &mut HashMap<Uuid, Receipts>,
) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    // Of those who were members when it was sent: a stay counts for what was
    // sent after it began, and its watermark never passes its end.
    let counts = sqlx::query!(
        r#"SELECT
             m.id,
             count(DISTINCT rm.user_id) FILTER (WHERE rm.last_delivered_seq >= m.seq) AS "delivered!",
             count(DISTINCT rm.user_id) FILTER (WHERE rm.last_read_seq >= m.seq) AS "read!"
           FROM messages m
           JOIN room_members rm
             ON rm.room_id = m.room_id
            AND rm.user_id <> m.sender_id
            AND rm.joined_seq < m.seq
           WHERE m.id = ANY($1)
           GROUP BY m.id"#,
        ids,
    )
    .fetch_all(db)
    .await?;
    for row in counts {
        if let Some(receipts) = found.get_mut(&row.id) {
            (receipts.delivered, receipts.read) = (row.delivered, row.read);
        }
    }
    Ok(())
}
