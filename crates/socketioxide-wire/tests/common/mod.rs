//! A server of the crate's on loopback, and clients that speak the protocols by
//! hand: what they send and when they read is theirs to choose.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use parking_lot::Mutex;
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler as _;
use socketioxide::socket::{DisconnectReason, Sid};
use socketioxide_wire::{Core, Entry, Event, Frame, Handle, Inbox, Outlet, Rooms, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Nothing in these tests takes longer unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    soon(what, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// What the handlers of a test do with a socket's events.
pub type OnEvent = Arc<dyn Fn(&Arc<World>, &Arc<Handle>, Event) + Send + Sync>;

/// A server and all that it knows.
pub struct World {
    pub addr: SocketAddr,
    pub core: Arc<Core>,
    pub rooms: Mutex<Rooms<String, Handle>>,
    /// Sockets by the name in their query and their namespace.
    pub sockets: Mutex<HashMap<(String, String), Arc<Handle>>>,
    /// What was sent to each socket, in the order of the calls.
    pub sent: Mutex<HashMap<u64, Vec<String>>>,
    pub connects: AtomicUsize,
    pub disconnects: AtomicUsize,
    /// Whose disconnect handler ran, and why.
    pub ends: Mutex<Vec<(String, DisconnectReason)>>,
    on_event: OnEvent,
    /// Bytes that the kernel may hold for a connection; 0 leaves that to it.
    pub kernel_buffer: u32,
}

pub struct Options {
    pub settings: Settings,
    pub kernel_buffer: u32,
    pub max_payload: usize,
    pub ping: (Duration, Duration),
    pub on_event: OnEvent,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            kernel_buffer: 0,
            max_payload: 100_000,
            ping: (Duration::from_secs(25), Duration::from_secs(20)),
            on_event: Arc::new(|world, handle, event| {
                if let Some(ack) = event.ack {
                    let text = event.args.first().map_or("null", |arg| arg.get()).to_owned();
                    let mut sent = world.sent.lock();
                    handle.ack(ack, &event.args.first());
                    sent.entry(handle.number()).or_default().push(format!("ack {text}"));
                }
            }),
        }
    }
}

impl World {
    pub async fn start(options: Options) -> Arc<Self> {
        // Both ends of a thousand connections are in this process.
        let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
        let (_, most) = nix::sys::resource::getrlimit(files).unwrap();
        nix::sys::resource::setrlimit(files, most, most).unwrap();
        let core = Core::new(options.settings);
        let (engine, io) = SocketIo::builder()
            .ws_read_buffer_size(0)
            .max_buffer_size(16_384)
            .max_payload(options.max_payload as u64)
            .ws_max_message_size(options.max_payload)
            .ws_max_frame_size(options.max_payload)
            .ping_interval(options.ping.0)
            .ping_timeout(options.ping.1)
            .build_svc();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Arc::new(Self {
            addr: listener.local_addr().unwrap(),
            core: core.clone(),
            rooms: Mutex::default(),
            sockets: Mutex::default(),
            sent: Mutex::default(),
            connects: AtomicUsize::new(0),
            disconnects: AtomicUsize::new(0),
            ends: Mutex::default(),
            on_event: options.on_event,
            kernel_buffer: options.kernel_buffer,
        });
        for namespace in ["/", "/chat"] {
            let (world, opening) = (world.clone(), core.clone());
            let opened = async move |socket: SocketRef| {
                Inbox::open_with(&opening, &socket, socket.id);
                Ok::<(), Infallible>(())
            };
            let connected = async move |socket: SocketRef| world.clone().connected(socket).await;
            io.ns(namespace, connected.with(opened));
        }
        if options.kernel_buffer > 0 {
            // Accepted connections inherit it.
            let socket = socket2::SockRef::from(&listener);
            socket.set_send_buffer_size(options.kernel_buffer as usize).unwrap();
        }
        tokio::spawn(async move {
            let _io = io;
            let never = std::future::pending();
            socketioxide_wire::serve(listener, Entry::new(engine, core, vec![]), never).await;
        });
        world
    }

