//! Many marks at a time against the same marks one by one, and against others who
//! lock the same rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod common;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use common::*;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use starling_protocol::{Message, MessageId, RoomId, Timestamp, UserId};
use starling_repository::{Mark, MarkProgress, Marked, Progress, Repository};
use uuid::Uuid;

/// More members than this, and a room is large.
const SMALL: i64 = 3;

/// People, rooms and messages, named by their places, so that two worlds can be
/// compared.
struct World {
    r: Repository,
    pool: PgPool,
    users: Vec<UserId>,
    rooms: Vec<RoomId>,
    messages: Vec<Message>,
}

/// A mark, by places. A message that isn't there is an unknown id.
#[derive(Debug, Clone)]
struct Said {
    user: usize,
    room: usize,
    given: Vec<usize>,
    /// What is read up to here; `given` is what is held.
    read: Option<usize>,
}

/// By room, user, sender and whether it was read: the messages that were told.
type Told = BTreeMap<(usize, usize, usize, bool), BTreeSet<usize>>;
type ReceiptRow = (Uuid, i32, Option<DateTime<Utc>>, Option<DateTime<Utc>>);
type Seen = (Vec<(usize, usize, Option<Timestamp>, Option<Timestamp>)>, Vec<(i64, i64, i64)>);

impl World {
    async fn new(pool: PgPool, name: &str) -> Self {
        let r = repository(pool.clone());
        let mut users = Vec::new();
        for n in 0..4 {
            users.push(user(&r, &format!("{name}{n}")).await);
        }
        let (three, four) = (group(&r, &users[..3]).await, group(&r, &users).await);
        let two = group(&r, &users[1..3]).await;
        Self { r, pool, users, rooms: vec![three, four, two], messages: Vec::new() }
    }

    async fn say(&mut self, room: usize, sender: usize, rows: bool) {
        let (content, rows) = if rows { ("with", ROWS) } else { ("without", 0) };
        let new = text(self.rooms[room], self.users[sender], content);
        self.messages.push(say_with(&self.r, new, rows).await);
    }

    /// Leaves, or returns.
    async fn leave(&mut self, room: usize, user: usize, back: bool) {
        let mut lock = self.r.lock_room(self.rooms[room]).await.unwrap().unwrap();
        if back {
            lock.add(&[self.users[user]], at(50)).await.unwrap();
        } else {
            lock.remove(self.users[user], at(50)).await.unwrap();
        }
        lock.commit().await.unwrap();
    }

    fn mark(&self, said: &Said) -> Mark {
        let id = |place: &usize| match self.messages.get(*place) {
            Some(message) => message.id,
            None => MessageId(Uuid::now_v7()),
        };
        let given = said.given.iter().map(id).collect();
        let progress = match &said.read {
            Some(place) => MarkProgress::Read { message: id(place), held: given },
            None => MarkProgress::Delivered(given),
        };
        Mark { user_id: self.users[said.user], room_id: self.rooms[said.room], progress }
    }

    async fn apply(&self, said: &[Said], now: Timestamp, told: &mut Told) -> Vec<Marked> {
        let marks: Vec<Mark> = said.iter().map(|said| self.mark(said)).collect();
        let outcome = self.r.mark(&marks, now, SMALL).await.unwrap();
        let place = |user| self.users.iter().position(|u| *u == user).unwrap();
        for moved in outcome.moved {
            let room = self.rooms.iter().position(|r| *r == moved.room_id).unwrap();
            for (read, progress) in [(false, moved.delivered), (true, moved.read)] {
                for Progress { sender_id, message_ids } in progress {
                    let key = (room, place(moved.user_id), place(sender_id), read);
                    for id in message_ids {
                        let message = self.messages.iter().position(|m| m.id == id).unwrap();
                        assert!(told.entry(key).or_default().insert(message), "told twice");
                    }
                }
            }
        }
        outcome.answers
    }

