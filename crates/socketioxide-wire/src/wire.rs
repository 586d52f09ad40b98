//! A TCP connection as hyper and the engine see it: [`Conn`].
//!
//! While it carries HTTP it is a plain stream with back-pressure. Once it is a
//! WebSocket, its writes never block: the engine's writer would wait for a peer
//! that doesn't read, for ever, and with it the close of the session. Since every
//! write is taken whole, and tungstenite hands over whole frames, frames that
//! others write in between can't cut one.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::core::{Core, Flusher};
use crate::frame;
use crate::line::Line;
use crate::out::{Carried, Out, Pushed, Socket, Written};
use crate::stats::add;

/// Bytes read at once, for all connections of a thread: what the engine doesn't
/// take of them is kept with the connection.
const READ_AHEAD: usize = 16 * 1024;

/// How often to try a peer that takes nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AHEAD]);
}

impl Socket for TcpStream {
    fn try_write(&self, parts: &[IoSlice<'_>], force: bool) -> io::Result<usize> {
        let socket = socket2::SockRef::from(self);
        let write = || match parts {
            [part] => socket.send(part),
            parts => socket.send_vectored(parts),
        };
        if force { write() } else { self.try_io(Interest::WRITABLE, write) }
    }

    fn shutdown(&self, how: Shutdown) {
        // It may have ended by itself.
        socket2::SockRef::from(self).shutdown(how).ok();
    }
}

/// What is shared of a connection.
pub(crate) struct Wire {
    pub(crate) out: Out<TcpStream>,
    flusher: Arc<Flusher>,
    /// The engine session that it serves.
    line: OnceLock<Weak<Line>>,
    websocket: AtomicBool,
    /// It may take over from polling with any message of the client.
    probing: AtomicBool,
    // Never held across an await; guards what the reader needs.
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    /// Boxed, since there is hardly ever something.
    unread: Option<Box<Bytes>>,
    paused: bool,
    reader: Option<Waker>,
}

impl Read {
    fn keep(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.unread = Some(Box::new(Bytes::copy_from_slice(bytes)));
        }
    }
}

impl Wire {
    pub(crate) fn becomes_websocket(&self, rest: &[u8]) {
        // A copy: the buffer that it comes from is hyper's 8 KiB.
        self.read.lock().keep(rest);
        self.websocket.store(true, Ordering::Release);
    }

    pub(crate) fn serves(&self, line: &Arc<Line>) {
        self.line.set(Arc::downgrade(line)).ok();
        self.probing.store(true, Ordering::Release);
    }

    pub(crate) fn took_over(&self) {
        self.probing.store(false, Ordering::Release);
    }

    fn core(&self) -> Option<Arc<Core>> {
        self.flusher.core.upgrade()
    }

    fn line(&self) -> Option<Arc<Line>> {
        self.line.get()?.upgrade()
    }

    /// Ends the connection in both directions, at once.
    pub(crate) fn end(&self) {
        self.out.end();
        self.wake_reader();
    }

