//! What a connect costs: its reads in one statement and its row of `user_sessions` in a
//! batch, beside a query for each thing, and beside one for each room, with an INSERT
//! and a DELETE for each socket, over the same pool, in one run.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@127.0.0.1/postgres   a superuser
//! cargo bench -p starling-repository --bench connect       128 people of each kind, 7 rounds
//! cargo bench -p starling-repository --bench connect -- --people 64 --rounds 3
//! ```
//!
//! Makes a database of its own and drops it at the end. People are in 5 or in 30 rooms of
//! 8 and missed nothing or 100 messages, which stay missed. In a round everybody connects
//! [`TIMES`] times, so many at once; when the last row is written all disconnect, and
//! what is counted lasts until the last row is gone. All ways end up knowing the same,
//! which is checked before anything is measured: that the session lives, the rooms with
//! their heads and read marks, how much was missed, and the first page of it.
//!
//! The ways take turns, and what counts is the median of the ratios in the same round:
//! absolute figures depend on what else the machine does. PostgreSQL is a neighbour on the
//! same machine here. Over a network each statement waits a round trip, so the ratios come
//! nearer to those of the statements. What is the same in all ways is left out: presence,
//! and that the last socket of a user sets `last_seen`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use common::{group, user};
use sqlx::migrate::MigrateDatabase as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres, query, query_as, query_scalar};
use starling_protocol::event::ReadyRoom;
use starling_protocol::{MessageId, RoomId, SessionId, Timestamp, UserId};
use starling_repository::{OpenSocket, Repository};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Connections to PostgreSQL.
const POOL: u32 = 20;
/// Members of a room.
const MEMBERS: usize = 8;
/// Messages in each room.
const HISTORY: i64 = 60;
/// Missed by those who missed something.
const MISSED: i64 = 100;
/// Messages in the first page of what was missed.
const PAGE: usize = 50;
/// Connects of each in a round.
const TIMES: usize = 4;
/// Messages that are looked up at once, as a server does.
const CHUNK: i64 = 10_000;
/// Rows in a batch at most, as in a server.
const BATCH: usize = 1024;
const INSTANCE: &str = "bench";

#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    /// A query for each thing, and for the head of each room.
    EachRoom,
    /// A query for each thing.
    EachThing,
    /// One statement; rows in batches.
    Gathered,
}

impl Way {
    fn name(self, part: Part) -> &'static str {
        match (self, part) {
            (Self::EachRoom, _) => "a query a room",
            (Self::EachThing, Part::Rows) => "a query a socket",
            (Self::EachThing, _) => "a query a thing",
            (Self::Gathered, Part::Reads) => "one statement",
            (Self::Gathered, Part::Rows) => "batches",
            (Self::Gathered, Part::All) => "one and batches",
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Reads,
    Rows,
    All,
}

#[derive(Clone, Copy)]
struct Person {
    id: UserId,
    session: SessionId,
}

/// What a connect learns.
#[derive(Debug, PartialEq)]
struct Known {
    alive: bool,
    rooms: Vec<ReadyRoom>,
    missed: i64,
    page: Vec<(Uuid, String)>,
}

/// The parts, shared by all tasks.
#[derive(Clone)]
struct World {
    pool: PgPool,
    repository: Repository,
    /// Waited for by a connect or a batch, each a round trip.
    statements: Arc<AtomicUsize>,
    rows: Rows,
}

/// What a round took.
struct Round {
    rate: f64,
    /// A connect.
    statements: f64,
    /// Processor time of PostgreSQL in µs a connect, where the system tells.
    cpu: Option<f64>,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: usize| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default, |at| args[at + 1].parse().unwrap())
    };
    let (people, rounds) = (value("--people", 128), value("--rounds", 7));
    let admin = std::env::var("DATABASE_URL").expect("DATABASE_URL names a PostgreSQL");
    let name = format!("starling_connect_{}", Uuid::new_v4().simple());
    let url = format!("{}/{name}", admin.rsplit_once('/').unwrap().0);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        Postgres::create_database(&url).await.unwrap();
        // In a task, so that the database goes whatever comes of it.
        let done = tokio::spawn(measure(url.clone(), people, rounds)).await;
        Postgres::force_drop_database(&url).await.unwrap();
        done.unwrap();
    });
}

