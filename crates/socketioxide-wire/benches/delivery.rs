//! What a delivery costs: plain socketioxide, this crate, and a bare `send()` loop
//! over the same kind of sockets, in one run.
//!
//! ```text
//! cargo bench -p socketioxide-wire                       2,000 clients, 5 rounds
//! cargo bench -p socketioxide-wire -- --clients 500 --rounds 3
//! cargo bench -p socketioxide-wire -- --only memory      or cpu, or latency
//! ```
//!
//! Each server is a process of its own, whose CPU time is read from
//! `/proc/<pid>/task/*/schedstat`; the clients are in this process. The rounds are
//! interleaved, and what counts is the median of the ratios in the same round:
//! absolute figures depend on what else the machine does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler as _;
use socketioxide_wire::{Core, Entry, Frame, Handle, Inbox, Rooms, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const MODES: [&str; 3] = ["plain", "wire", "bare"];
const ROOM: usize = 50;
const PAYLOAD: usize = 200;
const PATIENCE: Duration = Duration::from_secs(300);
const PING: &[u8] = b"\x81\x012";
/// Masked with zeros.
const PONG: &[u8] = b"\x81\x81\0\0\0\x003";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    if let Some(mode) = value("--serve") {
        let ping = value("--ping-ms").map_or(300_000, |ms| ms.parse().unwrap());
        return serve(&mode, Duration::from_millis(ping));
    }
    let clients = value("--clients").map_or(2000, |n| n.parse().unwrap());
    let rounds = value("--rounds").map_or(5, |n| n.parse().unwrap());
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let only = value("--only");
        let runs = |part: &str| only.as_deref().is_none_or(|only| only == part);
        if runs("cpu") {
            cpu(clients, rounds).await;
        }
        if runs("latency") {
            latency().await;
        }
        if runs("memory") {
            memory(value("--clients").map_or(5000, |n| n.parse().unwrap())).await;
        }
    });
}

// ---- servers ----

/// The number of a socket, from its query.
fn number_of(query: &str) -> usize {
    query.split("n=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap()
}

fn payload() -> String {
    "x".repeat(PAYLOAD)
}

fn raise_file_limit() {
    let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(files).unwrap();
    nix::sys::resource::setrlimit(files, hard, hard).unwrap();
}

fn serve(mode: &str, ping: Duration) {
    raise_file_limit();
    if mode == "bare" {
        return serve_bare();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match mode {
            "plain" => serve_plain(ping).await,
            _ => serve_wire(ping).await,
        }
    });
}

fn announce(addr: SocketAddr) {
    println!("{addr}");
    std::io::stdout().flush().unwrap();
}

/// `all <times>`, `each <times>`, `room <number>` and `flood <number>`, from the
/// standard input.
#[derive(Clone, Copy)]
enum Ask {
    /// A burst for everybody.
    All(usize),
    /// The same, by the bare loop with a `send()` for each message.
    Each(usize),
    Room(usize),
    /// 50 large messages for one room; says how many bytes were taken for it.
    Flood(usize),
}

fn asks(run: impl Fn(Ask)) {
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (what, number) = line.split_once(' ').unwrap();
        let number = number.parse().unwrap();
        run(match what {
            "all" => Ask::All(number),
            "each" => Ask::Each(number),
            "room" => Ask::Room(number),
            _ => Ask::Flood(number),
        });
    }
    std::process::exit(0);
}

/// Runs each ask in a task, as a handler would.
fn asks_in_tasks(run: impl Fn(Ask) + Send + Sync + Clone + 'static) {
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        asks(|ask| {
            let run = run.clone();
            runtime.spawn(async move { run(ask) });
        });
    });
}

