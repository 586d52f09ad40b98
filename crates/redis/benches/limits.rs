//! What counting a send costs: below half of the rate, where a user who is at one instance
//! is counted there, and beyond it, where Redis is asked, in one run.
//!
//! ```text
//! cargo bench -p starling-redis                          1,000 users, 5 rounds
//! cargo bench -p starling-redis -- --users 200 --rounds 3
//! ```
//!
//! A `redis-server` of its own on a free port. Each round, users that are held send as often as
//! passes without asking, and others, who have a send at a peer in their set, as often: each of
//! theirs is asked for, by one script, as every send was before users were held. The rounds are
//! interleaved, and what counts is the median of the ratios in the same round: absolute
//! figures depend on what else the machine does. Commands are those that Redis got, with
//! what is posted afterwards and the signs of life.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::ops::Range;
use std::time::{Duration, Instant};

use common::Server;
use futures_util::stream::{self, StreamExt as _};
use starling_chat::Limits;
use starling_chat::memory::Rates;
use starling_chat::ports::Limited;
use starling_protocol::UserId;
use starling_redis::RedisLimits;

const SENDS: usize = 4;
/// Users that send at once.
const AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(1100);

struct Round {
    takes: f64,
    seconds: f64,
    commands: f64,
    /// Of the server's processor, in seconds.
    redis_cpu: f64,
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: usize| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)).map_or(default, |n| n.parse().unwrap())
    };
    let (users, rounds) = (value("--users", 1000), value("--rounds", 5));
    let server = Server::start().await;
    let rates = Rates { messages: 10, connects: 0, connects_from: 0 };
    let limits = RedisLimits::start(server.connect().await, "here", rates);
    println!("{users} users, {SENDS} sends a round each, {AT_ONCE} at once");
    tokio::time::sleep(PAUSE).await;
    all(&limits, 0..users, 1).await;
    let (mut faster, mut fewer, mut lighter) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        tokio::time::sleep(PAUSE).await;
        let held = round(&server, &limits, 0..users).await;
        at_a_peer(&server, users..2 * users);
        let asked = round(&server, &limits, users..2 * users).await;
        for (name, r) in [("here", &held), ("asked", &asked)] {
            println!(
                "{name:>6}: {:>9.0} takes/s  {:>6.2} µs a take  {:.3} commands a take  {:>6.2} µs of Redis a take",
                r.takes / r.seconds,
                r.seconds / r.takes * 1e6,
                r.commands / r.takes,
                r.redis_cpu / r.takes * 1e6,
            );
        }
        // Redis was too late for some: these were counted without it.
        if asked.commands < asked.takes {
            println!("        not counted: the machine was too busy");
            continue;
        }
        faster.push(asked.seconds / held.seconds);
        fewer.push(asked.commands / held.commands);
        lighter.push(asked.redis_cpu / held.redis_cpu);
    }
    assert!(!faster.is_empty(), "no round on a machine that was quiet enough");
    println!(
        "here to asked: {:.1} times as many takes/s, 1/{:.1} of the commands, 1/{:.1} of Redis' processor time",
        median(faster),
        median(fewer),
        median(lighter)
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn all(limits: &RedisLimits, users: Range<usize>, sends: usize) {
    stream::iter(users)
        .for_each_concurrent(AT_ONCE, async |user| {
            let user = Limited::Messages(UserId(user.try_into().unwrap()));
            for _ in 0..sends {
                limits.take(user).await.expect("the rate is not reached");
            }
        })
        .await;
}

/// A send at a peer, whose clock is ahead enough for it to last for the round.
fn at_a_peer(server: &Server, users: Range<usize>) {
    let text = "local t = redis.call('TIME') \
                for user = ARGV[1], ARGV[2] do \
                  local key = 'message:ratelimit:' .. string.format('%d', user) \
                  redis.call('ZADD', key, t[1] * 1000 + 950, 'peer') \
                  redis.call('PEXPIRE', key, 3000) \
                end return 1";
    let (first, last) = (users.start.to_string(), (users.end - 1).to_string());
    assert_eq!(server.cli(&["eval", text, "0", &first, &last]), "1");
}

async fn round(server: &Server, limits: &RedisLimits, users: Range<usize>) -> Round {
    let before = info(server);
    let began = Instant::now();
    let takes = (users.len() * SENDS) as f64;
    all(limits, users, SENDS).await;
    let seconds = began.elapsed().as_secs_f64();
    // What is posted later is part of it.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let after = info(server);
    Round { takes, seconds, commands: after.0 - before.0, redis_cpu: after.1 - before.1 }
}

/// Commands that clients sent, and the processor time.
fn info(server: &Server) -> (f64, f64) {
    let sum = |section: &str, of: &dyn Fn(&str) -> Option<f64>| {
        server.cli(&["info", section]).lines().filter_map(of).sum()
    };
    let calls = |line: &str| {
        let scripts = line.strip_prefix("cmdstat_eval")?;
        scripts.split(['=', ',']).nth(1)?.parse().ok()
    };
    let cpu = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let used = ["used_cpu_sys", "used_cpu_user"].contains(&name);
        used.then(|| value.trim().parse().ok())?
    };
    (sum("commandstats", &calls), sum("cpu", &cpu))
}
