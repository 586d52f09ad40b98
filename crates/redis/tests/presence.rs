//! Presence over several instances, with a real Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{Server, until, up};
use nix::sys::signal::Signal;
use starling_chat::{ConnectionId, PresenceStore};
use starling_protocol::PresenceStatus::{Away, Offline, Online};
use starling_protocol::{Presence, PresenceStatus, Timestamp, UserId};
use starling_redis::{PresenceTimes, Redis, RedisPresence};
use uuid::Uuid;

/// Long enough for any machine.
const ALIVE: Duration = Duration::from_secs(600);
/// Short enough to wait for.
const DYING: Duration = Duration::from_millis(300);

fn times(lease: Duration) -> PresenceTimes {
    PresenceTimes { beat: Duration::from_millis(100), lease, life: Duration::from_secs(3600) }
}

async fn instance(server: &Server, name: &str, lease: Duration) -> RedisPresence {
    over(server.connect().await, name, lease).await
}

async fn over(redis: Redis, name: &str, lease: Duration) -> RedisPresence {
    let presence = RedisPresence::new(redis, name, times(lease));
    assert_eq!(presence.refresh().await, []);
    presence
}

fn socket(n: u128) -> ConnectionId {
    ConnectionId(Uuid::from_u128(n))
}

async fn open(at: &RedisPresence, user: i32, n: u128) -> Option<PresenceStatus> {
    at.opened(UserId(user), socket(n)).await.map(|p| p.status)
}

async fn close(at: &RedisPresence, user: i32, n: u128) -> Option<PresenceStatus> {
    at.closed(UserId(user), socket(n), Timestamp::now()).await.map(|p| p.status)
}

async fn status(at: &RedisPresence, user: i32) -> PresenceStatus {
    at.query(&[UserId(user)]).await[0].1
}

/// What refreshes tell until one tells nothing.
async fn told(at: &RedisPresence) -> Vec<Presence> {
    let mut all = Vec::new();
    loop {
        let news = at.refresh().await;
        if news.is_empty() {
            return all;
        }
        all.extend(news);
    }
}

fn entries(server: &Server) -> String {
    server.cli(&["--raw", "hgetall", "presence:{chat}:user:7"])
}

#[tokio::test]
async fn the_first_socket_anywhere_and_the_last_one_count() {
    let server = Server::start().await;
    let (a, b) = (instance(&server, "a", ALIVE).await, instance(&server, "b", ALIVE).await);
    assert_eq!(status(&b, 7).await, Offline);
    assert_eq!(open(&a, 7, 1).await, Some(Online));
    assert_eq!(open(&b, 7, 2).await, None);
    assert_eq!(open(&b, 7, 3).await, None);
    assert_eq!(b.set(UserId(7), Away).await.map(|p| p.status), Some(Away));
    assert_eq!(a.set(UserId(7), Away).await, None);
    assert_eq!((status(&a, 7).await, status(&b, 7).await), (Away, Away));
    assert_eq!(close(&b, 7, 2).await, None);
    assert_eq!(close(&a, 7, 1).await, None);
    assert_eq!(status(&a, 7).await, Away);
    assert_eq!(close(&b, 7, 3).await, Some(Offline));
    assert_eq!((status(&a, 7).await, status(&b, 7).await), (Offline, Offline));
    // Nothing of the last time is left: a first socket starts online.
    assert_eq!(open(&a, 7, 4).await, Some(Online));
    assert_eq!(status(&b, 7).await, Online);
    assert_eq!(a.set(UserId(8), Away).await, None, "a user without a socket has no status");
    assert_eq!((told(&a).await, told(&b).await), (vec![], vec![]));
}

#[tokio::test]
async fn two_hundred_users_are_asked_for_in_one_command_and_every_key_ends() {
    let server = Server::start().await;
    let (a, b) = (instance(&server, "a", ALIVE).await, instance(&server, "b", ALIVE).await);
    for user in (0..200).step_by(2) {
        open(if user % 4 == 0 { &a } else { &b }, user, 1).await;
    }
    let users: Vec<UserId> = (0..200).map(UserId).collect();
    // The first call may have to bring the script.
    a.query(&users[..1]).await;
    let calls = || {
        let stats = server.cli(&["info", "commandstats"]);
        let calls = |line: &str| line.split(['=', ',']).nth(1).unwrap().parse::<u64>().unwrap();
        let evals = stats.lines().filter(|l| l.starts_with("cmdstat_eval"));
        evals.map(calls).sum::<u64>()
    };
    let before = calls();
    let statuses = a.query(&users).await;
    assert_eq!(calls() - before, 1);
    for (user, status) in statuses {
        assert_eq!(status, if user.0 % 2 == 0 { Online } else { Offline }, "{user}");
    }
    let keys = server.cli(&["--raw", "keys", "*"]);
    assert!(keys.lines().count() >= 104, "{keys}");
    for key in keys.lines() {
        assert!(key.starts_with("presence:{chat}:"), "{key}");
        assert_ne!(server.cli(&["pttl", key]), "-1", "{key} would stay for ever");
    }
}

