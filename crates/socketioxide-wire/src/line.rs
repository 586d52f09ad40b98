//! An Engine.IO session and the one way out that it has now.
//!
//! While the client polls, all goes through the engine's channel. Once it has a
//! WebSocket, all but the engine's own packets (open, CONNECT, ping, disconnect)
//! is written directly. In between nothing may overtake what still waits in the
//! channel: so a *fence*, an event that no client ever sees, is sent through it,
//! and what is sent meanwhile is held until the fence comes out at the other end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use socketioxide::socket::Sid;
use socketioxide::{SendError, SocketError};

use crate::core::Core;
use crate::out::Pushed;
use crate::polling::Polling;
use crate::stats::add;
use crate::wire::Wire;

/// An engine session.
pub(crate) struct Line {
    pub(crate) sid: Sid,
    pub(crate) core: Weak<Core>,
    ended: AtomicBool,
    // Never held across an await.
    mode: Mutex<Mode>,
    /// What only polling needs; gone with the upgrade.
    pub(crate) polling: Mutex<Option<Box<Polling>>>,
    /// Its namespaces' sockets.
    pub(crate) sockets: Mutex<Sockets>,
}

/// The sockets of a session: hardly ever more than one, and then in two words.
pub(crate) enum Sockets {
    One(Weak<dyn Engine>),
    Others(Option<Several>),
}

type Several = Box<Vec<Weak<dyn Engine>>>;

impl Default for Sockets {
    fn default() -> Self {
        Self::Others(None)
    }
}

impl Sockets {
    pub(crate) fn add(&mut self, socket: Weak<dyn Engine>) {
        *self = match std::mem::take(self) {
            Self::Others(None) => Self::One(socket),
            Self::One(first) => Self::Others(Some(Box::new(vec![first, socket]))),
            Self::Others(Some(mut sockets)) => {
                sockets.push(socket);
                Self::Others(Some(sockets))
            }
        };
    }

    /// Removes the socket at this address.
    pub(crate) fn remove(&mut self, socket: *const ()) {
        let is_it = |other: &Weak<dyn Engine>| std::ptr::addr_eq(other.as_ptr(), socket);
        match self {
            Self::One(only) if is_it(only) => *self = Self::default(),
            Self::One(_) | Self::Others(None) => {}
            Self::Others(Some(sockets)) => sockets.retain(|other| !is_it(other)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Others(sockets) => sockets.as_ref().is_none_or(|sockets| sockets.is_empty()),
        }
    }

    /// The newest one.
    fn last(&self) -> Option<Arc<dyn Engine>> {
        match self {
            Self::One(only) => only.upgrade(),
            Self::Others(sockets) => sockets.as_ref()?.last()?.upgrade(),
        }
    }
}

enum Mode {
    /// By the engine's channel. A WebSocket may be about to take over.
    Engine(Option<Arc<Wire>>),
    /// Behind fences: each item either is one or waits for those before it.
    Held(Arc<Wire>, Box<Waiting>),
    /// Straight to the socket.
    Direct(Arc<Wire>),
    /// The session has lost its transport.
    Gone,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Held>,
    bytes: usize,
}

enum Held {
    Fence,
    Frame(Bytes),
}

/// A namespace's socket, as far as fences need it.
pub(crate) trait Engine: Send + Sync {
    /// To its namespace: only then can it send.
    fn is_connected(&self) -> bool;
    fn is_websocket(&self) -> bool;
    fn fence(&self, token: &str) -> Result<(), SendError>;
}

impl Line {
    pub(crate) fn new(core: &Arc<Core>, sid: Sid, polls: bool) -> Arc<Self> {
        Arc::new(Self {
            sid,
            core: Arc::downgrade(core),
            ended: AtomicBool::new(false),
            mode: Mutex::new(Mode::Engine(None)),
            polling: Mutex::new(polls.then(|| Box::new(Polling::new(Instant::now())))),
            sockets: Mutex::default(),
        })
    }

    /// Of a session that is no more.
    pub(crate) fn gone(core: &Arc<Core>, sid: Sid) -> Arc<Self> {
        let line = Self::new(core, sid, false);
        *line.mode.lock() = Mode::Gone;
        line
    }

    /// A WebSocket may take over from polling. False if one did, or is about to.
    pub(crate) fn probe(self: &Arc<Self>, wire: &Arc<Wire>) -> bool {
        let mut mode = self.mode.lock();
        if !matches!(*mode, Mode::Engine(None)) || self.has_ended() {
            return false;
        }
        wire.serves(self);
        *mode = Mode::Engine(Some(wire.clone()));
        true
    }

    /// A namespace's socket is connected: its events wait until
    /// the answer to its CONNECT, which is in the channel, is through.
    pub(crate) fn connected(&self, socket: &dyn Engine) {
        let mut mode = self.mode.lock();
        match &mut *mode {
            Mode::Engine(Some(_)) => self.try_take_over(&mut mode, socket),
            Mode::Direct(_) | Mode::Held(..) => {
                self.raise_fence(&mut mode, socket);
            }
            Mode::Engine(None) | Mode::Gone => {}
        }
    }

