//! What this crate adds to a broadcast: encoding it for the other servers, and
//! reading and handing over one of theirs.
//!
//! ```text
//! cargo bench -p socketioxide-node-redis                 5 rounds of 200,000 each
//! cargo bench -p socketioxide-node-redis -- --rounds 3 --messages 50000
//! ```
//!
//! Nothing here waits for a network: messages go nowhere, or through memory. What is
//! measured is CPU time, from `/proc/thread-self/schedstat`. The last lines do the same
//! work with `serde_json` alone, for comparison in the same run; absolute figures
//! depend on the machine. The rounds are interleaved, and the median of each is
//! printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use socketioxide_node_redis::driver::{Channel, Driver, DriverError, Inbox, Topics};
use socketioxide_node_redis::{
    Acks, Cluster, Event, Local, MemoryBroker, Namespace, Opts, Protocol, Settings, SocketInfo,
    Value,
};

/// The arguments of a chat message, 300 bytes of JSON.
fn message() -> String {
    let head = r#"["message",{"id":"8f14e45f-ceea-467f-a0e6-ad3b2c1d4e5f","roomId":"c9f0f895-fb98-4b91-99f5-1fd0297e236d","seq":123456,"senderId":"45c48cce-2e2d-4fbd-aa1a-fc51c7c6ad26","body":""#;
    let tail = r#"","createdAt":"2026-11-24T15:49:00.123Z"}]"#;
    let body = 300 - head.len() - tail.len();
    format!("{head}{}{tail}", &"The quick brown fox says é. ".repeat(4)[..body])
}

/// Sends nothing anywhere, but remembers the last.
#[derive(Default, Clone)]
struct Nowhere {
    last: Arc<Mutex<Bytes>>,
}

#[async_trait]
impl Driver for Nowhere {
    fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), DriverError> {
        black_box(channel);
        *self.last.lock() = payload;
        Ok(())
    }

    async fn subscribe(&self, _: Topics, _: Inbox) -> Result<(), DriverError> {
        Ok(())
    }

    async fn unsubscribe(&self, _: &Topics, _: &Inbox) -> Result<(), DriverError> {
        Ok(())
    }

    async fn subscribers(&self, _: &Channel) -> Result<usize, DriverError> {
        Ok(0)
    }

    fn unpublished(&self) -> u64 {
        0
    }
}

/// Makes the packet for clients of each event, as an adapter does, and counts.
#[derive(Default)]
struct Clients(AtomicU64);

