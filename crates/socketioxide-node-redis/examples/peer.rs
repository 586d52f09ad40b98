//! A server of a cluster, which does whatever its clients tell it to.
//!
//! Any number of them, and of Node.js servers, share one Redis:
//!
//! ```text
//! REDIS_URL=redis://127.0.0.1:6379 BIND=127.0.0.1:3001 cargo run --example peer
//! ```
//!
//! A client emits `do` with `{op: …}` and gets the result as acknowledgement; see
//! [`Do`] for all that can be done. It has the namespaces `/`, `/admin` and
//! `/room-…`. The settings are environment variables:
//!
//! | name | what | default |
//! | --- | --- | --- |
//! | `REDIS_URL` | where the cluster meets | `redis://127.0.0.1:6379` |
//! | `BIND` | address; port 0 takes a free one | `127.0.0.1:0` |
//! | `NAME` | what it calls itself | `rust` |
//! | `KEY` | `key` or `channelPrefix` of the Node.js servers | `socket.io` |
//! | `PROTOCOL` | `classic` or `sharded` | `classic` |
//! | `SPECIFIC` | `1` for `publishOnSpecificResponseChannel` | |
//! | `PARSER` | `common` or `msgpack` | `common` |
//! | `REQUESTS_TIMEOUT` | milliseconds | 5000 |
//! | `INBOX` | messages that may wait for a namespace | 16384 |

use std::collections::HashSet;
use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rmpv::Value as Any;
use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};
use socketioxide::adapter::Emitter;
use socketioxide::extract::{AckSender, Data, SocketRef, TryData};
use socketioxide::handler::ConnectHandler as _;
use socketioxide::operators::BroadcastOperators;
use socketioxide::{ParserConfig, SocketIo};
use socketioxide_node_redis::{
    Cluster, Date, Description, Event, FredDriver, Namespace, NodeRedisAdapter, Notice, Opts,
    Protocol, ServerSideEvent, Settings, Value,
};
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;

/// Long enough for the packet that disconnects to leave before the connection ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// Packets that may wait for a client; a burst is more than the default of 128.
const SOCKET_BUFFER: usize = 65_536;

/// A client that waits in vain for a namespace, since two opened it at once, tries
/// again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

type Adapter = NodeRedisAdapter<Emitter>;
type Socket = SocketRef<Adapter>;

/// Any error, as the client is told.
struct Failure(String);

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client may ask for.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
enum Do {
    /// This socket enters rooms.
    Enter { rooms: Vec<String> },
    /// This socket leaves rooms.
    Exit { rooms: Vec<String> },
    /// An event to all, to rooms, to all but this socket, …
    Emit { target: Target, event: String, args: Args },
    /// The same, with acknowledgements: `[first argument, …]` of those that came
    /// within so many milliseconds.
    EmitWithAck { target: Target, event: String, args: Args, timeout: u64 },
    /// `io.socketsJoin`
    Join { target: Target, rooms: Vec<String> },
    /// `io.socketsLeave`
    Leave { target: Target, rooms: Vec<String> },
    /// `io.disconnectSockets`
    Disconnect { target: Target, close: bool },
    /// `io.fetchSockets`: id, rooms, handshake and data.
    FetchSockets { target: Target },
    /// Something done to each of the sockets that were fetched.
    Each { target: Target, what: Each },
    /// Names of all rooms.
    AllRooms,
    /// How many servers there are.
    ServerCount,
    /// An event for the servers.
    ServerSideEmit { event: String, args: Vec<Any> },
    /// The same, with their answers.
    ServerSideEmitWithAck { event: String, args: Vec<Any> },
    /// What other servers sent to this one, and what befell the connection.
    Log,
    /// Values that JSON has no word for.
    EmitValues { event: String },
    /// The namespace of this name goes, with all its sockets.
    DeleteNamespace { nsp: String },
    /// An event with a number, `from`, `from + 1`, …
    Stream { room: Option<String>, event: String, from: u64, count: u64 },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase")]
enum Each {
    Emit { event: String, args: Args },
    EmitWithAck { event: String, args: Args },
    Join { rooms: Vec<String> },
    Leave { rooms: Vec<String> },
    Rooms,
    Disconnect,
}

/// Whom something is for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Target {
    /// `socket.to` instead of `io.to`: not this socket itself.
    others: bool,
    to: Vec<String>,
    except: Vec<String>,
    volatile: bool,
    local: bool,
}

