//! Several servers in one process: what each asks of the others, and gets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use socketioxide_node_redis::driver::{Channel, Driver, DriverError, Inbox, Topics};
use socketioxide_node_redis::{
    Acks, Cluster, Error, Event, Local, MemoryBroker, MemoryDriver, Namespace, Notice, Opts,
    Protocol, ServerSideEvent, Settings, SocketInfo, Stats, Value, Verdict,
};

// ---- servers ----

/// What a client says to an event that asks.
#[derive(Debug, Clone)]
enum Reply {
    Says(Value<'static>),
    Nothing,
    Never,
}

#[derive(Debug)]
struct Client {
    id: String,
    rooms: BTreeSet<String>,
    got: Vec<String>,
    reply: Reply,
    /// Whether its transport was to end, once it is gone.
    gone: Option<bool>,
}

/// The sockets of one server.
#[derive(Default)]
struct Sockets {
    clients: Mutex<Vec<Client>>,
    from: Mutex<Vec<Option<String>>>,
    /// Runs when sockets are asked for.
    asked: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Nobody is in any room, as far as it knows.
    empty: AtomicBool,
}

impl Sockets {
    fn each(&self, opts: &Opts, mut run: impl FnMut(&mut Client)) -> u64 {
        let within = |client: &Client| {
            let any = |rooms: &[String]| rooms.iter().any(|room| client.rooms.contains(room));
            (opts.rooms.is_empty() || any(&opts.rooms))
                && !any(&opts.except)
                && client.gone.is_none()
        };
        let mut clients = self.clients.lock();
        clients.iter_mut().filter(|client| within(client)).map(&mut run).count() as u64
    }

    fn client(&self, id: &str, rooms: &[&str]) {
        self.replying(id, rooms, Reply::Says(Value::from(id.to_owned())));
    }

    fn replying(&self, id: &str, rooms: &[&str], reply: Reply) {
        let rooms = rooms.iter().copied().chain([id]).map(str::to_owned).collect();
        let client = Client { id: id.to_owned(), rooms, got: Vec::new(), reply, gone: None };
        self.clients.lock().push(client);
    }

    /// What this client got since the last time.
    fn got(&self, id: &str) -> Vec<String> {
        let mut clients = self.clients.lock();
        std::mem::take(&mut clients.iter_mut().find(|client| client.id == id).unwrap().got)
    }

    fn rooms_of(&self, id: &str) -> Vec<String> {
        let clients = self.clients.lock();
        let client = clients.iter().find(|client| client.id == id).unwrap();
        client.rooms.iter().filter(|room| *room != id).cloned().collect()
    }

    fn gone(&self, id: &str) -> Option<bool> {
        self.clients.lock().iter().find(|client| client.id == id).unwrap().gone
    }
}

impl Local for Sockets {
    fn broadcast(&self, from: Option<&str>, event: Event<'_>, opts: &Opts) {
        self.from.lock().push(from.map(str::to_owned));
        self.each(opts, |client| client.got.push(event.packet().0));
    }

    fn broadcast_with_ack(
        &self,
        event: Event<'_>,
        opts: &Opts,
        timeout: Option<Duration>,
    ) -> (u64, Acks) {
        let mut replies = Vec::new();
        let mut silent = false;
        let count = self.each(opts, |client| {
            client.got.push(event.packet().0);
            match &client.reply {
                Reply::Says(value) => replies.push(value.clone()),
                Reply::Nothing => replies.push(Value::Undefined),
                Reply::Never => silent = true,
            }
        });
        let replies = stream::iter(replies);
        if !silent {
            return (count, replies.boxed());
        }
        let timeout = timeout.unwrap_or(Duration::from_secs(5));
        let waited = stream::once(tokio::time::sleep(timeout)).filter_map(|()| async { None });
        (count, replies.chain(waited).boxed())
    }

    fn sockets(&self, opts: &Opts) -> Vec<SocketInfo> {
        if let Some(asked) = self.asked.lock().take() {
            asked();
        }
        let mut all = Vec::new();
        self.each(opts, |client| {
            let rooms = client.rooms.iter().cloned().collect();
            let handshake = Value::from_json(r#"{"address":"::1"}"#).unwrap();
            let data = Value::from_json(r#"{"n":1.5}"#).unwrap();
            all.push(SocketInfo { id: client.id.clone(), handshake, rooms, data });
        });
        all
    }

    fn rooms(&self) -> Vec<String> {
        let mut all = BTreeSet::new();
        self.each(&Opts::default(), |client| all.extend(client.rooms.iter().cloned()));
        all.into_iter().collect()
    }

    fn has_room(&self, room: &str) -> bool {
        !self.empty.load(Ordering::Relaxed) && self.each(&Opts::room(room), |_| ()) > 0
    }

    fn join(&self, opts: &Opts, rooms: &[String]) {
        self.each(opts, |client| client.rooms.extend(rooms.iter().cloned()));
    }

    fn leave(&self, opts: &Opts, rooms: &[String]) {
        self.each(opts, |client| client.rooms.retain(|room| !rooms.contains(room)));
    }

    fn disconnect(&self, opts: &Opts, close: bool) {
        self.each(opts, |client| client.gone = Some(close));
    }
}

/// A connection that says what it publishes more than once, if it is told so, and
/// remembers it.
struct Tap {
    inner: MemoryDriver,
    copies: Arc<AtomicUsize>,
    published: Arc<Mutex<Vec<(Channel, Bytes)>>>,
}

#[async_trait]
impl Driver for Tap {
    fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), DriverError> {
        self.published.lock().push((channel.clone(), payload.clone()));
        for _ in 0..self.copies.load(Ordering::Relaxed) {
            self.inner.publish(channel.clone(), payload.clone())?;
        }
        Ok(())
    }

    async fn subscribe(&self, topics: Topics, inbox: Inbox) -> Result<(), DriverError> {
        self.inner.subscribe(topics, inbox).await
    }

    async fn unsubscribe(&self, topics: &Topics, inbox: &Inbox) -> Result<(), DriverError> {
        self.inner.unsubscribe(topics, inbox).await
    }

    async fn subscribers(&self, channel: &Channel) -> Result<usize, DriverError> {
        self.inner.subscribers(channel).await
    }

    fn unpublished(&self) -> u64 {
        self.inner.unpublished()
    }
}

struct Server {
    cluster: Cluster,
    namespace: Namespace,
    sockets: Arc<Sockets>,
    driver: MemoryDriver,
    copies: Arc<AtomicUsize>,
    published: Arc<Mutex<Vec<(Channel, Bytes)>>>,
}

impl Server {
    async fn with(broker: &MemoryBroker, settings: Settings, nsp: &str) -> Self {
        let driver = broker.driver();
        let copies = Arc::new(AtomicUsize::new(1));
        let published = Arc::<Mutex<Vec<_>>>::default();
        let (inner, tap) = (driver.clone(), published.clone());
        let tap = Tap { inner, copies: copies.clone(), published: tap };
        let cluster = Cluster::new(tap, settings);
        let sockets = Arc::<Sockets>::default();
        let namespace = Namespace::open(&cluster, nsp, sockets.clone()).await.unwrap();
        Self { cluster, namespace, sockets, driver, copies, published }
    }

