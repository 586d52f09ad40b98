//! Marking messages as delivered and read, many marks at a time: they are merged
//! per user and room, and a batch takes the same number of round trips whatever
//! its size.
//!
//! A message either has a row in `message_receipts` for each recipient or none at
//! all (`messages.receipt_rows`); then the watermarks of `room_members` tell.
//! Memberships are locked first and in the order of their ids, so batches of
//! several servers wait for each other and never in a circle, and nobody else
//! marks the receipts of a membership that is held here. That is why receipts can
//! be read, judged here, and written in one statement.

use std::collections::{BTreeMap, HashMap, HashSet};

use starling_protocol::{MessageId, RoomId, Timestamp, UserId};
use uuid::Uuid;

use crate::pool::Work;
use crate::{Repository, Result};

/// Messages without rows that are named for each sender: the newest. Older ones
/// count in `receipts` all the same.
const NAMED: i64 = 200;

/// What a client said.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Who got or read something.
    pub user_id: UserId,
    /// In which room.
    pub room_id: RoomId,
    /// What came how far.
    pub progress: MarkProgress,
}

/// How far which messages came.
#[derive(Debug, Clone)]
pub enum MarkProgress {
    /// These arrived at a client of the user. Ids that are unknown, of another room
    /// or the user's own are ignored.
    ///
    /// In a room of more than `receipt_rows_max_members` members it means all
    /// messages up to the highest given one; so it does, in any room, for messages
    /// without receipt rows, if one of them is given.
    Delivered(Vec<MessageId>),
    /// Everything in the room up to `message` is read, and delivered too, except
    /// what is in `held`: that is still to be sent to the client. The watermarks
    /// never go back.
    Read {
        /// The newest one read.
        message: MessageId,
        /// Messages of the room that did not arrive yet.
        held: Vec<MessageId>,
    },
}

/// What came of one mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// The user is not in the room, or the message isn't.
    NotFound,
    /// All given messages are delivered.
    Delivered,
    /// All up to the given message are read.
    Read {
        /// The watermark, after the whole batch.
        last_read_seq: i64,
    },
}

/// Messages of one sender that came further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Who is to be told.
    pub sender_id: UserId,
    /// Ascending `seq`.
    pub message_ids: Vec<MessageId>,
}

/// What a batch changed for one user in one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The reader.
    pub user_id: UserId,
    /// The room.
    pub room_id: RoomId,
    /// Newly delivered, other than by reading; by sender.
    pub delivered: Vec<Progress>,
    /// Newly read, by sender.
    pub read: Vec<Progress>,
    /// The new watermark, if one moved it.
    pub advanced: Option<Advanced>,
}

/// A read watermark that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advanced {
    /// Where it is now.
    pub last_read_seq: i64,
    /// The place in the batch of the mark that moved it there.
    pub by: usize,
}

/// What came of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// In the order of the marks.
    pub answers: Vec<Marked>,
    /// Once for each user and room where something changed, by room and user.
    pub moved: Vec<Moved>,
}

type Key = (RoomId, UserId);

/// A membership that the transaction holds.
struct Stay {
    id: i64,
    joined_seq: i64,
    delivered: i64,
    read: i64,
    /// Where the user's first stay in the room began, if that was an earlier one.
    first_joined: Option<i64>,
    /// Whether the room has too many members for rows.
    large: bool,
}

/// A message that a mark names.
struct Named {
    room: RoomId,
    sender: UserId,
    seq: i64,
    receipt_rows: bool,
}

/// A receipt that may have to be marked.
struct Receipt {
    id: i64,
    message: Uuid,
    sender: i32,
    seq: i64,
    receipt_rows: bool,
    undelivered: bool,
    unread: bool,
}

/// All marks of one user in one room.
struct Group {
    stay: Stay,
    delivered: Option<Delivered>,
    read: Option<Read>,
}

/// All that was given as delivered.
struct Delivered {
    /// Those with rows.
    with_rows: HashSet<Uuid>,
    /// The highest given `seq`.
    highest: i64,
    /// Up to here messages without rows are delivered. Beyond, up to `highest`, as
    /// far as there are none.
    upto: i64,
}

/// All that was read.
struct Read {
    /// The highest `seq`, and the place of its mark.
    upto: i64,
    by: usize,
    /// Up to here all is read already.
    above: i64,
    /// Read but not delivered: each mark that reads past them holds them.
    spared: HashSet<Uuid>,
    /// Up to here everything is delivered.
    delivered: i64,
}