    /// The client spoke by the WebSocket that probes.
    pub(crate) fn take_over(&self) {
        let Some(socket) = self.sockets.lock().last() else { return };
        let mut mode = self.mode.lock();
        if matches!(*mode, Mode::Engine(Some(_))) {
            self.try_take_over(&mut mode, &*socket);
        }
    }

    /// The engine is about to write to the WebSocket that probes: what polls have
    /// left is older, and goes first.
    pub(crate) fn write_rest(&self, wire: &Arc<Wire>) {
        // Under the lock, so that nobody writes while another has taken these.
        let mut polling = self.polling.lock();
        for frame in polling.as_mut().map(|polling| polling.rest_as_frames()).unwrap_or_default() {
            wire.pushed(wire.out.write_through(&frame));
        }
    }

    /// Once the engine writes to the WebSocket, nothing is taken from its channel
    /// by polls any more: a fence through it separates old from new.
    fn try_take_over(&self, mode: &mut Mode, socket: &dyn Engine) {
        if !socket.is_websocket() {
            return;
        }
        if let Mode::Engine(Some(wire)) = mode {
            self.write_rest(wire);
        }
        self.raise_fence(mode, socket);
        if let Mode::Held(wire, ..) = mode {
            wire.took_over();
            if let Some(polling) = self.polling.lock().take() {
                // Who had to wait goes on waiting.
                wire.pause(polling.is_paused());
                if let Some(core) = self.core.upgrade() {
                    add(&core.counters.upgrades, 1);
                }
            }
        }
    }

    /// Sends a fence. Whatever is sent from here on waits for it. False when the
    /// engine has closed the session, or the socket has left its namespace.
    fn raise_fence(&self, mode: &mut Mode, socket: &dyn Engine) -> bool {
        let Some(core) = self.core.upgrade() else { return false };
        if !socket.is_connected() {
            return false;
        }
        if matches!(*mode, Mode::Engine(None) | Mode::Gone) {
            return false;
        }
        let raised = socket.fence(&core.fence);
        if raised.is_err() && !socket.is_connected() {
            // It has left its namespace just now; the session may live on.
            return false;
        }
        let (wire, mut waiting) = match std::mem::replace(mode, Mode::Gone) {
            Mode::Engine(Some(wire)) | Mode::Direct(wire) => (wire, Box::default()),
            Mode::Held(wire, waiting) => (wire, waiting),
            Mode::Engine(None) | Mode::Gone => return false,
        };
        if raised.is_err() {
            // Closed, or a channel so full that nothing can be promised.
            wire.end();
            return false;
        }
        waiting.items.push_back(Held::Fence);
        *mode = Mode::Held(wire, waiting);
        true
    }

    /// A fence came out of the engine: what waited for it follows.
    pub(crate) fn fence_passed(&self) {
        let mut mode = self.mode.lock();
        let Mode::Held(wire, waiting) = &mut *mode else { return };
        let wire = wire.clone();
        waiting.items.pop_front();
        while let Some(Held::Frame(frame)) =
            waiting.items.pop_front_if(|item| matches!(item, Held::Frame(_)))
        {
            waiting.bytes -= frame.len();
            wire.pushed(wire.out.push(frame, false));
        }
        if waiting.items.is_empty() {
            *mode = Mode::Direct(wire);
        }
    }

    /// Sends by the way that the session has now: `frame` makes the bytes for the
    /// wire, `give` hands the message to the engine.
    pub(crate) fn send(
        &self,
        droppable: bool,
        frame: impl FnOnce() -> Option<Bytes>,
        give: impl FnOnce() -> Result<(), SendError>,
    ) -> bool {
        let mut mode = self.mode.lock();
        match &mut *mode {
            Mode::Direct(wire) => {
                frame().is_some_and(|frame| wire.pushed(wire.out.push(frame, droppable)))
            }
            Mode::Held(wire, waiting) => {
                let Some(frame) = frame() else { return false };
                let limit = self.core.upgrade().map_or(0, |core| core.settings.waiting_bytes);
                if droppable && waiting.bytes >= limit / 2 {
                    return wire.pushed(Pushed::Dropped);
                }
                if waiting.bytes > 0 && waiting.bytes + frame.len() > limit {
                    wire.end();
                    return wire.pushed(Pushed::Full);
                }
                waiting.bytes += frame.len();
                waiting.items.push_back(Held::Frame(frame));
                true
            }
            Mode::Engine(_) => self.give(droppable, frame, give),
            Mode::Gone => false,
        }
    }

