//! Limits over several instances, with a real Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Server, until, up};
use futures_util::FutureExt as _;
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

/// More than any set or sign of life lasts.
const SECOND: Duration = Duration::from_millis(1050);

/// A call to Redis that takes longer counts as failed, and each instance counts alone.
const IN_TIME: Duration = Duration::from_millis(200);

/// Whether the next send passes here alone: without Redis, nothing is there to wait for.
fn passes_here(limits: &RedisLimits) -> bool {
    limits.take(USER).now_or_never() == Some(Ok(()))
}

/// Until the instance holds the user, and nothing of the last second counts.
async fn held_by(limits: &RedisLimits) {
    until("the user is held", async || {
        let held = limits.take(USER).await.is_ok() && passes_here(limits);
        tokio::time::sleep(SECOND).await;
        held
    })
    .await;
}

fn holder(server: &Server) -> String {
    server.cli(&["get", "{message:ratelimit:7}:holder"])
}

fn set_size(server: &Server) -> usize {
    server.cli(&["zcount", "message:ratelimit:7", "-inf", "+inf"]).parse().unwrap()
}

async fn named(server: &Server, name: &str) -> Arc<RedisLimits> {
    Arc::new(RedisLimits::start(server.connect().await, name, RATES))
}

/// Four tasks for each instance send as fast as they can. How many passed: no second let
/// more than the rate pass.
async fn flood(instances: &[Arc<RedisLimits>], lasts: Duration) -> usize {
    let deadline = Instant::now() + lasts;
    let mut tasks = Vec::new();
    for limits in instances.iter().flat_map(|limits| std::iter::repeat_n(limits, 4)) {
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
    let mut passed = Vec::new();
    for task in tasks {
        passed.extend(task.await.unwrap());
    }
    // Each passed at some moment between its begin and its end: of eleven in the order
    // of their ends, the last ended a second after the first began at the earliest.
    passed.sort_by_key(|(_, end)| *end);
    for window in passed.windows(11) {
        let first = window.iter().map(|(begin, _)| *begin).min().unwrap();
        assert!(window[10].1.duration_since(first) >= Duration::from_millis(999));
    }
    passed.len()
}

#[tokio::test]
async fn instances_count_together_and_never_let_more_than_the_rate_pass() {
    let server = Server::start().await;
    let instances = [instance(&server).await, instance(&server).await, instance(&server).await];
    let passed = flood(&instances, Duration::from_secs(4)).await;
    assert!(passed >= 20, "{passed}");
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
    drop((a, b));
    until("the sets are gone", async || {
        let keys = server.cli(&["--raw", "keys", "*"]);
        let mut keys = keys.lines().filter(|key| !key.is_empty());
        keys.all(|key| key.ends_with(":holder") && server.cli(&["pttl", key]) != "-1")
    })
    .await;
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

/// How many of so many sends at once pass.
async fn burst(limits: &Arc<RedisLimits>, sends: usize) -> usize {
    let takes = (0..sends).map(|_| {
        let limits = limits.clone();
        tokio::spawn(async move { limits.take(USER).await })
    });
    let takes: Vec<_> = takes.collect();
    let mut passed = 0;
    for take in takes {
        match take.await.unwrap() {
            Ok(()) => passed += 1,
            Err(wait) => assert!((1..=1000).contains(&wait), "{wait}"),
        }
    }
    passed
}

#[tokio::test]
async fn who_is_at_one_instance_sends_half_of_the_rate_without_waiting_for_redis() {
    let server = Server::start().await;
    let (a, _b) = (instance(&server).await, instance(&server).await);
    held_by(&a).await;
    // A machine that stands still for long makes an instance lose what it holds.
    until("five pass here, the sixth asks", async || {
        tokio::time::sleep(SECOND).await;
        let here = (0..5).filter(|_| passes_here(&a)).count();
        // In the set it is all the same, soon: peers count it.
        until("all are in the set", async || set_size(&server) >= here).await;
        here == 5 && !passes_here(&a)
    })
    .await;
    tokio::time::sleep(SECOND).await;
    let began = Instant::now();
    let passed = burst(&a, 20).await;
    assert!(passed == 10 || passed > 10 && began.elapsed() >= Duration::from_secs(1), "{passed}");
}

#[tokio::test]
async fn at_two_instances_at_once_exactly_the_rate_passes() {
    let server = Server::start().await;
    let (a, b) = (instance(&server).await, instance(&server).await);
    for round in 0..6 {
        // Nobody holds the user, then one does, then the other.
        until("a round without a pause of the machine", async || {
            match round % 3 {
                0 => _ = server.cli(&["flushall"]),
                1 => held_by(&a).await,
                _ => held_by(&b).await,
            }
            tokio::time::sleep(SECOND).await;
            let began = Instant::now();
            let (at_a, at_b) = tokio::join!(burst(&a, 10), burst(&b, 10));
            let in_time = began.elapsed() < IN_TIME;
            assert!(at_a + at_b >= 10, "{at_a} + {at_b}, round {round}");
            assert!(!in_time || at_a + at_b == 10, "{at_a} + {at_b}, round {round}");
            in_time
        })
        .await;
    }
}

#[tokio::test]
async fn a_second_instance_counts_what_the_holder_kept_to_itself_and_may_take_over() {
    let server = Server::start().await;
    let (a, b) = (instance(&server).await, instance(&server).await);
    until("the other one gets just what is left", async || {
        held_by(&a).await;
        let began = Instant::now();
        let here = (0..4).filter(|_| passes_here(&a)).count();
        let passed = burst(&b, 10).await;
        let in_time = began.elapsed() < IN_TIME;
        assert!(!in_time || here + passed <= 10, "{here} + {passed}");
        // Given up: the one that had it asks too.
        here == 4 && passed == 6 && in_time && !passes_here(&a)
    })
    .await;
    until("the other one holds the user", async || {
        tokio::time::sleep(SECOND).await;
        b.take(USER).await.is_ok() && passes_here(&b)
    })
    .await;
    assert!(!passes_here(&a));
}

#[tokio::test]
async fn a_dead_holder_is_not_waited_for() {
    let server = Server::start().await;
    let (a, b) = (instance(&server).await, instance(&server).await);
    held_by(&a).await;
    let held = holder(&server);
    assert!(!held.is_empty());
    drop(a);
    let mut passed = 0;
    until("ten pass at the other one", async || {
        passed += usize::from(b.take(USER).await.is_ok());
        passed >= 10
    })
    .await;
    until("the other one holds the user", async || {
        tokio::time::sleep(SECOND).await;
        b.take(USER).await.is_ok() && passes_here(&b)
    })
    .await;
    assert_ne!(holder(&server), held);
}

#[tokio::test]
async fn a_peer_that_knows_of_no_holder_ends_the_holding() {
    let server = Server::start().await;
    let a = instance(&server).await;
    held_by(&a).await;
    let now = "local t = redis.call('TIME') \
               return redis.call('ZADD', KEYS[1], t[1] * 1000 + t[2] / 1000, ARGV[1])";
    until("the user is shared", async || {
        server.cli(&["eval", now, "1", "message:ratelimit:7", "node"]);
        a.take(USER).await.ok();
        holder(&server).is_empty()
    })
    .await;
    server.cli(&["eval", now, "1", "message:ratelimit:7", "node again"]);
    assert!(!passes_here(&a));
    held_by(&a).await;
}

#[tokio::test]
async fn a_hang_and_a_loss_of_redis_give_nobody_more_and_end_by_themselves() {
    let mut server = Server::start().await;
    let redis = server.connect().await;
    let limits = Arc::new(RedisLimits::start(redis.clone(), "here", RATES));
    held_by(&limits).await;
    server.signal(Signal::SIGSTOP);
    // Counted here throughout: while it is held, while Redis is given time, and after that.
    let passed = flood(std::slice::from_ref(&limits), Duration::from_secs(3)).await;
    assert!(passed >= 20, "{passed}");
    server.signal(Signal::SIGCONT);
    up(&redis).await;
    held_by(&limits).await;
    server.kill();
    server.start_again().await;
    up(&redis).await;
    assert_eq!(holder(&server), "");
    held_by(&limits).await;
    assert_eq!(burst(&limits, 20).await, 10);
}

#[tokio::test]
async fn junk_in_one_users_keys_does_not_hold_up_the_others() {
    let server = Server::start().await;
    let a = instance(&server).await;
    held_by(&a).await;
    until("both are posted again", async || {
        server.cli(&["del", "message:ratelimit:7", "message:ratelimit:8"]);
        server.cli(&["set", "message:ratelimit:7", "junk"]);
        for user in [7, 8] {
            a.take(Limited::Messages(UserId(user))).await.ok();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        ["7", "8"]
            .iter()
            .all(|user| server.cli(&["type", &format!("message:ratelimit:{user}")]) == "zset")
    })
    .await;
    server.cli(&["del", "{message:ratelimit:7}:holder"]);
    server.cli(&["lpush", "{message:ratelimit:7}:holder", "junk"]);
    until("the holder's key is mended", async || {
        a.take(USER).await.ok();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.cli(&["type", "{message:ratelimit:7}:holder"]) != "list"
    })
    .await;
}