impl Delivered {
    fn gather(
        given: impl Iterator<Item = MessageId>,
        (room, user): Key,
        stay: &Stay,
        named: &HashMap<Uuid, Named>,
    ) -> Option<Self> {
        let (mut highest, mut without) = (None, 0);
        let mut with_rows = HashSet::new();
        for id in given {
            let Some(message) = named.get(&id.0) else { continue };
            if message.room != room || message.sender == user {
                continue;
            }
            highest = highest.max(Some(message.seq));
            if message.receipt_rows {
                with_rows.insert(id.0);
            } else {
                without = without.max(message.seq);
            }
        }
        let highest = highest?;
        let upto = stay.delivered.max(if stay.large { highest } else { without });
        Some(Self { with_rows, highest, upto })
    }

    fn covers(&self, receipt: &Receipt, large: bool) -> bool {
        self.with_rows.contains(&receipt.message) || (large && receipt.seq <= self.highest)
    }
}

impl Read {
    /// `marks`: the place, the `seq` and what is held.
    fn gather(
        mut marks: Vec<(usize, i64, &[MessageId])>,
        room: RoomId,
        stay: &Stay,
        named: &HashMap<Uuid, Named>,
    ) -> Option<Self> {
        let seq_of = |id: &MessageId| {
            named.get(&id.0).filter(|message| message.room == room).map(|message| message.seq)
        };
        // The highest first; of equal ones, the first.
        marks.sort_by_key(|(place, upto, _)| (std::cmp::Reverse(*upto), *place));
        let &(by, upto, held) = marks.first()?;
        let mut spared: HashMap<Uuid, i64> = held
            .iter()
            .filter_map(|id| Some((id.0, seq_of(id)?)))
            .filter(|(_, seq)| *seq <= upto)
            .collect();
        let mut delivered = 0;
        for (nth, (_, upto, held)) in marks.iter().enumerate() {
            if nth > 0 && !spared.is_empty() {
                let held: HashSet<Uuid> = held.iter().map(|id| id.0).collect();
                spared.retain(|id, seq| *seq > *upto || held.contains(id));
            }
            let lowest_held = held.iter().filter_map(seq_of).min();
            delivered = delivered.max(lowest_held.map_or(*upto, |seq| (*upto).min(seq - 1)));
        }
        // Up to the watermark all is read already. Only who returned and has not
        // read since may have left something unread behind.
        let returned = stay.first_joined.filter(|_| stay.read == stay.joined_seq);
        Some(Self {
            upto,
            by,
            above: returned.unwrap_or(stay.read),
            spared: spared.into_keys().collect(),
            delivered,
        })
    }
}

/// Collects messages by sender, in the order of `seq`.
#[derive(Default)]
struct Gathered(BTreeMap<UserId, BTreeMap<i64, MessageId>>);

impl Gathered {
    fn add(&mut self, sender: i32, seq: i64, id: Uuid) {
        self.0.entry(UserId(sender)).or_default().insert(seq, MessageId(id));
    }

    fn into_progress(self) -> Vec<Progress> {
        self.0
            .into_iter()
            .map(|(sender_id, ids)| Progress {
                sender_id,
                message_ids: ids.into_values().collect(),
            })
            .collect()
    }
}

/// What changes for one user in one room.
#[derive(Default)]
struct Change {
    delivered: Gathered,
    read: Gathered,
}

/// Columns of the rows to write.
#[derive(Default)]
struct Columns {
    stays: Vec<i64>,
    last_delivered: Vec<i64>,
    last_read: Vec<i64>,
    receipts: Vec<i64>,
    deliver: Vec<bool>,
    read: Vec<bool>,
}

impl Repository {
    /// Marks a batch in one transaction, as if its marks came one after the other:
    /// of one user in one room first what was delivered, then what was read. All
    /// bear the same time.
    ///
    /// # Errors
    /// The database failed; nothing of the batch is marked, unless only the answer
    /// to the commit was lost.
    #[tracing::instrument(name = "db.receipts.mark", skip_all, fields(count = marks.len()))]
    pub async fn mark(
        &self,
        marks: &[Mark],
        now: Timestamp,
        receipt_rows_max_members: i64,
    ) -> Result<Outcome> {
        if marks.is_empty() {
            return Ok(Outcome::default());
        }
        match self.try_mark(marks, now, receipt_rows_max_members).await {
            // Another program took the same rows in another order, and PostgreSQL
            // chose that one to go first. Once: twice in a row is no chance.
            Err(error) if error.is_crossed() => {
                tracing::warn!("a batch of marks crossed another transaction; trying again");
                self.try_mark(marks, now, receipt_rows_max_members).await
            }
            done => done,
        }
    }

