//! The room cache between two instances, a PostgreSQL and those who write past it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Server, until, up};
use nix::sys::signal::Signal;
use starling_chat::auth::AuthSettings;
use starling_chat::memory::{MemoryLimits, MemoryPresence, Rates};
use starling_chat::ports::CACHED_MESSAGES;
use starling_chat::{Auth, Chat, Except, Fanout, Settings, Target};
use starling_protocol::event::{MessageSend, ServerEvent};
use starling_protocol::http::{HistoryPage, MembersAdd};
use starling_protocol::{Message, MessageType, RoomId, SessionId, Timestamp, UserId};
use starling_redis::{Redis, RedisCache};
use starling_repository::{CreateUser, NewUser, Page, PoolSettings, Repository};
use uuid::Uuid;

/// A database of its own beside the one that `DATABASE_URL` names.
struct Database {
    admin: String,
    name: String,
    url: String,
}

impl Database {
    async fn create() -> Self {
        let admin = std::env::var("DATABASE_URL").expect("DATABASE_URL names a PostgreSQL");
        let name = format!("starling_cache_{}", Uuid::new_v4().simple());
        let url = format!("{}/{name}", admin.rsplit_once('/').unwrap().0);
        let database = Self { admin, name, url };
        psql(&database.admin, &format!("CREATE DATABASE {}", database.name));
        database.repository().migrate().await.unwrap();
        database
    }

    fn repository(&self) -> Repository {
        Repository::connect(&PoolSettings { url: self.url.clone(), max: 8, min: 1 }).unwrap()
    }

    /// What somebody else does to the tables.
    fn sql(&self, sql: &str) {
        psql(&self.url, sql);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        Command::new("psql").args([&self.admin, "-qc", &sql]).output().ok();
    }
}

