//! Everything once against a Redis Cluster: keys of a script are in one slot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{Server, until};
use futures_util::FutureExt as _;
use starling_chat::memory::Rates;
use starling_chat::ports::Limited;
use starling_chat::{CachedPage, ConnectionId, Limits, PresenceStore, RoomCache};
use starling_protocol::{
    Message, MessageId, MessageType, PresenceStatus, RoomId, Timestamp, UserId,
};
use starling_redis::{PresenceTimes, RedisCache, RedisLimits, RedisPresence};
use uuid::Uuid;

fn message(seq: i64) -> Message {
    Message {
        id: MessageId(Uuid::from_u128(seq.unsigned_abs().into())),
        room_id: RoomId(1),
        sender_id: UserId(1),
        seq,
        content: format!("text {seq}"),
        message_type: MessageType::Text,
        created_at: Timestamp::now(),
        edited_at: None,
        deleted_at: None,
        client_id: None,
        reply_to: None,
        metadata: serde_json::Map::new(),
        reactions: Vec::new(),
        receipts: None,
    }
}

#[tokio::test]
async fn limits_presence_and_the_cache_work_in_a_cluster() {
    let server = Server::start_cluster().await;
    let redis = server.connect().await;

    let limits = RedisLimits::start(
        redis.clone(),
        "here",
        Rates { messages: 2, connects: 0, connects_from: 1 },
    );
    for user in 1..=20 {
        let user = Limited::Messages(UserId(user));
        limits.take(user).await.unwrap();
    }
    assert_eq!(server.cli(&["zcard", "message:ratelimit:20"]), "1", "counted by Redis");

    let held = Limited::Messages(UserId(21));
    let rates = Rates { messages: 10, connects: 0, connects_from: 0 };
    let limits = RedisLimits::start(redis.clone(), "here", rates);
    until("a held user is counted without asking, and posted", async || {
        limits.take(held).await.ok();
        let here = limits.take(held).now_or_never() == Some(Ok(()));
        tokio::time::sleep(Duration::from_millis(200)).await;
        here && server.cli(&["zcard", "message:ratelimit:21"]) != "0"
    })
    .await;

    let of = |name: &str, lease| {
        let times = PresenceTimes { beat: Duration::from_millis(100), lease, life: lease * 600 };
        RedisPresence::new(redis.clone(), name, times)
    };
    let here = of("here", Duration::from_secs(600));
    let dying = of("dying", Duration::from_millis(300));
    let socket = ConnectionId(Uuid::from_u128(1));
    here.refresh().await;
    dying.refresh().await;
    for user in 1..=20 {
        dying.opened(UserId(user), socket).await;
    }
    here.opened(UserId(1), socket).await;
    here.set(UserId(1), PresenceStatus::Away).await;
    let mut gone = 0;
    until("the dead one's users are gone", async || {
        gone += here.refresh().await.len();
        gone == 19
    })
    .await;
    let users: Vec<UserId> = (1..=200).map(UserId).collect();
    let there: Vec<_> = here
        .query(&users)
        .await
        .into_iter()
        .filter(|(_, s)| *s != PresenceStatus::Offline)
        .collect();
    assert_eq!(there, [(UserId(1), PresenceStatus::Away)]);
    let user = here.closed(UserId(1), socket, Timestamp::now()).await.unwrap();
    assert_eq!(user.status, PresenceStatus::Offline);

    let cache = RedisCache::start(redis.clone());
    let version = Uuid::new_v4();
    let first = vec![message(1), message(2)];
    cache.keep(RoomId(1), CachedPage { version, messages: first.clone() });
    until("the page is kept", async || {
        cache.newest(RoomId(1), 50).await == Some(CachedPage { version, messages: first.clone() })
    })
    .await;
    cache.stored(vec![message(3), message(4)]);
    until("the page goes on", async || {
        let page = cache.newest(RoomId(1), 2).await;
        page.is_some_and(|p| p.version == version && p.messages.iter().map(|m| m.seq).eq([3, 4]))
    })
    .await;
    cache.changed(RoomId(1));
    until("the page is dropped", async || cache.newest(RoomId(1), 50).await.is_none()).await;
}