    async fn new(broker: &MemoryBroker, protocol: Protocol) -> Self {
        Self::with(broker, Settings { protocol, ..Settings::default() }, "/").await
    }

    fn stats(&self) -> Stats {
        self.cluster.counters()
    }
}

/// Three servers, with two clients each: `a1` in `r1`, `a2` in `r2`, and so on.
async fn three(protocol: Protocol) -> [Server; 3] {
    let broker = MemoryBroker::default();
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        let server = Server::new(&broker, protocol).await;
        server.sockets.client(&format!("{name}1"), &["r1"]);
        server.sockets.client(&format!("{name}2"), &["r2"]);
        all.push(server);
    }
    all.try_into().map_err(|_| ()).unwrap()
}

const BOTH: [Protocol; 2] = [Protocol::Classic, Protocol::Sharded];

/// Lets everything run that can, on the one thread that there is.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

fn opts(rooms: &[&str], except: &[&str]) -> Opts {
    let names = |rooms: &[&str]| rooms.iter().map(|&room| room.to_owned()).collect();
    Opts { rooms: names(rooms), except: names(except), ..Opts::default() }
}

fn hello(n: u64) -> Event<'static> {
    Event::new("hello", [Value::from(n)])
}

fn sorted<T: Ord>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.into_iter().collect();
    all.sort();
    all
}

fn says(value: &Value<'_>) -> String {
    if *value == Value::Undefined { "undefined".into() } else { value.json() }
}

// ---- broadcasts ----

#[tokio::test]
async fn broadcasts_reach_whom_they_are_for_once() {
    for protocol in BOTH {
        let [a, b, c] = three(protocol).await;
        // Their rooms, those without, and who gets it at each other server.
        let cases: [(&[&str], &[&str], &[&str]); 9] = [
            (&[], &[], &["1", "2"]),
            (&["r1"], &[], &["1"]),
            (&["r1", "r2"], &[], &["1", "2"]),
            (&["r1"], &["r1"], &[]),
            (&[], &["r1"], &["2"]),
            (&["r1", "r2"], &["r2"], &["1"]),
            (&["nobody"], &[], &[]),
            (&["r1", "nobody"], &["nobody"], &["1"]),
            (&["b2"], &[], &["only b2"]),
        ];
        for (n, (rooms, except, who)) in cases.into_iter().enumerate() {
            a.namespace.broadcast(hello(n as u64), &opts(rooms, except)).unwrap();
            settle().await;
            for (server, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
                for number in ["1", "2"] {
                    let id = format!("{name}{number}");
                    let meant = who.contains(&number) || *who == [format!("only {id}")];
                    let times = usize::from(meant && name != "a");
                    let got = vec![format!("[\"hello\",{n}]"); times];
                    assert_eq!(server.sockets.got(&id), got, "{protocol:?} {id} {rooms:?}");
                }
            }
        }
        assert!(a.sockets.from.lock().is_empty(), "its own came back");
        let from = b.sockets.from.lock().first().cloned().flatten();
        assert_eq!(from.as_deref(), Some(a.namespace.uid()));
        assert_eq!(a.stats().published, 9, "one command each");
    }
}

#[tokio::test]
async fn a_room_where_nobody_is_is_not_even_read() {
    let [a, b, _c] = three(Protocol::Classic).await;
    b.sockets.empty.store(true, Ordering::Relaxed);
    a.namespace.broadcast(hello(1), &opts(&["r1"], &[])).unwrap();
    settle().await;
    assert!(b.sockets.got("b1").is_empty());
    // More than one room go over the channel of all.
    a.namespace.broadcast(hello(2), &opts(&["r1", "r2"], &[])).unwrap();
    settle().await;
    assert_eq!(b.sockets.got("b1"), ["[\"hello\",2]"]);
}

