//! What a client may send after its WebSocket handshake, cut in any pieces.
//!
//! libFuzzer's panic hook aborts, so that a panic in a task is seen as well.
#![no_main]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler as _;
use socketioxide_wire::{Core, Entry, Inbox, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

const REQUEST: &[u8] = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n\
    Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Whole packets that a client may send, as texts: from here the fuzzer gets further
/// than by guessing.
const KNOWN: [&str; 16] = [
    "40",
    "41",
    "40/chat,{\"token\":1}",
    "41/chat,",
    "42[\"event\",1,{\"a\":[]}]",
    "420[\"asks\"]",
    "42/chat,7[\"asks\",null]",
    "451-[\"file\",{\"_placeholder\":true,\"num\":0}]",
    "452-9[\"files\",{\"_placeholder\":true,\"num\":1},{\"_placeholder\":true,\"num\":0}]",
    "430[]",
    "461-0[{\"_placeholder\":true,\"num\":0}]",
    "44{\"message\":\"no\"}",
    "3",
    "2probe",
    "5",
    "1",
];

#[derive(Arbitrary, Debug)]
enum Step {
    /// Any bytes, so any frame, or none.
    Raw(Vec<u8>),
    /// A whole frame with this first byte: flags and kind.
    Frame(u8, Vec<u8>),
    Text(String),
    Binary(Vec<u8>),
    Known(u8),
    /// The one before, so many times more: a flood.
    Again(u16),
}

/// How the client leaves.
#[derive(Arbitrary, Debug)]
enum Leave {
    /// It says that it sends no more, and reads until the end.
    Properly,
    /// It is gone.
    Abruptly,
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// Connects to the main namespace first.
    connect: bool,
    /// Sends its first piece with the request, before the answer.
    eager: bool,
    leave: Leave,
    steps: Vec<Step>,
    /// Sizes of the pieces, taken in turn; 0 is all the rest.
    cuts: Vec<u8>,
}

/// A flood may not be longer than this, or a run takes too long.
const MOST_BYTES: usize = 64 * 1024;

impl Input {
    fn bytes(&self) -> Vec<u8> {
        let mut all = if self.connect { frame(TEXT, b"40") } else { Vec::new() };
        let mut last = Vec::new();
        for step in &self.steps {
            match step {
                Step::Raw(bytes) => last = bytes.clone(),
                Step::Frame(first, payload) => last = frame(*first, payload),
                Step::Text(text) => last = frame(TEXT, text.as_bytes()),
                Step::Binary(bytes) => last = frame(BINARY, bytes),
                Step::Known(n) => {
                    last = frame(TEXT, KNOWN[usize::from(*n) % KNOWN.len()].as_bytes());
                }
                Step::Again(times) => {
                    let room = MOST_BYTES.saturating_sub(all.len()) / last.len().max(1);
                    all.extend(last.repeat(room.min(usize::from(*times))));
                    continue;
                }
            }
            all.extend_from_slice(&last);
        }
        all
    }

    fn pieces<'a>(&self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for cut in &self.cuts {
            let size = if *cut == 0 { bytes.len() } else { usize::from(*cut).min(bytes.len()) };
            let (piece, rest) = bytes.split_at(size);
            pieces.push(piece);
            bytes = rest;
        }
        pieces.push(bytes);
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(0x80 | short as u8),
        Ok(middle) => {
            frame.push(0x80 | 126);
            frame.extend(middle.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

struct Server {
    runtime: Runtime,
    core: Arc<Core>,
    addr: SocketAddr,
}

/// One for all runs; its tasks run only during them.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Looks at the sockets at every turn, so that pieces are seen as they were cut.
        .event_interval(1)
        .build()
        .unwrap();
    let (core, addr) = runtime.block_on(async {
        // libFuzzer's `main` isn't Rust's, which ignores this signal: a write to a
        // connection that has ended is an error here as well, not the end.
        drop(signal(SignalKind::pipe()).unwrap());
        serve().await
    });
    Server { runtime, core, addr }
});

async fn serve() -> (Arc<Core>, SocketAddr) {
    let core = Core::new(Settings::default());
    let (engine, io) = SocketIo::builder()
        .ws_read_buffer_size(0)
        // No heartbeat comes in between.
        .ping_interval(Duration::from_secs(24 * 60 * 60))
        // The engine keeps a session that never connected for so long, ended or not.
        .connect_timeout(Duration::from_secs(2))
        .build_svc();
    for namespace in ["/", "/chat"] {
        let opening = core.clone();
        let opened = async move |socket: SocketRef| {
            Inbox::open(&opening, &socket);
            Ok::<(), Infallible>(())
        };
        let core = core.clone();
        let connected = async move |socket: SocketRef| {
            let (handle, mut events) = core.register(socket);
            while let Some(event) = events.next().await {
                match event.ack {
                    Some(ack) => handle.ack(ack, &event.args),
                    None => handle.emit("echo", &event.args),
                };
            }
        };
        io.ns(namespace, connected.with(opened));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let entry = Entry::new(engine, core.clone(), vec![]);
    tokio::spawn(socketioxide_wire::serve(listener, entry, std::future::pending()));
    (core, addr)
}

/// So that a hang is a finding. Far above what a busy machine needs.
async fn soon<T>(what: &str, task: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), task).await {
        Ok(done) => done,
        Err(_) => panic!("took too long: {what}"),
    }
}

