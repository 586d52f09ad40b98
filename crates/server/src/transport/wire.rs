//! A TCP connection whose writes never block once it is a WebSocket.
//!
//! The engine's writer waits for the peer to read, for ever, and with it the
//! close of the session. Here a write takes all it is given: what the kernel
//! doesn't take waits in a backlog that a short-lived task drains. When the
//! backlog passes its limit, or nothing moves for the write timeout, the
//! connection ends: the reader sees that, and the disconnect handler runs.
//!
//! Plain HTTP (polling, REST) has back-pressure from hyper and is left alone.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::public_id;

/// Bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub struct WireLimits {
    /// Bytes that may wait for a slow reader.
    pub backlog_bytes: usize,
    /// How long the peer may take nothing while something waits.
    pub write_timeout: Duration,
}

/// A connection, shared by the engine that reads and writes it and by those who
/// may have to end it.
pub struct Wire {
    stream: TcpStream,
    limits: WireLimits,
    websocket: AtomicBool,
    /// The answer to CONNECT may still come this way.
    greeting: AtomicBool,
    // Never held across an await; guards the backlog and the flags about it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    backlog: VecDeque<u8>,
    draining: bool,
    dead: bool,
    close_when_drained: bool,
    end_when_drained: bool,
    paused: bool,
    reader: Option<Waker>,
}

impl Wire {
    /// Takes over an accepted connection.
    #[must_use]
    pub fn new(stream: TcpStream, limits: WireLimits) -> Arc<Self> {
        let state = Mutex::default();
        let (websocket, greeting) = (AtomicBool::new(false), AtomicBool::new(true));
        Arc::new(Self { stream, limits, websocket, greeting, state })
    }

    /// From now on this is a WebSocket: writes never block.
    pub fn becomes_websocket(&self) {
        self.websocket.store(true, Ordering::Release);
    }

    /// Ends the connection, in both directions, at once.
    pub fn end(&self) {
        let mut state = self.state.lock();
        self.end_locked(&mut state);
    }

    fn end_locked(&self, state: &mut State) {
        if !state.dead {
            state.dead = true;
            state.backlog = VecDeque::new();
            socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Both).ok();
        }
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Stops or resumes reading: TCP then tells the client to wait.
    pub fn pause(&self, paused: bool) {
        let mut state = self.state.lock();
        state.paused = paused;
        if !paused && let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Bytes that wait for the peer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().backlog.len()
    }