impl Target {
    fn operators(self, io: &SocketIo<Adapter>, socket: &Socket) -> BroadcastOperators<Adapter> {
        let all = io.of(socket.ns()).unwrap_or_else(|| socket.broadcast());
        let mut operators = if self.others { socket.broadcast() } else { all.broadcast() };
        if !self.to.is_empty() {
            operators = operators.to(self.to);
        }
        if !self.except.is_empty() {
            operators = operators.except(self.except);
        }
        if self.local {
            operators = operators.local();
        }
        if self.volatile { operators.volatile() } else { operators }
    }

    fn opts(self) -> Opts {
        let Self { to: rooms, except, volatile, .. } = self;
        Opts { rooms, except, volatile, timeout: None }
    }
}

/// Several arguments, or none: socketioxide takes a list for one argument, and a
/// tuple for several.
#[derive(Debug)]
struct Args(Vec<Any>);

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        for value in &self.0 {
            tuple.serialize_element(value)?;
        }
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Args;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("arguments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Args, A::Error> {
                let mut args = Vec::new();
                while let Some(value) = seq.next_element()? {
                    args.push(value);
                }
                Ok(Args(args))
            }
        }

        // Any number of them; this says only that it is a tuple.
        deserializer.deserialize_tuple(1, All)
    }
}

/// What is known of a socket: `handshake.auth` and `data` of Node.js.
#[derive(Debug, Clone)]
struct Known {
    auth: Json,
    data: Json,
}

/// The connection of a socket, to end it.
#[derive(Clone)]
struct Connection(Arc<std::net::TcpStream>);

/// This server.
struct Peer {
    name: String,
    io: SocketIo<Adapter>,
    cluster: Cluster,
    log: Mutex<Log>,
    listening: Mutex<HashSet<String>>,
}

#[derive(Default)]
struct Log {
    events: Vec<Json>,
    notices: Vec<Json>,
    /// Events of other servers that are never answered.
    unanswered: Vec<ServerSideEvent>,
}

impl Peer {
    fn namespace(&self, socket: &Socket) -> Result<Namespace, Failure> {
        self.cluster.of(socket.ns()).ok_or_else(|| Failure("the namespace is not open".into()))
    }

    /// Listens to what other servers say in a namespace, from the first time on.
    fn listen(self: &Arc<Self>, nsp: &str) {
        if self.listening.lock().insert(nsp.to_owned()) {
            let peer = self.clone();
            self.cluster.on_server_side_emit(nsp, move |event| peer.heard(event));
        }
    }

    fn heard(&self, event: ServerSideEvent) {
        let args = Value::Array(event.args().to_vec());
        self.log.lock().events.push(json!({
            "nsp": event.nsp,
            "event": event.name(),
            "args": to_json(&args),
            "answer": event.wants_answer(),
        }));
        match event.name() {
            "silent" => self.log.lock().unanswered.push(event),
            "nothing" => event.answer(Value::Undefined),
            _ => event.answer(Value::Map(vec![
                ("from".into(), self.name.clone().into()),
                ("args".into(), args),
            ])),
        }
    }