#[tokio::test]
async fn attachments_and_flags_arrive() {
    for protocol in BOTH {
        let [a, b, _c] = three(protocol).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        b.cluster.intercept("/", move |remote| {
            log.lock().push((remote.opts.clone(), remote.event.clone().into_owned()));
            Verdict::Deliver
        });
        let bytes = Bytes::from_static(&[0, 255]);
        let event = Event::new("file", [Value::Bin(bytes.clone()), Value::Undefined]);
        let how = Opts {
            volatile: true,
            timeout: Some(Duration::from_millis(1234)),
            ..opts(&["r1"], &["r2"])
        };
        a.namespace.broadcast(event, &how).unwrap();
        settle().await;
        let seen = seen.lock();
        let (opts, event) = seen.first().unwrap();
        assert_eq!(opts, &how);
        assert_eq!(event.name(), Some("file"));
        assert_eq!(event.args(), [Value::Bin(bytes), Value::Null]);
    }
}

#[tokio::test]
async fn names_may_be_anything() {
    let names = ["/", "/a#b", "/a", "/*", "/[a-c]?", "/\\", "/salle-é😀", "/a#"];
    for protocol in BOTH {
        let broker = MemoryBroker::default();
        let settings = || Settings { protocol, ..Settings::default() };
        let (a, b) = (broker.driver(), broker.driver());
        let (a, b) = (Cluster::new(a, settings()), Cluster::new(b, settings()));
        let mut all = Vec::new();
        for nsp in names {
            let (here, there) = (Arc::<Sockets>::default(), Arc::<Sockets>::default());
            there.client("x", &["é#*", "b", "b#", "#", "", "[r]", "123"]);
            let here = Namespace::open(&a, nsp, here).await.unwrap();
            Namespace::open(&b, nsp, there.clone()).await.unwrap();
            all.push((here, there));
        }
        for (at, (namespace, _)) in all.iter().enumerate() {
            for room in ["é#*", "b", "b#", "#", "", "[r]", "123"] {
                namespace.broadcast(hello(1), &opts(&[room], &[])).unwrap();
                settle().await;
                for (n, (_, there)) in all.iter().enumerate() {
                    let got = there.got("x");
                    assert_eq!(got.len(), usize::from(n == at), "{} {room} at {n}", names[at]);
                }
            }
            namespace.broadcast(hello(2), &Opts::default()).unwrap();
            settle().await;
            let got: Vec<_> = all.iter().map(|(_, there)| there.got("x").len()).collect();
            assert_eq!(got.iter().sum::<usize>(), 1, "{got:?}");
            assert_eq!(got[at], 1);
            let fetched = namespace.fetch_sockets(Opts::default()).await.unwrap();
            assert_eq!((fetched.items.len(), fetched.missing), (1, 0));
        }
        assert_eq!(b.counters().malformed, 0);
    }
}

#[tokio::test]
async fn keys_keep_clusters_apart() {
    for protocol in BOTH {
        let broker = MemoryBroker::default();
        let with = |key: &str| Settings { protocol, key: key.into(), ..Settings::default() };
        let a = Server::with(&broker, with("one"), "/").await;
        let b = Server::with(&broker, with("one"), "/").await;
        let other = Server::with(&broker, with("one#"), "/").await;
        let more = Server::with(&broker, with("socket.io"), "/").await;
        for server in [&a, &b, &other, &more] {
            server.sockets.client("x", &["r"]);
        }
        a.namespace.broadcast(hello(1), &opts(&["r"], &[])).unwrap();
        settle().await;
        let got = [&a, &b, &other, &more].map(|server| server.sockets.got("x").len());
        assert_eq!(got, [0, 1, 0, 0]);
        assert_eq!(a.namespace.server_count().await.unwrap(), 2);
    }
}

// ---- interceptors ----

