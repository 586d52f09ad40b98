//! `src/out.rs` under a model checker: the same source file, compiled with the
//! checker's lock, among callers that do what `src/wire.rs` and `src/core.rs` do.
//!
//! What a test waits for can only come if somebody tends what waits: a lost wake-up
//! leaves all threads waiting, which the checker reports as a deadlock. It prints
//! the schedule of a failure; `shuttle::replay(scenario, schedule)` repeats it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering};

use bytes::Bytes;
use shuttle::rand::Rng as _;
use shuttle::sync::atomic::AtomicBool;
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};

use out::{Carried, Out, Pushed, Socket, Written};

mod sync {
    //! The checker's lock in the shape of `parking_lot`'s.

    pub(crate) use shuttle::sync::MutexGuard;

    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

#[allow(dead_code)]
#[path = "../src/out.rs"]
mod out;

// ---- the kernel ----

/// Smaller than most messages, so that they go out in parts and writers block.
const SMALL: usize = 7;

/// The socket's send buffer, and the peer's end of it.
struct Kernel {
    capacity: usize,
    /// Somebody is in a write: two at once would mix their messages.
    busy: AtomicBool,
    state: Mutex<KernelState>,
    changed: Condvar,
}

#[derive(Default)]
struct KernelState {
    buffer: Vec<u8>,
    shutdowns: Vec<Shutdown>,
    /// The peer is gone.
    reset: bool,
    /// Writes that were tried after the end.
    late: usize,
}

impl KernelState {
    fn takes_no_more(&self) -> bool {
        self.shutdowns.iter().any(|how| *how != Shutdown::Read)
    }
}

/// Now and then, so that what is rare happens in some schedules.
fn rarely() -> bool {
    shuttle::rand::thread_rng().gen_ratio(1, 16)
}

impl Kernel {
    fn new(capacity: usize) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { capacity, busy: AtomicBool::new(false), state, changed }
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if rarely() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut state = self.state.lock().unwrap();
        if state.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if state.takes_no_more() {
            state.late += 1;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let before = state.buffer.len();
        if before == self.capacity {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for part in parts {
            let room = self.capacity - state.buffer.len();
            state.buffer.extend_from_slice(&part[..part.len().min(room)]);
        }
        self.changed.notify_all();
        Ok(state.buffer.len() - before)
    }

    /// Until a write may get somewhere. Like Tokio's readiness, it may be wrong.
    fn writable(&self) {
        let mut state = self.state.lock().unwrap();
        while state.buffer.len() == self.capacity
            && !state.reset
            && !state.takes_no_more()
            && !rarely()
        {
            state = self.changed.wait(state).unwrap();
        }
    }

    /// What the peer reads next; `None` at the end of the stream.
    fn read(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock().unwrap();
        while state.buffer.is_empty() {
            if state.takes_no_more() {
                return None;
            }
            state = self.changed.wait(state).unwrap();
        }
        let count = shuttle::rand::thread_rng().gen_range(1..=state.buffer.len());
        self.changed.notify_all();
        Some(state.buffer.drain(..count).collect())
    }

    fn reset(&self) {
        self.state.lock().unwrap().reset = true;
        self.changed.notify_all();
    }

    fn shutdowns(&self) -> Vec<Shutdown> {
        self.state.lock().unwrap().shutdowns.clone()
    }
}

impl Socket for Kernel {
    fn try_write(&self, parts: &[IoSlice<'_>], _: bool) -> io::Result<usize> {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "two writers at once");
        let done = self.write(parts);
        self.busy.store(false, Ordering::SeqCst);
        done
    }

    fn shutdown(&self, how: Shutdown) {
        self.state.lock().unwrap().shutdowns.push(how);
        self.changed.notify_all();
    }
}

// ---- the callers ----

/// As in `src/core.rs`.
#[derive(Default)]
struct Flusher {
    touched: Mutex<Vec<Arc<Wire>>>,
    wake: Mutex<Wake>,
    news: Condvar,
}

#[derive(Default)]
struct Wake {
    /// As `tokio::sync::Notify` keeps it for who does not wait yet.
    permit: bool,
    stop: bool,
}

impl Flusher {
    fn touch(&self, wire: &Arc<Wire>) {
        let mut touched = self.touched.lock().unwrap();
        touched.push(wire.clone());
        let first = touched.len() == 1;
        drop(touched);
        if first {
            self.wake.lock().unwrap().permit = true;
            self.news.notify_one();
        }
    }