    async fn connected(self: Arc<Self>, socket: SocketRef) {
        let query = socket.req_parts().uri.query().unwrap().to_owned();
        let name = query.split("name=").nth(1).unwrap_or("?").split('&').next().unwrap();
        let key = (name.to_owned(), socket.ns().to_owned());
        let sid = socket.id;
        let (handle, outlet, data) = self.core.register_with::<Sid, _>(socket);
        assert_eq!(data, Some(sid), "what the middleware gave");
        self.rooms.lock().add(&*handle);
        self.sockets.lock().insert(key.clone(), handle.clone());
        self.connects.fetch_add(1, Ordering::SeqCst);
        let (world, closing) = (self.clone(), handle.clone());
        outlet.at_close(move |reason| {
            world.ends.lock().push((key.0.clone(), reason));
            world.rooms.lock().remove(&closing);
            world.sockets.lock().remove(&key);
            world.disconnects.fetch_add(1, Ordering::SeqCst);
        });
        self.serve(handle, outlet).await;
    }

    async fn serve(self: Arc<Self>, handle: Arc<Handle>, mut outlet: Outlet) {
        while let Some(event) = outlet.next().await {
            (self.on_event)(&self, &handle, event);
        }
    }

    pub fn enter(&self, handle: &Arc<Handle>, room: &str) {
        self.rooms.lock().enter(handle, &room.to_owned());
    }

    /// Sends to a room, and writes down to whom in which order.
    pub fn broadcast(&self, room: &str, text: &str) {
        let frame = Frame::event("/", "m", text.to_owned()).unwrap();
        let rooms = self.rooms.lock();
        let mut sent = self.sent.lock();
        for member in rooms.members(&room.to_owned()) {
            member.send(&frame);
            sent.entry(member.number()).or_default().push(format!("m {text}"));
        }
    }

    pub fn tell(&self, handle: &Handle, text: &str) {
        let mut sent = self.sent.lock();
        handle.emit("m", text);
        sent.entry(handle.number()).or_default().push(format!("m {text}"));
    }

    pub async fn socket(&self, name: &str) -> Arc<Handle> {
        self.socket_in(name, "/").await
    }

    pub async fn socket_in(&self, name: &str, namespace: &str) -> Arc<Handle> {
        let key = (name.to_owned(), namespace.to_owned());
        until("a socket", || self.sockets.lock().contains_key(&key)).await;
        self.sockets.lock()[&key].clone()
    }
}

/// A message as `World::sent` writes it down; `None` for what the protocol says.
pub fn noted(packet: &str) -> Option<String> {
    if let Some(args) = packet.strip_prefix("42") {
        let (_, text): (String, String) = serde_json::from_str(args).unwrap();
        return Some(format!("m {text}"));
    }
    let ack = packet.strip_prefix("43")?;
    Some(format!("ack {}", ack.split_once('[').unwrap().1.strip_suffix(']').unwrap()))
}

/// A WebSocket by hand.
pub struct Ws {
    pub stream: TcpStream,
    pub got: Vec<u8>,
    /// Small pieces leave more to chance.
    pub piece: usize,
    /// Pings that were answered.
    pub pings: usize,
}

