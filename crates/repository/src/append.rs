//! Storing messages: the one way into `messages`.
//!
//! Guarantees: a room's `seq` are 1, 2, 3 … in commit order with no gap, since
//! they are counted under the lock of the room's row and only for what is
//! stored; `created_at` never runs against `seq`; a `clientId` is stored once.
//!
//! Rooms are locked by id, then client ids are inserted in their order. Two
//! batches over the same rooms wait at the first lock; two batches in different
//! rooms with the same client ids wait at the first insert. Neither ever waits
//! for one who waits for it.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use starling_protocol::{
    ClientId, Message, MessageId, MessageType, Receipts, RoomId, Timestamp, UserId,
};
use uuid::Uuid;

use crate::messages::load;
use crate::pool::Work;
use crate::row::message_type_text;
use crate::{Repository, Result};

/// A message to store. The rules have checked it, except membership.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// A new UUID v7.
    pub id: MessageId,
    /// Where.
    pub room_id: RoomId,
    /// By whom.
    pub sender_id: UserId,
    /// 1–4000 characters without U+0000.
    pub content: String,
    /// The kind of content.
    pub message_type: MessageType,
    /// The sender's own id: stored at most once.
    pub client_id: Option<ClientId>,
    /// A message of the same room.
    pub reply_to: Option<MessageId>,
    /// What the client attached.
    pub metadata: Map<String, Value>,
    /// Now; stored later if the room's newest message is newer.
    pub created_at: Timestamp,
}

/// What came of one message.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly always the large one")]
pub enum Append {
    /// Stored, with receipts.
    Stored(Message),
    /// The `clientId` was stored before: that message as it is now, with receipts.
    Repeated(Message),
    /// The `clientId` was stored before, in another room or with other content.
    Conflict,
    /// The sender is not in the room.
    NotMember,
    /// `replyTo` is not a message of this room.
    ReplyNotFound,
}

struct Head {
    last_seq: i64,
    last_activity: DateTime<Utc>,
    members: i64,
}

/// Columns of the rows to insert.
#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    rooms: Vec<i32>,
    senders: Vec<i32>,
    seqs: Vec<i64>,
    contents: Vec<String>,
    types: Vec<String>,
    times: Vec<DateTime<Utc>>,
    clients: Vec<Option<Uuid>>,
    replies: Vec<Option<Uuid>>,
    metadata: Vec<Value>,
    recipients: Vec<i32>,
    receipt_rows: Vec<bool>,
}

/// What one message turns out to be, before it is answered.
enum Verdict {
    Done(Append),
    /// The same clientId is at this place of the batch.
    SameAs(usize),
    /// The clientId is this stored message's.
    Earlier(Uuid),
}

impl Repository {
    /// Stores a batch in one transaction and answers in its order. Refused and
    /// repeated messages take no `seq`. Each stored message in a room of up to
    /// `receipt_rows_max_members` members gets a receipt row for each recipient.
    /// The number of statements does not depend on the size of the batch.
    ///
    /// # Errors
    /// The database failed; nothing of the batch is stored, unless only the
    /// answer to the commit was lost.
    #[tracing::instrument(name = "db.messages.append", skip_all, fields(count = batch.len()))]
    pub async fn append(
        &self,
        batch: &[NewMessage],
        receipt_rows_max_members: i64,
    ) -> Result<Vec<Append>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            // `None`: meanwhile someone stored one of the clientIds in another
            // room. That is committed, so the next round finds it: each round
            // finds at least one more, and there are no more than in the batch.
            if let Some(done) = self.try_append(batch, receipt_rows_max_members).await? {
                return Ok(done);
            }
        }
    }

    async fn try_append(
        &self,
        batch: &[NewMessage],
        receipt_rows_max_members: i64,
    ) -> Result<Option<Vec<Append>>> {
        let mut tx = self.begin().await?;
        let mut heads = lock_rooms(&mut tx, batch).await?;
        let members = members_among(&mut tx, batch, &mut heads).await?;
        let earlier = earlier_client_ids(&mut tx, batch).await?;
        let replies = reply_rooms(&mut tx, batch).await?;

        let mut columns = Columns::default();
        let mut in_batch: HashMap<(UserId, ClientId), usize> = HashMap::new();
        let mut verdicts = Vec::with_capacity(batch.len());
        for (place, new) in batch.iter().enumerate() {
            let head = heads.get_mut(&new.room_id);
            let Some(head) = head.filter(|_| members.contains(&(new.room_id, new.sender_id)))
            else {
                verdicts.push(Verdict::Done(Append::NotMember));
                continue;
            };
            if let Some(client) = new.client_id {
                let key = (new.sender_id, client);
                if let Some(id) = earlier.get(&key) {
                    verdicts.push(Verdict::Earlier(*id));
                    continue;
                }
                if let Some(first) = in_batch.get(&key) {
                    verdicts.push(Verdict::SameAs(*first));
                    continue;
                }
            }
            if new.reply_to.is_some_and(|id| replies.get(&id) != Some(&new.room_id)) {
                verdicts.push(Verdict::Done(Append::ReplyNotFound));
                continue;
            }
            if let Some(client) = new.client_id {
                in_batch.insert((new.sender_id, client), place);
            }
            head.last_seq += 1;
            head.last_activity = head.last_activity.max(new.created_at.utc());
            let message = columns.push(new, head, receipt_rows_max_members);
            verdicts.push(Verdict::Done(Append::Stored(message)));
        }
        if !columns.ids.is_empty() && !columns.insert(&mut tx, &heads).await? {
            tx.rollback().await?;
            return Ok(None);
        }
        let answers = answer(&mut tx, batch, verdicts).await?;
        tx.commit().await?;
        Ok(Some(answers))
    }
}