fn psql(url: &str, sql: &str) {
    let output = Command::new("psql").args([url, "-v", "ON_ERROR_STOP=1", "-qc", sql]).output();
    let output = output.expect("psql is missing: the package postgresql brings it");
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Nobody listens.
struct Silence;

impl Fanout for Silence {
    fn publish(&self, _: Target, _: Except, _: ServerEvent) {}
    fn join(&self, _: UserId, _: RoomId) {}
    fn leave(&self, _: UserId, _: RoomId) {}
    fn revoke(&self, _: SessionId, _: &str) {}
}

fn chat(repository: Repository, redis: Option<Redis>) -> Chat {
    let auth = Auth::new(AuthSettings {
        jwt_secret: vec![7; 32],
        access_ttl: Duration::from_secs(900),
        refresh_ttl: Duration::from_secs(900),
        bcrypt_cost: 4,
    });
    let off = Rates { messages: 0, connects: 0, connects_from: 0 };
    let chat = Chat::new(
        repository,
        Arc::new(Silence),
        Arc::new(MemoryPresence::default()),
        Arc::new(MemoryLimits::new(off)),
        auth.unwrap(),
        Settings { receipt_rows_max_members: 64, max_rooms_per_user: 100 },
    );
    match redis {
        Some(redis) => chat.with_cache(Arc::new(RedisCache::start(redis))),
        None => chat,
    }
}

async fn user(repository: &Repository, name: &str) -> UserId {
    let new = NewUser {
        username: name.into(),
        email: format!("{name}@example.org"),
        password_hash: "$2b$04$hash".into(),
        display_name: name.into(),
        created_at: Timestamp::now(),
    };
    match repository.create_user(new).await.unwrap() {
        CreateUser::Created(user) => user.id,
        other => panic!("{other:?}"),
    }
}

fn words(room: RoomId, content: &str) -> MessageSend {
    MessageSend {
        room_id: room,
        content: content.into(),
        client_id: None,
        message_type: MessageType::Text,
        reply_to: None,
        metadata: serde_json::Map::new(),
    }
}

async fn say(chat: &Chat, user: UserId, send: MessageSend) -> Message {
    chat.send(user, send).await.unwrap().stored().await.unwrap()
}

/// Two instances, a third writer without a cache, two users in one room.
struct World {
    server: Server,
    database: Database,
    redis: Redis,
    repository: Repository,
    a: Chat,
    b: Chat,
    past: Chat,
    ann: UserId,
    bob: UserId,
    room: RoomId,
}

impl World {
    async fn new() -> Self {
        let (server, database) = (Server::start().await, Database::create().await);
        let repository = database.repository();
        let redis = server.connect().await;
        let a = chat(repository.clone(), Some(redis.clone()));
        let b = chat(database.repository(), Some(server.connect().await));
        let past = chat(database.repository(), None);
        let (ann, bob) = (user(&repository, "ann").await, user(&repository, "bob").await);
        let now = Timestamp::now();
        let room = repository.create_group(ann, "Room", &[bob], now).await.unwrap().unwrap();
        Self { server, database, redis, repository, a, b, past, ann, bob, room }
    }

    fn key(&self) -> String {
        format!("room:{}:cache", self.room)
    }

    async fn truth(&self, user: UserId, limit: i64) -> HistoryPage {
        self.repository.history(user, self.room, Page::Newest, limit).await.unwrap().unwrap()
    }

    /// Every instance shows both users what the database holds, twice: the first may
    /// have filled the cache.
    async fn all_see_the_truth(&self) {
        for limit in [50, 7, 1, 51] {
            for user in [self.ann, self.bob] {
                let truth = self.truth(user, limit).await;
                for chat in [&self.a, &self.b, &self.a, &self.b] {
                    let seen = chat.history(user, self.room, None, None, Some(limit)).await;
                    assert_eq!(seen.unwrap(), truth);
                }
            }
        }
    }

    /// Until the cache holds the room's newest page.
    async fn warm(&self) {
        let newest = self.truth(self.ann, 1).await.messages[0].seq.to_string();
        until("the room is cached", async || {
            self.a.history(self.ann, self.room, None, None, None).await.unwrap();
            self.scores().last() == Some(&newest)
        })
        .await;
    }

    fn members(&self) -> Vec<String> {
        let members = self.server.cli(&["--raw", "zrange", &self.key(), "0", "-1"]);
        members.lines().map(ToOwned::to_owned).collect()
    }

    fn scores(&self) -> Vec<String> {
        let all = self.server.cli(&["--raw", "zrange", &self.key(), "0", "-1", "withscores"]);
        all.lines().skip(1).step_by(2).map(ToOwned::to_owned).collect()
    }

    /// Writes another text for one into the cache, which only a reader of the cache sees.
    fn forge(&self, from: &str, to: &str) {
        let script = "local from = string.gsub(ARGV[1], '%p', '%%%0') \
             for _, m in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do \
             if string.find(m, ARGV[1], 1, true) then \
               local score = redis.call('ZSCORE', KEYS[1], m) \
               redis.call('ZREM', KEYS[1], m) \
               redis.call('ZADD', KEYS[1], score, (string.gsub(m, from, ARGV[2]))) \
             end end return 1";
        assert_eq!(self.server.cli(&["eval", script, "1", &self.key(), from, to]), "1");
    }

    async fn newest(&self, chat: &Chat, user: UserId) -> String {
        let page = chat.history(user, self.room, None, None, None).await.unwrap();
        page.messages.last().unwrap().content.clone()
    }
}

#[tokio::test]
async fn the_newest_page_comes_from_the_cache_and_goes_on_with_what_is_sent() {
    let w = World::new().await;
    w.all_see_the_truth().await;
    for n in 1..=60 {
        say(&w.a, if n % 3 == 0 { w.ann } else { w.bob }, words(w.room, &format!("word{n}.")))
            .await;
    }
    w.all_see_the_truth().await;
    w.warm().await;
    let scores: Vec<String> = (11..=60).map(|seq: i64| seq.to_string()).collect();
    assert_eq!(w.scores(), scores);
    assert_ne!(w.server.cli(&["pttl", &w.key()]), "-1");
    for (member, score) in w.members().iter().zip(&scores) {
        let message: Message = serde_json::from_str(member).unwrap();
        assert_eq!((message.seq.to_string(), message.receipts), (score.clone(), None));
    }
    // Receipts are each caller's own and not from the cache.
    let own = w.b.history(w.ann, w.room, None, None, None).await.unwrap();
    assert!(own.messages.iter().all(|m| m.receipts.is_some() == (m.sender_id == w.ann)));

    // Forged again if a slow answer of Redis made the page be read and written anew.
    until("B reads the cache", async || {
        w.forge("word60.", "forged60.");
        w.newest(&w.b, w.bob).await == "forged60."
    })
    .await;
    w.server.cli(&["del", &w.key()]);
    w.warm().await;
    // Each instance appends what it stored.
    for (chat, text) in [(&w.a, "from-a"), (&w.b, "from-b"), (&w.a, "again")] {
        until("the room's cache goes on", async || {
            w.warm().await;
            let seq = say(chat, w.ann, words(w.room, text)).await.seq.to_string();
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline && w.scores().last() != Some(&seq) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            w.scores().last() == Some(&seq)
        })
        .await;
        assert_eq!(w.scores().len(), CACHED_MESSAGES);
        until("the other reads it", async || {
            w.forge(text, "forged");
            w.newest(&w.b, w.bob).await == "forged"
        })
        .await;
        w.forge("forged", text);
        w.all_see_the_truth().await;
    }
}

#[tokio::test]
async fn whoever_changes_what_no_old_page_is_seen() {
    let w = World::new().await;
    let mut last = say(&w.a, w.ann, words(w.room, "first")).await;
    for n in 0..5 {
        last = say(&w.b, w.bob, words(w.room, &format!("more {n}"))).await;
    }
    let id = last.id;
    w.warm().await;
    // By an instance, by one without a cache, and by somebody's SQL.
    for chat in [&w.a, &w.b, &w.past] {
        chat.edit(w.bob, id, "edited").await.unwrap();
        w.all_see_the_truth().await;
        chat.add_reaction(w.ann, id, "+1").await.unwrap();
        w.all_see_the_truth().await;
        chat.remove_reaction(w.ann, id, "+1").await.unwrap();
        w.all_see_the_truth().await;
        w.warm().await;
        let gone = say(chat, w.ann, words(w.room, "soon gone")).await;
        w.all_see_the_truth().await;
        w.warm().await;
        chat.delete(w.ann, gone.id).await.unwrap();
        w.all_see_the_truth().await;
        w.warm().await;
    }
    let (id, room) = (id.0, w.room);
    for sql in [
        format!("UPDATE messages SET content = 'by SQL', edited_at = now() WHERE id = '{id}'"),
        format!("INSERT INTO reactions VALUES ('{id}', {}, 'x', now())", w.ann),
        format!("UPDATE reactions SET emoji = 'y' WHERE message_id = '{id}'"),
        format!("DELETE FROM reactions WHERE message_id = '{id}'"),
        format!(
            "WITH r AS (UPDATE rooms SET last_seq = last_seq + 1 WHERE id = {room} RETURNING last_seq) \
             INSERT INTO messages (id, room_id, sender_id, seq, content, created_at) \
             SELECT gen_random_uuid(), {room}, {}, last_seq, 'by SQL', now() FROM r",
            w.ann
        ),
        // As retention might, and a peer that knows no order.
        format!("DELETE FROM messages WHERE room_id = {room} AND seq = 2"),
        format!(
            "DELETE FROM messages m USING rooms r WHERE r.id = {room} AND m.room_id = r.id AND m.seq = r.last_seq"
        ),
        "UPDATE messages SET metadata = '{\"a\": 1}' WHERE deleted_at IS NULL".to_owned(),
    ] {
        w.a.history(w.ann, w.room, None, None, None).await.unwrap();
        w.database.sql(&sql);
        w.all_see_the_truth().await;
    }
    // A member no longer: nothing, whatever is cached.
    w.a.remove_member(w.ann, w.room, w.bob).await.unwrap();
    assert!(w.a.history(w.bob, w.room, None, None, None).await.is_err());
    assert!(w.b.history(w.bob, w.room, None, None, None).await.is_err());
}

#[tokio::test]
async fn what_the_database_writes_another_way_is_read_the_same() {
    let w = World::new().await;
    say(&w.a, w.ann, words(w.room, "one")).await;
    w.warm().await;
    for json in [
        r#"{"n": 1e2, "deep": [{"x": 1.50}]}"#,
        r#"{"z": 1, "a": {"b": null, "a": [true, "ü\u2028\"\\"]}}"#,
        r#"{"big": 18446744073709551615, "small": -9223372036854775808, "zero": -0.0}"#,
        r#"{"huge": 123456789012345678901234567890, "tiny": 1e-7}"#,
    ] {
        let mut send = words(w.room, "“quotes” \\ \u{1F980}\n\t");
        send.metadata = serde_json::from_str(json).unwrap();
        say(&w.a, w.ann, send).await;
        w.all_see_the_truth().await;
        w.warm().await;
        w.all_see_the_truth().await;
    }
}

#[tokio::test]
async fn junk_in_the_key_is_ignored_and_written_over() {
    let w = World::new().await;
    for n in 1..=20 {
        say(&w.a, w.ann, words(w.room, &format!("word{n}."))).await;
    }
    let key = w.key();
    let other = "1000000";
    type Spoil<'a> = (&'a str, Box<dyn Fn(&World) + 'a>);
    let spoils: Vec<Spoil<'_>> = vec![
        (
            "another type",
            Box::new(|w| {
                w.server.cli(&["set", &key, "junk"]);
            }),
        ),
        (
            "no JSON",
            Box::new(|w| {
                w.server.cli(&["zadd", &key, "21", "junk"]);
            }),
        ),
        (
            "a hole",
            Box::new(|w| {
                w.server.cli(&["zremrangebyscore", &key, "5", "5"]);
            }),
        ),
        (
            "the oldest are missing",
            Box::new(|w| {
                w.server.cli(&["zremrangebyscore", &key, "1", "3"]);
            }),
        ),
        (
            "the newest is missing",
            Box::new(|w| {
                w.server.cli(&["zremrangebyscore", &key, "20", "20"]);
            }),
        ),
        (
            "another room",
            Box::new(|w| {
                w.forge(&format!("\"roomId\":{}", w.room), &format!("\"roomId\":{other}"))
            }),
        ),
        ("another version", Box::new(|w| w.forge("00000000-", "00000001-"))),
        ("no version", Box::new(|w| w.forge("cacheVersion", "cacheversion"))),
        (
            "two of one seq",
            Box::new(|w| {
                w.server.cli(&["zadd", &key, "19", "{}"]);
            }),
        ),
    ];
    for (what, spoil) in spoils {
        w.server.cli(&["del", &w.key()]);
        w.warm().await;
        spoil(&w);
        w.all_see_the_truth().await;
        until(what, async || {
            w.all_see_the_truth().await;
            w.scores().len() >= 20
                && w.scores().last().is_some_and(|last| *last == w.scores().len().to_string())
        })
        .await;
        spoil(&w);
        // The writer finds it so as well.
        say(&w.a, w.bob, words(w.room, what)).await;
        w.all_see_the_truth().await;
    }
    w.warm().await;
    w.server.cli(&["zincrby", &key, "5", w.members().last().unwrap()]);
    w.all_see_the_truth().await;
    say(&w.a, w.bob, words(w.room, "before a score that is too high")).await;
    w.all_see_the_truth().await;
}