    fn wake_reader(&self) {
        let reader = self.read.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Stops or resumes reading: TCP then tells the client to wait.
    pub(crate) fn pause(&self, paused: bool) {
        self.read.lock().paused = paused;
        if !paused {
            self.wake_reader();
        }
    }

    /// Sees to what a push left to its caller. True if the message is on its way.
    pub(crate) fn pushed(self: &Arc<Self>, pushed: Pushed) -> bool {
        match pushed {
            Pushed::Waits => true,
            Pushed::Touched => {
                self.flusher.touch(self);
                true
            }
            Pushed::Blocked => {
                self.drain();
                true
            }
            Pushed::Dropped => {
                if let Some(core) = self.core() {
                    add(&core.counters.dropped, 1);
                }
                false
            }
            Pushed::Full => {
                if let Some(core) = self.core() {
                    add(&core.counters.ended_by_limit, 1);
                    tracing::debug!("a socket was ended: too much waited for its peer");
                }
                self.wake_reader();
                false
            }
            Pushed::Ended => false,
        }
    }

    /// Writes as soon as the kernel takes more, until nothing waits; ends the socket
    /// when it took nothing for the write timeout.
    pub(crate) fn drain(self: &Arc<Self>) {
        let wire = self.clone();
        let Some(timeout) = self.core().map(|core| core.settings.write_timeout) else {
            return self.end();
        };
        tokio::spawn(async move {
            let look = (timeout / 8).clamp(Duration::from_millis(10), LOOK_EVERY);
            let mut progress = Instant::now();
            loop {
                // The kernel says that it is ready when a third of its buffer is free:
                // with a slow reader that can take longer than the timeout. So it is
                // also tried now and then.
                let ready = tokio::time::timeout(look, wire.out.socket().writable()).await;
                let mut carried = Carried::default();
                let written = match ready {
                    Ok(Ok(())) => wire.out.resume(&mut carried, false),
                    Ok(Err(_)) => Written::Ended,
                    Err(_) => wire.out.resume(&mut carried, true),
                };
                let now = Instant::now();
                if carried.writes > 0 {
                    progress = now;
                }
                let core = wire.core();
                if let Some(core) = &core {
                    core.count(carried);
                }
                match written {
                    Written::Blocked if now.duration_since(progress) < timeout => {}
                    Written::Blocked => {
                        if let Some(core) = &core {
                            add(&core.counters.ended_by_timeout, 1);
                        }
                        tracing::debug!("a socket was ended: its peer took nothing for too long");
                        return wire.end();
                    }
                    Written::Clean => return,
                    Written::Ended => return wire.end(),
                }
            }
        });
    }
}

/// The end of a connection that hyper and the engine hold.
pub struct Conn(pub(crate) Arc<Wire>);

impl Conn {
    /// For an accepted connection, with the core's limits.
    #[must_use]
    pub fn new(stream: TcpStream, core: &Arc<Core>) -> Self {
        // Small frames go out at once.
        stream.set_nodelay(true).ok();
        Self(Arc::new(Wire {
            out: Out::new(stream, core.settings.waiting_bytes),
            flusher: core.flusher(),
            line: OnceLock::new(),
            websocket: AtomicBool::new(false),
            probing: AtomicBool::new(false),
            read: Mutex::default(),
        }))
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // What waits goes out, then the connection ends, whoever else has a handle.
        self.0.out.finish(Shutdown::Both);
        if let Some(line) = self.0.line() {
            line.lost(&self.0);
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &self.0;
        if wire.probing.load(Ordering::Acquire)
            && let Some(line) = wire.line()
        {
            line.take_over();
        }
        loop {
            {
                let mut read = wire.read.lock();
                if wire.out.has_ended() {
                    return Poll::Ready(Ok(()));
                }
                if read.paused {
                    read.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                if let Some(unread) = &mut read.unread {
                    let count = unread.len().min(buf.remaining());
                    buf.put_slice(&unread.split_to(count));
                    if unread.is_empty() {
                        read.unread = None;
                    }
                    return Poll::Ready(Ok(()));
                }
            }
            ready!(wire.out.socket().poll_read_ready(cx))?;
            let got = if buf.remaining() >= READ_AHEAD / 2 {
                let got = wire.out.socket().try_read(buf.initialize_unfilled());
                got.map(|count| buf.advance(count))
            } else {
                BUFFER.with_borrow_mut(|ahead| {
                    let count = wire.out.socket().try_read(ahead)?;
                    let (now, later) = ahead[..count].split_at(count.min(buf.remaining()));
                    buf.put_slice(now);
                    wire.read.lock().keep(later);
                    Ok(())
                })
            };
            match got {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl Conn {
    /// The engine's frames: its fences end here, the rest goes out.
    fn write_frames(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(core) = self.0.core() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut plain = 0;
        let mut at = 0;
        while let Some(seen) = frame::first(&bytes[at..]) {
            let end = at + seen.len;
            if seen.text
                && self.0.line.get().is_none()
                && let Some(open) = seen.payload.strip_prefix(b"0")
            {
                core.begun(open, Some(&self.0));
            }
            // The answer to the probe comes while the client still polls; anything
            // else after the upgrade.
            if seen.payload != b"3probe"
                && self.0.probing.load(Ordering::Acquire)
                && let Some(line) = self.0.line()
            {
                line.write_rest(&self.0);
            }
            let is_fence = seen.text && core.is_fence(seen.payload);
            let answer = match &core.public_ids {
                Some(ids) if seen.text => ids.rewrite(seen.payload),
                _ => None,
            };
            if is_fence || answer.is_some() {
                self.write_plain(&bytes[plain..at])?;
                plain = end;
            }
            if let Some(answer) = answer {
                let header = seen.len - seen.payload.len();
                let mut frame = bytes[at..at + header].to_vec();
                frame.extend_from_slice(&answer);
                self.write_plain(&frame)?;
            }
            if is_fence && let Some(line) = self.0.line() {
                line.fence_passed();
            }
            at = end;
        }
        self.write_plain(&bytes[plain..])?;
        Ok(bytes.len())
    }

    fn write_plain(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let pushed = self.0.out.write_through(bytes);
        if self.0.pushed(pushed) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.websocket.load(Ordering::Acquire) {
            return Poll::Ready(self.write_frames(bytes));
        }
        let stream = self.0.out.socket();
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.poll_write(cx, first)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.out.finish(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
