//! A database and a chat over it, for tests and measurements.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use starling_chat::auth::AuthSettings;
use starling_chat::memory::{MemoryLimits, MemoryPresence, Rates};
use starling_chat::{Auth, Chat, Except, Fanout, Settings, Target};
use starling_protocol::event::{MessageSend, ServerEvent};
use starling_protocol::{Message, MessageType, RoomId, SessionId, Timestamp, UserId};
use starling_repository::{CreateUser, NewUser, PoolSettings, Repository};
use uuid::Uuid;

/// A database of its own beside the one that `DATABASE_URL` names.
pub struct Database {
    admin: String,
    name: String,
    url: String,
}

impl Database {
    pub async fn create() -> Self {
        let admin = std::env::var("DATABASE_URL").expect("DATABASE_URL names a PostgreSQL");
        let name = format!("starling_chat_{}", Uuid::new_v4().simple());
        let url = format!("{}/{name}", admin.rsplit_once('/').unwrap().0);
        let database = Self { admin, name, url };
        psql(&database.admin, &format!("CREATE DATABASE {}", database.name));
        database.repository(1).migrate().await.unwrap();
        database
    }

    /// A pool of up to so many connections.
    pub fn repository(&self, max: u32) -> Repository {
        Repository::connect(&PoolSettings { url: self.url.clone(), max, min: max }).unwrap()
    }

    /// What somebody else does to the tables.
    pub fn sql(&self, sql: &str) {
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

/// Remembers who was told what.
#[derive(Default)]
pub struct Heard(Mutex<Vec<(Target, Except, ServerEvent)>>);

impl Heard {
    pub fn take(&self) -> Vec<(Target, Except, ServerEvent)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Fanout for Heard {
    fn publish(&self, target: Target, except: Except, event: ServerEvent) {
        self.0.lock().push((target, except, event));
    }
    fn join(&self, _: UserId, _: RoomId) {}
    fn leave(&self, _: UserId, _: RoomId) {}
    fn revoke(&self, _: SessionId, _: &str) {}
}

/// One instance.
pub fn chat(repository: Repository, fanout: Arc<dyn Fanout>) -> Chat {
    let auth = Auth::new(AuthSettings {
        jwt_secret: vec![7; 32],
        access_ttl: Duration::from_secs(900),
        refresh_ttl: Duration::from_secs(900),
        bcrypt_cost: 4,
    });
    let off = Rates { messages: 0, connects: 0, connects_from: 0 };
    Chat::new(
        repository,
        fanout,
        Arc::new(MemoryPresence::default()),
        Arc::new(MemoryLimits::new(off)),
        auth.unwrap(),
        Settings { receipt_rows_max_members: 64, max_rooms_per_user: 1000 },
    )
}

pub async fn user(repository: &Repository, name: &str) -> UserId {
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

/// A group of these; the first is the owner.
pub async fn group(repository: &Repository, members: &[UserId]) -> RoomId {
    let now = Timestamp::now();
    repository.create_group(members[0], "Group", &members[1..], now).await.unwrap().unwrap()
}

pub async fn say(chat: &Chat, user: UserId, room: RoomId, content: &str) -> Message {
    let send = MessageSend {
        room_id: room,
        content: content.into(),
        client_id: None,
        message_type: MessageType::Text,
        reply_to: None,
        metadata: serde_json::Map::new(),
    };
    chat.send(user, send).await.unwrap().stored().await.unwrap()
}