    fn run(&self) {
        loop {
            let mut wake = self.wake.lock().unwrap();
            while !std::mem::take(&mut wake.permit) {
                if wake.stop {
                    return;
                }
                wake = self.news.wait(wake).unwrap();
            }
            drop(wake);
            self.flush_all();
        }
    }

    fn flush_all(&self) {
        loop {
            let touched = std::mem::take(&mut *self.touched.lock().unwrap());
            if touched.is_empty() {
                return;
            }
            for wire in touched {
                match wire.out.flush(&mut Carried::default()) {
                    Written::Clean => {}
                    Written::Blocked => wire.drain(),
                    Written::Ended => wire.out.end(),
                }
            }
        }
    }
}

/// As in `src/wire.rs`.
struct Wire {
    out: Out<Kernel>,
    flusher: Arc<Flusher>,
    drainers: Mutex<Vec<JoinHandle<()>>>,
}

impl Wire {
    fn pushed(self: &Arc<Self>, pushed: Pushed) {
        match pushed {
            Pushed::Touched => self.flusher.touch(self),
            Pushed::Blocked => self.drain(),
            Pushed::Waits | Pushed::Dropped | Pushed::Full | Pushed::Ended => {}
        }
    }

    fn push(self: &Arc<Self>, message: &Bytes, droppable: bool) -> Pushed {
        let pushed = self.out.push(message.clone(), droppable);
        self.pushed(pushed);
        pushed
    }

    fn write_through(self: &Arc<Self>, message: &Bytes) -> Pushed {
        let pushed = self.out.write_through(message);
        self.pushed(pushed);
        pushed
    }

    fn drain(self: &Arc<Self>) {
        let wire = self.clone();
        let drainer = thread::spawn(move || {
            loop {
                wire.out.socket().writable();
                match wire.out.resume(&mut Carried::default(), false) {
                    Written::Blocked => {}
                    Written::Clean => return,
                    Written::Ended => return wire.out.end(),
                }
            }
        });
        self.drainers.lock().unwrap().push(drainer);
    }
}

/// One socket, its flusher and its peer.
struct Model {
    wire: Arc<Wire>,
    flusher: JoinHandle<()>,
}

/// How a sender sends.
#[derive(Clone, Copy)]
enum By {
    Push,
    Droppable,
    WriteThrough,
}

type Sent = JoinHandle<Vec<(u8, Pushed)>>;

impl Model {
    fn start(capacity: usize, limit: usize) -> Self {
        let flusher = Arc::<Flusher>::default();
        let wire = Arc::new(Wire {
            out: Out::new(Kernel::new(capacity), limit),
            flusher: flusher.clone(),
            drainers: Mutex::default(),
        });
        Self { wire, flusher: thread::spawn(move || flusher.run()) }
    }

    /// Sends `count` messages, and says what became of each.
    fn send(&self, sender: u8, count: u8, body: usize, by: By) -> Sent {
        let wire = self.wire.clone();
        thread::spawn(move || {
            let send = |number| {
                let message = message(sender, number, body);
                let pushed = match by {
                    By::Push => wire.push(&message, false),
                    By::Droppable => wire.push(&message, true),
                    By::WriteThrough => wire.write_through(&message),
                };
                (number, pushed)
            };
            (0..count).map(send).collect()
        })
    }

    /// A peer that reads so many bytes, or all until the end.
    fn read(&self, enough: usize) -> JoinHandle<Vec<u8>> {
        let wire = self.wire.clone();
        thread::spawn(move || {
            let mut got = Vec::new();
            while got.len() < enough
                && let Some(bytes) = wire.out.socket().read()
            {
                got.extend(bytes);
            }
            got
        })
    }

