//! What group commit brings: messages, and marks of what was delivered and read,
//! through [`Chat`], which gathers those of all sockets, and with a transaction for
//! each, by the same statements, over the same pool, in one run.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@127.0.0.1/postgres   a superuser
//! cargo bench -p starling-chat                       256 people, 7 rounds
//! cargo bench -p starling-chat -- --people 64 --rounds 3
//! ```
//!
//! Makes a database of its own and drops it at the end. People sit in rooms of 8, or
//! all in one, where receipts are watermarks. Each says [`MESSAGES`] messages, one
//! after the other; or gets so many and marks each as delivered, then as read, as a
//! client does, waiting for every answer. The ways take turns, and what counts is the
//! median of the ratios in the same round: absolute figures depend on what else the
//! machine does. Where commits wait for a disk the ratio is higher than on a
//! PostgreSQL without fsync.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::Instant;

use common::{Database, Heard, chat, group, say, user};
use starling_chat::{Chat, ConnectionId};
use starling_protocol::event::{MessageDelivered, MessageRead};
use starling_protocol::{MessageId, MessageType, RoomId, Timestamp, UserId};
use starling_repository::{NewMessage, Repository};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Said, or marked, by each.
const MESSAGES: usize = 8;
/// Members of a small room.
const SMALL: usize = 8;
/// Larger rooms have no rows of receipts.
const ROWS: i64 = 64;
/// As `DB_MAX_CONNECTIONS` is by default.
const POOL: u32 = 50;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// A transaction for each.
    Single,
    /// Through the tasks that gather.
    Gathered,
}

/// Who sits where, and the parts.
#[derive(Clone)]
struct World {
    repository: Repository,
    chat: Chat,
    heard: Arc<Heard>,
    people: Arc<Vec<(UserId, RoomId)>>,
    /// One for each connection: who waits for one for two seconds fails, and a
    /// transaction for each has everybody wait.
    turns: Arc<Semaphore>,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: usize| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default, |at| args[at + 1].parse().unwrap())
    };
    let (people, rounds) = (value("--people", 256), value("--rounds", 7));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let database = Database::create().await;
        let repository = database.repository(POOL);
        let mut ids = Vec::with_capacity(people);
        for n in 0..people {
            ids.push(user(&repository, &format!("user{n}")).await);
        }
        let heard = Arc::new(Heard::default());
        let chat = chat(repository.clone(), heard.clone());
        for (size, name) in [(SMALL, "in rooms of 8"), (people, "in one room")] {
            let mut seats = Vec::with_capacity(people);
            for members in ids.chunks(size) {
                let room = group(&repository, members).await;
                seats.extend(members.iter().map(|id| (*id, room)));
            }
            let world = World {
                repository: repository.clone(),
                chat: chat.clone(),
                heard: heard.clone(),
                people: Arc::new(seats),
                turns: Arc::new(Semaphore::new(POOL as usize)),
            };
            compare(&format!("messages {name}"), rounds, async |way| world.send(way).await).await;
            compare(&format!("marks {name}"), rounds, async |way| world.mark(way).await).await;
        }
    });
}

/// Runs both ways in turns and prints the medians.
async fn compare(name: &str, rounds: usize, run: impl AsyncFn(Way) -> f64) {
    let (mut single, mut gathered, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first is not counted: connections and plans are made in it.
    for round in 0..=rounds {
        let first = if round % 2 == 0 { Way::Single } else { Way::Gathered };
        let mut rate = run(first).await;
        let mut other = run(if first == Way::Single { Way::Gathered } else { Way::Single }).await;
        if first == Way::Gathered {
            std::mem::swap(&mut rate, &mut other);
        }
        if round > 0 {
            single.push(rate);
            gathered.push(other);
            ratios.push(other / rate);
        }
    }
    println!(
        "{name:24} one by one {:6.0}/s   gathered {:6.0}/s   {:5.1} times ({:.1} to {:.1})",
        median(&mut single),
        median(&mut gathered),
        median(&mut ratios),
        ratios[0],
        ratios[rounds - 1],
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl World {
    /// Everybody speaks. Answers messages a second.
    async fn send(&self, way: Way) -> f64 {
        self.everybody(MESSAGES, |world, user, room| async move {
            for _ in 0..MESSAGES {
                match way {
                    Way::Single => {
                        let _turn = world.turns.acquire().await.unwrap();
                        store(&world.repository, user, room).await;
                    }
                    Way::Gathered => drop(say(&world.chat, user, room, "some words").await),
                }
            }
        })
        .await
    }

    /// One of each room speaks, and everybody else gets and reads it. Answers marks
    /// a second.
    async fn mark(&self, way: Way) -> f64 {
        let mut said: Vec<(RoomId, Arc<Vec<MessageId>>)> = Vec::new();
        for (user, room) in self.people.iter() {
            if said.last().is_none_or(|(last, _)| last != room) {
                let mut ids = Vec::with_capacity(MESSAGES);
                for _ in 0..MESSAGES {
                    ids.push(store(&self.repository, *user, *room).await);
                }
                said.push((*room, Arc::new(ids)));
            }
        }
        let ids_in = |room| said.iter().find(|(at, _)| *at == room).unwrap().1.clone();
        self.everybody(2 * MESSAGES, |world, user, room| {
            let ids = ids_in(room);
            async move {
                let connection = ConnectionId(Uuid::now_v7());
                for id in ids.iter().copied() {
                    if way == Way::Gathered {
                        let delivered = MessageDelivered { room_id: room, message_ids: vec![id] };
                        world.chat.delivered(user, &delivered).await.unwrap();
                        let read = MessageRead { room_id: room, message_id: id };
                        world.chat.read(user, connection, read, Vec::new()).await.unwrap();
                    } else {
                        let (r, now) = (&world.repository, Timestamp::now());
                        let turn = world.turns.acquire().await.unwrap();
                        r.delivered(user, room, &[id], now, ROWS).await.unwrap().unwrap();
                        drop(turn);
                        let _turn = world.turns.acquire().await.unwrap();
                        r.read(user, room, id, &[], now).await.unwrap().unwrap();
                    }
                }
            }
        })
        .await
    }

    /// Runs one task for each person. Answers how many of `each` were done a second.
    async fn everybody<F>(&self, each: usize, act: impl Fn(World, UserId, RoomId) -> F) -> f64
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (user, room) in self.people.iter().copied() {
            tasks.spawn(act(self.clone(), user, room));
        }
        tasks.join_all().await;
        let rate = (each * self.people.len()) as f64 / start.elapsed().as_secs_f64();
        self.heard.take();
        rate
    }
}

/// A transaction for one message.
async fn store(repository: &Repository, user: UserId, room: RoomId) -> MessageId {
    let id = MessageId(Uuid::now_v7());
    let message = NewMessage {
        id,
        room_id: room,
        sender_id: user,
        content: "some words".into(),
        message_type: MessageType::Text,
        client_id: None,
        reply_to: None,
        metadata: serde_json::Map::new(),
        created_at: Timestamp::now(),
    };
    repository.append(&[message], ROWS).await.unwrap();
    id
}