async fn dial(addr: SocketAddr, kernel_buffer: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if kernel_buffer > 0 {
        socket.set_recv_buffer_size(kernel_buffer).unwrap();
        // Segments as between real machines: loopback's are 64 KiB, and a window
        // that is smaller than those opens in jumps.
        socket2::SockRef::from(&socket).set_tcp_mss(1000).unwrap();
    }
    let stream = socket.connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Ws {
    /// Shakes hands; `query` follows `EIO=4&transport=websocket`.
    pub async fn open(world: &World, query: &str) -> Self {
        Self::open_to(world.addr, world.kernel_buffer, query).await
    }

    async fn open_to(addr: SocketAddr, kernel_buffer: u32, query: &str) -> Self {
        let mut stream = dial(addr, kernel_buffer).await;
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket{query} HTTP/1.1\r\nHost: x\r\n\
             Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut ws = Self { stream, got: Vec::new(), piece: 64 * 1024, pings: 0 };
        let head = soon("an answer", async {
            loop {
                if let Some(at) = ws.got.windows(4).position(|w| w == b"\r\n\r\n") {
                    return ws.got.drain(..at + 4).collect::<Vec<u8>>();
                }
                assert!(ws.more().await > 0, "closed: {}", String::from_utf8_lossy(&ws.got));
            }
        })
        .await;
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        ws
    }

    /// A socket of the main namespace with this name.
    pub async fn connect(world: &World, name: &str) -> Self {
        Self::connect_to(world.addr, world.kernel_buffer, name).await
    }

    /// The same, by another address or with other buffers.
    pub async fn connect_to(addr: SocketAddr, kernel_buffer: u32, name: &str) -> Self {
        let mut ws = Self::open_to(addr, kernel_buffer, &format!("&name={name}")).await;
        assert!(ws.text().await.starts_with("0{"));
        ws.send("40").await;
        assert!(ws.text().await.starts_with("40{"), "first comes the answer to CONNECT");
        ws
    }

    pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
            middle @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(&Self::frame(1, text.as_bytes())).await.unwrap();
    }

    async fn more(&mut self) -> usize {
        let mut piece = vec![0; self.piece];
        let count = self.stream.read(&mut piece).await.unwrap_or(0);
        self.got.extend_from_slice(&piece[..count]);
        count
    }

    /// The next message that is no ping; those are answered. `None` at the end.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, payload)) = self.take() {
                match (opcode, &payload[..]) {
                    (1, b"2") => {
                        self.pings += 1;
                        self.send("3").await;
                    }
                    (8, _) => return None,
                    _ => return Some((opcode, payload)),
                }
            } else if self.more().await == 0 {
                return None;
            }
        }
    }

    /// Reads the engine's first ping, which comes about with the answer to CONNECT;
    /// the next is 25 s away.
    pub async fn pinged(&mut self) {
        while self.pings == 0 {
            match self.take() {
                Some((1, ping)) if ping == b"2" => {
                    self.pings += 1;
                    self.send("3").await;
                }
                Some(other) => panic!("no ping but {other:?}"),
                None => assert!(self.more().await > 0, "closed"),
            }
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.got.first()?, *self.got.get(1)?);
        assert!(first & 0xf0 == 0x80 && second < 0x80, "a frame was cut: {:x?}", &self.got[..2]);
        let (head, len) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.got.get(2..4)?.try_into().unwrap()))),
            127 => {
                let len = u64::from_be_bytes(self.got.get(2..10)?.try_into().unwrap());
                (10, usize::try_from(len).unwrap())
            }
            short => (2, usize::from(short)),
        };
        if self.got.len() < head + len {
            return None;
        }
        let rest = self.got.split_off(head + len);
        let frame = std::mem::replace(&mut self.got, rest);
        Some((first & 0xf, frame[head..].to_vec()))
    }

    pub async fn text(&mut self) -> String {
        let (opcode, payload) = self.next().await.unwrap();
        assert_eq!(opcode, 1, "{payload:?}");
        String::from_utf8(payload).unwrap()
    }

    /// Reads one piece, and notes the messages that it completes; pings are answered.
    /// Says how many bytes it read.
    pub async fn take_in(&mut self, into: &mut Vec<String>) -> usize {
        let count = self.more().await;
        assert!(count > 0, "closed");
        while let Some((_, payload)) = self.take() {
            match &payload[..] {
                b"2" => {
                    self.pings += 1;
                    self.send("3").await;
                }
                text => into.extend(noted(std::str::from_utf8(text).unwrap())),
            }
        }
        count
    }

    /// Notes all messages until this one.
    pub async fn read_to(&mut self, into: &mut Vec<String>, last: &str) {
        while into.last().is_none_or(|text| text != last) {
            into.extend(noted(&self.text().await));
        }
    }

    /// All messages that are written down, until there are so many.
    pub async fn collect(&mut self, into: &mut Vec<String>, count: usize) {
        while into.len() < count {
            let Ok(next) = tokio::time::timeout(PATIENCE, self.text()).await else {
                panic!("{} of {count} came, the last {:?}", into.len(), into.last());
            };
            into.extend(noted(&next));
        }
    }
}

