//! Limits over several instances, with a real Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Server, until, up};
use nix::sys::signal::Signal;
use starling_chat::Limits;
use starling_chat::memory::Rates;
use starling_chat::ports::Limited;
use starling_protocol::UserId;
use starling_redis::RedisLimits;

const RATES: Rates = Rates { messages: 10, connects: 5, connects_from: 3 };
const USER: Limited = Limited::Messages(UserId(7));

async fn instance(server: &Server) -> Arc<RedisLimits> {
    named(server, "here").await
}

async fn named(server: &Server, name: &str) -> Arc<RedisLimits> {
    Arc::new(RedisLimits::start(server.connect().await, name, RATES))
}

#[tokio::test]
async fn instances_count_together_and_never_let_more_than_the_rate_pass() {
    let server = Server::start().await;
    // A copy of every time that passed, by Redis' own clock.
    let instances = [instance(&server).await, instance(&server).await, instance(&server).await];
    let deadline = Instant::now() + Duration::from_secs(4);
    let mut tasks = Vec::new();
    for limits in instances {
        for _ in 0..4 {
            let limits = limits.clone();
            tasks.push(tokio::spawn(async move {
                let mut passed = Vec::new();
                while Instant::now() < deadline {
                    let began = Instant::now();
                    match limits.take(USER).await {
                        Ok(()) => passed.push((began, Instant::now())),
                        Err(wait) => {
                            assert!((1..=1000).contains(&wait), "{wait}");
                            tokio::time::sleep(Duration::from_millis(wait.min(20))).await;
                        }
                    }
                }
                passed
            }));
        }
    }
    let mut passed = Vec::new();
    for task in tasks {
        passed.extend(task.await.unwrap());
    }
    // Each passed at some moment between its begin and its end: of eleven in the order
    // of their ends, the last ended a second after the first began at the earliest.
    passed.sort_by_key(|(_, end)| *end);
    assert!(passed.len() >= 20, "{}", passed.len());
    for window in passed.windows(11) {
        let first = window.iter().map(|(begin, _)| *begin).min().unwrap();
        assert!(window[10].1.duration_since(first) >= Duration::from_millis(999));
    }
}

#[tokio::test]
async fn the_wait_is_enough_and_refusals_cost_nothing() {
    let server = Server::start().await;
    let (a, b) = (instance(&server).await, instance(&server).await);
    for _ in 0..5 {
        a.take(USER).await.unwrap();
        b.take(USER).await.unwrap();
    }
    let wait = a.take(USER).await.unwrap_err();
    for _ in 0..20 {
        b.take(USER).await.unwrap_err();
    }
    assert_eq!(server.cli(&["zcard", "message:ratelimit:7"]), "10");
    tokio::time::sleep(Duration::from_millis(wait)).await;
    b.take(USER).await.unwrap();
    a.take(Limited::Messages(UserId(8))).await.unwrap();
    // Nothing stays.
    until("the keys are gone", async || server.cli(&["dbsize"]) == "0").await;
}

#[tokio::test]
async fn addresses_count_over_all_instances_and_handshakes_for_each() {
    let server = Server::start().await;
    let (a, b) = (named(&server, "a").await, named(&server, "b").await);
    for ip in ["192.0.2.1", "2001:db8::1"] {
        let from = Limited::ConnectsFrom(ip.parse().unwrap());
        a.take(from).await.unwrap();
        b.take(from).await.unwrap();
        a.take(from).await.unwrap();
        b.take(from).await.unwrap_err();
        assert_eq!(server.cli(&["zcard", &format!("connection:ratelimit:ip:{ip}")]), "3");
    }
    for _ in 0..5 {
        a.take(Limited::Connects).await.unwrap();
        b.take(Limited::Connects).await.unwrap();
    }
    a.take(Limited::Connects).await.unwrap_err();
    for name in ["a", "b"] {
        assert_eq!(server.cli(&["zcard", &format!("connection:ratelimit:{name}")]), "5");
    }
}

#[tokio::test]
async fn a_node_peer_counts_in_the_same_set() {
    let server = Server::start().await;
    let limits = instance(&server).await;
    let now = "local t = redis.call('TIME') \
               for i = 1, 8 do redis.call('ZADD', KEYS[1], t[1] * 1000 + math.floor(t[2] / 1000), 'node-' .. i) end \
               redis.call('ZADD', KEYS[1], t[1] * 1000 + 3600000, 'a clock an hour ahead') return 1";
    server.cli(&["eval", now, "1", "message:ratelimit:7"]);
    limits.take(USER).await.unwrap();
    limits.take(USER).await.unwrap();
    assert!(limits.take(USER).await.unwrap_err() <= 1000);
    assert_eq!(server.cli(&["zscore", "message:ratelimit:7", "a clock an hour ahead"]), "");
}

#[tokio::test]
async fn a_rate_of_zero_and_junk_in_a_key_are_no_limit_and_no_obstacle() {
    let server = Server::start().await;
    let off = Rates { messages: 0, connects: 0, connects_from: 0 };
    let limits = RedisLimits::start(server.connect().await, "here", off);
    for _ in 0..100 {
        limits.take(USER).await.unwrap();
    }
    assert_eq!(server.cli(&["dbsize"]), "0");
    let limits = instance(&server).await;
    server.cli(&["set", "message:ratelimit:7", "junk"]);
    limits.take(USER).await.unwrap();
    limits.take(USER).await.unwrap();
    assert_eq!(server.cli(&["type", "message:ratelimit:7"]), "zset");
}

#[tokio::test]
async fn without_redis_each_instance_counts_alone_and_nobody_gets_a_fresh_second() {
    let mut server = Server::start().await;
    let redis = server.connect().await;
    let limits = RedisLimits::start(redis.clone(), "here", RATES);
    let all_passed = async || {
        let mut passed = 0;
        while limits.take(USER).await.is_ok() {
            passed += 1;
        }
        passed
    };
    server.kill();
    let began = Instant::now();
    // In flight or not, whatever the connection has noticed: never more than the rate.
    let passed = all_passed().await;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((10..=10 * seconds).contains(&passed), "{passed} in {seconds} s");
    until("the loss is noticed", async || redis.ping(Duration::from_secs(1)).await.is_err()).await;
    let began = Instant::now();
    for _ in 0..1000 {
        limits.take(USER).await.ok();
    }
    assert!(began.elapsed() < common::PATIENCE, "a dead Redis keeps callers waiting");
    server.start_again().await;
    up(&redis).await;
    until("counts are shared again", async || {
        limits.take(USER).await.ok();
        server.cli(&["exists", "message:ratelimit:7"]) == "1"
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_hangs_costs_one_wait_a_second() {
    let server = Server::start().await;
    let redis = server.connect().await;
    let limits = RedisLimits::start(redis.clone(), "here", RATES);
    limits.take(USER).await.unwrap();
    server.signal(Signal::SIGSTOP);
    let began = Instant::now();
    let mut passed = 0;
    for _ in 0..200 {
        passed += usize::from(limits.take(USER).await.is_ok());
    }
    // 200 waits would take 50 s.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    assert!(passed >= 9, "{passed}");
    server.signal(Signal::SIGCONT);
    up(&redis).await;
    until("counts are shared again", async || {
        limits.take(USER).await.ok();
        server.cli(&["exists", "message:ratelimit:7"]) == "1"
    })
    .await;
}
