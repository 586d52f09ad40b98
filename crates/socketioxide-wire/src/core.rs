//! What all connections share: settings, sessions, counters, the flushers.

use std::any::Any;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socketioxide::adapter::Adapter;
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;
use tokio::sync::Notify;

use crate::handle::Handle;
use crate::inbox::{Inbox, Outlet};
use crate::line::Line;
use crate::out::{Carried, Written};
use crate::public_id::PublicIds;
use crate::stats::{Counters, Stats, add};
use crate::wire::Wire;

/// Bounds, and what a client may know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes that may wait for one socket (each message counts 64 more). At half
    /// of it droppable messages are dropped; beyond it the transport is ended.
    pub waiting_bytes: usize,
    /// The transport is ended when the peer takes nothing for so long.
    pub write_timeout: Duration,
    /// A polling session that is silent for so long, and in no namespace, is
    /// forgotten: the engine's ping interval and timeout, and a margin.
    pub idle_polling: Duration,
    /// Whether clients learn another id than the engine's session id, which is a
    /// secret: who knows it can speak as the client while it polls.
    pub conceal_ids: bool,
    /// Told, each time that what waited was written, how long the first of it had waited.
    pub flushed: Option<fn(Duration)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            waiting_bytes: 1 << 20,
            write_timeout: Duration::from_secs(30),
            idle_polling: Duration::from_secs(60),
            conceal_ids: true,
            flushed: None,
        }
    }
}

/// Sockets written to before other tasks have a turn: some 300 µs.
const TURN: usize = 64;
/// More flushers than this gain nothing: the kernel is what they wait for.
const FLUSHERS: usize = 8;
/// Guards of [`Core::gather`] that overlap, after which sockets are written to all
/// the same.
const GUARDS: usize = 16;
/// Sessions before the first look for forgotten ones.
const SWEEP_AT: usize = 1024;
/// Inboxes that are open and not taken before the first look for abandoned ones.
const SWEEP_OPENED_AT: usize = 64;

/// The shared part. Make one for each server, and keep it as long.
pub struct Core {
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
    /// The name of the event that is a fence: nobody else can know it.
    pub(crate) fence: String,
    pub(crate) public_ids: Option<PublicIds>,
    sessions: Mutex<Sessions>,
    opened: Mutex<Opened>,
    flushers: Vec<Arc<Flusher>>,
    next_flusher: AtomicUsize,
    /// Guards of [`Core::gather`] now.
    gathering: AtomicUsize,
    /// Guards of it so far.
    gathers: AtomicUsize,
    closer: OnceLock<Closer>,
}

/// Has the engine close the session of this id.
pub(crate) type Closer = Box<dyn Fn(Sid) + Send + Sync>;

struct Sessions {
    lines: HashSet<BySid>,
    sweep_at: usize,
}

/// A session, found by its id: which is not stored twice.
struct BySid(Arc<Line>);

impl Borrow<Sid> for BySid {
    fn borrow(&self) -> &Sid {
        &self.0.sid
    }
}

impl Hash for BySid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.sid.hash(state);
    }
}

impl PartialEq for BySid {
    fn eq(&self, other: &Self) -> bool {
        self.0.sid == other.0.sid
    }
}

impl Eq for BySid {}

/// Inboxes between the middleware that opens them and the connect handler that
/// takes them. Not in the engine's map of extensions: an empty one is free, the
/// first entry costs each socket 200 bytes for as long as it lives.
struct Opened {
    map: HashMap<SocketKey, OpenInbox>,
    sweep_at: usize,
}

/// A session and the address of a socket in it, since a namespace can be left and
/// connected again while the first connect handler is still on its way.
type SocketKey = (Sid, usize);

pub(crate) struct OpenInbox {
    /// The feed. Weak: it is the socket's, and an entry whose socket is gone will
    /// not be asked for any more.
    pub(crate) feed: Weak<dyn Any + Send + Sync>,
    /// What the application gave with it.
    pub(crate) data: Option<Box<dyn Any + Send>>,
}