    async fn try_mark(
        &self,
        marks: &[Mark],
        now: Timestamp,
        receipt_rows_max_members: i64,
    ) -> Result<Outcome> {
        let mut tx = self.begin().await?;
        let stays = hold(&mut tx, marks, receipt_rows_max_members).await?;
        let named = named(&mut tx, marks, &stays).await?;
        let (mut groups, mut answers) = merge(marks, stays, &named);

        let mut changes: BTreeMap<Key, Change> = BTreeMap::new();
        let mut columns = Columns::default();
        for (key, receipt) in receipts(&mut tx, &groups).await? {
            if let Some(group) = groups.get(&key) {
                columns.judge(group, changes.entry(key).or_default(), &receipt);
            }
        }
        add_without_rows(&mut tx, &groups, &mut changes).await?;
        extend(&mut tx, &mut groups).await?;

        let mut moved = Vec::with_capacity(groups.len());
        for (key, group) in &groups {
            let change = changes.remove(key).unwrap_or_default();
            let last_read_seq = columns.advance(group);
            let advanced = (last_read_seq > group.stay.read)
                .then(|| group.read.as_ref().map(|read| Advanced { last_read_seq, by: read.by }))
                .flatten();
            let (delivered, read) = (change.delivered.into_progress(), change.read.into_progress());
            if advanced.is_some() || !delivered.is_empty() || !read.is_empty() {
                let (room_id, user_id) = *key;
                moved.push(Moved { user_id, room_id, delivered, read, advanced });
            }
        }
        for (mark, answer) in marks.iter().zip(&mut answers) {
            if let (Marked::Read { last_read_seq }, Some(group)) =
                (answer, groups.get(&(mark.room_id, mark.user_id)))
            {
                *last_read_seq = group.last_read();
            }
        }
        columns.write(&mut tx, now).await?;
        tx.commit().await?;
        Ok(Outcome { answers, moved })
    }
}

/// Locks the memberships of all marks, in the order of their ids.
async fn hold(
    tx: &mut Work,
    marks: &[Mark],
    receipt_rows_max_members: i64,
) -> Result<BTreeMap<Key, Stay>> {
    let keys: HashSet<(i32, i32)> =
        marks.iter().map(|mark| (mark.room_id.0, mark.user_id.0)).collect();
    let (rooms, users): (Vec<i32>, Vec<i32>) = keys.into_iter().unzip();
    let rows = sqlx::query!(
        r#"SELECT
             rm.id,
             rm.room_id,
             rm.user_id,
             rm.joined_seq,
             rm.last_delivered_seq,
             rm.last_read_seq,
             (
               SELECT min(f.joined_seq)
               FROM room_members f
               WHERE f.room_id = rm.room_id
                 AND f.user_id = rm.user_id
                 AND f.left_at IS NOT NULL
             ) AS first_joined,
             EXISTS (
               SELECT
               FROM room_members o
               WHERE o.room_id = rm.room_id
                 AND o.left_at IS NULL
               OFFSET greatest($3::bigint, 0)
             ) AS "large!"
           FROM unnest($1::int[], $2::int[]) AS k (room_id, user_id)
           JOIN room_members rm
             ON rm.room_id = k.room_id
            AND rm.user_id = k.user_id
            AND rm.left_at IS NULL
           ORDER BY rm.id
           FOR NO KEY UPDATE OF rm"#,
        &rooms,
        &users,
        receipt_rows_max_members,
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let stay = Stay {
                id: row.id,
                joined_seq: row.joined_seq,
                delivered: row.last_delivered_seq,
                read: row.last_read_seq,
                first_joined: row.first_joined,
                large: row.large,
            };
            ((RoomId(row.room_id), UserId(row.user_id)), stay)
        })
        .collect())
}