    fn describe(&self, nsp: &str, sid: &str) -> Option<Description> {
        let socket = self.io.of(nsp)?.get_socket(sid.parse().ok()?)?;
        let known = socket.extensions.get::<Known>()?;
        let request = socket.req_parts();
        let headers = request.headers.iter();
        let headers: serde_json::Map<String, Json> =
            headers.map(|(name, value)| (name.to_string(), json!(value.to_str().ok()))).collect();
        let query: serde_json::Map<String, Json> = request
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let handshake = json!({
            "headers": headers,
            "address": "127.0.0.1",
            "xdomain": false,
            "secure": false,
            "issued": SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis() as u64,
            "url": request.uri.to_string(),
            "query": query,
            "auth": known.auth,
        });
        Some(Description {
            handshake: Value::deserialize(handshake).ok()?,
            data: Value::deserialize(known.data).ok()?,
        })
    }

    /// Ends the transport of a socket, and with it all its namespaces.
    fn close(&self, nsp: &str, sid: &str) {
        let socket = || self.io.of(nsp)?.get_socket(sid.parse().ok()?);
        let connection =
            socket().and_then(|s| s.req_parts().extensions.get::<Connection>().cloned());
        if let Some(Connection(stream)) = connection {
            tokio::spawn(async move {
                tokio::time::sleep(GOODBYE).await;
                stream.shutdown(Shutdown::Both).ok();
            });
        }
    }