/// Writes what waits, for the sockets that are in its care.
pub(crate) struct Flusher {
    /// Here for its sockets, which have enough to carry.
    pub(crate) core: Weak<Core>,
    touched: Mutex<Touched>,
    wake: Notify,
    /// The number of the guard of [`Core::gather`] since which it waits; 0 if it
    /// does not.
    waits_since: AtomicUsize,
}

#[derive(Default)]
struct Touched {
    wires: Vec<Arc<Wire>>,
    /// When the first of them was.
    since: Option<Instant>,
}

impl Core {
    /// The id by which a client knows its own socket (`socket.id`), which is not the
    /// engine's: see [`Settings::conceal_ids`].
    #[must_use]
    pub fn public_id(&self, sid: Sid) -> String {
        match &self.public_ids {
            Some(ids) => ids.of(sid.as_str().as_bytes()),
            None => sid.to_string(),
        }
    }

    /// Starts the flushers: call it inside a Tokio runtime.
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let core = Arc::new_cyclic(|core| Self {
            counters: Counters::default(),
            fence: format!("fence:{:032x}", rand::random::<u128>()),
            public_ids: settings.conceal_ids.then(PublicIds::new),
            sessions: Mutex::new(Sessions { lines: HashSet::new(), sweep_at: SWEEP_AT }),
            opened: Mutex::new(Opened { map: HashMap::new(), sweep_at: SWEEP_OPENED_AT }),
            flushers: (0..(cores / 2).clamp(1, FLUSHERS))
                .map(|_| Arc::new(Flusher::new(core.clone())))
                .collect(),
            next_flusher: AtomicUsize::new(0),
            gathering: AtomicUsize::new(0),
            gathers: AtomicUsize::new(1),
            closer: OnceLock::new(),
            settings,
        });
        for flusher in core.flushers.iter().cloned() {
            tokio::spawn(async move {
                loop {
                    flusher.wake.notified().await;
                    // Gone with the core.
                    let Some(core) = flusher.core.upgrade() else { return };
                    flusher.flush_all(&core).await;
                }
            });
        }
        core
    }

    /// Registers a namespace's socket, in its connect handler: for what is sent, and
    /// for what comes to the [`Inbox`] that was opened in a middleware. What is sent
    /// by the handle goes out after the answer to CONNECT.
    pub fn register<A: Adapter>(
        self: &Arc<Self>,
        socket: SocketRef<A>,
    ) -> (Arc<Handle<A>>, Outlet<A>) {
        let (handle, outlet, _) = self.register_with::<(), A>(socket);
        (handle, outlet)
    }

    /// The same, and takes the data that [`Inbox::open_with`] put there. `None` if it
    /// put nothing of that type there.
    pub fn register_with<T: 'static, A: Adapter>(
        self: &Arc<Self>,
        socket: SocketRef<A>,
    ) -> (Arc<Handle<A>>, Outlet<A>, Option<T>) {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let sid = socket.id;
        let (inbox, data) = Inbox::of(self, &socket);
        let handle = {
            let sessions = self.sessions.lock();
            match sessions.lines.get(&sid) {
                Some(BySid(line)) => {
                    let handle = Arc::new(Handle::new(line.clone(), socket, number));
                    line.sockets.lock().add(Arc::<Handle<A>>::downgrade(&handle));
                    handle
                }
                // Every session is known from its open packet on: this one has lost
                // its transport already, and must not come back.
                None => Arc::new(Handle::new(Line::gone(self, sid), socket, number)),
            }
        };
        handle.line.connected(&*handle);
        let outlet = inbox.attach(&handle);
        let data = data.and_then(|data| data.downcast().ok()).map(|data| *data);
        (handle, outlet, data)
    }

    /// While the guard lives, what is sent gathers, and goes out with one write a
    /// socket when it is dropped: for a loop that sends much to many. The guard can't
    /// be kept across an await, so nothing waits for longer than that loop takes.
    #[must_use]
    pub fn gather(&self) -> Gathering<'_> {
        self.gathers.fetch_add(1, Ordering::AcqRel);
        self.gathering.fetch_add(1, Ordering::AcqRel);
        Gathering { core: self, of_this_thread: PhantomData }
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Sessions now: all of them, those that are written to directly, and the
    /// bytes that wait for all.
    #[must_use]
    pub fn sessions(&self) -> Now {
        let lines: Vec<Arc<Line>> =
            self.sessions.lock().lines.iter().map(|BySid(line)| line.clone()).collect();
        Now {
            sessions: lines.len(),
            direct: lines.iter().filter(|line| line.is_direct()).count(),
            waiting_bytes: lines.iter().map(|line| line.waiting()).sum(),
        }
    }

    /// Who writes for the next connection.
    pub(crate) fn flusher(&self) -> Arc<Flusher> {
        let place = self.next_flusher.fetch_add(1, Ordering::Relaxed) % self.flushers.len();
        self.flushers[place].clone()
    }

    pub(crate) fn count(&self, carried: Carried) {
        if carried.writes > 0 {
            add(&self.counters.writes, carried.writes);
            add(&self.counters.direct_frames, carried.messages);
            let merged = carried.messages.saturating_sub(carried.writes);
            add(&self.counters.merged_frames, merged);
        }
    }

    pub(crate) fn is_fence(&self, payload: &[u8]) -> bool {
        // 42["<token>"] or 42/<namespace>,["<token>"], with a null or without.
        payload.starts_with(b"42")
            && payload.windows(self.fence.len()).any(|part| part == self.fence.as_bytes())
    }

    pub(crate) fn session(&self, sid: Sid) -> Option<Arc<Line>> {
        self.sessions.lock().lines.get(&sid).map(|BySid(line)| line.clone())
    }

    /// An inbox waits for its connect handler.
    pub(crate) fn keep_open(&self, key: SocketKey, inbox: OpenInbox) {
        let mut opened = self.opened.lock();
        opened.map.insert(key, inbox);
        if opened.map.len() >= opened.sweep_at {
            opened.map.retain(|_, inbox| inbox.feed.strong_count() > 0);
            // Twice what is left, so that looking costs each socket little.
            opened.sweep_at = SWEEP_OPENED_AT.max(opened.map.len() * 2);
            let room = opened.sweep_at;
            opened.map.shrink_to(room);
        }
    }

    /// Its connect handler is there.
    pub(crate) fn take_open(&self, key: SocketKey) -> Option<OpenInbox> {
        self.opened.lock().map.remove(&key)
    }

    /// A session that has just begun: with polling, or by this WebSocket. Takes the
    /// engine's open packet without its type.
    pub(crate) fn begun(self: &Arc<Self>, open: &[u8], wire: Option<&Arc<Wire>>) {
        #[derive(serde::Deserialize)]
        struct Open {
            sid: String,
        }
        let open: Option<Open> = serde_json::from_slice(open).ok();
        let Some(Ok(sid)) = open.map(|open| Sid::from_str(&open.sid)) else { return };
        let line = Line::new(self, sid, wire.is_none());
        if let Some(wire) = wire {
            line.probe(wire);
        }
        let mut sessions = self.sessions.lock();
        // One that is there already stays.
        sessions.lines.insert(BySid(line));
        if sessions.lines.len() >= sessions.sweep_at {
            let (now, idle) = (Instant::now(), self.settings.idle_polling);
            sessions.lines.retain(|BySid(line)| {
                let heard = line.polling.lock().as_ref().map(|polling| polling.heard);
                !line.sockets.lock().is_empty()
                    || heard.is_none_or(|heard| now.duration_since(heard) < idle)
            });
            // Twice what is left, so that looking costs each session little.
            sessions.sweep_at = SWEEP_AT.max(sessions.lines.len() * 2);
        }
    }

    /// The session is no more.
    pub(crate) fn forget(&self, sid: Sid) {
        let forgotten = self.sessions.lock().lines.take(&sid);
        // Dropped without the lock: a connection may close with it.
        drop(forgotten);
    }

    pub(crate) fn set_closer(&self, closer: Closer) {
        self.closer.set(closer).ok();
    }

    /// Has the engine close a polling session.
    pub(crate) fn close_session(&self, sid: Sid) {
        if let Some(close) = self.closer.get() {
            close(sid);
        }
    }
}