async fn lock_rooms(tx: &mut Work, batch: &[NewMessage]) -> Result<HashMap<RoomId, Head>> {
    let rooms: BTreeSet<i32> = batch.iter().map(|new| new.room_id.0).collect();
    let rooms: Vec<i32> = rooms.into_iter().collect();
    let rows = sqlx::query!(
        "SELECT id, last_seq, last_activity_at
         FROM rooms
         WHERE id = ANY($1)
         ORDER BY id
         FOR NO KEY UPDATE",
        &rooms,
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let head =
                Head { last_seq: row.last_seq, last_activity: row.last_activity_at, members: 0 };
            (RoomId(row.id), head)
        })
        .collect())
}

/// Which senders are members of their rooms; also counts each room's members.
async fn members_among(
    tx: &mut Work,
    batch: &[NewMessage],
    heads: &mut HashMap<RoomId, Head>,
) -> Result<HashSet<(RoomId, UserId)>> {
    let senders: BTreeSet<i32> = batch.iter().map(|new| new.sender_id.0).collect();
    let senders: Vec<i32> = senders.into_iter().collect();
    let rooms: Vec<i32> = heads.keys().map(|room| room.0).collect();
    let rows = sqlx::query!(
        r#"SELECT
             room_id,
             count(*) AS "members!",
             coalesce(array_agg(user_id) FILTER (WHERE user_id = ANY($2)), '{}') AS "senders!"
           FROM room_members
           WHERE room_id = ANY($1)
             AND left_at IS NULL
           GROUP BY room_id"#,
        &rooms,
        &senders,
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut members = HashSet::new();
    for row in rows {
        let room = RoomId(row.room_id);
        if let Some(head) = heads.get_mut(&room) {
            head.members = row.members;
        }
        members.extend(row.senders.into_iter().map(|user| (room, UserId(user))));
    }
    Ok(members)
}

async fn earlier_client_ids(
    tx: &mut Work,
    batch: &[NewMessage],
) -> Result<HashMap<(UserId, ClientId), Uuid>> {
    let (senders, clients): (Vec<i32>, Vec<Uuid>) = batch
        .iter()
        .filter_map(|new| new.client_id.map(|client| (new.sender_id.0, client.0)))
        .unzip();
    if clients.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT m.id, m.sender_id, m.client_id AS "client_id!"
           FROM unnest($1::int[], $2::uuid[]) AS k (sender_id, client_id)
           JOIN messages m ON m.sender_id = k.sender_id AND m.client_id = k.client_id"#,
        &senders,
        &clients,
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ((UserId(row.sender_id), ClientId(row.client_id)), row.id))
        .collect())
}

async fn reply_rooms(tx: &mut Work, batch: &[NewMessage]) -> Result<HashMap<MessageId, RoomId>> {
    let ids: Vec<Uuid> = batch.iter().filter_map(|new| new.reply_to).map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!("SELECT id, room_id FROM messages WHERE id = ANY($1)", &ids)
        .fetch_all(&mut **tx)
        .await?;
    Ok(rows.into_iter().map(|row| (MessageId(row.id), RoomId(row.room_id))).collect())
}

/// Reads what repeats refer to, and compares.
async fn answer(
    tx: &mut Work,
    batch: &[NewMessage],
    verdicts: Vec<Verdict>,
) -> Result<Vec<Append>> {
    // By sender: each sees the receipts of its own.
    let mut wanted: HashMap<UserId, BTreeSet<Uuid>> = HashMap::new();
    for (new, verdict) in batch.iter().zip(&verdicts) {
        if let Verdict::Earlier(id) = verdict {
            wanted.entry(new.sender_id).or_default().insert(*id);
        }
    }
    let mut stored: HashMap<Uuid, Message> = HashMap::new();
    for (sender, ids) in wanted {
        let ids: Vec<Uuid> = ids.into_iter().collect();
        stored.extend(load(tx, sender, &ids).await?.into_iter().map(|m| (m.id.0, m)));
    }
    let mut answers: Vec<Append> = Vec::with_capacity(batch.len());
    for (new, verdict) in batch.iter().zip(verdicts) {
        let first = match verdict {
            Verdict::Done(append) => {
                answers.push(append);
                continue;
            }
            Verdict::Earlier(id) => stored.get(&id).cloned(),
            Verdict::SameAs(place) => match answers.get(place) {
                Some(Append::Stored(message)) => Some(message.clone()),
                _ => None,
            },
        };
        answers.push(match first {
            Some(message) if repeats(new, &message) => Append::Repeated(message),
            _ => Append::Conflict,
        });
    }
    Ok(answers)
}