#[tokio::test]
async fn users_of_a_dead_instance_are_told_offline_once_by_one_of_the_others() {
    let server = Server::start().await;
    let (b, c) = (instance(&server, "b", ALIVE).await, instance(&server, "c", ALIVE).await);
    let dead = instance(&server, "dead", DYING).await;
    // More than one slice.
    for user in 0..700 {
        open(&dead, user, 1).await;
    }
    open(&b, 13, 2).await;
    open(&dead, 14, 2).await;
    let began = Timestamp::now();
    drop(dead);
    let mut all: BTreeMap<UserId, u32> = BTreeMap::new();
    until("699 users are told offline", async || {
        let (at_b, at_c) = tokio::join!(told(&b), told(&c));
        for presence in at_b.into_iter().chain(at_c) {
            assert_eq!(presence.status, Offline);
            assert!(presence.last_seen.is_some_and(|seen| seen <= began), "{presence:?}");
            *all.entry(presence.user_id).or_default() += 1;
        }
        all.len() >= 699
    })
    .await;
    assert_eq!((told(&b).await, told(&c).await), (vec![], vec![]));
    assert!(all.values().all(|times| *times == 1));
    assert!(!all.contains_key(&UserId(13)));
    assert_eq!((status(&c, 13).await, status(&c, 14).await), (Online, Offline));
    assert_eq!(server.cli(&["zcard", "presence:{chat}:instances"]), "2");
    assert_eq!(server.cli(&["--raw", "keys", "presence:{chat}:of:dead*"]), "");
    assert_eq!(close(&b, 13, 2).await, Some(Offline));
}

#[tokio::test]
async fn the_dead_do_not_count_before_they_are_swept() {
    let server = Server::start().await;
    let b = instance(&server, "b", ALIVE).await;
    let dead = instance(&server, "dead", DYING).await;
    open(&dead, 7, 1).await;
    open(&b, 7, 2).await;
    dead.set(UserId(7), Away).await;
    open(&dead, 8, 1).await;
    drop(dead);
    until("8 is offline", async || status(&b, 8).await == Offline).await;
    assert_eq!(status(&b, 7).await, Away);
    assert_eq!(close(&b, 7, 2).await, Some(Offline));
    // A first socket again: it starts online, also for those who saw the user away.
    assert_eq!(open(&b, 8, 3).await, Some(Online));
    assert_eq!(told(&b).await, []);
}

#[tokio::test]
async fn one_that_comes_back_by_the_same_name_has_nothing_of_its_predecessor() {
    let server = Server::start().await;
    let before = instance(&server, "a", DYING).await;
    open(&before, 7, 1).await;
    drop(before);
    let after = instance(&server, "a", ALIVE).await;
    until("7 is told offline", async || told(&after).await.iter().any(|p| p.user_id.0 == 7)).await;
    assert_eq!(status(&after, 7).await, Offline);
}

#[tokio::test]
async fn an_instance_that_was_stopped_says_again_whom_it_has() {
    let server = Server::start().await;
    let (a, b) = (instance(&server, "a", DYING).await, instance(&server, "b", ALIVE).await);
    open(&a, 7, 1).await;
    a.set(UserId(7), Away).await;
    open(&a, 8, 1).await;
    open(&b, 8, 1).await;
    until("7 is told offline", async || told(&b).await.iter().any(|p| p.user_id.0 == 7)).await;
    let news = told(&a).await;
    assert_eq!(news.len(), 1, "{news:?}");
    assert_eq!((news[0].user_id, news[0].status), (UserId(7), Away));
    until("they count again", async || {
        // Its next sign of life, on a machine that is slower than its lease.
        told(&a).await;
        (status(&b, 7).await, status(&b, 8).await) == (Away, Online)
    })
    .await;
}