async fn measure(url: String, people: usize, rounds: usize) {
    let world = World::start(&url).await;
    let mut kinds = Vec::new();
    for rooms in [5, 30] {
        for missed in [0, MISSED] {
            let people = world.people(people, rooms, &format!("{rooms}x{missed}x")).await;
            kinds.push((rooms, missed, people));
        }
    }
    world.talk(&kinds).await;
    for (rooms, missed, people) in &kinds {
        for person in people.iter() {
            let expected = world.learn(Way::Gathered, *person).await;
            assert_eq!((expected.rooms.len(), expected.missed), (*rooms, *missed));
            for way in [Way::EachRoom, Way::EachThing] {
                assert_eq!(world.learn(way, *person).await, expected, "{way:?}");
            }
        }
    }
    println!("pool of {POOL}; {people} people of each kind; median of {rounds} rounds");
    let all = [Way::EachRoom, Way::EachThing, Way::Gathered];
    for part in [Part::All, Part::Reads] {
        for at_once in [10, 40] {
            for (rooms, missed, people) in &kinds {
                let what = if part == Part::All { "connects" } else { "reads alone" };
                println!("{what}: {rooms} rooms, {missed} missed, {at_once} at once");
                world.compare(part, people, at_once, rounds, &all).await;
            }
        }
    }
    for at_once in [10, 40] {
        println!("rows of user_sessions alone: {at_once} at once");
        world.compare(Part::Rows, &kinds[0].2, at_once, rounds, &all[1..]).await;
    }
}

impl World {
    async fn start(url: &str) -> Self {
        // As a server connects.
        let options = PgConnectOptions::from_str(url).unwrap().options([("jit", "off")]);
        let pool = PgPoolOptions::new()
            .min_connections(POOL)
            .max_connections(POOL)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .unwrap();
        let repository = Repository::from_pool(pool.clone());
        repository.migrate().await.unwrap();
        let statements = Arc::<AtomicUsize>::default();
        let rows = Rows::start(repository.clone(), statements.clone());
        Self { pool, repository, statements, rows }
    }

    /// So many people, each with a session and in so many rooms.
    async fn people(&self, count: usize, rooms: usize, prefix: &str) -> Arc<Vec<Person>> {
        let now = Timestamp::now();
        let mut people = Vec::with_capacity(count);
        for n in 0..count {
            let person = Person {
                id: user(&self.repository, &format!("{prefix}{n}")).await,
                session: SessionId(Uuid::now_v7()),
            };
            let hash = Uuid::now_v7();
            let login =
                self.repository.create_login(person.session, person.id, hash.as_bytes(), now, now);
            login.await.unwrap();
            people.push(person);
        }
        for shift in 0..rooms {
            // Others each time, as far as there are any.
            let mut ids: Vec<UserId> = people.iter().map(|person| person.id).collect();
            ids.sort_by_key(|id| (id.0 as usize).wrapping_mul(2 * shift + 1) % (count | 1));
            for members in ids.chunks(MEMBERS) {
                group(&self.repository, members).await;
            }
        }
        Arc::new(people)
    }

    /// Everybody has spoken in all rooms, and some have missed the newest.
    async fn talk(&self, kinds: &[(usize, i64, Arc<Vec<Person>>)]) {
        let missing = kinds.iter().filter(|(_, missed, _)| *missed > 0);
        let missing: Vec<i32> = missing.flat_map(|(.., p)| p.iter().map(|p| p.id.0)).collect();
        query(
            "INSERT INTO messages
               (id, room_id, sender_id, seq, content, created_at, recipients)
             SELECT gen_random_uuid(), r.id, r.who[1 + s % r.members], s,
                    'word ' || s || ' of room ' || r.id,
                    now() - interval '1 day' + s * interval '1 minute', r.members - 1
             FROM (
               SELECT room_id AS id, array_agg(user_id) AS who, count(*)::int AS members
               FROM room_members
               GROUP BY room_id
             ) AS r, generate_series(1, $1::bigint) AS s
             ORDER BY s, r.id",
        )
        .bind(HISTORY)
        .execute(&self.pool)
        .await
        .unwrap();
        query(
            "INSERT INTO message_receipts (message_id, user_id, delivered_at)
             SELECT id, user_id,
                    CASE WHEN user_id <> ALL($1::int[]) OR newer > $2 THEN created_at END
             FROM (
               SELECT m.id, rm.user_id, m.created_at, m.seq, m.room_id,
                      row_number() OVER (
                        PARTITION BY rm.user_id ORDER BY m.created_at DESC, m.room_id DESC
                      ) AS newer
               FROM messages m
               JOIN room_members rm ON rm.room_id = m.room_id AND rm.user_id <> m.sender_id
             ) AS r
             ORDER BY seq, room_id",
        )
        .bind(missing)
        .bind(MISSED)
        .execute(&self.pool)
        .await
        .unwrap();
        for sql in [
            "UPDATE rooms SET last_seq = (SELECT max(seq) FROM messages)",
            "UPDATE room_members SET last_read_seq = room_id % 50, last_delivered_seq = 50",
            "VACUUM ANALYZE",
        ] {
            query(sql).execute(&self.pool).await.unwrap();
        }
    }

