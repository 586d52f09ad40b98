//! What others might publish, on each channel of both dialects.
//!
//! libFuzzer's panic hook aborts, so that a panic in a task is seen as well.
#![no_main]

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use parking_lot::Mutex;
use socketioxide_node_redis::driver::Channel;
use socketioxide_node_redis::{
    Acks, Cluster, Event, Local, MemoryBroker, Namespace, Opts, Protocol, Settings, SocketInfo,
    Value,
};
use tokio::runtime::Runtime;

#[derive(Arbitrary, Debug)]
struct Message {
    sharded: bool,
    channel: Kind,
    payload: Payload,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Everybody,
    Room,
    Request,
    Response,
    Private,
}

#[derive(Arbitrary, Debug)]
enum Payload {
    Any(Vec<u8>),
    /// One of a real server, with so many bytes at a place replaced.
    Real { which: u16, at: u16, len: u8, with: Vec<u8> },
    /// One of a real server, and where it ends.
    Cut { which: u16, len: u16 },
}

/// What real servers published.
static REAL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let text = include_str!("../../tests/vectors/vectors.json");
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    let unhex = |hex: &str| -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let mut real = Vec::new();
    for vector in all["vectors"].as_array().unwrap() {
        for frame in vector["frames"].as_array().unwrap() {
            let payload = frame[2].as_str().unwrap();
            let json = payload.starts_with('{');
            real.push(if json { payload.as_bytes().to_vec() } else { unhex(payload) });
        }
    }
    real
});

impl Payload {
    fn bytes(self) -> Vec<u8> {
        let real = |which: u16| REAL[usize::from(which) % REAL.len()].clone();
        match self {
            Self::Any(bytes) => bytes,
            Self::Real { which, at, len, with } => {
                let mut bytes = real(which);
                let at = usize::from(at).min(bytes.len());
                let end = (at + usize::from(len)).min(bytes.len());
                bytes.splice(at..end, with);
                bytes
            }
            Self::Cut { which, len } => {
                let mut bytes = real(which);
                bytes.truncate(usize::from(len));
                bytes
            }
        }
    }
}

/// One client, in the room `r1`.
#[derive(Default)]
struct Client(Mutex<Vec<String>>);

impl Client {
    fn gets(&self, event: &Event<'_>) {
        let (text, attachments) = event.packet();
        // What a client drops its connection over never gets this far.
        let read = Value::from_packet(&text, &attachments).expect("JSON");
        let Value::Array(data) = read else { panic!("no list: {text}") };
        Event::from_data(data).expect("an event");
        self.0.lock().push(text);
    }
}

impl Local for Client {
    fn broadcast(&self, _: Option<&str>, event: Event<'_>, _: &Opts) {
        self.gets(&event);
    }

    fn broadcast_with_ack(
        &self,
        event: Event<'_>,
        _: &Opts,
        _: Option<Duration>,
    ) -> (u64, Acks) {
        self.gets(&event);
        let arg = event.args().first().cloned().unwrap_or(Value::Undefined).into_owned();
        (1, stream::iter([arg]).boxed())
    }

    fn sockets(&self, _: &Opts) -> Vec<SocketInfo> {
        let empty = || Value::Map(Vec::new());
        let rooms = vec!["c".into(), "r1".into()];
        vec![SocketInfo { id: "c".into(), handshake: empty(), rooms, data: empty() }]
    }

    fn rooms(&self) -> Vec<String> {
        vec!["c".into(), "r1".into()]
    }

    fn has_room(&self, room: &str) -> bool {
        room == "r1"
    }

    fn join(&self, _: &Opts, _: &[String]) {}

    fn leave(&self, _: &Opts, _: &[String]) {}

    fn disconnect(&self, _: &Opts, _: bool) {}
}

struct Server {
    runtime: Runtime,
    broker: MemoryBroker,
    client: Arc<Client>,
    namespace: Namespace,
    sharded: bool,
    _cluster: Cluster,
}

impl Server {
    fn new(protocol: Protocol) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let broker = MemoryBroker::default();
        let settings = Settings { protocol, ..Settings::default() };
        let cluster = Cluster::new(broker.driver(), settings);
        cluster.on_server_side_emit("/", |event| {
            let args = Value::Array(event.args().to_vec());
            event.answer(args);
        });
        let client = Arc::<Client>::default();
        let opening = Namespace::open(&cluster, "/", client.clone());
        let namespace = runtime.block_on(opening).unwrap();
        let sharded = protocol == Protocol::Sharded;
        Self { runtime, broker, client, namespace, sharded, _cluster: cluster }
    }

    fn channel(&self, kind: &Kind) -> Channel {
        let uid = self.namespace.uid();
        match (self.sharded, kind) {
            (true, Kind::Private) => Channel::Shard(format!("socket.io#/#{uid}#")),
            (true, _) => Channel::Shard("socket.io#/#".into()),
            (_, Kind::Everybody) => Channel::Plain("socket.io#/#".into()),
            (_, Kind::Room) => Channel::Plain("socket.io#/#r1#".into()),
            (_, Kind::Request) => Channel::Plain("socket.io-request#/#".into()),
            (_, Kind::Response) => Channel::Plain("socket.io-response#/#".into()),
            (_, Kind::Private) => Channel::Plain(format!("socket.io-response#/#{uid}#")),
        }
    }

    fn receive(&self, kind: &Kind, payload: Vec<u8>) {
        self.broker.publish(&self.channel(kind), &payload.into());
        self.runtime.block_on(async {
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
        });
    }

    fn is_well(&self) {
        self.client.0.lock().clear();
        let good: &[u8] = if self.sharded {
            br#"{"type":3,"data":{"packet":{"type":2,"data":["good"]},"opts":{"rooms":[],"except":[],"flags":{}}},"uid":"other","nsp":"/"}"#
        } else {
            b"\x93\xa5other\x83\xa4type\x02\xa4data\x91\xa4good\xa3nsp\xa1/\x83\xa5rooms\x90\xa6except\x90\xa5flags\x80"
        };
        self.receive(&Kind::Everybody, good.to_vec());
        assert_eq!(*self.client.0.lock(), ["[\"good\"]"]);
    }
}

thread_local! {
    static SERVERS: RefCell<Option<[Server; 2]>> = const { RefCell::new(None) };
}

fuzz_target!(|messages: Vec<Message>| {
    SERVERS.with_borrow_mut(|servers| {
        let [classic, sharded] = servers
            .get_or_insert_with(|| [Protocol::Classic, Protocol::Sharded].map(Server::new));
        for Message { sharded: to_sharded, channel, payload } in messages {
            let server = if to_sharded { &*sharded } else { &*classic };
            server.receive(&channel, payload.bytes());
        }
        classic.is_well();
        sharded.is_well();
    });
});
