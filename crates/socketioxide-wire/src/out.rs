//! What waits to be written to one socket: the state machine, without a runtime.
//!
//! Whoever sends puts bytes in with [`Out::push`]; a flusher writes them with
//! [`Out::flush`]; when the kernel takes no more, one drainer waits until it does
//! and calls [`Out::resume`]. What waits is always in somebody's care: `touched`
//! says that a flusher is on its way, `writing` that somebody writes, `draining`
//! that a drainer waits. The tests in `tests/model.rs` run this file under a model checker.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;

use bytes::Bytes;

use super::sync::{Mutex, MutexGuard};

/// A non-blocking socket.
pub(crate) trait Socket {
    /// Writes what the kernel takes now; with `force` also if it has not said that it
    /// is ready.
    fn try_write(&self, parts: &[IoSlice<'_>], force: bool) -> io::Result<usize>;
    /// Ends one or both directions.
    fn shutdown(&self, how: Shutdown);
}

/// Counted for each message beside its bytes: its place in the queue.
const OVERHEAD: usize = 64;
/// Messages in one write: `IOV_MAX` is 1024, and more than this gains nothing.
const PARTS: usize = 64;
/// With so much waiting the sender writes itself, rather than let a burst run
/// into the limit before the flusher has had its turn.
const WRITE_AT: usize = 64 * 1024;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits, and somebody is on its way to write it.
    Waits,
    /// It waits: the caller must see to a [`Out::flush`].
    Touched,
    /// The kernel takes no more: the caller must see to a drainer.
    Blocked,
    /// It was droppable, and half of the limit waits.
    Dropped,
    /// It went over the limit: the socket was ended by this.
    Full,
    /// The socket had ended.
    Ended,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing waits any more, or somebody else writes.
    Clean,
    /// The kernel takes no more: the caller must see to a drainer.
    Blocked,
    /// The socket has ended.
    Ended,
}

/// How much one write carried.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) writes: u64,
    pub(crate) messages: u64,
}

enum Phase {
    Open,
    /// Takes no more; this much is shut down when all is written.
    Closing(Shutdown),
    Ended,
}

struct State {
    queue: VecDeque<Bytes>,
    /// Bytes of the first that are written.
    offset: usize,
    /// Cost of the queue, and of what a writer has taken from it.
    waiting: usize,
    touched: bool,
    /// Somebody writes right now, without the lock, and looks again when it is done.
    writing: bool,
    draining: bool,
    phase: Phase,
}

/// The way out of one socket.
pub(crate) struct Out<S> {
    socket: S,
    limit: usize,
    // Never held across an await.
    state: Mutex<State>,
}