    fn count(&self, statements: usize) {
        self.statements.fetch_add(statements, Relaxed);
    }

    async fn learn(&self, way: Way, who: Person) -> Known {
        if way == Way::Gathered { self.gathered(who).await } else { self.plain(way, who).await }
    }

    /// As a server does whose caches are cold: the session is looked at before CONNECT
    /// is answered, and again with all the rest.
    async fn gathered(&self, Person { id, session }: Person) -> Known {
        self.count(2);
        assert!(self.repository.login_alive(session).await.unwrap());
        let arrival = self.repository.arrival(id, session, CHUNK).await.unwrap();
        let ids: Vec<MessageId> =
            arrival.undelivered.iter().take(PAGE).map(|u| u.message_id).collect();
        let mut page = Vec::new();
        if !ids.is_empty() {
            // Those that may be seen, they themselves, and their reactions.
            self.count(3);
            let messages = self.repository.messages_for(id, &ids).await.unwrap();
            page.extend(messages.into_iter().map(|m| (m.id.0, m.content)));
        }
        Known {
            alive: arrival.alive,
            rooms: arrival.rooms,
            missed: arrival.undelivered.len().try_into().unwrap(),
            page,
        }
    }

    /// One thing after the other.
    async fn plain(&self, way: Way, Person { id, session }: Person) -> Known {
        self.count(3);
        let alive: Option<(i32, String)> = query_as(
            "SELECT u.id, u.username
             FROM login_sessions s
             JOIN users u ON u.id = s.user_id
             WHERE s.id = $1 AND s.ended_at IS NULL",
        )
        .bind(session.0)
        .fetch_optional(&self.pool)
        .await
        .unwrap();
        let rooms: Vec<(i32, i64, i64)> = if way == Way::EachThing {
            query_as(
                "SELECT rm.room_id, r.last_seq, rm.last_read_seq
                 FROM room_members rm
                 JOIN rooms r ON r.id = rm.room_id
                 WHERE rm.user_id = $1 AND rm.left_at IS NULL
                 ORDER BY rm.room_id",
            )
            .bind(id.0)
            .fetch_all(&self.pool)
            .await
            .unwrap()
        } else {
            self.room_by_room(id).await
        };
        let missed: i64 = query_scalar(
            "SELECT count(*)
             FROM message_receipts r
             JOIN messages m ON m.id = r.message_id
             JOIN room_members rm
               ON rm.room_id = m.room_id AND rm.user_id = r.user_id AND rm.left_at IS NULL
             WHERE r.user_id = $1 AND r.delivered_at IS NULL",
        )
        .bind(id.0)
        .fetch_one(&self.pool)
        .await
        .unwrap();
        let page = if missed > 0 { self.first_page(id).await } else { Vec::new() };
        let rooms = rooms.into_iter().map(|(room, last_seq, last_read_seq)| ReadyRoom {
            room_id: RoomId(room),
            last_seq,
            last_read_seq,
        });
        Known { alive: alive.is_some(), rooms: rooms.collect(), missed, page }
    }