#[tokio::test]
async fn what_is_taken_is_delivered_when_the_application_says_so() {
    let [a, b, c] = three(Protocol::Classic).await;
    type Taken = (Option<String>, Event<'static>, Opts);
    let taken = Arc::new(Mutex::new(Vec::<Taken>::new()));
    let log = taken.clone();
    b.cluster.intercept("/", move |remote| {
        assert_eq!(remote.nsp, "/");
        let Some(Value::Uint(n)) = remote.event.args().first() else { panic!() };
        if n % 2 == 0 {
            return Verdict::Deliver;
        }
        let from = remote.from.map(str::to_owned);
        log.lock().push((from, remote.event.clone().into_owned(), remote.opts.clone()));
        Verdict::Taken
    });
    for n in 0..6 {
        a.namespace.broadcast(hello(n), &opts(&["r1"], &[])).unwrap();
    }
    settle().await;
    assert_eq!(b.sockets.got("b1"), ["[\"hello\",0]", "[\"hello\",2]", "[\"hello\",4]"]);
    assert_eq!(c.sockets.got("c1").len(), 6, "another server's own business");
    for (from, event, opts) in std::mem::take(&mut *taken.lock()).into_iter().rev() {
        assert_eq!(from.as_deref(), Some(a.namespace.uid()));
        b.namespace.deliver(from.as_deref(), event, &opts);
    }
    assert_eq!(b.sockets.got("b1"), ["[\"hello\",5]", "[\"hello\",3]", "[\"hello\",1]"]);
    assert!(b.sockets.got("b2").is_empty());
}

#[tokio::test]
async fn one_server_s_broadcasts_keep_their_order() {
    for protocol in BOTH {
        let [a, b, _c] = three(protocol).await;
        for n in 0..500 {
            let rooms: &[&str] = if n % 3 == 0 { &["r1"] } else { &["r1", "r2"] };
            a.namespace.broadcast(hello(n), &opts(rooms, &[])).unwrap();
        }
        while (b.stats().received) < 500 {
            tokio::task::yield_now().await;
        }
        let expected: Vec<_> = (0..500).map(|n| format!("[\"hello\",{n}]")).collect();
        assert_eq!(b.sockets.got("b1"), expected);
    }
}

#[tokio::test]
async fn a_listener_that_panics_makes_no_server_deaf() {
    let [a, b, _c] = three(Protocol::Classic).await;
    b.cluster.intercept("/", |remote| {
        assert_ne!(remote.event.args(), [Value::Uint(1)], "on purpose");
        Verdict::Deliver
    });
    for n in 1..3 {
        a.namespace.broadcast(hello(n), &Opts::default()).unwrap();
    }
    settle().await;
    assert_eq!(b.sockets.got("b1"), ["[\"hello\",2]"]);
}

// ---- requests ----

#[tokio::test]
async fn sockets_and_rooms_of_all_others() {
    for protocol in BOTH {
        let servers = three(protocol).await;
        for (n, server) in servers.iter().enumerate() {
            let others = ["a", "b", "c"].into_iter().enumerate().filter(|(at, _)| *at != n);
            let others: Vec<&str> = others.map(|(_, name)| name).collect();
            let ids =
                |numbers: &[&str]| {
                    sorted(others.iter().flat_map(|name| {
                        numbers.iter().map(move |number| format!("{name}{number}"))
                    }))
                };
            let all = server.namespace.fetch_sockets(Opts::default()).await.unwrap();
            assert_eq!(all.missing, 0);
            let socket = &all.items[0];
            assert_eq!(socket.handshake.json(), r#"{"address":"::1"}"#);
            assert_eq!(socket.data.json(), r#"{"n":1.5}"#);
            assert!(socket.rooms.contains(&socket.id) && socket.rooms.len() == 2);
            assert_eq!(sorted(all.items.into_iter().map(|socket| socket.id)), ids(&["1", "2"]));
            let some = server.namespace.fetch_sockets(opts(&["r1"], &[])).await.unwrap();
            assert_eq!(sorted(some.items.into_iter().map(|socket| socket.id)), ids(&["1"]));
            let some = server.namespace.fetch_sockets(opts(&[], &["r1"])).await.unwrap();
            assert_eq!(sorted(some.items.into_iter().map(|socket| socket.id)), ids(&["2"]));
            let rooms = server.namespace.rooms().await.unwrap();
            assert_eq!(rooms.missing, 0);
            let mut expected = ids(&["1", "2"]);
            expected.extend(["r1", "r2"].map(str::to_owned));
            assert_eq!(sorted(rooms.items), expected, "each once");
            assert_eq!(server.namespace.server_count().await.unwrap(), 3);
        }
    }
}

#[tokio::test]
async fn sockets_of_others_join_leave_and_go() {
    for protocol in BOTH {
        let [a, b, c] = three(protocol).await;
        a.namespace.join(opts(&["r1"], &["c1"]), vec!["x".into(), "é#".into()]).unwrap();
        settle().await;
        assert_eq!(b.sockets.rooms_of("b1"), ["r1", "x", "é#"]);
        assert_eq!(b.sockets.rooms_of("b2"), ["r2"]);
        assert_eq!(c.sockets.rooms_of("c1"), ["r1"]);
        assert_eq!(a.sockets.rooms_of("a1"), ["r1"], "one's own are dealt with at once");
        c.namespace.leave(Opts::default(), vec!["x".into(), "r1".into()]).unwrap();
        settle().await;
        assert_eq!(b.sockets.rooms_of("b1"), ["é#"]);
        assert_eq!(c.sockets.rooms_of("c1"), ["r1"]);
        b.namespace.disconnect(opts(&["c2"], &[]), false).unwrap();
        b.namespace.disconnect(opts(&["r2"], &["c2"]), true).unwrap();
        settle().await;
        assert_eq!(c.sockets.gone("c2"), Some(false));
        assert_eq!(a.sockets.gone("a2"), Some(true));
        assert_eq!((a.sockets.gone("a1"), b.sockets.gone("b2")), (None, None));
    }
}

#[tokio::test]
async fn alone_nobody_is_asked() {
    for protocol in BOTH {
        let a = Server::new(&MemoryBroker::default(), protocol).await;
        let none = a.namespace.fetch_sockets(Opts::default()).await.unwrap();
        assert_eq!((none.items.len(), none.missing), (0, 0));
        assert!(a.namespace.rooms().await.unwrap().items.is_empty());
        let none = a.namespace.server_side_emit_with_ack(hello(1)).await.unwrap();
        assert_eq!((none.items.len(), none.missing), (0, 0));
        assert_eq!(a.stats().published, 0);
        let timeout = Duration::from_secs(3600);
        let acks = a.namespace.broadcast_with_ack(hello(1), Opts::default(), timeout).await;
        assert_eq!(acks.unwrap().count().await, 0);
    }
}

fn listen(server: &Server, run: impl Fn(ServerSideEvent) + Send + Sync + 'static) {
    server.cluster.on_server_side_emit("/", run);
}

#[tokio::test]
async fn events_for_servers() {
    for protocol in BOTH {
        let [a, b, c] = three(protocol).await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        for (server, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
            let heard = heard.clone();
            listen(server, move |event| {
                let said = Value::Array(event.args().to_vec()).json();
                heard.lock().push(format!("{name} {} {said}", event.name()));
                assert_eq!((event.nsp.as_str(), event.wants_answer()), ("/", false));
            });
        }
        let args = [Value::from(1), Value::from_json(r#"{"k":[null]}"#).unwrap()];
        a.namespace.server_side_emit(Event::new("tick", args)).unwrap();
        settle().await;
        assert_eq!(
            sorted(std::mem::take(&mut *heard.lock())),
            [r#"b tick [1,{"k":[null]}]"#, r#"c tick [1,{"k":[null]}]"#]
        );
        assert_eq!(b.stats().published + c.stats().published, 0, "nobody waits");
    }
}

#[tokio::test(start_paused = true)]
async fn events_for_servers_are_answered_once_by_each() {
    for protocol in BOTH {
        let [a, b, c] = three(protocol).await;
        listen(&a, |_| panic!("its own"));
        listen(&b, |event| {
            assert!(event.wants_answer());
            let args = Value::Array(event.args().to_vec());
            event.answer(args);
        });
        // Dropped unanswered.
        listen(&c, drop);
        let event = || Event::new("q", [Value::from("é"), Value::Undefined]);
        let all = a.namespace.server_side_emit_with_ack(event()).await.unwrap();
        assert_eq!(all.missing, 0);
        assert_eq!(sorted(all.items.iter().map(says)), [r#"["é",null]"#, "null"]);

        // Kept, and answered later; by another thread, for all it matters.
        let kept = Arc::new(Mutex::new(None));
        let keep = kept.clone();
        listen(&c, move |event| *keep.lock() = Some(event));
        let asking = tokio::spawn({
            let namespace = a.namespace.clone();
            async move { namespace.server_side_emit_with_ack(hello(1)).await.unwrap() }
        });
        settle().await;
        let event = kept.lock().take().unwrap();
        std::thread::spawn(move || event.answer(Value::Undefined)).join().unwrap();
        let all = asking.await.unwrap();
        assert_eq!(sorted(all.items.iter().map(says)), ["[1]", "undefined"]);

        // Kept for longer than anybody waits.
        let all = a.namespace.server_side_emit_with_ack(hello(2)).await.unwrap();
        assert_eq!((all.items.len(), all.missing), (1, 1));
        kept.lock().take().unwrap().answer(Value::from("late"));
        let next = a.namespace.server_side_emit_with_ack(hello(3));
        let next = async { (next.await.unwrap(), ()) };
        let answering = async {
            settle().await;
            kept.lock().take().unwrap().answer(Value::from("in time"));
        };
        let ((all, ()), ()) = tokio::join!(next, answering);
        assert_eq!(sorted(all.items.iter().map(says)), ["\"in time\"", "[3]"]);
        assert_eq!(a.stats().malformed, 0);
    }
}

#[tokio::test]
async fn servers_without_a_listener_answer_too() {
    for protocol in BOTH {
        let [a, _b, _c] = three(protocol).await;
        let all = a.namespace.server_side_emit_with_ack(hello(1)).await.unwrap();
        assert_eq!((all.items, all.missing), (vec![Value::Null, Value::Null], 0));
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_of_all_clients_and_no_more() {
    for protocol in BOTH {
        let [a, b, c] = three(protocol).await;
        b.sockets.replying("b3", &["r1"], Reply::Nothing);
        c.sockets.replying("c3", &["r1"], Reply::Says(Value::Bin(Bytes::from_static(b"\x01"))));
        let long = Duration::from_secs(3600);
        let ask = |rooms: &'static [&str]| {
            let namespace = a.namespace.clone();
            async move {
                let from = tokio::time::Instant::now();
                let acks = namespace.broadcast_with_ack(hello(1), opts(rooms, &[]), long).await;
                let acks: Vec<_> = acks.unwrap().collect().await;
                (sorted(acks.iter().map(says)), from.elapsed())
            }
        };
        let buffer = r#"{"type":"Buffer","data":[1]}"#;
        let (acks, waited) = ask(&["r1"]).await;
        assert_eq!(acks, ["\"b1\"", "\"c1\"", "undefined", buffer]);
        assert_eq!(waited, Duration::ZERO, "it ends with the last");
        // At one server alone, and at none.
        assert_eq!(ask(&["b2"]).await, (vec!["\"b2\"".to_owned()], Duration::ZERO));
        assert_eq!(ask(&["nobody"]).await, (vec![], Duration::ZERO));
        assert!(a.sockets.got("a1").is_empty(), "its own clients are not asked by others");
        assert_eq!(b.sockets.got("b1").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_waited_for_no_longer_than_said() {
    for protocol in BOTH {
        let [a, b, _c] = three(protocol).await;
        b.sockets.replying("b3", &["r1"], Reply::Never);
        let from = tokio::time::Instant::now();
        let timeout = Duration::from_millis(700);
        let acks = a.namespace.broadcast_with_ack(hello(1), opts(&["r1"], &[]), timeout).await;
        let acks: Vec<_> = acks.unwrap().collect().await;
        assert_eq!(sorted(acks.iter().map(says)), ["\"b1\"", "\"c1\""]);
        assert_eq!(from.elapsed(), timeout);
        // What `opts` says goes before.
        let from = tokio::time::Instant::now();
        let sooner = Opts { timeout: Some(timeout / 2), ..opts(&["b3"], &[]) };
        let acks = a.namespace.broadcast_with_ack(hello(1), sooner, timeout).await;
        assert_eq!(acks.unwrap().count().await, 0);
        assert_eq!(from.elapsed(), timeout / 2);
        // The longest there is, is no panic.
        let acks = a.namespace.broadcast_with_ack(hello(1), opts(&["r2"], &[]), Duration::MAX);
        assert_eq!(acks.await.unwrap().count().await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn who_vanishes_while_asked_is_missing() {
    for protocol in BOTH {
        let [a, b, c] = three(protocol).await;
        let vanish = |server: &Server| {
            let driver = server.driver.clone();
            *server.sockets.asked.lock() = Some(Box::new(move || driver.cut(true)));
        };
        vanish(&c);
        let from = tokio::time::Instant::now();
        let some = a.namespace.fetch_sockets(Opts::default()).await.unwrap();
        assert_eq!(sorted(some.items.into_iter().map(|socket| socket.id)), ["b1", "b2"]);
        assert_eq!((some.missing, from.elapsed()), (1, Duration::from_secs(5)));
        assert_eq!(c.stats().unpublished, 1);
        // It is not counted any more.
        assert_eq!(a.namespace.server_count().await.unwrap(), 2);
        let some = a.namespace.fetch_sockets(Opts::default()).await.unwrap();
        assert_eq!((some.items.len(), some.missing), (2, 0));
        vanish(&b);
        let none = a.namespace.fetch_sockets(Opts::default()).await.unwrap();
        assert_eq!((none.items.len(), none.missing), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_come_twice_confuse_nobody() {
    for protocol in BOTH {
        let [a, b, c] = three(protocol).await;
        b.copies.store(2, Ordering::Relaxed);
        for _ in 0..3 {
            // As in Node.js nobody can tell whose the second is; but it ends, and
            // the next request starts anew.
            let some = a.namespace.fetch_sockets(opts(&["r1"], &[])).await.unwrap();
            assert_eq!((some.items.len(), some.missing), (2, 0));
        }
        b.copies.store(1, Ordering::Relaxed);
        settle().await;
        let all = a.namespace.fetch_sockets(opts(&["r1"], &[])).await.unwrap();
        assert_eq!(sorted(all.items.into_iter().map(|socket| socket.id)), ["b1", "c1"]);
        // Answers to nobody, and to what was asked long ago.
        let old: Vec<_> = b.published.lock().clone();
        for (channel, payload) in old {
            c.driver.publish(channel, payload).unwrap();
        }
        settle().await;
        let all = a.namespace.fetch_sockets(opts(&["r1"], &[])).await.unwrap();
        assert_eq!(all.items.len(), 2);
        assert_eq!(a.stats().malformed, 0);
    }
}

#[tokio::test]
async fn private_answers_and_common_ones_mix() {
    let broker = MemoryBroker::default();
    let settings = |publish_on_specific_response_channel| Settings {
        publish_on_specific_response_channel,
        ..Settings::default()
    };
    let a = Server::with(&broker, settings(false), "/").await;
    let b = Server::with(&broker, settings(true), "/").await;
    let c = Server::with(&broker, settings(false), "/").await;
    for (server, id) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        server.sockets.client(id, &["r"]);
    }
    for server in [&a, &b, &c] {
        let all = server.namespace.fetch_sockets(Opts::default()).await.unwrap();
        assert_eq!((all.items.len(), all.missing), (2, 0));
        assert_eq!(server.namespace.server_side_emit_with_ack(hello(1)).await.unwrap().missing, 0);
        let long = Duration::from_secs(3600);
        let acks = server.namespace.broadcast_with_ack(hello(1), Opts::default(), long).await;
        assert_eq!(acks.unwrap().count().await, 2);
    }
    let channels = |server: &Server| -> BTreeSet<String> {
        let all = server.published.lock();
        let answers = all.iter().map(|(channel, _)| channel.name());
        answers.filter(|name| name.contains("response")).map(str::to_owned).collect()
    };
    assert_eq!(sorted(channels(&a)), ["socket.io-response#/#"]);
    let private = |server: &Server| format!("socket.io-response#/#{}#", server.namespace.uid());
    // Events for servers are answered to all, whatever the setting.
    let expected = sorted([private(&a), private(&c), "socket.io-response#/#".into()]);
    assert_eq!(sorted(channels(&b)), expected);
}

// ---- losses ----

#[tokio::test]
async fn what_does_not_fit_is_counted_and_told() {
    let broker = MemoryBroker::default();
    let a = Server::new(&broker, Protocol::Classic).await;
    for (messages, bytes) in [(10, 1 << 20), (1000, 1000)] {
        let settings =
            Settings { inbox_messages: messages, inbox_bytes: bytes, ..Settings::default() };
        let b = Server::with(&broker, settings, "/").await;
        b.sockets.client("b", &[]);
        let mut notices = b.cluster.notices();
        // Nobody reads meanwhile: there is one thread, and it is here.
        for n in 0..100 {
            a.namespace.broadcast(hello(n), &Opts::default()).unwrap();
        }
        assert_eq!(b.stats().received, 0);
        settle().await;
        let got = b.sockets.got("b");
        let lost = 100 - got.len() as u64;
        assert!(lost > 50 && !got.is_empty(), "{lost}");
        assert_eq!(b.stats().lost, lost);
        let notice = Notice::Lost { nsp: "/".into(), messages: lost };
        assert_eq!(notices.try_recv().unwrap(), notice);
        assert!(notices.try_recv().is_err());
        // The first ones, in order; and it reads on.
        let first: Vec<_> = (0..100 - lost).map(|n| format!("[\"hello\",{n}]")).collect();
        assert_eq!(got, first);
        a.namespace.broadcast(hello(100), &Opts::default()).unwrap();
        settle().await;
        assert_eq!(b.sockets.got("b"), ["[\"hello\",100]"]);
        b.namespace.close().await.unwrap();
    }
}

#[tokio::test]
async fn one_message_larger_than_the_inbox_still_fits() {
    let broker = MemoryBroker::default();
    let a = Server::new(&broker, Protocol::Classic).await;
    let settings = Settings { inbox_bytes: 100, ..Settings::default() };
    let b = Server::with(&broker, settings, "/").await;
    b.sockets.client("b", &[]);
    for _ in 0..3 {
        let event = Event::new("big", [Value::from("x".repeat(10_000))]);
        a.namespace.broadcast(event, &Opts::default()).unwrap();
        settle().await;
        assert_eq!(b.sockets.got("b").len(), 1);
    }
    assert_eq!(b.stats().lost, 0);
}

#[tokio::test]
async fn a_connection_that_comes_back_is_told() {
    for protocol in BOTH {
        let [a, b, c] = three(protocol).await;
        let mut notices = b.cluster.notices();
        b.driver.cut(true);
        a.namespace.broadcast(hello(1), &Opts::default()).unwrap();
        b.namespace.broadcast(hello(2), &Opts::default()).unwrap();
        settle().await;
        assert!(b.sockets.got("b1").is_empty());
        assert_eq!(c.sockets.got("c1"), ["[\"hello\",1]"]);
        assert_eq!((b.stats().published, b.stats().unpublished), (1, 1));
        assert!(matches!(b.namespace.server_count().await, Err(Error::Driver(_))));
        assert!(matches!(b.namespace.fetch_sockets(Opts::default()).await, Err(Error::Driver(_))));
        let other = Namespace::open(&b.cluster, "/other", Arc::<Sockets>::default()).await;
        assert!(matches!(other, Err(Error::Driver(_))));
        assert!(b.cluster.of("/other").is_none());
        assert!(notices.try_recv().is_err());
        b.driver.cut(false);
        a.namespace.broadcast(hello(3), &Opts::default()).unwrap();
        settle().await;
        assert_eq!(notices.try_recv().unwrap(), Notice::Resubscribed { nsp: "/".into() });
        assert!(notices.try_recv().is_err());
        assert_eq!(b.sockets.got("b1"), ["[\"hello\",3]"]);
        assert_eq!(b.namespace.server_count().await.unwrap(), 3);
    }
}

// ---- the end ----

#[tokio::test]
async fn closed_is_closed() {
    for protocol in BOTH {
        let [a, b, c] = three(protocol).await;
        assert!(b.cluster.of("/").is_some_and(|namespace| namespace.same(&b.namespace)));
        b.namespace.close().await.unwrap();
        b.namespace.close().await.unwrap();
        assert!(b.cluster.of("/").is_none());
        assert_eq!(a.namespace.server_count().await.unwrap(), 2);
        a.namespace.broadcast(hello(1), &Opts::default()).unwrap();
        settle().await;
        assert!(b.sockets.got("b1").is_empty());
        assert_eq!(c.sockets.got("c1").len(), 1);
        let closed = |result: Result<(), Error>| matches!(result, Err(Error::Closed));
        let everybody = Opts::default;
        assert!(closed(b.namespace.broadcast(hello(2), &everybody())));
        assert!(closed(b.namespace.join(everybody(), vec!["x".into()])));
        assert!(closed(b.namespace.leave(everybody(), vec!["x".into()])));
        assert!(closed(b.namespace.disconnect(everybody(), true)));
        assert!(closed(b.namespace.server_side_emit(hello(3))));
        assert!(closed(b.namespace.fetch_sockets(everybody()).await.map(drop)));
        assert!(closed(b.namespace.rooms().await.map(drop)));
        assert!(closed(b.namespace.server_side_emit_with_ack(hello(3)).await.map(drop)));
        let long = Duration::from_secs(3600);
        let acks = b.namespace.broadcast_with_ack(hello(4), everybody(), long).await;
        assert!(closed(acks.map(drop)));
        settle().await;
        assert!(c.sockets.got("c1").is_empty());
        // Opened again it is another member.
        let again = Namespace::open(&b.cluster, "/", b.sockets.clone()).await.unwrap();
        assert_ne!(again.uid(), b.namespace.uid());
        assert!(!again.same(&b.namespace));
        a.namespace.broadcast(hello(5), &Opts::default()).unwrap();
        settle().await;
        assert_eq!(b.sockets.got("b1"), ["[\"hello\",5]"]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_when_it_is_closed_gets_what_there_is() {
    let [a, b, c] = three(Protocol::Classic).await;
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    listen(&b, move |event| keep.lock().push(event));
    c.sockets.replying("c3", &["r3"], Reply::Never);
    let from = tokio::time::Instant::now();
    let asking = a.namespace.server_side_emit_with_ack(hello(1));
    let timeout = Duration::from_secs(60);
    let acks = a.namespace.broadcast_with_ack(hello(2), opts(&["r3"], &[]), timeout);
    let acks = async { acks.await.unwrap().count().await };
    let closing = async {
        settle().await;
        a.namespace.close().await.unwrap();
    };
    let (asked, acks, ()) = tokio::join!(asking, acks, closing);
    let asked = asked.unwrap();
    assert_eq!((asked.items, asked.missing), (vec![Value::Null], 1));
    assert_eq!((acks, from.elapsed()), (0, Duration::ZERO));
}

#[tokio::test]
async fn closing_leaves_nothing_behind() {
    for protocol in BOTH {
        let broker = MemoryBroker::default();
        let a = Server::new(&broker, protocol).await;
        let b = Server::new(&broker, protocol).await;
        b.sockets.replying("b", &[], Reply::Never);
        listen(&b, drop);
        let metrics = tokio::runtime::Handle::current().metrics();
        let before = metrics.num_alive_tasks();
        // One that collects acknowledgements at the other side.
        let long = Duration::from_secs(3600);
        let acks = a.namespace.broadcast_with_ack(hello(1), Opts::default(), long).await.unwrap();
        settle().await;
        assert_eq!(metrics.num_alive_tasks(), before + 1);
        drop(acks);
        for server in [&a, &b] {
            server.namespace.close().await.unwrap();
        }
        settle().await;
        assert_eq!(metrics.num_alive_tasks(), before - 2);
        let sockets: [Weak<Sockets>; 2] = [&a, &b].map(|server| Arc::downgrade(&server.sockets));
        drop((a, b));
        assert!(sockets.iter().all(|sockets| sockets.upgrade().is_none()));
        let late = Server::new(&broker, protocol).await;
        assert_eq!(late.namespace.server_count().await.unwrap(), 1);
    }
}

/// Subscribes, but never says so.
struct Stuck(MemoryDriver);

#[async_trait]
impl Driver for Stuck {
    fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), DriverError> {
        self.0.publish(channel, payload)
    }

    async fn subscribe(&self, topics: Topics, inbox: Inbox) -> Result<(), DriverError> {
        self.0.subscribe(topics, inbox).await?;
        std::future::pending().await
    }

    async fn unsubscribe(&self, topics: &Topics, inbox: &Inbox) -> Result<(), DriverError> {
        self.0.unsubscribe(topics, inbox).await
    }

    async fn subscribers(&self, channel: &Channel) -> Result<usize, DriverError> {
        self.0.subscribers(channel).await
    }

    fn unpublished(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn opening_that_is_given_up_leaves_nothing_behind() {
    let broker = MemoryBroker::default();
    let a = Server::new(&broker, Protocol::Classic).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let cluster = Cluster::new(Stuck(broker.driver()), Settings::default());
    let sockets = Arc::<Sockets>::default();
    let mut opening = Box::pin(Namespace::open(&cluster, "/", sockets.clone()));
    assert!(opening.as_mut().now_or_never().is_none());
    assert_eq!(a.namespace.server_count().await.unwrap(), 2);
    drop(opening);
    settle().await;
    assert_eq!(a.namespace.server_count().await.unwrap(), 1);
    assert_eq!((metrics.num_alive_tasks(), Arc::strong_count(&sockets)), (before, 1));
}

#[tokio::test]
async fn requests_that_are_given_up_are_forgotten() {
    let [a, b, _c] = three(Protocol::Classic).await;
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    listen(&b, move |event| keep.lock().push(event));
    // More than may wait at the same time.
    for n in 0..10_100 {
        let mut asking = Box::pin(a.namespace.server_side_emit_with_ack(hello(n)));
        assert!(asking.as_mut().now_or_never().is_none());
        if n % 100 == 0 {
            settle().await;
            kept.lock().clear();
        }
    }
    settle().await;
    kept.lock().clear();
    // And as many that wait: one more is one too many.
    let mut waiting = Vec::new();
    for n in 0..10_000 {
        let mut asking = Box::pin(a.namespace.server_side_emit_with_ack(hello(n)));
        assert!(asking.as_mut().now_or_never().is_none(), "{n}");
        waiting.push(asking);
        if n % 100 == 0 {
            settle().await;
        }
    }
    let one_more = a.namespace.server_side_emit_with_ack(hello(0)).await;
    assert!(matches!(one_more, Err(Error::Busy)));
    waiting.clear();
    kept.lock().clear();
    settle().await;
    let all = a.namespace.fetch_sockets(Opts::default()).await.unwrap();
    assert_eq!((all.items.len(), all.missing), (4, 0));
}

// ---- messages of others ----

#[tokio::test]
async fn emitters_are_no_servers_but_are_heard() {
    let broker = MemoryBroker::default();
    let b = Server::new(&broker, Protocol::Classic).await;
    b.sockets.client("b1", &["r1"]);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    listen(&b, move |event| log.lock().push(event.name().to_owned()));
    let publish = |channel: &str, payload: &[u8]| {
        let payload = Bytes::copy_from_slice(payload);
        broker.publish(&Channel::Plain(channel.into()), &payload);
    };
    let request = "socket.io-request#/#";
    publish(request, br#"{"type":2,"opts":{"rooms":["r1"],"except":[]},"rooms":["e"]}"#);
    publish(request, br#"{"uid":"emitter","type":6,"data":["tick"]}"#);
    let hello = b"\x93\xa7emitter\x83\xa4type\x02\xa4data\x91\xa2hi\xa3nsp\xa1/\x83\xa5rooms\x91\xa1e\xa5flags\x80\xa6except\x90";
    publish("socket.io#/#e#", hello);
    publish(request, br#"{"type":4,"opts":{"rooms":["e"],"except":[]},"close":true}"#);
    settle().await;
    assert_eq!(b.sockets.got("b1"), ["[\"hi\"]"]);
    assert_eq!(*b.sockets.from.lock(), [Some("emitter".to_owned())]);
    assert_eq!(*heard.lock(), ["tick"]);
    assert_eq!(b.sockets.gone("b1"), Some(true));
    assert_eq!(b.namespace.server_count().await.unwrap(), 1);
    assert_eq!((b.stats().published, b.stats().malformed), (0, 0));
}