/// The messages that marks of members name, wherever they are.
async fn named(
    tx: &mut Work,
    marks: &[Mark],
    stays: &BTreeMap<Key, Stay>,
) -> Result<HashMap<Uuid, Named>> {
    let mut ids: HashSet<Uuid> = HashSet::new();
    for mark in marks.iter().filter(|mark| stays.contains_key(&(mark.room_id, mark.user_id))) {
        match &mark.progress {
            MarkProgress::Delivered(given) => ids.extend(given.iter().map(|id| id.0)),
            MarkProgress::Read { message, held } => {
                ids.insert(message.0);
                ids.extend(held.iter().map(|id| id.0));
            }
        }
    }
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let rows = sqlx::query!(
        "SELECT id, room_id, sender_id, seq, receipt_rows
         FROM messages
         WHERE id = ANY($1)",
        &ids,
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let named = Named {
                room: RoomId(row.room_id),
                sender: UserId(row.sender_id),
                seq: row.seq,
                receipt_rows: row.receipt_rows,
            };
            (row.id, named)
        })
        .collect())
}

/// One group for each membership, and each mark's answer; the watermarks in them
/// are filled in later.
fn merge(
    marks: &[Mark],
    stays: BTreeMap<Key, Stay>,
    named: &HashMap<Uuid, Named>,
) -> (BTreeMap<Key, Group>, Vec<Marked>) {
    #[derive(Default)]
    struct Said<'a> {
        delivered: Vec<&'a [MessageId]>,
        read: Vec<(usize, i64, &'a [MessageId])>,
    }
    let mut said: HashMap<Key, Said> = HashMap::new();
    let mut answers = Vec::with_capacity(marks.len());
    for (place, mark) in marks.iter().enumerate() {
        let key = (mark.room_id, mark.user_id);
        if !stays.contains_key(&key) {
            answers.push(Marked::NotFound);
            continue;
        }
        let said = said.entry(key).or_default();
        answers.push(match &mark.progress {
            MarkProgress::Delivered(given) => {
                said.delivered.push(given);
                Marked::Delivered
            }
            MarkProgress::Read { message, held } => match named.get(&message.0) {
                Some(found) if found.room == mark.room_id => {
                    said.read.push((place, found.seq, held));
                    Marked::Read { last_read_seq: found.seq }
                }
                _ => Marked::NotFound,
            },
        });
    }
    let groups = stays
        .into_iter()
        .map(|(key, stay)| {
            let Said { delivered, read } = said.remove(&key).unwrap_or_default();
            let given = delivered.into_iter().flatten().copied();
            let delivered = Delivered::gather(given, key, &stay, named);
            let read = Read::gather(read, key.0, &stay, named);
            (key, Group { stay, delivered, read })
        })
        .collect();
    (groups, answers)
}