    fn write(self: &Arc<Self>, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if state.dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut rest = bytes;
        if state.backlog.is_empty() {
            match self.stream.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if !rest.is_empty() {
            if state.backlog.len() + rest.len() > self.limits.backlog_bytes {
                metrics::counter!("starling_slow_readers_closed_total", "why" => "backlog")
                    .increment(1);
                self.end_locked(&mut state);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            state.backlog.extend(rest);
            if !state.draining {
                state.draining = true;
                tokio::spawn(self.clone().drain());
            }
        }
        Ok(bytes.len())
    }

    async fn drain(self: Arc<Self>) {
        loop {
            let writable = tokio::time::timeout(self.limits.write_timeout, self.stream.writable());
            let ready = matches!(writable.await, Ok(Ok(())));
            let mut state = self.state.lock();
            if !ready {
                metrics::counter!("starling_slow_readers_closed_total", "why" => "timeout")
                    .increment(1);
                self.end_locked(&mut state);
            }
            while !state.backlog.is_empty() {
                let (head, _) = state.backlog.as_slices();
                match self.stream.try_write(head) {
                    Ok(count) => drop(state.backlog.drain(..count)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => self.end_locked(&mut state),
                }
            }
            if state.backlog.is_empty() {
                // Given back: an idle connection keeps no buffer.
                state.backlog = VecDeque::new();
                state.draining = false;
                if state.end_when_drained {
                    self.end_locked(&mut state);
                } else if state.close_when_drained {
                    socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write).ok();
                }
                return;
            }
        }
    }

    /// The engine let go: what still waits goes out, then the connection ends,
    /// whoever else holds a handle to it.
    fn let_go(&self) {
        let mut state = self.state.lock();
        if state.draining {
            state.end_when_drained = true;
        } else {
            self.end_locked(&mut state);
        }
    }

    fn shut_down(&self) {
        let mut state = self.state.lock();
        state.close_when_drained = true;
        if !state.draining {
            socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write).ok();
        }
    }
}

/// A handle that keeps nothing open: a file descriptor closes with the last owner.
#[derive(Clone)]
pub struct WireRef(pub Weak<Wire>);

/// The end that hyper and the engine hold.
pub struct Conn(pub Arc<Wire>);

impl Drop for Conn {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            {
                let mut state = self.0.state.lock();
                if state.dead {
                    return Poll::Ready(Ok(()));
                }
                if state.paused {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
            ready!(self.0.stream.poll_read_ready(cx))?;
            match self.0.stream.try_read(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.websocket.load(Ordering::Acquire) {
            // Small and flushed whole, the answer is never split over two writes.
            if self.0.greeting.load(Ordering::Relaxed)
                && let Some(bytes) = public_id::rewrite(bytes)
            {
                self.0.greeting.store(false, Ordering::Relaxed);
                return Poll::Ready(self.0.write(&bytes));
            }
            return Poll::Ready(self.0.write(bytes));
        }
        loop {
            ready!(self.0.stream.poll_write_ready(cx))?;
            match self.0.stream.try_write(bytes) {
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
        self.0.shut_down();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair(limits: WireLimits) -> (Arc<Wire>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let wire = Wire::new(server, limits);
        wire.becomes_websocket();
        (wire, client)
    }

    #[tokio::test]
    async fn a_slow_reader_gets_every_byte_in_order() {
        let limits = WireLimits { backlog_bytes: 64 << 20, write_timeout: Duration::from_secs(10) };
        let (wire, mut client) = pair(limits).await;
        let mut conn = Conn(wire.clone());
        let sent: Vec<u8> = (0..8 << 20).map(|n: u32| (n % 251) as u8).collect();
        for chunk in sent.chunks(10_007) {
            conn.write_all(chunk).await.unwrap();
        }
        assert!(wire.waiting() > 0);
        conn.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        assert_eq!(wire.waiting(), 0);
    }

    #[tokio::test]
    async fn a_stuck_reader_is_ended_at_the_byte_limit() {
        let limits = WireLimits { backlog_bytes: 1 << 20, write_timeout: Duration::from_secs(600) };
        let (wire, _client) = pair(limits).await;
        let mut conn = Conn(wire);
        let chunk = vec![0; 64 << 10];
        let mut written = 0;
        while conn.write_all(&chunk).await.is_ok() {
            written += chunk.len();
            assert!(written < 1 << 30, "never ended");
        }
        assert_eq!(conn.read(&mut [0; 8]).await.unwrap(), 0, "the reader sees the end");
    }

    #[tokio::test]
    async fn a_stuck_reader_is_ended_after_the_write_timeout() {
        let limits =
            WireLimits { backlog_bytes: 64 << 20, write_timeout: Duration::from_millis(50) };
        let (wire, _client) = pair(limits).await;
        let mut conn = Conn(wire.clone());
        let chunk = vec![0; 64 << 10];
        while wire.waiting() == 0 {
            conn.write_all(&chunk).await.unwrap();
        }
        assert_eq!(conn.read(&mut [0; 8]).await.unwrap(), 0, "the reader sees the end");
    }

    #[tokio::test]
    async fn a_paused_connection_is_read_again_when_resumed() {
        let limits = WireLimits { backlog_bytes: 1 << 20, write_timeout: Duration::from_secs(9) };
        let (wire, mut client) = pair(limits).await;
        wire.pause(true);
        client.write_all(b"x").await.unwrap();
        let mut conn = Conn(wire.clone());
        let reading = tokio::spawn(async move { conn.read_u8().await.unwrap() });
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        wire.pause(false);
        assert_eq!(reading.await.unwrap(), b'x');
    }
}