#[tokio::test]
async fn without_redis_history_is_read_from_the_database() {
    let mut w = World::new().await;
    for n in 1..=5 {
        say(&w.a, w.ann, words(w.room, &format!("word{n}."))).await;
    }
    w.warm().await;
    w.server.signal(Signal::SIGSTOP);
    let began = Instant::now();
    for n in 0..20 {
        say(&w.a, w.ann, words(w.room, &format!("hanging {n}"))).await;
        w.all_see_the_truth().await;
    }
    assert!(began.elapsed() < common::PATIENCE, "{:?}", began.elapsed());
    w.server.signal(Signal::SIGCONT);
    w.all_see_the_truth().await;
    w.server.kill();
    say(&w.b, w.ann, words(w.room, "down")).await;
    w.all_see_the_truth().await;
    w.server.start_again().await;
    up(&w.redis).await;
    w.all_see_the_truth().await;
    w.warm().await;
    w.all_see_the_truth().await;
}

/// Many write in every way at once; what is read is compared with the database whenever
/// the room stood still around the reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_concurrent_writers_no_old_page_is_seen() {
    let w = Arc::new(World::new().await);
    let deadline = Instant::now() + Duration::from_secs(6);
    let mut tasks = Vec::new();
    for (n, who) in [w.ann, w.bob, w.ann, w.bob].into_iter().enumerate() {
        let w = w.clone();
        tasks.push(tokio::spawn(async move {
            let mut turn: u64 = n as u64;
            while Instant::now() < deadline {
                turn = turn
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let chat = [&w.a, &w.b, &w.past][(turn >> 33) as usize % 3];
                let page = w.repository.history(who, w.room, Page::Newest, 20).await;
                let page = page.unwrap().unwrap().messages;
                let some = page.get((turn >> 40) as usize % 20).map(|m| m.id);
                match ((turn >> 50) % 8, some) {
                    (0, Some(id)) => drop(chat.edit(who, id, &format!("edit {turn}")).await),
                    (1, Some(id)) => drop(chat.delete(who, id).await),
                    (2, Some(id)) => drop(chat.add_reaction(who, id, "+1").await),
                    (3, Some(id)) => drop(chat.remove_reaction(who, id, "+1").await),
                    _ => drop(say(chat, who, words(w.room, &format!("text {turn}"))).await),
                }
                // Now and then the room stands still.
                tokio::time::sleep(Duration::from_millis((turn >> 20) % 60)).await;
            }
            0
        }));
    }
    for n in 0..3 {
        let w = w.clone();
        tasks.push(tokio::spawn(async move {
            let mut compared = 0;
            while Instant::now() < deadline {
                let chat = if n % 2 == 0 { &w.a } else { &w.b };
                let before = w.repository.room_head(w.bob, w.room).await.unwrap();
                let truth = w.truth(w.bob, 50).await;
                let seen = chat.history(w.bob, w.room, None, None, None).await.unwrap();
                let after = w.repository.room_head(w.bob, w.room).await.unwrap();
                if before == after {
                    assert_eq!(seen, truth);
                    compared += 1;
                } else {
                    let newest = |page: &HistoryPage| page.messages.last().map(|m| m.seq);
                    assert!(newest(&seen) >= newest(&truth), "an older page");
                }
            }
            compared
        }));
    }
    let mut compared = 0;
    for task in tasks {
        compared += task.await.unwrap();
    }
    assert!(compared > 20, "{compared}");
    w.all_see_the_truth().await;
}