    /// Gives a message to the engine, within the limit of what it may hold.
    fn give(
        &self,
        droppable: bool,
        frame: impl FnOnce() -> Option<Bytes>,
        give: impl FnOnce() -> Result<(), SendError>,
    ) -> bool {
        let Some(core) = self.core.upgrade() else { return false };
        let size = frame().map_or(0, |frame| frame.len());
        let limit = core.settings.waiting_bytes;
        {
            let mut polling = self.polling.lock();
            let Some(polling) = polling.as_mut() else { return false };
            if droppable && polling.waiting >= limit / 2 {
                add(&core.counters.dropped, 1);
                return false;
            }
            if polling.waiting > 0 && polling.waiting + size > limit {
                add(&core.counters.ended_by_limit, 1);
                self.end_polling(&core);
                return false;
            }
            polling.waiting += size;
        }
        match give() {
            Ok(()) => {
                add(&core.counters.engine_frames, 1);
                true
            }
            Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                // It can't have this one, so it must not have the next either.
                add(&core.counters.ended_by_limit, 1);
                self.end_polling(&core);
                false
            }
            // It has left its namespace, or the payload is none.
            Err(_) => false,
        }
    }

    /// Runs something that only the engine can do, in its place in the order.
    pub(crate) fn by_engine<T>(&self, socket: &dyn Engine, run: impl FnOnce() -> T) -> T {
        let mut mode = self.mode.lock();
        let done = run();
        if matches!(*mode, Mode::Held(..) | Mode::Direct(_)) {
            self.raise_fence(&mut mode, socket);
        }
        done
    }

    /// Ends the transport: the client sees that it was lost, and comes back.
    pub(crate) fn end(&self) {
        let mode = self.mode.lock();
        match &*mode {
            Mode::Held(wire, ..) | Mode::Direct(wire) => {
                self.ended.store(true, Ordering::Release);
                wire.end();
            }
            Mode::Engine(probing) => {
                if let Some(wire) = probing {
                    wire.end();
                }
                if let Some(core) = self.core.upgrade() {
                    self.end_polling(&core);
                }
            }
            Mode::Gone => {}
        }
    }

    fn end_polling(&self, core: &Arc<Core>) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            core.close_session(self.sid);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Stops or resumes taking the client's messages.
    pub(crate) fn pause(&self, paused: bool) {
        match &*self.mode.lock() {
            Mode::Held(wire, ..) | Mode::Direct(wire) | Mode::Engine(Some(wire)) => {
                wire.pause(paused);
            }
            Mode::Engine(None) | Mode::Gone => {}
        }
        if let Some(polling) = self.polling.lock().as_mut() {
            polling.pause(paused);
        }
    }

    /// The engine let a connection go.
    pub(crate) fn lost(&self, wire: &Arc<Wire>) {
        let mut mode = self.mode.lock();
        let ours = match &*mode {
            Mode::Held(own, ..) | Mode::Direct(own) | Mode::Engine(Some(own)) => {
                Arc::ptr_eq(own, wire)
            }
            Mode::Engine(None) | Mode::Gone => false,
        };
        if !ours {
            return;
        }
        let probing = matches!(*mode, Mode::Engine(_)) && self.polling.lock().is_some();
        // Dropped here, so that a socket that is kept in some room keeps no file
        // descriptor.
        *mode = Mode::Gone;
        drop(mode);
        let Some(core) = self.core.upgrade() else { return };
        if probing {
            // The engine answers no poll of a session whose upgrade failed, and no
            // heartbeat ends it.
            self.end_polling(&core);
        }
        core.forget(self.sid);
    }

    /// Bytes that wait for the client.
    pub(crate) fn waiting(&self) -> usize {
        match &*self.mode.lock() {
            Mode::Direct(wire) => wire.out.waiting(),
            Mode::Held(wire, held) => wire.out.waiting() + held.bytes,
            Mode::Engine(_) => self.polling.lock().as_ref().map_or(0, |polling| polling.waiting),
            Mode::Gone => 0,
        }
    }

    pub(crate) fn is_direct(&self) -> bool {
        matches!(&*self.mode.lock(), Mode::Direct(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Socket(u8);

    impl Engine for Socket {
        fn is_connected(&self) -> bool {
            true
        }

        fn is_websocket(&self) -> bool {
            self.0 > 0
        }

        fn fence(&self, _: &str) -> Result<(), SendError> {
            Ok(())
        }
    }

    #[test]
    fn sockets_come_and_go_and_the_newest_is_found() {
        let all: Vec<Arc<Socket>> = (1..4).map(|n| Arc::new(Socket(n))).collect();
        let mut sockets = Sockets::default();
        let is_last = |sockets: &Sockets, expected: Option<&Arc<Socket>>| {
            let address = |socket: &Arc<Socket>| Arc::as_ptr(socket).cast::<()>();
            let last = sockets.last().map(|last| Arc::as_ptr(&last).cast::<()>());
            last == expected.map(address)
        };
        for count in 1..=all.len() {
            for socket in &all[..count] {
                assert!(sockets.is_empty() == Arc::ptr_eq(socket, &all[0]));
                sockets.add(Arc::<Socket>::downgrade(socket));
                assert!(is_last(&sockets, Some(socket)));
            }
            for (n, socket) in all[..count].iter().enumerate() {
                sockets.remove(Arc::as_ptr(socket).cast());
                // Again is fine.
                sockets.remove(Arc::as_ptr(socket).cast());
                let last = all[n + 1..count].last();
                assert!(is_last(&sockets, last) && sockets.is_empty() == last.is_none());
            }
        }
    }
}