/// Every receipt that a group may have to mark; some come twice.
async fn receipts(tx: &mut Work, groups: &BTreeMap<Key, Group>) -> Result<Vec<(Key, Receipt)>> {
    // Those given.
    let (mut given_users, mut given) = (Vec::new(), Vec::new());
    // The unread ones of a range.
    let (mut read_users, mut read_rooms) = (Vec::new(), Vec::new());
    let (mut read_above, mut read_upto) = (Vec::new(), Vec::new());
    // The undelivered ones up to a seq: in a large room, and those that were held
    // when they were read, and are not held any more.
    let (mut rest_users, mut rest_rooms, mut rest_upto) = (Vec::new(), Vec::new(), Vec::new());
    for ((room, user), group) in groups {
        let mut rest = None;
        if let Some(delivered) = &group.delivered {
            given.extend(delivered.with_rows.iter().copied());
            given_users.resize(given.len(), user.0);
            rest = Some(delivered.highest).filter(|_| group.stay.large);
        }
        if let Some(read) = &group.read {
            if read.above < read.upto {
                read_users.push(user.0);
                read_rooms.push(room.0);
                read_above.push(read.above);
                read_upto.push(read.upto);
            }
            rest = rest.max(Some(read.upto));
        }
        if let Some(upto) = rest {
            rest_users.push(user.0);
            rest_rooms.push(room.0);
            rest_upto.push(upto);
        }
    }
    if given.is_empty() && rest_users.is_empty() {
        return Ok(Vec::new());
    }
    // OFFSET 0: one membership after the other, each by its index, whatever the
    // planner believes of the sum.
    let rows = sqlx::query!(
        r#"SELECT
             f.id AS "id!",
             f.user_id AS "user_id!",
             f.message_id AS "message_id!",
             m.room_id AS "room_id!",
             m.sender_id AS "sender_id!",
             m.seq AS "seq!",
             m.receipt_rows AS "receipt_rows!",
             f.delivered_at IS NULL AS "undelivered!",
             f.read_at IS NULL AS "unread!"
           FROM unnest($1::int[], $2::uuid[]) AS k (user_id, message_id)
           JOIN message_receipts f ON f.message_id = k.message_id AND f.user_id = k.user_id
           JOIN messages m ON m.id = f.message_id
           WHERE f.delivered_at IS NULL
           UNION ALL
           SELECT
             f.id, f.user_id, f.message_id, f.room_id, f.sender_id, f.seq, f.receipt_rows,
             f.delivered_at IS NULL, true
           FROM unnest($3::int[], $4::int[], $5::bigint[], $6::bigint[])
             AS k (user_id, room_id, above, upto)
           CROSS JOIN LATERAL (
             SELECT
               r.id, r.user_id, r.message_id, r.delivered_at,
               m.room_id, m.sender_id, m.seq, m.receipt_rows
             FROM messages m
             JOIN message_receipts r ON r.message_id = m.id AND r.user_id = k.user_id
             WHERE m.room_id = k.room_id
               AND m.seq > k.above
               AND m.seq <= k.upto
               AND m.receipt_rows
               AND r.read_at IS NULL
             OFFSET 0
           ) AS f
           UNION ALL
           SELECT
             f.id, f.user_id, f.message_id, f.room_id, f.sender_id, f.seq, f.receipt_rows,
             true, f.read_at IS NULL
           FROM unnest($7::int[], $8::int[], $9::bigint[]) AS k (user_id, room_id, upto)
           CROSS JOIN LATERAL (
             SELECT
               r.id, r.user_id, r.message_id, r.read_at,
               m.room_id, m.sender_id, m.seq, m.receipt_rows
             FROM message_receipts r
             JOIN messages m ON m.id = r.message_id
             WHERE r.user_id = k.user_id
               AND r.delivered_at IS NULL
               AND m.room_id = k.room_id
               AND m.seq <= k.upto
             OFFSET 0
           ) AS f"#,
        &given_users,
        &given,
        &read_users,
        &read_rooms,
        &read_above,
        &read_upto,
        &rest_users,
        &rest_rooms,
        &rest_upto,
    )
    .fetch_all(&mut **tx)
    .await?;
    // A row that is found in several ways is judged once.
    let mut seen = HashSet::with_capacity(rows.len());
    Ok(rows
        .into_iter()
        .filter(|row| seen.insert(row.id))
        .map(|row| {
            let receipt = Receipt {
                id: row.id,
                message: row.message_id,
                sender: row.sender_id,
                seq: row.seq,
                receipt_rows: row.receipt_rows,
                undelivered: row.undelivered,
                unread: row.unread,
            };
            ((RoomId(row.room_id), UserId(row.user_id)), receipt)
        })
        .collect())
}

/// Others' messages without rows that the watermarks pass: the newest of each
/// sender.
async fn add_without_rows(
    tx: &mut Work,
    groups: &BTreeMap<Key, Group>,
    changes: &mut BTreeMap<Key, Change>,
) -> Result<()> {
    let (mut rooms, mut users, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    let (mut aboves, mut uptos) = (Vec::new(), Vec::new());
    for ((room, user), group) in groups {
        let delivered = group.delivered.as_ref().map(|d| (false, group.stay.delivered, d.upto));
        let read = group.read.as_ref().map(|r| (true, group.stay.read, r.upto));
        for (read, above, upto) in delivered.into_iter().chain(read) {
            if above < upto {
                rooms.push(room.0);
                users.push(user.0);
                reads.push(read);
                aboves.push(above);
                uptos.push(upto);
            }
        }
    }
    if rooms.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"SELECT
             k.room_id AS "room_id!",
             k.user_id AS "user_id!",
             k.read AS "read!",
             n.id AS "id!",
             n.sender_id AS "sender_id!",
             n.seq AS "seq!"
           FROM unnest($1::int[], $2::int[], $3::bool[], $4::bigint[], $5::bigint[])
             AS k (room_id, user_id, read, above, upto)
           CROSS JOIN LATERAL (
             SELECT
               m.id, m.sender_id, m.seq,
               row_number() OVER (PARTITION BY m.sender_id ORDER BY m.seq DESC) AS place
             FROM messages m
             WHERE m.room_id = k.room_id
               AND m.seq > k.above
               AND m.seq <= k.upto
               AND m.sender_id <> k.user_id
               AND NOT m.receipt_rows
           ) AS n
           WHERE n.place <= $6"#,
        &rooms,
        &users,
        &reads,
        &aboves,
        &uptos,
        NAMED,
    )
    .fetch_all(&mut **tx)
    .await?;
    for row in rows {
        let change = changes.entry((RoomId(row.room_id), UserId(row.user_id))).or_default();
        let gathered = if row.read { &mut change.read } else { &mut change.delivered };
        gathered.add(row.sender_id, row.seq, row.id);
    }
    Ok(())
}