/// What a newest page costs with the cache and without; prints, asserts nothing.
/// `cargo test --release -p starling-redis --test cache -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn what_the_cache_saves() {
    let w = Arc::new(World::new().await);
    for n in 1..=60 {
        let who = if n % 2 == 0 { w.ann } else { w.bob };
        let text = format!("message {n}: some words, as people write them in a chat");
        let message = say(&w.a, who, words(w.room, &text)).await;
        if n % 10 == 0 {
            w.a.add_reaction(w.bob, message.id, "+1").await.unwrap();
        }
    }
    let carl = user(&w.repository, "carl").await;
    let carls = MembersAdd { user_ids: vec![carl] };
    w.a.add_members(w.ann, w.room, &carls).await.unwrap();
    w.warm().await;
    for (who, what) in [(carl, "no own messages"), (w.ann, "25 own messages")] {
        for at_once in [1, 8] {
            for round in 0..2 {
                for (chat, name) in [(&w.past, "database"), (&w.a, "cache")] {
                    let began = Instant::now();
                    let mut tasks = Vec::new();
                    for _ in 0..at_once {
                        let (chat, room) = (chat.clone(), w.room);
                        tasks.push(tokio::spawn(async move {
                            for _ in 0..1000 / at_once {
                                chat.history(who, room, None, None, None).await.unwrap();
                            }
                        }));
                    }
                    for task in tasks {
                        task.await.unwrap();
                    }
                    let page = began.elapsed() / 1000;
                    println!("{what}, {at_once} at once, round {round}, {name}: {page:?} a page");
                }
            }
        }
    }
    // What a send pays: nothing but a queue; Redis is written by another task.
    for (chat, name) in
        [(&w.past, "no cache"), (&w.a, "cache"), (&w.past, "no cache"), (&w.a, "cache")]
    {
        let began = Instant::now();
        for n in 0..500 {
            say(chat, w.ann, words(w.room, &format!("send {n}"))).await;
        }
        println!("send, {name}: {:?}", began.elapsed() / 500);
    }
}