async fn serve_plain(ping: Duration) {
    let (service, io) = SocketIo::builder().ping_interval(ping).ping_timeout(PATIENCE).build_svc();
    io.ns("/", async |socket: SocketRef| {
        let number = number_of(socket.req_parts().uri.query().unwrap());
        socket.on("event", async || {});
        socket.on_disconnect(async || {});
        let rooms = ["all".to_owned(), format!("room{}", number / ROOM), format!("own{number}")];
        socket.join(rooms.to_vec());
    });
    asks_in_tasks(move |ask| {
        let (room, times) = match ask {
            Ask::All(times) | Ask::Each(times) => ("all".to_owned(), times),
            Ask::Room(room) => (format!("room{room}"), 1),
            Ask::Flood(room) => (format!("room{room}"), 50),
        };
        for _ in 0..times {
            // Ready at once: the local adapter waits for nobody.
            let sent = io.to(room.clone()).emit("m", &payload()).now_or_never();
            sent.unwrap().unwrap();
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    announce(listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service.clone())
            .with_upgrades();
        tokio::spawn(connection);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Room {
    All,
    Some(u32),
    Own(u32),
}

async fn serve_wire(ping: Duration) {
    let core = Core::new(Settings::default());
    let (engine, io) = SocketIo::builder()
        .ping_interval(ping)
        .ping_timeout(PATIENCE)
        .ws_read_buffer_size(0)
        .build_svc();
    let rooms = Arc::new(Mutex::new(Rooms::<Room, Handle>::default()));
    let (registering, entering) = (core.clone(), rooms.clone());
    let connected = async move |socket: SocketRef| {
        let number = number_of(socket.req_parts().uri.query().unwrap());
        let number = u32::try_from(number).unwrap();
        let (handle, events) = registering.register(socket);
        {
            let mut rooms = entering.lock();
            rooms.add(&*handle);
            for room in [Room::All, Room::Some(number / ROOM as u32), Room::Own(number)] {
                rooms.enter(&handle, &room);
            }
        }
        let leaving = entering.clone();
        events.at_close(move |_| leaving.lock().remove(&handle));
    };
    let opening = core.clone();
    let opened = async move |socket: SocketRef| {
        Inbox::open(&opening, &socket);
        Ok::<(), Infallible>(())
    };
    io.ns("/", connected.with(opened));
    let gathering = core.clone();
    asks_in_tasks(move |ask| {
        let (room, times) = match ask {
            Ask::All(times) | Ask::Each(times) => (Room::All, times),
            Ask::Room(room) => (Room::Some(u32::try_from(room).unwrap()), 1),
            Ask::Flood(room) => (Room::Some(u32::try_from(room).unwrap()), 50),
        };
        let together = gathering.gather();
        let mut taken = 0;
        for _ in 0..times {
            let text = match ask {
                Ask::Flood(_) => "x".repeat(4000),
                _ => payload(),
            };
            let frame = Frame::event("/", "m", text).unwrap();
            for member in rooms.lock().members(&room) {
                taken += if member.send(&frame) { frame.bytes().len() } else { 0 };
            }
        }
        drop(together);
        if matches!(ask, Ask::Flood(_)) {
            println!("{taken}");
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    announce(listener.local_addr().unwrap());
    let entry = Entry::new(engine, core, vec![]);
    socketioxide_wire::serve(listener, entry, std::future::pending()).await;
}

/// The least that a delivery can cost: one thread that writes the same frame to the
/// same number of sockets, and nothing else.
fn serve_bare() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    announce(listener.local_addr().unwrap());
    let sockets: Arc<Mutex<Vec<(usize, std::net::TcpStream)>>> = Arc::default();
    let accepted = sockets.clone();
    std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let number =
                number_of(std::str::from_utf8(&request).unwrap().split(' ').nth(1).unwrap());
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
            stream.write_all(b"\x81\x030{}").unwrap();
            let mut connect = [0; 8];
            stream.read_exact(&mut connect).unwrap();
            stream.write_all(b"\x81\x0440{}").unwrap();
            accepted.lock().push((number, stream));
        }
    });
    let frame = Frame::event("/", "m", payload()).unwrap();
    asks(|ask| {
        let sockets = sockets.lock();
        let (times, room) = match ask {
            Ask::All(times) | Ask::Each(times) => (times, None),
            Ask::Room(room) | Ask::Flood(room) => (1, Some(room)),
        };
        if let Ask::Each(times) = ask {
            for (_, socket) in sockets.iter().cycle().take(times * sockets.len()) {
                (&*socket).write_all(frame.bytes()).unwrap();
            }
            return;
        }
        for (number, socket) in sockets.iter() {
            if room.is_none_or(|room| number / ROOM == room) {
                // A burst in one write, which is the least as well.
                (&*socket).write_all(&frame.bytes().repeat(times)).unwrap();
            }
        }
    });
}

// ---- clients ----

struct Server {
    mode: String,
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    addr: SocketAddr,
    received: Rc<Cell<usize>>,
    pings: Rc<Cell<usize>>,
    clients: usize,
}

impl Server {
    fn start(mode: &str, ping: Duration) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--serve", mode, "--ping-ms", &ping.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ask = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        let addr = line.trim().parse().unwrap();
        let (received, pings) = (Rc::default(), Rc::default());
        Self { mode: mode.to_owned(), child, ask, answers, addr, received, pings, clients: 0 }
    }

    async fn connect(&mut self, clients: usize) {
        for number in 0..clients {
            let stream = open(self.addr, number).await;
            let (received, pings) = (self.received.clone(), self.pings.clone());
            tokio::task::spawn_local(async move {
                loop {
                    stream.readable().await.unwrap();
                    let count = BUFFER.with_borrow_mut(|buffer| match stream.try_read(buffer) {
                        Ok(count) if buffer[..count] == *PING => {
                            pings.set(pings.get() + 1);
                            stream.try_write(PONG).unwrap();
                            Some(0)
                        }
                        Ok(0) => None,
                        Ok(count) => Some(count),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(0),
                        Err(_) => None,
                    });
                    let Some(count) = count else { return };
                    received.set(received.get() + count);
                }
            });
        }
        self.clients = clients;
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.received.set(0);
    }

    /// Asks for messages, and waits until all bytes of them are there.
    async fn deliver(&mut self, ask: Ask) -> usize {
        let (line, deliveries) = match ask {
            Ask::All(times) => (format!("all {times}\n"), self.clients * times),
            Ask::Each(times) => (format!("each {times}\n"), self.clients * times),
            Ask::Room(room) | Ask::Flood(room) => (format!("room {room}\n"), ROOM),
        };
        let size = Frame::event("/", "m", payload()).unwrap().bytes().len();
        let goal = self.received.get() + deliveries * size;
        self.ask.write_all(line.as_bytes()).unwrap();
        let begun = Instant::now();
        while self.received.get() < goal {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "{}: {} of {goal}",
                self.mode,
                self.received.get()
            );
            tokio::task::yield_now().await;
        }
        deliveries
    }

    /// CPU time used, in nanoseconds.
    fn cpu(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Memory in KiB, shared pages counted in part.
    fn memory(&self) -> f64 {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        self.answers.read_to_end(&mut Vec::new()).ok();
    }
}

/// Shakes hands and connects to the main namespace.
async fn open(addr: SocketAddr, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!(
        "GET /socket.io/?EIO=4&transport=websocket&n={number} HTTP/1.1\r\n\
         Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Origin: http://localhost:3000\r\nCache-Control: no-cache\r\nPragma: no-cache\r\n\
         Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    until(&mut stream, b"0{").await;
    // `40`, masked with zeros.
    stream.write_all(b"\x81\x82\0\0\0\x0040").await.unwrap();
    until(&mut stream, b"40{").await;
    stream
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

async fn until(stream: &mut TcpStream, what: &[u8]) {
    let mut got = Vec::new();
    while !got.windows(what.len()).any(|part| part == what) {
        assert!(stream.read_buf(&mut got).await.unwrap() > 0, "closed");
    }
    // The engine sends its first ping at once.
    if got.windows(PING.len()).any(|part| part == PING) {
        stream.write_all(PONG).await.unwrap();
    }
}

const SCENARIOS: [&str; 3] = ["one room of all", "rooms of 50", "bursts of 10"];

async fn cpu(clients: usize, rounds: usize) {
    let mut servers = Vec::new();
    for mode in MODES {
        let mut server = Server::start(mode, Duration::from_secs(300));
        server.connect(clients).await;
        servers.push(server);
    }
    let mut costs: HashMap<(usize, usize), Vec<f64>> = HashMap::new();
    // What is measured by which server; the last is bare sends, burst or not.
    let measures: Vec<(usize, usize)> = (0..SCENARIOS.len())
        .flat_map(|scenario| (0..MODES.len()).map(move |mode| (scenario, mode)))
        .chain([BARE_SENDS])
        .collect();
    // The first round warms up.
    for round in 0..=rounds {
        for &(scenario, mode) in &measures {
            let server = &mut servers[mode.min(MODES.len() - 1)];
            let before = server.cpu();
            let mut deliveries = 0;
            match scenario {
                0 => {
                    for _ in 0..20 {
                        deliveries += server.deliver(Ask::All(1)).await;
                    }
                }
                1 => {
                    for room in (0..clients / ROOM).cycle().take(400) {
                        deliveries += server.deliver(Ask::Room(room)).await;
                    }
                }
                _ => {
                    let separate = (scenario, mode) == BARE_SENDS;
                    let ask = if separate { Ask::Each(10) } else { Ask::All(10) };
                    for _ in 0..4 {
                        deliveries += server.deliver(ask).await;
                    }
                }
            }
            let cost = (server.cpu() - before) as f64 / deliveries as f64 / 1000.0;
            if round > 0 {
                costs.entry((scenario, mode)).or_default().push(cost);
            }
        }
    }
    println!("server CPU per delivery, {clients} clients, median (and range) of {rounds} rounds\n");
    println!("| | plain µs | wire µs | bare µs | wire / plain | wire / bare |");
    println!("|---|---|---|---|---|---|");
    let row = |name: &str, scenario: usize, bare: usize| {
        let of = |mode: usize| &costs[&(scenario, mode)];
        let ratio = |other: usize| spread(of(1).iter().zip(of(other)).map(|(a, b)| a / b));
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            spread(of(0).iter().copied()),
            spread(of(1).iter().copied()),
            spread(of(bare).iter().copied()),
            ratio(0),
            ratio(bare),
        );
    };
    row(SCENARIOS[0], 0, 2);
    row(SCENARIOS[1], 1, 2);
    row("bursts of 10, bare: one write a burst", 2, 2);
    row("bursts of 10, bare: ten sends", BARE_SENDS.0, BARE_SENDS.1);
}

/// Bursts by the bare server, with a `send()` for each message.
const BARE_SENDS: (usize, usize) = (2, 3);

/// Who is flooded, before or while the others get their messages.
#[derive(Clone, Copy, PartialEq)]
enum Flooded {
    Nobody,
    /// Those who read nothing: until they are ended.
    Stuck,
    /// Those who read all, with as much: what the flood costs by itself.
    Healthy,
    /// Those who read nothing, before: what they could be sent waits for them.
    Before,
}

/// How long a broadcast to 1,000 healthy clients takes until the last has it: alone,
/// beside 50 that read nothing and are flooded until they are ended, beside 50 that
/// read everything and get the same flood, and beside 50 for whom as much waits as
/// may.
async fn latency() {
    const HEALTHY: usize = 1000;
    const TIMES: usize = 300;
    println!("\nms until all of {HEALTHY} have a message, {TIMES} messages\n");
    println!("| | p50 | p99 | worst | messages with a flood | MB of it |");
    println!("|---|---|---|---|---|---|");
    // Which messages had how much flood, in bytes.
    let mut flood = vec![1; TIMES];
    // Of the 26 floods that end those who read nothing, so many leave them open.
    const FILLING: usize = 22;
    for flooded in [Flooded::Nobody, Flooded::Stuck, Flooded::Healthy, Flooded::Before] {
        let mut server = Server::start("wire", PATIENCE);
        server.connect(HEALTHY).await;
        let mut silent = Vec::new();
        if matches!(flooded, Flooded::Stuck | Flooded::Before) {
            for number in HEALTHY..HEALTHY + ROOM {
                silent.push(open(server.addr, number).await);
            }
        }
        if flooded == Flooded::Healthy {
            read_all(server.addr, HEALTHY..HEALTHY + ROOM).await;
        }
        // 50 messages of 4 kB for the room of the flooded.
        let line = format!("flood {}\n", HEALTHY / ROOM);
        if flooded == Flooded::Before {
            for _ in 0..FILLING {
                server.ask.write_all(line.as_bytes()).unwrap();
                let mut bytes = String::new();
                server.answers.read_line(&mut bytes).unwrap();
            }
        }
        let mut took = Vec::new();
        for flood in &mut flood {
            let floods = matches!(flooded, Flooded::Stuck | Flooded::Healthy) && *flood > 0;
            if floods {
                server.ask.write_all(line.as_bytes()).unwrap();
            }
            let begun = Instant::now();
            server.deliver(Ask::All(1)).await;
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
            if floods {
                let mut line = String::new();
                server.answers.read_line(&mut line).unwrap();
                *flood = line.trim().parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        took.sort_by(f64::total_cmp);
        let (p50, p99, worst) = (took[TIMES / 2], took[TIMES * 99 / 100], took[TIMES - 1]);
        let (name, floods) = match flooded {
            Flooded::Nobody => ("alone", &[][..]),
            Flooded::Stuck => ("beside 50 stuck, flooded until ended", &flood[..]),
            Flooded::Healthy => ("beside 50 that read the same flood", &flood[..]),
            Flooded::Before => ("beside 50 stuck, flooded before", &[][..]),
        };
        let count = floods.iter().filter(|bytes| **bytes > 0).count();
        let bytes = floods.iter().sum::<usize>() / 1_000_000;
        println!("| {name} | {p50:.1} | {p99:.1} | {worst:.1} | {count} | {bytes} |");
        if flooded == Flooded::Before {
            continue;
        }
        let mut ended = 0;
        let stuck = silent.len();
        for mut stream in silent {
            // What had been sent before comes first; then the end.
            let mut rest = Vec::new();
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
            ended += usize::from(read.await.is_ok());
        }
        assert_eq!(ended, stuck, "who read nothing was not ended");
    }
}

/// Clients that read all they get, in a thread of their own: what they read is not
/// to hold up those whose time is taken.
async fn read_all(addr: SocketAddr, numbers: std::ops::Range<usize>) {
    let (ready, opened) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut reading = tokio::task::JoinSet::new();
            for number in numbers {
                let mut stream = open(addr, number).await;
                reading.spawn(async move {
                    let mut buffer = vec![0; 256 * 1024];
                    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                });
            }
            ready.send(()).unwrap();
            reading.join_all().await;
        });
    });
    opened.await.unwrap();
}

/// Median, lowest and highest.
fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (lowest, highest) = (values[0], values[values.len() - 1]);
    format!("{:.2} ({lowest:.2}–{highest:.2})", values[values.len() / 2])
}

async fn memory(clients: usize) {
    println!("\nKiB per connection (growth of PSS), {clients} clients\n");
    println!("| | connected | after 50 broadcasts | after 40 pings more |");
    println!("|---|---|---|---|");
    for mode in ["plain", "wire"] {
        let mut row = format!("| {mode} |");
        // Once without pings, once with many.
        for ping in [Duration::from_secs(300), Duration::from_millis(400)] {
            let mut server = Server::start(mode, ping);
            tokio::time::sleep(Duration::from_millis(300)).await;
            let empty = server.memory();
            server.connect(clients).await;
            let each = |server: &Server| (server.memory() - empty) / clients as f64;
            if ping.as_secs() > 0 {
                row += &format!(" {:.1} |", each(&server));
                for _ in 0..50 {
                    server.deliver(Ask::All(1)).await;
                }
                row += &format!(" {:.1} |", each(&server));
            } else {
                while server.pings.get() < 40 * clients {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                row += &format!(" {:.1} |", each(&server));
            }
        }
        println!("{row}");
    }
}