    async fn perform(&self, what: Do, socket: &Socket) -> Result<Any, Failure> {
        let target = |target: Target| target.operators(&self.io, socket);
        Ok(match what {
            Do::Enter { rooms } => {
                socket.join(rooms);
                Any::Nil
            }
            Do::Exit { rooms } => {
                socket.leave(rooms);
                Any::Nil
            }
            Do::Emit { target: to, event, args } => {
                target(to).emit(event, &args).await?;
                Any::Nil
            }
            Do::EmitWithAck { target: to, event, args, timeout } => {
                let operators = target(to).timeout(Duration::from_millis(timeout));
                let acks = operators.emit_with_ack::<_, Args>(event, &args).await?;
                let first = |ack: Result<Args, _>| ack.ok().map(|Args(args)| first(args));
                acks.filter_map(|(_, ack)| async move { first(ack) })
                    .collect::<Vec<_>>()
                    .await
                    .into()
            }
            Do::Join { target: who, rooms } => {
                target(who).join(rooms).await?;
                Any::Nil
            }
            Do::Leave { target: who, rooms } => {
                target(who).leave(rooms).await?;
                Any::Nil
            }
            Do::Disconnect { target: who, close } => {
                if close {
                    // socketioxide's own operation keeps transports.
                    let opts = Opts {
                        rooms: who.to.clone(),
                        except: who.except.clone(),
                        ..Opts::default()
                    };
                    self.namespace(socket)?.disconnect(opts, true)?;
                    let here = Target { local: true, ..who };
                    for socket in target(here).sockets() {
                        self.close(socket.ns(), &socket.id.to_string());
                        socket.disconnect().ok();
                    }
                } else {
                    target(who).disconnect().await?;
                }
                Any::Nil
            }
            Do::FetchSockets { target: who } => {
                let here = Target {
                    local: true,
                    to: who.to.clone(),
                    except: who.except.clone(),
                    ..Target::default()
                };
                let mut all = Vec::new();
                for socket in target(here).sockets() {
                    let id = socket.id.to_string();
                    let Some(Description { handshake, data }) = self.describe(socket.ns(), &id)
                    else {
                        continue;
                    };
                    // Node.js servers see this room in any case.
                    let mut rooms = HashSet::from([id.clone()]);
                    rooms.extend(socket.rooms().into_iter().map(String::from));
                    all.push(json!({
                        "id": id,
                        "rooms": rooms,
                        "handshake": to_json(&handshake),
                        "data": to_json(&data),
                    }));
                }
                let others = self.namespace(socket)?.fetch_sockets(who.opts()).await?;
                all.extend(others.items.iter().map(|socket| {
                    json!({
                        "id": socket.id,
                        "rooms": socket.rooms,
                        "handshake": to_json(&socket.handshake),
                        "data": to_json(&socket.data),
                    })
                }));
                any(&json!({ "sockets": all, "missing": others.missing }))?
            }
            Do::Each { target: who, what } => {
                let mut results = Vec::new();
                for remote in target(who).fetch_sockets().await? {
                    results.push(match &what {
                        Each::Emit { event, args } => {
                            remote.emit(event, args).await?;
                            Any::Nil
                        }
                        Each::EmitWithAck { event, args } => {
                            let acks = remote.emit_with_ack::<_, Args>(event, args).await?;
                            let first =
                                |ack: Result<Args, _>| ack.ok().map(|Args(args)| first(args));
                            acks.filter_map(|(_, ack)| async move { first(ack) })
                                .collect::<Vec<_>>()
                                .await
                                .into()
                        }
                        Each::Join { rooms } => {
                            remote.join(rooms.clone()).await?;
                            Any::Nil
                        }
                        Each::Leave { rooms } => {
                            remote.leave(rooms.clone()).await?;
                            Any::Nil
                        }
                        Each::Rooms => any(&remote.rooms().await?)?,
                        Each::Disconnect => {
                            remote.disconnect().await?;
                            Any::Nil
                        }
                    });
                }
                results.into()
            }
            Do::AllRooms => any(&target(Target::default()).rooms().await?)?,
            Do::ServerCount => any(&self.namespace(socket)?.server_count().await?)?,
            Do::ServerSideEmit { event, args } => {
                self.namespace(socket)?.server_side_emit(Event::new(event, values(args)?))?;
                Any::Nil
            }
            Do::ServerSideEmitWithAck { event, args } => {
                let namespace = self.namespace(socket)?;
                let event = Event::new(event, values(args)?);
                let answers = namespace.server_side_emit_with_ack(event).await?;
                let items: Vec<Json> = answers.items.iter().map(to_json).collect();
                any(&json!({ "answers": items, "missing": answers.missing }))?
            }
            Do::Log => {
                let stats = self.cluster.counters();
                let log = self.log.lock();
                any(&json!({
                    "events": log.events,
                    "notices": log.notices,
                    "counters": {
                        "published": stats.published,
                        "unpublished": stats.unpublished,
                        "received": stats.received,
                        "malformed": stats.malformed,
                        "lost": stats.lost,
                    },
                }))?
            }
            Do::EmitValues { event } => {
                let args = vec![
                    Value::Date(Date { seconds: 1_700_000_000, nanos: 123_000_000 }),
                    Value::Array(vec![Value::Undefined, Value::Null]),
                    Value::Map(vec![
                        ("gone".into(), Value::Undefined),
                        ("kept".into(), Value::Uint(1)),
                    ]),
                    Value::Float(1.0),
                    Value::Float(2.5),
                    Value::Float(1e-7),
                    Value::Int(-5_000_000_000),
                    Value::Uint(9_007_199_254_740_991),
                    Value::Float(f64::NAN),
                ];
                let namespace = self.namespace(socket)?;
                let event = Event::new(event, args);
                namespace.deliver(None, event.clone(), &Opts::default());
                namespace.broadcast(event, &Opts::default())?;
                Any::Nil
            }
            Do::DeleteNamespace { nsp } => {
                self.io.delete_ns(nsp);
                Any::Nil
            }
            Do::Stream { room, event, from, count } => {
                for number in from..from + count {
                    let to = room.iter().cloned().collect();
                    target(Target { to, ..Target::default() }).emit(&event, &number).await?;
                    // Lets the driver keep up: its queue is bounded.
                    if number % 256 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                Any::Nil
            }
        })
    }

    fn connected(self: &Arc<Self>, socket: Socket, auth: Json) {
        self.listen(socket.ns());
        let data = json!({ "server": self.name, "numbers": [1, 2.5], "text": "zażółć" });
        socket.extensions.insert(Known { auth, data });
        let peer = self.clone();
        socket.on("do", async move |socket: Socket, Data::<Do>(what), ack: AckSender<Adapter>| {
            let answer = match peer.perform(what, &socket).await {
                Ok(result) => vec![("result".into(), result)],
                Err(Failure(error)) => vec![("error".into(), error.into())],
            };
            ack.send(&Any::Map(answer)).ok();
        });
    }
}

/// What an acknowledgement says; the protocol of the cluster has room for one.
fn first(args: Vec<Any>) -> Any {
    args.into_iter().next().unwrap_or_else(|| "nothing".into())
}

fn any(value: &impl Serialize) -> Result<Any, Failure> {
    Ok(rmpv::ext::to_value(value)?)
}

fn to_json(value: &Value<'_>) -> Json {
    serde_json::from_str(&value.json()).unwrap_or_default()
}

fn values(args: Vec<Any>) -> Result<Vec<Value<'static>>, Failure> {
    args.into_iter().map(|value| Ok(Value::deserialize(value)?.into_owned())).collect()
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let settings = Settings {
        protocol: match &*setting("PROTOCOL", "classic") {
            "sharded" => Protocol::Sharded,
            _ => Protocol::Classic,
        },
        key: setting("KEY", "socket.io"),
        publish_on_specific_response_channel: setting("SPECIFIC", "") == "1",
        requests_timeout: Duration::from_millis(setting("REQUESTS_TIMEOUT", "5000").parse()?),
        inbox_messages: setting("INBOX", "16384").parse()?,
        ..Settings::default()
    };
    let driver = FredDriver::from_url(&setting("REDIS_URL", "redis://127.0.0.1:6379")).await?;
    let cluster = Cluster::new(driver, settings);
    let mut notices = cluster.notices();