async fn until(stream: &mut TcpStream, what: &[u8]) {
    let mut got = Vec::new();
    while !got.windows(what.len()).any(|part| part == what) {
        let count = stream.read_buf(&mut got).await.unwrap();
        assert!(count > 0, "closed while waiting for {:?}", String::from_utf8_lossy(what));
    }
}

async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

async fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Gone at once, and without a port that stays in use for a minute.
fn abort(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
}

async fn misbehave(addr: SocketAddr, input: &Input) {
    let bytes = input.bytes();
    let mut pieces = input.pieces(&bytes).into_iter();
    let mut stream = connect(addr).await;
    let mut first = REQUEST.to_vec();
    if input.eager {
        first.extend(pieces.next().unwrap_or_default());
    }
    stream.write_all(&first).await.unwrap();
    // Nothing that is sent so early can keep the answer back.
    until(&mut stream, b"\r\n\r\n").await;
    let (mut reading, mut writing) = stream.into_split();
    let reader = tokio::spawn(async move {
        let mut answers = vec![0; 4096];
        while reading.read(&mut answers).await.is_ok_and(|count| count > 0) {}
        reading
    });
    for piece in pieces {
        // The server may have ended the connection, and may do so at any time.
        if writing.write_all(piece).await.is_err() {
            break;
        }
        turns(4).await;
    }
    match input.leave {
        Leave::Properly => {
            writing.shutdown().await.ok();
            reader.await.unwrap();
        }
        Leave::Abruptly => {
            turns(8).await;
            reader.abort();
            reader.await.ok();
            writing.as_ref().set_zero_linger().ok();
        }
    }
}

async fn behave(addr: SocketAddr) {
    let mut stream = connect(addr).await;
    stream.write_all(REQUEST).await.unwrap();
    until(&mut stream, b"0{").await;
    stream.write_all(&frame(TEXT, b"40")).await.unwrap();
    until(&mut stream, b"40{").await;
    stream.write_all(&frame(TEXT, b"42[\"hello\",\"you\"]")).await.unwrap();
    until(&mut stream, b"42[\"echo\",[\"you\"]]").await;
    stream.write_all(&frame(TEXT, b"425[\"hello\",7]")).await.unwrap();
    until(&mut stream, b"435[[7]]").await;
    abort(stream);
}

fuzz_target!(|input: Input| {
    let server = &*SERVER;
    server.runtime.block_on(async {
        soon("the end of the connection", misbehave(server.addr, &input)).await;
        soon("a proper client", behave(server.addr)).await;
        soon("the end of the sessions", async {
            while server.core.sessions().sessions > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    });
});