#[tokio::test]
async fn without_redis_each_goes_by_its_own_sockets_and_all_agree_afterwards() {
    let mut server = Server::start().await;
    let (ra, rb) = (server.connect().await, server.connect().await);
    let a = over(ra.clone(), "a", ALIVE).await;
    let b = over(rb.clone(), "b", ALIVE).await;
    for user in [1, 2, 3, 4] {
        open(&a, user, 1).await;
    }
    open(&b, 2, 2).await;
    a.set(UserId(1), Away).await;
    server.kill();
    until("the loss is noticed", async || {
        ra.ping(Duration::from_secs(1)).await.is_err()
            && rb.ping(Duration::from_secs(1)).await.is_err()
    })
    .await;
    let began = Instant::now();
    assert_eq!(close(&a, 2, 1).await, Some(Offline), "as far as this instance knows");
    assert_eq!(close(&a, 3, 1).await, Some(Offline));
    assert_eq!(open(&a, 5, 1).await, Some(Online));
    assert_eq!(a.set(UserId(4), Away).await.map(|p| p.status), Some(Away));
    assert_eq!((status(&a, 1).await, status(&a, 2).await), (Away, Offline));
    assert_eq!(status(&b, 1).await, Offline);
    assert_eq!(told(&a).await, []);
    assert!(began.elapsed() < common::PATIENCE, "a dead Redis keeps callers waiting");
    server.start_again().await;
    tokio::join!(up(&ra), up(&rb));
    let mut news = BTreeMap::new();
    until("both say what they have", async || {
        for presence in told(&b).await.into_iter().chain(told(&a).await) {
            news.insert(presence.user_id.0, presence.status);
        }
        news.len() >= 4
    })
    .await;
    // Only whose state others may have wrong; not 1, who was there all the time.
    assert_eq!(news, BTreeMap::from([(2, Online), (3, Offline), (4, Away), (5, Online)]));
    for at in [&a, &b] {
        let mut statuses = Vec::new();
        for user in 1..=5 {
            statuses.push(status(at, user).await);
        }
        assert_eq!(statuses, [Away, Online, Offline, Away, Online]);
    }
}

#[tokio::test]
async fn after_redis_came_back_empty_nobody_is_believed_gone_at_first_sight() {
    let server = Server::start().await;
    let a = instance(&server, "a", ALIVE).await;
    // Two beats are more than the next lines take.
    let times = PresenceTimes { beat: Duration::from_secs(3), ..times(ALIVE) };
    let b = RedisPresence::new(server.connect().await, "b", times);
    assert_eq!(b.refresh().await, []);
    open(&a, 7, 1).await;
    open(&b, 7, 2).await;
    open(&b, 8, 2).await;
    server.cli(&["flushall"]);
    // B has said again whom it has, A has not yet.
    told(&b).await;
    assert_eq!(close(&b, 7, 2).await, None);
    assert_eq!(close(&b, 8, 2).await, None);
    told(&a).await;
    let mut news = Vec::new();
    until("b took the second look", async || {
        news.extend(told(&b).await.into_iter().map(|p| (p.user_id.0, p.status)));
        news.len() >= 2
    })
    .await;
    news.sort_unstable_by_key(|(user, _)| *user);
    assert_eq!(news, [(7, Online), (8, Offline)]);
}

#[tokio::test]
async fn a_redis_that_hangs_keeps_nobody_waiting() {
    let server = Server::start().await;
    let redis = server.connect().await;
    let a = over(redis.clone(), "a", ALIVE).await;
    server.signal(Signal::SIGSTOP);
    let began = Instant::now();
    for user in 0..100 {
        assert_eq!(open(&a, user, 1).await, Some(Online));
        assert_eq!(status(&a, user).await, Online);
    }
    // 200 waits would take 100 s.
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    server.signal(Signal::SIGCONT);
    up(&redis).await;
    let b = instance(&server, "b", ALIVE).await;
    until("all are known", async || {
        told(&a).await;
        let users: Vec<UserId> = (0..100).map(UserId).collect();
        b.query(&users).await.iter().all(|(_, status)| *status == Online)
    })
    .await;
}

#[tokio::test]
async fn junk_in_the_keys_is_dropped() {
    let server = Server::start().await;
    let (a, b) = (instance(&server, "a", ALIVE).await, instance(&server, "b", ALIVE).await);
    server.cli(&["set", "presence:{chat}:user:7", "junk"]);
    assert_eq!(status(&a, 7).await, Offline);
    server.cli(&["set", "presence:{chat}:user:7", "junk"]);
    assert_eq!(open(&a, 7, 1).await, Some(Online));
    server.cli(&["set", "presence:{chat}:instances", "junk"]);
    told(&b).await;
    told(&a).await;
    assert_eq!(status(&b, 7).await, Online, "{}", entries(&server));
    server.cli(&["del", "presence:{chat}:epoch"]);
    server.cli(&["lpush", "presence:{chat}:epoch", "junk"]);
    told(&a).await;
    assert_eq!(status(&b, 7).await, Online);
    assert_eq!(close(&a, 7, 1).await.unwrap_or(Offline), Offline);
    until("7 is offline", async || {
        told(&a).await;
        status(&b, 7).await == Offline
    })
    .await;
}