/// See [`Core::gather`].
pub struct Gathering<'a> {
    core: &'a Core,
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        if self.core.gathering.fetch_sub(1, Ordering::AcqRel) == 1 {
            for flusher in &self.core.flushers {
                if !flusher.touched.lock().wires.is_empty() {
                    flusher.wake.notify_one();
                }
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        for flusher in &self.flushers {
            flusher.wake.notify_one();
        }
    }
}

/// A moment's view of the sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Engine sessions.
    pub sessions: usize,
    /// Those that are written to directly.
    pub direct: usize,
    /// Bytes that wait for all of them.
    pub waiting_bytes: usize,
}

impl Flusher {
    fn new(core: Weak<Core>) -> Self {
        Self {
            core,
            touched: Mutex::default(),
            wake: Notify::new(),
            waits_since: AtomicUsize::new(0),
        }
    }

    /// Something waits for this socket.
    pub(crate) fn touch(&self, wire: &Arc<Wire>) {
        let mut touched = self.touched.lock();
        touched.wires.push(wire.clone());
        let first = touched.wires.len() == 1;
        if first {
            touched.since = Some(Instant::now());
        }
        drop(touched);
        if first {
            self.wake.notify_one();
        }
    }

    /// One write for each socket that was touched, whatever waits for it.
    async fn flush_all(&self, core: &Core) {
        loop {
            // The end of the last guard wakes us again; but others may follow it
            // without end, so only so many are waited for.
            if core.gathering.load(Ordering::Acquire) > 0 {
                let now = core.gathers.load(Ordering::Acquire);
                let since = match self.waits_since.load(Ordering::Acquire) {
                    0 => now,
                    since => since,
                };
                self.waits_since.store(since, Ordering::Release);
                if now - since < GUARDS {
                    return;
                }
            }
            let touched = std::mem::take(&mut *self.touched.lock());
            self.waits_since.store(0, Ordering::Release);
            if touched.wires.is_empty() {
                return;
            }
            for turn in touched.wires.chunks(TURN) {
                let mut carried = Carried::default();
                for wire in turn {
                    match wire.out.flush(&mut carried) {
                        Written::Clean => {}
                        Written::Blocked => wire.drain(),
                        Written::Ended => wire.end(),
                    }
                }
                core.count(carried);
                tokio::task::yield_now().await;
            }
            if let (Some(flushed), Some(since)) = (core.settings.flushed, touched.since) {
                flushed(since.elapsed());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn open_inboxes_are_kept_for_their_sockets_and_no_longer() {
        let core = Core::new(Settings::default());
        let inbox = |feed: &Arc<dyn Any + Send + Sync>| OpenInbox {
            feed: Arc::downgrade(feed),
            data: Some(Box::new(7)),
        };
        let alive: Arc<dyn Any + Send + Sync> = Arc::new(());
        core.keep_open((Sid::ZERO, 0), inbox(&alive));
        for n in 1..10_000 {
            let gone: Arc<dyn Any + Send + Sync> = Arc::new(());
            core.keep_open((Sid::ZERO, n), inbox(&gone));
            assert!(core.opened.lock().map.len() <= SWEEP_OPENED_AT);
        }
        let kept = core.take_open((Sid::ZERO, 0)).unwrap();
        assert!(kept.feed.upgrade().is_some() && kept.data.unwrap().is::<i32>());
        assert!(core.take_open((Sid::ZERO, 0)).is_none());
    }
}