    async fn room_by_room(&self, id: UserId) -> Vec<(i32, i64, i64)> {
        let marks: Vec<(i32, i64)> = query_as(
            "SELECT room_id, last_read_seq
             FROM room_members
             WHERE user_id = $1 AND left_at IS NULL
             ORDER BY room_id",
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        self.count(marks.len());
        let mut rooms = Vec::with_capacity(marks.len());
        for (room, read) in marks {
            let head = query_scalar("SELECT last_seq FROM rooms WHERE id = $1")
                .bind(room)
                .fetch_one(&self.pool)
                .await
                .unwrap();
            rooms.push((room, head, read));
        }
        rooms
    }

    /// Messages with their reactions.
    async fn first_page(&self, id: UserId) -> Vec<(Uuid, String)> {
        self.count(2);
        type Message =
            (Uuid, i32, i32, i64, String, String, chrono::DateTime<chrono::Utc>, serde_json::Value);
        let page: Vec<Message> = query_as(
            "SELECT m.id, m.room_id, m.sender_id, m.seq, m.content, m.message_type,
                    m.created_at, m.metadata
             FROM message_receipts r
             JOIN messages m ON m.id = r.message_id
             JOIN room_members rm
               ON rm.room_id = m.room_id AND rm.user_id = r.user_id AND rm.left_at IS NULL
             WHERE r.user_id = $1 AND r.delivered_at IS NULL
             ORDER BY m.created_at, m.room_id, m.seq
             LIMIT $2",
        )
        .bind(id.0)
        .bind(i64::try_from(PAGE).unwrap())
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let ids: Vec<Uuid> = page.iter().map(|message| message.0).collect();
        let _reactions: Vec<(Uuid, String, i32)> = query_as(
            "SELECT message_id, emoji, user_id
             FROM reactions
             WHERE message_id = ANY($1)
             ORDER BY created_at, user_id, emoji",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        page.into_iter().map(|message| (message.0, message.4)).collect()
    }

    async fn opened(&self, way: Way, socket: OpenSocket) {
        if way == Way::Gathered {
            return self.rows.note(Change::Opened(socket)).await;
        }
        self.count(1);
        query(
            "INSERT INTO user_sessions
               (user_id, socket_id, server_instance, connected_at, last_heartbeat)
             VALUES ($1, $2, $3, $4, now())",
        )
        .bind(socket.user.0)
        .bind(socket.socket_id)
        .bind(INSTANCE)
        .bind(socket.connected_at.utc())
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn closed(&self, way: Way, id: String) {
        if way == Way::Gathered {
            return self.rows.note(Change::Closed(id)).await;
        }
        self.count(1);
        query("DELETE FROM user_sessions WHERE socket_id = $1")
            .bind(id)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Runs the ways in turns and prints their medians; the last is compared with
    /// the others.
    async fn compare(
        &self,
        part: Part,
        people: &Arc<Vec<Person>>,
        at_once: usize,
        rounds: usize,
        ways: &[Way],
    ) {
        let mut seen: Vec<Vec<Round>> = ways.iter().map(|_| Vec::new()).collect();
        // The first is not counted: plans are made in it.
        for round in 0..=rounds {
            for turn in 0..ways.len() {
                let at = (round + turn) % ways.len();
                let done = self.round(part, people, at_once, ways[at]).await;
                if round > 0 {
                    seen[at].push(done);
                }
            }
        }
        let (ours, _) = seen.split_last().unwrap();
        for (way, rounds) in ways.iter().zip(&seen) {
            let rate = median(rounds.iter().map(|r| r.rate)).0;
            let statements = median(rounds.iter().map(|r| r.statements)).0;
            print!("  {:17} {rate:7.0}/s {statements:6.2} statements", way.name(part));
            if let Some(cpu) = rounds.iter().map(|r| r.cpu).collect::<Option<Vec<_>>>() {
                print!(" {:6.0} µs of PostgreSQL", median(cpu.into_iter()).0);
            }
            if *way != Way::Gathered {
                let pairs = || ours.iter().zip(rounds);
                let (middle, least, most) = median(pairs().map(|(our, r)| our.rate / r.rate));
                print!("   {middle:5.2} times in the last ({least:.2} to {most:.2})");
                let cpu = pairs().map(|(our, r)| Some(r.cpu? / our.cpu?));
                if let Some(cpu) = cpu.collect::<Option<Vec<_>>>() {
                    print!(", for 1/{:.2}", median(cpu.into_iter()).0);
                }
            }
            println!();
        }
    }

    async fn round(
        &self,
        part: Part,
        people: &Arc<Vec<Person>>,
        at_once: usize,
        way: Way,
    ) -> Round {
        let backends = self.backends().await;
        let connects = people.len() * TIMES;
        let (cpu, statements) = (processor_time(&backends), self.statements.load(Relaxed));
        let start = Instant::now();
        let sockets = each(at_once, connects, |n| {
            let (world, who) = (self.clone(), people[n % people.len()]);
            async move {
                if part != Part::Rows {
                    world.learn(way, who).await;
                }
                let socket_id = Uuid::now_v7().to_string();
                let connected_at = Timestamp::now();
                let socket = OpenSocket { user: who.id, socket_id, connected_at };
                let id = socket.socket_id.clone();
                if part != Part::Reads {
                    world.opened(way, socket).await;
                }
                id
            }
        })
        .await;
        self.rows.written().await;
        let mut elapsed = start.elapsed();
        if part != Part::Reads {
            assert_eq!(self.sockets().await, connects);
            let start = Instant::now();
            each(at_once, connects, |n| {
                let (world, id) = (self.clone(), sockets[n].clone());
                async move { world.closed(way, id).await }
            })
            .await;
            self.rows.written().await;
            elapsed += start.elapsed();
            assert_eq!(self.sockets().await, 0);
        }
        let connects = connects as f64;
        let cpu = processor_time(&backends).zip(cpu).map(|(after, before)| after - before);
        Round {
            rate: connects / elapsed.as_secs_f64(),
            statements: (self.statements.load(Relaxed) - statements) as f64 / connects,
            cpu: cpu.map(|cpu| cpu / connects),
        }
    }

    async fn sockets(&self) -> usize {
        let count: i64 =
            query_scalar("SELECT count(*) FROM user_sessions").fetch_one(&self.pool).await.unwrap();
        count.try_into().unwrap()
    }

    async fn backends(&self) -> Vec<i32> {
        query_scalar(
            "SELECT pid FROM pg_stat_activity
             WHERE datname = current_database() AND backend_type = 'client backend'",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }
}

/// Runs so many, some at once, and answers in no order.
async fn each<F, T: Send + 'static>(
    at_once: usize,
    count: usize,
    act: impl Fn(usize) -> F,
) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let mut answers = Vec::with_capacity(count);
    let mut tasks = JoinSet::new();
    for n in 0..count {
        if tasks.len() >= at_once {
            answers.push(tasks.join_next().await.unwrap().unwrap());
        }
        tasks.spawn(act(n));
    }
    answers.extend(tasks.join_all().await);
    answers
}

/// In µs; `None` where Linux does not tell, or PostgreSQL is elsewhere.
fn processor_time(backends: &[i32]) -> Option<f64> {
    let of = |pid: &i32| -> Option<f64> {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let time = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        let nanoseconds: f64 = time.split(' ').next()?.parse().ok()?;
        name.starts_with("postgres").then_some(nanoseconds / 1000.0)
    };
    backends.iter().map(of).sum()
}

/// The median, the least and the most.
fn median(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

enum Change {
    Opened(OpenSocket),
    Closed(String),
}

/// Writes rows as a server does: while one batch is being written, the next gathers.
#[derive(Clone)]
struct Rows {
    changes: mpsc::Sender<Change>,
    noted: Arc<AtomicUsize>,
    done: watch::Receiver<usize>,
}

impl Rows {
    fn start(repository: Repository, statements: Arc<AtomicUsize>) -> Self {
        let (changes, mut queue) = mpsc::channel(16 * BATCH);
        let (written, done) = watch::channel(0);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            while queue.recv_many(&mut batch, BATCH).await > 0 {
                let count = batch.len();
                let mut opened = HashMap::new();
                let mut closed = Vec::new();
                for change in batch.drain(..) {
                    match change {
                        Change::Opened(socket) => {
                            opened.insert(socket.socket_id.clone(), socket);
                        }
                        Change::Closed(id) => closed.push(id),
                    }
                }
                let opened: Vec<_> = opened.into_values().collect();
                repository.sockets_changed(INSTANCE, &opened, &closed).await.unwrap();
                // BEGIN, COMMIT, and what lies between.
                let between = usize::from(!opened.is_empty()) + usize::from(!closed.is_empty());
                statements.fetch_add(2 + between, Relaxed);
                written.send_modify(|all| *all += count);
            }
        });
        Self { changes, noted: Arc::default(), done }
    }

    async fn note(&self, change: Change) {
        self.noted.fetch_add(1, Relaxed);
        self.changes.send(change).await.ok().unwrap();
    }

    /// All that was noted is in the table.
    async fn written(&self) {
        let all = self.noted.load(Relaxed);
        self.done.clone().wait_for(|done| *done >= all).await.unwrap();
    }
}