    let builder =
        SocketIo::builder().max_buffer_size(SOCKET_BUFFER).connect_timeout(CONNECT_TIMEOUT);
    let builder = match &*setting("PARSER", "common") {
        "msgpack" => builder.with_parser(ParserConfig::msgpack()),
        _ => builder.with_parser(ParserConfig::common()),
    };
    let (service, io) = builder.with_adapter::<Adapter>(cluster.clone()).build_svc();
    let peer = Arc::new(Peer {
        name: setting("NAME", "rust"),
        io: io.clone(),
        cluster: cluster.clone(),
        log: Mutex::default(),
        listening: Mutex::default(),
    });
    cluster.describe({
        let peer = peer.clone();
        move |nsp, sid| peer.describe(nsp, sid)
    });
    cluster.close_transports({
        let peer = peer.clone();
        move |nsp, sid| peer.close(nsp, sid)
    });
    tokio::spawn({
        let peer = peer.clone();
        async move {
            loop {
                let notice = match notices.recv().await {
                    Ok(Notice::Lost { nsp, messages }) => json!({ "lost": messages, "nsp": nsp }),
                    Ok(Notice::Resubscribed { nsp }) => json!({ "resubscribed": nsp }),
                    Err(RecvError::Lagged(notices)) => json!({ "missed": notices }),
                    Err(RecvError::Closed) => return,
                };
                peer.log.lock().notices.push(notice);
            }
        }
    });

    // As a middleware: the handler is there before the client knows that it is
    // connected, and can't miss its first event.
    let connected = (async || {}).with({
        let peer = peer.clone();
        async move |socket: Socket, TryData::<Json>(auth)| {
            peer.connected(socket, auth.unwrap_or_default());
            Ok::<_, Infallible>(())
        }
    });
    for nsp in ["/", "/admin"] {
        peer.listen(nsp);
        io.ns(nsp, connected.clone()).await?;
    }
    io.dyn_ns("/room-{id}", connected)?;

    let listener = TcpListener::bind(setting("BIND", "127.0.0.1:0")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let connection = Connection(Arc::new(stream.try_clone()?));
        let io = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
        let service = service.clone();
        tokio::spawn(async move {
            let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(connection.clone());
                hyper::service::Service::call(&service, request)
            });
            http1::Builder::new().serve_connection(io, service).with_upgrades().await.ok();
        });
    }
}