    /// Until nobody is at work any more.
    fn settle(self) -> Arc<Wire> {
        self.wire.flusher.wake.lock().unwrap().stop = true;
        self.wire.flusher.news.notify_one();
        self.flusher.join().unwrap();
        loop {
            let drainer = self.wire.drainers.lock().unwrap().pop();
            let Some(drainer) = drainer else { break };
            drainer.join().unwrap();
        }
        self.wire
    }
}

/// Nothing is left over of what went before: neither bytes nor somebody's word that
/// he would see to the next ones.
fn assert_idle(wire: &Wire) {
    assert_eq!(wire.out.waiting(), 0);
    let last = message(99, 0, 1);
    assert_eq!(wire.out.push(last.clone(), false), Pushed::Touched);
    // The kernel's buffer is empty, but smaller than the message may be.
    let mut written = wire.out.flush(&mut Carried::default());
    let mut got = Vec::new();
    while got.len() < last.len() {
        got.extend(wire.out.socket().read().unwrap());
        if written == Written::Blocked {
            written = wire.out.resume(&mut Carried::default(), false);
        }
    }
    assert_eq!((written, got), (Written::Clean, last.to_vec()));
    assert_eq!(wire.out.waiting(), 0);
}

/// The socket was ended, once, and takes nothing any more.
fn assert_ended(wire: &Wire) {
    assert!(wire.out.has_ended());
    assert_eq!(wire.out.waiting(), 0);
    assert_eq!(wire.out.push(message(99, 0, 1), false), Pushed::Ended);
    assert_eq!(wire.out.push(message(99, 0, 1), true), Pushed::Ended);
    assert_eq!(wire.out.write_through(&message(99, 0, 1)), Pushed::Ended);
    assert_eq!(wire.out.resume(&mut Carried::default(), false), Written::Ended);
    wire.out.finish(Shutdown::Write);
    wire.out.finish(Shutdown::Both);
    wire.out.end();
    let shutdowns = wire.out.socket().shutdowns();
    let both = shutdowns.iter().filter(|how| **how == Shutdown::Both).count();
    assert_eq!((both, shutdowns.last()), (1, Some(&Shutdown::Both)));
    // One that was in its write when the end came learns of it by an error.
    assert!(wire.out.socket().state.lock().unwrap().late <= 1);
}

// ---- messages ----

const HEADER: usize = 5;

/// A message that shows whose it is, and that it is whole. Its length varies.
fn message(sender: u8, number: u8, body: usize) -> Bytes {
    let body = body + usize::from(number % 3);
    let size = u16::try_from(body).unwrap().to_be_bytes();
    let mut message = vec![b'M', sender, number, size[0], size[1]];
    message.resize(HEADER + body, fill(sender, number));
    message.into()
}

fn fill(sender: u8, number: u8) -> u8 {
    0x80 | sender << 4 | number
}

fn size(count: u8, body: usize) -> usize {
    (0..count).map(|number| message(0, number, body).len()).sum()
}

/// Sender and number of each message, which must be whole: the last may only be
/// cut by the end of the stream. Says whether it is.
fn messages(mut stream: &[u8]) -> (Vec<(u8, u8)>, bool) {
    let mut got = Vec::new();
    while let Some((header, rest)) = stream.split_at_checked(HEADER) {
        let &[mark, sender, number, high, low] = header else { unreachable!() };
        assert_eq!(mark, b'M', "a message was cut by another");
        let size = usize::from(u16::from_be_bytes([high, low]));
        let (body, rest) = rest.split_at(size.min(rest.len()));
        assert!(body == vec![fill(sender, number); body.len()], "a message was cut by another");
        if body.len() < size {
            return (got, true);
        }
        got.push((sender, number));
        stream = rest;
    }
    assert!(stream.is_empty() || stream[0] == b'M', "a message was cut by another");
    (got, !stream.is_empty())
}

fn of(sender: u8, got: &[(u8, u8)]) -> Vec<u8> {
    got.iter().filter(|(from, _)| *from == sender).map(|(_, number)| *number).collect()
}

/// What the socket took upon itself.
fn taken(sent: &[(u8, Pushed)]) -> Vec<u8> {
    let taken = |pushed| matches!(pushed, Pushed::Waits | Pushed::Touched | Pushed::Blocked);
    sent.iter().filter(|(_, pushed)| taken(*pushed)).map(|(number, _)| *number).collect()
}

// ---- the scenarios ----

/// Random schedules find what many orders show; those of few, chosen preemptions
/// what only a rare one does.
fn explore(iterations: usize, scenario: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(scenario, iterations);
    shuttle::check_pct(scenario, iterations / 2, 3);
}

/// One thread only, but the lock works nowhere else than in the checker.
fn alone(scenario: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(scenario, 10);
}

const UNLIMITED: usize = usize::MAX;
const EACH: u8 = 4;

/// Two senders by the queue, one that writes through.
fn three_senders(model: &Model) -> [Sent; 3] {
    [
        model.send(0, EACH, 1, By::Push),
        model.send(1, EACH, 4, By::Push),
        model.send(2, EACH, 2, By::WriteThrough),
    ]
}

fn size_of_three() -> usize {
    size(EACH, 1) + size(EACH, 4) + size(EACH, 2)
}

fn all_of_three_arrive(enough: usize) -> (Model, [Sent; 3], JoinHandle<Vec<u8>>) {
    let model = Model::start(SMALL, UNLIMITED);
    let reader = model.read(enough);
    let senders = three_senders(&model);
    (model, senders, reader)
}

fn assert_all_of_three(stream: &[u8]) {
    let (got, cut) = messages(stream);
    assert!(!cut);
    for sender in 0..3 {
        assert_eq!(of(sender, &got), (0..EACH).collect::<Vec<_>>());
    }
    assert_eq!(got.len(), 3 * usize::from(EACH));
}

#[test]
fn every_message_arrives_once_whole_and_in_order() {
    explore(1200, || {
        let (model, senders, reader) = all_of_three_arrive(size_of_three());
        assert_all_of_three(&reader.join().unwrap());
        for sender in senders {
            assert_eq!(taken(&sender.join().unwrap()).len(), usize::from(EACH));
        }
        let wire = model.settle();
        assert_idle(&wire);
        assert!(wire.out.socket().shutdowns().is_empty());
    });
}

#[test]
fn after_the_end_nothing_is_written() {
    static CUT: Count = Count::new(0);
    static IN_TIME: Count = Count::new(0);
    explore(1200, || {
        let model = Model::start(SMALL, UNLIMITED);
        let reader = model.read(usize::MAX);
        let senders = three_senders(&model);
        let wire = model.wire.clone();
        let ender = thread::spawn(move || {
            // Not always at once: some messages may be on their way.
            for _ in 0..shuttle::rand::thread_rng().gen_range(0..60) {
                thread::yield_now();
            }
            wire.out.end();
            assert_ended(&wire);
            // No writer counts what it wrote into what no longer waits.
            thread::yield_now();
            assert_eq!(wire.out.waiting(), 0);
        });
        ender.join().unwrap();
        let (got, cut) = messages(&reader.join().unwrap());
        for (sender, sent) in (0..).zip(senders) {
            let sent = sent.join().unwrap();
            let got = of(sender, &got);
            assert!(taken(&sent).starts_with(&got), "{got:?} of {sent:?}");
            let refused = sent.iter().position(|(_, pushed)| *pushed == Pushed::Ended);
            for (_, pushed) in &sent[refused.unwrap_or(sent.len())..] {
                assert_eq!(*pushed, Pushed::Ended);
            }
        }
        CUT.fetch_add(usize::from(cut), Ordering::Relaxed);
        IN_TIME.fetch_add(usize::from(got.len() < 3 * usize::from(EACH)), Ordering::Relaxed);
        assert_ended(&model.settle());
    });
    // Otherwise the scenario shows nothing.
    assert!(CUT.load(Ordering::Relaxed) > 0 && IN_TIME.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_peer_that_is_gone_ends_the_socket() {
    explore(1000, || {
        let model = Model::start(SMALL, UNLIMITED);
        let wire = model.wire.clone();
        let peer = thread::spawn(move || {
            wire.out.socket().read();
            wire.out.socket().reset();
        });
        for sender in three_senders(&model) {
            sender.join().unwrap();
        }
        peer.join().unwrap();
        // The senders may have been done before, and all may have gone out.
        let wire = model.settle();
        assert_eq!(wire.out.waiting(), 0);
        wire.out.write_through(&message(99, 0, 1));
        while !wire.out.has_ended() {
            wire.out.resume(&mut Carried::default(), false);
        }
        assert_ended(&wire);
    });
}

#[test]
fn an_error_ends_the_socket_whoever_meets_it() {
    alone(|| {
        let gone = || {
            let out = Out::new(Kernel::new(SMALL), UNLIMITED);
            out.socket().reset();
            out
        };
        let out = gone();
        if out.write_through(&message(0, 0, 1)) == Pushed::Blocked {
            // It was interrupted: the drainer meets the error.
            assert_eq!(out.resume(&mut Carried::default(), false), Written::Ended);
        }
        assert!(out.has_ended());
        let out = gone();
        assert_eq!(out.push(message(0, 0, 1), false), Pushed::Touched);
        assert_eq!(out.flush(&mut Carried::default()), Written::Ended);
        assert!(out.has_ended());
        let out = gone();
        assert_eq!(out.push(message(0, 0, 60_000), false), Pushed::Touched);
        assert_eq!(out.push(message(0, 0, 60_000), false), Pushed::Ended);
        assert!(out.has_ended());
    });
}

#[test]
fn all_that_was_sent_before_the_finish_arrives() {
    explore(1200, || {
        let (model, senders, reader) = all_of_three_arrive(usize::MAX);
        for sender in senders {
            sender.join().unwrap();
        }
        model.wire.out.finish(Shutdown::Both);
        assert_eq!(model.wire.push(&message(99, 0, 1), false), Pushed::Ended);
        assert_eq!(model.wire.write_through(&message(99, 0, 1)), Pushed::Ended);
        assert_all_of_three(&reader.join().unwrap());
        let wire = model.settle();
        assert_eq!(wire.out.socket().shutdowns(), [Shutdown::Both]);
        assert_ended(&wire);
    });
}

#[test]
fn what_was_taken_before_a_finish_in_between_arrives_and_no_more() {
    explore(1200, || {
        let (model, senders, reader) = all_of_three_arrive(usize::MAX);
        let wire = model.wire.clone();
        let finisher = thread::spawn(move || {
            for _ in 0..shuttle::rand::thread_rng().gen_range(0..60) {
                thread::yield_now();
            }
            // As hyper does it, and then the end of the connection's owner.
            wire.out.finish(Shutdown::Write);
            assert_eq!(wire.push(&message(99, 0, 1), false), Pushed::Ended);
            assert_eq!(wire.write_through(&message(99, 0, 1)), Pushed::Ended);
            wire.out.finish(Shutdown::Both);
        });
        finisher.join().unwrap();
        let (got, cut) = messages(&reader.join().unwrap());
        assert!(!cut);
        for (sender, sent) in (0..).zip(senders) {
            assert_eq!(of(sender, &got), taken(&sent.join().unwrap()));
        }
        let wire = model.settle();
        assert_ended(&wire);
    });
}

#[test]
fn a_peer_that_never_reads_is_ended_at_the_limit() {
    const BODY: usize = 8;
    const COST: usize = HEADER + BODY + 2 + 64;
    const LIMIT: usize = 4 * COST;
    explore(1200, || {
        let model = Model::start(SMALL, LIMIT);
        let senders = [model.send(0, 6, BODY, By::Push), model.send(1, 6, BODY, By::Push)];
        let wire = model.wire.clone();
        let watcher = thread::spawn(move || {
            for _ in 0..20 {
                assert!(wire.out.waiting() <= LIMIT);
                thread::yield_now();
            }
        });
        let sent: Vec<_> = senders.into_iter().flat_map(|s| s.join().unwrap()).collect();
        watcher.join().unwrap();
        let count = |what| sent.iter().filter(|(_, pushed)| *pushed == what).count();
        assert_eq!(count(Pushed::Full), 1);
        assert!(count(Pushed::Ended) > 0);
        assert!(taken(&sent).len() >= LIMIT / COST);
        assert_ended(&model.settle());
    });
}

#[test]
fn a_lone_message_may_be_larger_than_the_limit() {
    explore(1000, || {
        let model = Model::start(SMALL, 10);
        let reader = model.read(size(1, 20));
        assert_ne!(model.wire.push(&message(0, 0, 20), false), Pushed::Full);
        assert_eq!(messages(&reader.join().unwrap()), (vec![(0, 0)], false));
        assert_idle(&model.settle());
    });
}

#[test]
fn what_is_dropped_never_arrives_and_the_rest_does() {
    static DROPPED: Count = Count::new(0);
    static PASSED: Count = Count::new(0);
    const BODY: usize = 4;
    // Room for all: only the droppable ones can be refused.
    let limit = 2 * (size(EACH, BODY) + usize::from(EACH) * 64);
    explore(1200, move || {
        let model = Model::start(SMALL, limit);
        let reader = model.read(usize::MAX);
        let plain = model.send(0, EACH, BODY, By::Push);
        let droppable = model.send(1, EACH, BODY, By::Droppable);
        let (plain, droppable) = (plain.join().unwrap(), droppable.join().unwrap());
        model.wire.out.finish(Shutdown::Both);
        let (got, cut) = messages(&reader.join().unwrap());
        assert!(!cut);
        assert_eq!(of(0, &got), (0..EACH).collect::<Vec<_>>());
        assert_eq!(taken(&plain).len(), usize::from(EACH));
        assert_eq!(of(1, &got), taken(&droppable));
        let dropped = droppable.iter().filter(|(_, pushed)| *pushed == Pushed::Dropped).count();
        assert_eq!(taken(&droppable).len() + dropped, usize::from(EACH));
        DROPPED.fetch_add(dropped, Ordering::Relaxed);
        PASSED.fetch_add(usize::from(EACH) - dropped, Ordering::Relaxed);
        assert_ended(&model.settle());
    });
    assert!(DROPPED.load(Ordering::Relaxed) > 0 && PASSED.load(Ordering::Relaxed) > 0);
}

#[test]
fn droppable_messages_are_dropped_from_half_of_the_limit_on() {
    alone(|| {
        let cost = message(0, 0, 1).len() + 64;
        let out = Out::new(Kernel::new(SMALL), 4 * cost);
        assert_eq!(out.push(message(0, 0, 1), true), Pushed::Touched);
        assert_eq!(out.push(message(0, 0, 1), true), Pushed::Waits);
        assert_eq!(out.push(message(0, 0, 1), true), Pushed::Dropped);
        assert_eq!(out.push(message(0, 0, 1), false), Pushed::Waits);
        assert_eq!(out.push(message(0, 0, 1), false), Pushed::Waits);
        assert_eq!(out.push(message(0, 0, 1), true), Pushed::Dropped);
        assert_eq!(out.waiting(), 4 * cost);
        assert_eq!(out.push(message(0, 0, 1), false), Pushed::Full);
        assert_eq!(out.push(message(0, 0, 1), true), Pushed::Ended);
    });
}

/// With much waiting the senders write themselves, beside flusher and drainer.
#[test]
fn senders_that_write_themselves_keep_the_order() {
    const BODY: usize = 40_000;
    explore(400, || {
        let model = Model::start(50_000, UNLIMITED);
        let reader = model.read(2 * size(3, BODY) + size(3, 10));
        let senders = [
            model.send(0, 3, BODY, By::Push),
            model.send(1, 3, BODY, By::Push),
            model.send(2, 3, 10, By::WriteThrough),
        ];
        let (got, cut) = messages(&reader.join().unwrap());
        assert!(!cut && got.len() == 9);
        for (sender, sent) in (0..).zip(senders) {
            assert_eq!(taken(&sent.join().unwrap()), [0, 1, 2]);
            assert_eq!(of(sender, &got), [0, 1, 2]);
        }
        assert_idle(&model.settle());
    });
}