/// Whether it is the same message again: of the same room and, unless it was
/// changed since, of the same content.
fn repeats(new: &NewMessage, stored: &Message) -> bool {
    let changed = stored.edited_at.is_some() || stored.deleted_at.is_some();
    new.room_id == stored.room_id && (changed || new.content == stored.content)
}

impl Columns {
    /// Notes a message, which takes the room's newest `seq`.
    fn push(&mut self, new: &NewMessage, head: &Head, receipt_rows_max_members: i64) -> Message {
        let recipients = (head.members - 1).max(0);
        self.ids.push(new.id.0);
        self.rooms.push(new.room_id.0);
        self.senders.push(new.sender_id.0);
        self.seqs.push(head.last_seq);
        self.contents.push(new.content.clone());
        self.types.push(message_type_text(new.message_type).to_owned());
        self.times.push(head.last_activity);
        self.clients.push(new.client_id.map(|id| id.0));
        self.replies.push(new.reply_to.map(|id| id.0));
        self.metadata.push(Value::Object(new.metadata.clone()));
        self.recipients.push(i32::try_from(recipients).unwrap_or(i32::MAX));
        self.receipt_rows.push(head.members <= receipt_rows_max_members);
        Message {
            id: new.id,
            room_id: new.room_id,
            sender_id: new.sender_id,
            seq: head.last_seq,
            content: new.content.clone(),
            message_type: new.message_type,
            created_at: head.last_activity.into(),
            edited_at: None,
            deleted_at: None,
            client_id: new.client_id,
            reply_to: new.reply_to,
            metadata: new.metadata.clone(),
            reactions: Vec::new(),
            receipts: Some(Receipts { recipients, delivered: 0, read: 0 }),
        }
    }

    /// Inserts messages and receipts and moves the rooms on. False when a
    /// clientId was stored by another transaction meanwhile.
    async fn insert(&self, tx: &mut Work, heads: &HashMap<RoomId, Head>) -> Result<bool> {
        let touched: BTreeSet<i32> = self.rooms.iter().copied().collect();
        let (mut rooms, mut seqs, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for room in touched {
            if let Some(head) = heads.get(&RoomId(room)) {
                rooms.push(room);
                seqs.push(head.last_seq);
                times.push(head.last_activity);
            }
        }
        let stored = sqlx::query!(
            r#"WITH input AS (
                 SELECT *
                 FROM unnest(
                   $1::uuid[], $2::int[], $3::int[], $4::bigint[], $5::text[], $6::text[],
                   $7::timestamptz[], $8::uuid[], $9::uuid[], $10::jsonb[], $11::int[], $12::bool[]
                 ) AS i (
                   id, room_id, sender_id, seq, content, message_type,
                   created_at, client_id, reply_to, metadata, recipients, receipt_rows
                 )
               ),
               stored AS (
                 INSERT INTO messages (
                   id, room_id, sender_id, seq, content, message_type,
                   created_at, client_id, reply_to, metadata, recipients, receipt_rows
                 )
                 SELECT
                   id, room_id, sender_id, seq, content, message_type,
                   created_at, client_id, reply_to, metadata, recipients, receipt_rows
                 FROM input
                 ORDER BY sender_id, client_id, seq
                 ON CONFLICT (sender_id, client_id) WHERE client_id IS NOT NULL DO NOTHING
                 RETURNING id
               ),
               receipts AS (
                 INSERT INTO message_receipts (message_id, user_id)
                 SELECT i.id, rm.user_id
                 FROM input i
                 JOIN room_members rm
                   ON rm.room_id = i.room_id
                  AND rm.user_id <> i.sender_id
                  AND rm.left_at IS NULL
                 WHERE i.receipt_rows
               ),
               heads AS (
                 UPDATE rooms r
                 SET last_seq = h.last_seq,
                     last_activity_at = h.last_activity_at
                 FROM unnest($13::int[], $14::bigint[], $15::timestamptz[])
                   AS h (id, last_seq, last_activity_at)
                 WHERE r.id = h.id
               )
               SELECT count(*) AS "count!"
               FROM stored"#,
            &self.ids,
            &self.rooms,
            &self.senders,
            &self.seqs,
            &self.contents,
            &self.types,
            &self.times,
            &self.clients as &[Option<Uuid>],
            &self.replies as &[Option<Uuid>],
            &self.metadata,
            &self.recipients,
            &self.receipt_rows,
            &rooms,
            &seqs,
            &times,
        )
        .fetch_one(&mut **tx)
        .await?;
        Ok(usize::try_from(stored.count).is_ok_and(|count| count == self.ids.len()))
    }
}