/// Long polling by hand: one connection for GET, one for POST.
pub struct Polling {
    pub sid: String,
    addr: SocketAddr,
    get: TcpStream,
    post: TcpStream,
    early: Vec<String>,
}

async fn http(stream: &mut TcpStream, request: &str) -> (u16, Bytes) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    loop {
        if let Some(at) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(got[..at].to_vec()).unwrap().to_lowercase();
            let length: usize = head
                .split("content-length: ")
                .nth(1)
                .unwrap_or_else(|| panic!("no length: {head}"))
                .split("\r\n")
                .next()
                .unwrap()
                .parse()
                .unwrap();
            if got.len() >= at + 4 + length {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return (status, got[at + 4..].to_vec().into());
            }
        }
        let count = stream.read_buf(&mut got).await.unwrap_or(0);
        assert!(count > 0, "closed while an answer was awaited");
    }
}

impl Polling {
    pub async fn connect(world: &World, name: &str) -> Self {
        let (mut get, post) = (dial(world.addr, 0).await, dial(world.addr, 0).await);
        let request = format!(
            "GET /socket.io/?EIO=4&transport=polling&name={name} HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        let (status, body) = http(&mut get, &request).await;
        assert_eq!(status, 200);
        let open: serde_json::Value = serde_json::from_slice(&body[1..]).unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        let mut polling = Self { sid, addr: world.addr, get, post, early: Vec::new() };
        polling.send("40").await;
        // The engine's first ping may come before, and events behind it.
        loop {
            let mut packets = polling.poll().await;
            if let Some(at) = packets.iter().position(|packet| packet.starts_with("40{")) {
                polling.early = packets.split_off(at + 1);
                return polling;
            }
        }
    }

    pub async fn try_poll(&mut self) -> (u16, Vec<String>) {
        let request = format!(
            "GET /socket.io/?EIO=4&transport=polling&sid={} HTTP/1.1\r\nHost: x\r\n\r\n",
            self.sid
        );
        let (status, body) = soon("a poll", http(&mut self.get, &request)).await;
        let body = String::from_utf8(body.to_vec()).unwrap();
        (status, body.split('\u{1e}').map(str::to_owned).collect())
    }

    /// The packets of one poll; a ping among them is answered.
    pub async fn poll(&mut self) -> Vec<String> {
        if !self.early.is_empty() {
            return std::mem::take(&mut self.early);
        }
        let (status, packets) = self.try_poll().await;
        assert_eq!(status, 200, "{packets:?}");
        assert!(packets.len() <= 16, "{} packets in an answer", packets.len());
        if packets.iter().any(|packet| packet == "2") {
            self.send("3").await;
        }
        packets
    }

    pub async fn try_send(&mut self, body: &str) -> u16 {
        let request = format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={} HTTP/1.1\r\nHost: x\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            self.sid,
            body.len()
        );
        http(&mut self.post, &request).await.0
    }

    pub async fn send(&mut self, body: &str) {
        assert_eq!(soon("a post", self.try_send(body)).await, 200, "{body}");
    }

    /// All messages that are written down, until there are so many.
    pub async fn collect(&mut self, into: &mut Vec<String>, count: usize) {
        while into.len() < count {
            let polled = self.poll().await;
            into.extend(polled.iter().filter_map(|packet| noted(packet)));
        }
    }

    /// Goes over to a WebSocket as `engine.io-client` does: probe, let the last poll
    /// end, then upgrade.
    pub async fn upgrade(mut self, world: &World, into: &mut Vec<String>) -> Ws {
        let mut ws = Ws::open(world, &format!("&sid={}", self.sid)).await;
        ws.send("2probe").await;
        // Polls go on until the answer is there; the last is ended by the server.
        let mut answered = false;
        while !answered {
            let poll = self.poll();
            tokio::pin!(poll);
            let packets = tokio::select! {
                biased;
                answer = ws.next() => {
                    assert_eq!(answer.unwrap().1, b"3probe");
                    answered = true;
                    poll.await
                }
                packets = &mut poll => packets,
            };
            into.extend(packets.iter().filter_map(|packet| noted(packet)));
        }
        ws.send("5").await;
        ws
    }
}

/// What the tests send as binary.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