impl<S: Socket> Out<S> {
    /// `limit` is the most that may wait, in bytes.
    pub(crate) fn new(socket: S, limit: usize) -> Self {
        let state = Mutex::new(State {
            queue: VecDeque::new(),
            offset: 0,
            waiting: 0,
            touched: false,
            writing: false,
            draining: false,
            phase: Phase::Open,
        });
        Self { socket, limit, state }
    }

    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Ended)
    }

    /// Puts a message behind all others.
    pub(crate) fn push(&self, bytes: Bytes, droppable: bool) -> Pushed {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Open) {
            return Pushed::Ended;
        }
        if droppable && state.waiting >= self.limit / 2 {
            return Pushed::Dropped;
        }
        if !self.enqueue(&mut state, bytes) {
            return Pushed::Full;
        }
        if state.draining || state.writing {
            return Pushed::Waits;
        }
        if state.waiting >= WRITE_AT {
            let mut carried = Carried::default();
            return match self.write(state, &mut carried, false) {
                Written::Clean => Pushed::Waits,
                Written::Blocked => Pushed::Blocked,
                Written::Ended => Pushed::Ended,
            };
        }
        if std::mem::replace(&mut state.touched, true) { Pushed::Waits } else { Pushed::Touched }
    }

    /// Writes behind all others, at once if nothing waits. For bytes that are the
    /// caller's: they are copied if the kernel doesn't take them now.
    pub(crate) fn write_through(&self, bytes: &[u8]) -> Pushed {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Open) {
            return Pushed::Ended;
        }
        let mut rest = bytes;
        if state.queue.is_empty() && !state.writing {
            match self.socket.try_write(&[IoSlice::new(bytes)], false) {
                Ok(count) => rest = &bytes[count..],
                Err(error) if is_transient(&error) => {}
                Err(_) => {
                    self.end_locked(&mut state);
                    return Pushed::Ended;
                }
            }
        }
        if rest.is_empty() {
            return Pushed::Waits;
        }
        if !self.enqueue(&mut state, Bytes::copy_from_slice(rest)) {
            return Pushed::Full;
        }
        if state.draining || state.writing || state.touched {
            return Pushed::Waits;
        }
        state.draining = true;
        Pushed::Blocked
    }

    /// A lone message goes over the limit only if it must wait for others.
    fn enqueue(&self, state: &mut State, bytes: Bytes) -> bool {
        let cost = bytes.len() + OVERHEAD;
        if state.waiting > 0 && state.waiting + cost > self.limit {
            self.end_locked(state);
            return false;
        }
        state.waiting += cost;
        state.queue.push_back(bytes);
        true
    }

    /// Writes what waits, for the flusher.
    pub(crate) fn flush(&self, carried: &mut Carried) -> Written {
        let mut state = self.state.lock();
        state.touched = false;
        if state.draining || state.writing {
            Written::Clean
        } else {
            self.write(state, carried, false)
        }
    }

    /// Writes what waits, for the drainer, when the kernel may take it again.
    pub(crate) fn resume(&self, carried: &mut Carried, force: bool) -> Written {
        let mut state = self.state.lock();
        state.draining = false;
        self.write(state, carried, force)
    }

    /// Writes all that waits, or what the kernel takes. The lock is not held during
    /// the system calls: a sender that goes through many sockets would otherwise
    /// meet the flusher at every one of them.
    fn write<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        carried: &mut Carried,
        force: bool,
    ) -> Written {
        loop {
            if matches!(state.phase, Phase::Ended) {
                return Written::Ended;
            }
            if state.queue.is_empty() {
                break;
            }
            // Not all at once: what is written should soon make room.
            let queue = if state.queue.len() > PARTS {
                state.queue.drain(..PARTS).collect()
            } else {
                std::mem::take(&mut state.queue)
            };
            let mut batch = Batch { queue, offset: std::mem::take(&mut state.offset), written: 0 };
            state.writing = true;
            drop(state);
            let done = batch.write(&self.socket, carried, force);
            state = self.state.lock();
            state.writing = false;
            if matches!(state.phase, Phase::Ended) {
                return Written::Ended;
            }
            state.waiting -= batch.written;
            if let Err(error) = done {
                if error.kind() != io::ErrorKind::WouldBlock {
                    self.end_locked(&mut state);
                    return Written::Ended;
                }
                batch.queue.append(&mut state.queue);
                state.queue = batch.queue;
                state.offset = batch.offset;
                state.draining = true;
                return Written::Blocked;
            }
        }
        // Given back: an idle socket keeps no buffer.
        state.queue = VecDeque::new();
        if let Phase::Closing(how) = state.phase {
            match how {
                Shutdown::Both => self.end_locked(&mut state),
                half => self.socket.shutdown(half),
            }
        }
        Written::Clean
    }

    /// Ends the socket now; what waits is lost.
    pub(crate) fn end(&self) {
        self.end_locked(&mut self.state.lock());
    }

    /// Takes nothing more, and ends this much when all is written.
    pub(crate) fn finish(&self, how: Shutdown) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Ended | Phase::Closing(Shutdown::Both)) {
            return;
        }
        state.phase = Phase::Closing(how);
        if state.queue.is_empty() && !state.writing {
            match how {
                Shutdown::Both => self.end_locked(&mut state),
                half => self.socket.shutdown(half),
            }
        }
    }

    fn end_locked(&self, state: &mut State) {
        if !matches!(state.phase, Phase::Ended) {
            state.phase = Phase::Ended;
            state.queue = VecDeque::new();
            state.offset = 0;
            state.waiting = 0;
            self.socket.shutdown(Shutdown::Both);
        }
    }
}

/// What one writer has taken.
struct Batch {
    queue: VecDeque<Bytes>,
    offset: usize,
    /// Cost of what is written.
    written: usize,
}

impl Batch {
    fn write(
        &mut self,
        socket: &impl Socket,
        carried: &mut Carried,
        force: bool,
    ) -> io::Result<()> {
        while !self.queue.is_empty() {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let mut count = 0;
            for (part, bytes) in parts.iter_mut().zip(&self.queue) {
                let from = if count == 0 { self.offset } else { 0 };
                *part = IoSlice::new(&bytes[from..]);
                count += 1;
            }
            match socket.try_write(&parts[..count], force) {
                Ok(written) => {
                    carried.writes += 1;
                    carried.messages += self.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// So many bytes went out; says how many messages that completed.
    fn advance(&mut self, written: usize) -> u64 {
        let mut completed = 0;
        self.offset += written;
        while let Some(first) = self.queue.front()
            && self.offset >= first.len()
        {
            self.offset -= first.len();
            self.written += first.len() + OVERHEAD;
            self.queue.pop_front();
            completed += 1;
        }
        completed
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
