//! People, rooms and messages for tests.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use chrono::{DateTime, TimeDelta};
use sqlx::PgPool;
use starling_protocol::{ClientId, Message, MessageId, MessageType, RoomId, Timestamp, UserId};
use starling_repository::{Append, CreateUser, NewMessage, NewUser, Repository};
use uuid::Uuid;

pub const ROWS: i64 = 64;

pub fn repository(pool: PgPool) -> Repository {
    Repository::from_pool(pool)
}

/// A fixed day, so many seconds on.
pub fn at(seconds: i64) -> Timestamp {
    let start = DateTime::from_timestamp(1_795_489_200, 0).unwrap();
    Timestamp::from(start + TimeDelta::seconds(seconds))
}

pub async fn user(repository: &Repository, name: &str) -> UserId {
    let new = NewUser {
        username: name.into(),
        email: format!("{name}@example.org"),
        password_hash: "$2b$04$hash".into(),
        display_name: name.to_uppercase(),
        created_at: at(0),
    };
    match repository.create_user(new).await.unwrap() {
        CreateUser::Created(user) => user.id,
        other => panic!("{other:?}"),
    }
}

/// A group of these; the first is the owner.
pub async fn group(repository: &Repository, members: &[UserId]) -> RoomId {
    repository.create_group(members[0], "Group", &members[1..], at(1)).await.unwrap().unwrap()
}

pub fn text(room: RoomId, sender: UserId, content: &str) -> NewMessage {
    NewMessage {
        id: MessageId(Uuid::now_v7()),
        room_id: room,
        sender_id: sender,
        content: content.into(),
        message_type: MessageType::Text,
        client_id: None,
        reply_to: None,
        metadata: serde_json::Map::new(),
        created_at: at(10),
    }
}

pub fn with_client(client: u128, message: NewMessage) -> NewMessage {
    NewMessage { client_id: Some(ClientId(Uuid::from_u128(client))), ..message }
}

pub async fn say_with(repository: &Repository, message: NewMessage, rows: i64) -> Message {
    match repository.append(&[message], rows).await.unwrap().pop().unwrap() {
        Append::Stored(message) => message,
        other => panic!("{other:?}"),
    }
}

pub async fn say(repository: &Repository, room: RoomId, sender: UserId, content: &str) -> Message {
    say_with(repository, text(room, sender, content), ROWS).await
}