/// Messages with rows move the watermark of what is delivered too, but not past
/// one without, whose only mark it is.
async fn extend(tx: &mut Work, groups: &mut BTreeMap<Key, Group>) -> Result<()> {
    let (mut rooms, mut users) = (Vec::new(), Vec::new());
    let (mut aboves, mut uptos) = (Vec::new(), Vec::new());
    for ((room, user), group) in groups.iter() {
        if let Some(delivered) = &group.delivered
            && delivered.upto < delivered.highest
        {
            rooms.push(room.0);
            users.push(user.0);
            aboves.push(delivered.upto);
            uptos.push(delivered.highest);
        }
    }
    if rooms.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"SELECT
             k.room_id AS "room_id!",
             k.user_id AS "user_id!",
             coalesce(
               (
                 SELECT min(m.seq) - 1
                 FROM messages m
                 WHERE m.room_id = k.room_id
                   AND m.seq > k.above
                   AND m.seq <= k.upto
                   AND m.sender_id <> k.user_id
                   AND NOT m.receipt_rows
               ),
               k.upto
             ) AS "upto!"
           FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[])
             AS k (room_id, user_id, above, upto)"#,
        &rooms,
        &users,
        &aboves,
        &uptos,
    )
    .fetch_all(&mut **tx)
    .await?;
    for row in rows {
        let group = groups.get_mut(&(RoomId(row.room_id), UserId(row.user_id)));
        if let Some(delivered) = group.and_then(|group| group.delivered.as_mut()) {
            delivered.upto = delivered.upto.max(row.upto);
        }
    }
    Ok(())
}

impl Group {
    fn last_read(&self) -> i64 {
        self.stay.read.max(self.read.as_ref().map_or(0, |read| read.upto))
    }

    fn last_delivered(&self) -> i64 {
        let given = self.delivered.as_ref().map_or(0, |delivered| delivered.upto);
        let read = self.read.as_ref().map_or(0, |read| read.delivered);
        self.stay.delivered.max(given).max(read)
    }
}

impl Columns {
    /// Notes what is to be written to a receipt, and who is told.
    fn judge(&mut self, group: &Group, change: &mut Change, receipt: &Receipt) {
        let arrived = receipt.undelivered
            && group.delivered.as_ref().is_some_and(|d| d.covers(receipt, group.stay.large));
        let (mut delivered, mut read) = (arrived, false);
        if let Some(reading) = group.read.as_ref().filter(|read| receipt.seq <= read.upto) {
            read = receipt.unread && receipt.receipt_rows && receipt.seq > reading.above;
            delivered |= receipt.undelivered && !reading.spared.contains(&receipt.message);
        }
        if arrived {
            change.delivered.add(receipt.sender, receipt.seq, receipt.message);
        }
        if read {
            change.read.add(receipt.sender, receipt.seq, receipt.message);
        }
        if delivered || read {
            self.receipts.push(receipt.id);
            self.deliver.push(delivered);
            self.read.push(read);
        }
    }

    /// Notes where a membership's watermarks are now. Answers the one of reading.
    fn advance(&mut self, group: &Group) -> i64 {
        let (delivered, read) = (group.last_delivered(), group.last_read());
        if delivered > group.stay.delivered || read > group.stay.read {
            self.stays.push(group.stay.id);
            self.last_delivered.push(delivered);
            self.last_read.push(read);
        }
        read
    }

    async fn write(&self, tx: &mut Work, now: Timestamp) -> Result<()> {
        if self.stays.is_empty() && self.receipts.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "WITH stays AS (
               UPDATE room_members rm
               SET last_delivered_seq = k.delivered,
                   last_read_seq = k.read
               FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS k (id, delivered, read)
               WHERE rm.id = k.id
             )
             UPDATE message_receipts r
             SET delivered_at = coalesce(r.delivered_at, CASE WHEN k.deliver THEN $7::timestamptz END),
                 read_at = coalesce(r.read_at, CASE WHEN k.read THEN $7::timestamptz END)
             FROM unnest($4::bigint[], $5::bool[], $6::bool[]) AS k (id, deliver, read)
             WHERE r.id = k.id",
            &self.stays,
            &self.last_delivered,
            &self.last_read,
            &self.receipts,
            &self.deliver,
            &self.read,
            now.utc(),
        )
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}