impl Local for Clients {
    fn broadcast(&self, _: Option<&str>, event: Event<'_>, opts: &Opts) {
        black_box((event.packet(), opts));
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn broadcast_with_ack(&self, _: Event<'_>, _: &Opts, _: Option<Duration>) -> (u64, Acks) {
        (0, stream::empty().boxed())
    }

    fn sockets(&self, _: &Opts) -> Vec<SocketInfo> {
        Vec::new()
    }

    fn rooms(&self) -> Vec<String> {
        Vec::new()
    }

    fn has_room(&self, _: &str) -> bool {
        true
    }

    fn join(&self, _: &Opts, _: &[String]) {}

    fn leave(&self, _: &Opts, _: &[String]) {}

    fn disconnect(&self, _: &Opts, _: bool) {}
}

/// As the adapter does it: from the text that the engine has already made.
fn publish(namespace: &Namespace, text: &str, opts: &Opts) {
    let Value::Array(data) = Value::from_packet(text, &[]).unwrap() else { panic!() };
    namespace.broadcast(Event::from_data(data).unwrap(), opts).unwrap();
}

/// Nanoseconds that this thread, which does everything, has been running: other
/// processes don't count.
fn spent() -> u64 {
    let all = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    all.split(' ').next().unwrap().parse().unwrap()
}

struct Bench {
    messages: u64,
    rows: Vec<(String, Vec<f64>)>,
}

impl Bench {
    fn note(&mut self, name: &str, since: u64) {
        let each = (spent() - since) as f64 / self.messages as f64;
        match self.rows.iter_mut().find(|(row, _)| row == name) {
            Some((_, all)) => all.push(each),
            None => self.rows.push((name.to_owned(), vec![each])),
        }
    }
}

async fn round(bench: &mut Bench, protocol: Protocol, text: &str) {
    let opts = Opts::room("c9f0f895-fb98-4b91-99f5-1fd0297e236d");
    let settings = || Settings { protocol, inbox_messages: 1000, ..Settings::default() };
    let nowhere = Nowhere::default();
    let sender = Cluster::new(nowhere.clone(), settings());
    let sender = Namespace::open(&sender, "/", Arc::<Clients>::default()).await.unwrap();
    let name = |what: &str| format!("{protocol:?}: {what}");

    let since = spent();
    for _ in 0..bench.messages {
        publish(&sender, black_box(text), &opts);
    }
    bench.note(&name("a broadcast, from the packet's text to the payload"), since);

    let payload = nowhere.last.lock().clone();
    let broker = MemoryBroker::default();
    let receiver = Cluster::new(broker.driver(), settings());
    let clients = Arc::<Clients>::default();
    let receiver = Namespace::open(&receiver, "/", clients.clone()).await.unwrap();
    let channel = match protocol {
        Protocol::Classic => Channel::Plain(format!("socket.io#/#{}#", opts.rooms[0])),
        Protocol::Sharded => Channel::Shard("socket.io#/#".into()),
    };
    let since = spent();
    let mut sent = 0;
    while sent < bench.messages {
        for _ in 0..500 {
            broker.publish(&channel, &payload);
            sent += 1;
        }
        while clients.0.load(Ordering::Relaxed) < sent {
            tokio::task::yield_now().await;
        }
    }
    bench.note(&name("one of theirs, from the payload to the packet's text"), since);
    receiver.close().await.unwrap();
    sender.close().await.unwrap();
}

fn baseline(bench: &mut Bench, text: &str) {
    let since = spent();
    for _ in 0..bench.messages {
        let value: serde_json::Value = serde_json::from_str(black_box(text)).unwrap();
        black_box(value);
    }
    bench.note("serde_json::Value: text read", since);
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let since = spent();
    for _ in 0..bench.messages {
        black_box(serde_json::to_string(black_box(&value)).unwrap());
    }
    bench.note("serde_json::Value: text written", since);
}

/// Where the time goes.
fn parts(bench: &mut Bench, text: &str) {
    let since = spent();
    for _ in 0..bench.messages {
        black_box(Value::from_json(black_box(text)).unwrap());
    }
    bench.note("Value: text read", since);
    let value = Value::from_json(text).unwrap();
    let since = spent();
    for _ in 0..bench.messages {
        black_box(black_box(&value).json());
    }
    bench.note("Value: text written", since);
    let mut out = Vec::new();
    let since = spent();
    for _ in 0..bench.messages {
        out = Vec::with_capacity(512);
        black_box(&value).to_msgpack(&mut out);
        black_box(&out);
    }
    bench.note("Value: MessagePack written", since);
    let bytes = Bytes::from(out);
    let since = spent();
    for _ in 0..bench.messages {
        black_box(Value::from_msgpack(black_box(&bytes)).unwrap());
    }
    bench.note("Value: MessagePack read", since);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)).map_or(default, |n| n.parse().unwrap())
    };
    let text = message();
    assert_eq!(text.len(), 300);
    let mut bench = Bench { messages: value("--messages", 200_000), rows: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..value("--rounds", 5) {
        for protocol in [Protocol::Classic, Protocol::Sharded] {
            runtime.block_on(round(&mut bench, protocol, &text));
        }
        parts(&mut bench, &text);
        baseline(&mut bench, &text);
    }
    println!("a message of {} bytes, ns each:", text.len());
    for (name, mut all) in bench.rows {
        all.sort_by(f64::total_cmp);
        println!("{:>8.0}  {name}", all[all.len() / 2]);
    }
}