    /// Receipts by message and user, and the watermarks of all stays.
    async fn seen(&self) -> Seen {
        let rows: Vec<ReceiptRow> = sqlx::query_as(
            "SELECT message_id, user_id, delivered_at, read_at FROM message_receipts",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let mut receipts: Vec<_> = rows
            .into_iter()
            .filter_map(|(message, user, delivered, read)| {
                let message = self.messages.iter().position(|m| m.id.0 == message)?;
                let user = self.users.iter().position(|u| u.0 == user)?;
                Some((message, user, delivered.map(Into::into), read.map(Into::into)))
            })
            .collect();
        receipts.sort();
        let ids: Vec<i32> = self.rooms.iter().map(|room| room.0).collect();
        let stays = sqlx::query_as(
            "SELECT joined_seq, last_delivered_seq, last_read_seq
             FROM room_members
             WHERE room_id = ANY($1)
             ORDER BY id",
        )
        .bind(&ids);
        (receipts, stays.fetch_all(&self.pool).await.unwrap())
    }

    /// The order that a batch stands for: what was delivered before what was read,
    /// and first what moves a watermark past messages without rows.
    fn in_order(&self, said: &[Said]) -> Vec<Said> {
        let mut said = said.to_vec();
        said.sort_by_key(|said| {
            let (room, user) = (self.rooms[said.room], self.users[said.user]);
            let without = said
                .given
                .iter()
                .filter_map(|n| self.messages.get(*n))
                .filter(|m| m.room_id == room && m.sender_id != user && m.content == "without");
            (said.read.is_some(), std::cmp::Reverse(without.map(|m| m.seq).max()))
        });
        said
    }
}

fn random_marks(rng: &mut StdRng, messages: usize) -> Vec<Said> {
    let count = rng.random_range(1..=16);
    let mut marks: Vec<Said> = Vec::with_capacity(count);
    for _ in 0..count {
        let some = rng.random_range(0..=6);
        // Now and then beyond the last: an unknown id.
        let given = (0..some).map(|_| rng.random_range(0..=messages)).collect();
        let read = rng.random_bool(0.4).then(|| rng.random_range(0..=messages));
        marks.push(Said {
            user: rng.random_range(0..4),
            room: rng.random_range(0..3),
            given,
            read,
        });
    }
    marks
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_batch_does_what_its_marks_do_one_by_one(pool: PgPool) {
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut batched = World::new(pool.clone(), &format!("b{seed}x")).await;
        let mut single = World::new(pool.clone(), &format!("s{seed}x")).await;
        let mut away: BTreeSet<(usize, usize)> = BTreeSet::new();
        for step in 0..6 {
            for _ in 0..rng.random_range(2..12) {
                let room = rng.random_range(0..3);
                let sender =
                    if room == 2 { rng.random_range(1..3) } else { rng.random_range(0..3) };
                if away.contains(&(room, sender)) {
                    continue;
                }
                let rows = rng.random_bool(0.7);
                batched.say(room, sender, rows).await;
                single.say(room, sender, rows).await;
            }
            if rng.random_bool(0.5) {
                // Not the owner of either.
                let (room, user) = (rng.random_range(0..2), rng.random_range(1..3));
                let back = !away.insert((room, user));
                if back {
                    away.remove(&(room, user));
                }
                batched.leave(room, user, back).await;
                single.leave(room, user, back).await;
            }
            let marks = random_marks(&mut rng, batched.messages.len());
            let (now, mut told, mut expected) = (at(100 + step), Told::new(), Told::new());
            let answers = batched.apply(&marks, now, &mut told).await;
            for said in single.in_order(&marks) {
                single.apply(std::slice::from_ref(&said), now, &mut expected).await;
            }
            let context = format!("seed {seed}, step {step}: {marks:?}");
            assert_eq!(told, expected, "{context}");
            assert_eq!(batched.seen().await, single.seen().await, "{context}");
            // Once more: nothing moves, and each is answered as in the batch.
            for (said, answer) in marks.iter().zip(answers) {
                let mut twice = Told::new();
                let again = single.apply(std::slice::from_ref(said), now, &mut twice).await;
                assert!(twice.is_empty(), "{context}");
                assert_eq!(again, [answer], "{context}");
            }
        }
    }
}

/// Twenty rooms of two people with a message each, and both people's marks.
async fn twenty_rooms(r: &Repository) -> Vec<Mark> {
    let (a, b, c) = (user(r, "ann").await, user(r, "bob").await, user(r, "cat").await);
    let mut marks = Vec::new();
    for _ in 0..20 {
        let room = group(r, &[a, b, c]).await;
        let said = say(r, room, a, "x").await;
        for user_id in [b, c] {
            let progress = MarkProgress::Read { message: said.id, held: Vec::new() };
            marks.push(Mark { user_id, room_id: room, progress });
        }
    }
    marks
}

// A deadlock would not be resolved here, but be an error before.
#[sqlx::test(migrations = "../../db/migrations")]
async fn batches_in_crossed_order_do_not_wait_for_each_other(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let options = options.options([("deadlock_timeout", "300s"), ("lock_timeout", "20s")]);
    let r = repository(pool.max_connections(8).connect_with(options).await.unwrap());
    let marks = twenty_rooms(&r).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (r, mut marks) = (r.clone(), marks.clone());
        if n % 2 == 0 {
            marks.reverse();
        }
        tasks.spawn(async move {
            let mut told = 0;
            for _ in 0..10 {
                let done = r.mark(&marks, at(30), ROWS).await.unwrap();
                told += done.moved.len();
                assert!(done.answers.iter().all(|a| *a == Marked::Read { last_read_seq: 1 }));
            }
            told
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<usize>(), marks.len());
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_batch_that_crosses_somebody_else_is_tried_again(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    // Ours is the one that PostgreSQL ends. On a machine that stood still for two
    // seconds it may be theirs: then there is nothing to try again.
    let ours = options.clone().options([("deadlock_timeout", "2s")]);
    let r = repository(pool.clone().connect_with(ours).await.unwrap());
    let theirs = options.options([("deadlock_timeout", "10s")]);
    let pool = pool.connect_with(theirs).await.unwrap();
    let marks = twenty_rooms(&r).await;
    let lock = "SELECT FROM room_members WHERE id = (SELECT ";
    let mut tx = pool.begin().await.unwrap();
    let (first, last) = (
        format!("{lock} min(id) FROM room_members WHERE role = 'member') FOR NO KEY UPDATE"),
        format!("{lock} max(id) FROM room_members WHERE role = 'member') FOR NO KEY UPDATE"),
    );
    sqlx::query(sqlx::AssertSqlSafe(last)).execute(&mut *tx).await.unwrap();
    let batch = tokio::spawn(async move { r.mark(&marks, at(30), ROWS).await });
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sqlx::query(sqlx::AssertSqlSafe(first)).execute(&mut *tx).await.ok();
    tx.rollback().await.unwrap();
    let done = batch.await.unwrap().unwrap();
    assert_eq!(done.moved.len(), 40);
}
