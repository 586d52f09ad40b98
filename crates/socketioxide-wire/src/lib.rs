//! One bounded, ordered and cheap way out for every socket of a
//! [socketioxide](https://docs.rs/socketioxide) server.
//!
//! The engine sends through a channel and a task for each socket. A client that
//! stops reading blocks that task for ever, a burst that fills the channel loses
//! messages, and delivering costs several times what the kernel's `send()` does.
//! No setting changes that. So this crate hands the unmodified engine connections
//! of a type of its own ([`Conn`]), and writes ready frames into them:
//!
//! ```text
//!   request ──► Entry ──► SocketIoService           handshake, CONNECT, ping, disconnect
//!                 │              │ engine's frames
//!                 ▼              ▼
//!   Frame ──► Handle ──►  Line ──► queue ──► flusher ──► one write() a socket
//!   (encoded once)     (one way out)  (bounded)
//! ```
//!
//! - **One way out.** While a client polls, all goes by the engine; from the upgrade
//!   on, all but the engine's own packets is written directly. Nothing is lost,
//!   repeated or overtaken at the switch, nor before the answer to CONNECT.
//! - **Bounds.** What waits for a socket is counted in bytes: at half of the limit
//!   droppable messages are dropped, at the limit the transport is ended, and so it
//!   is when the peer takes nothing for the write timeout. The engine sees the end
//!   of the connection, and the disconnect handler runs.
//! - **Order in.** [`Inbox`] takes a socket's events in the order in which they came,
//!   for one task, and stops reading a client that is faster than that task.
//! - **Cost.** A [`Frame`] is encoded once and shared; a flusher takes all that waits
//!   and does one write for each touched socket. Nothing is ever delayed on purpose.
//!
//! # Use
//!
//! ```no_run
//! use std::convert::Infallible;
//! use socketioxide::SocketIo;
//! use socketioxide::extract::SocketRef;
//! use socketioxide::handler::ConnectHandler;
//! use socketioxide_wire::{Core, Entry, Inbox, Settings};
//!
//! # async fn example() -> std::io::Result<()> {
//! let core = Core::new(Settings::default());
//! let (engine, io) = SocketIo::builder().ws_read_buffer_size(0).build_svc();
//! // Before the answer to CONNECT: nothing that the client does then is missed.
//! let opening = core.clone();
//! let opened = async move |socket: SocketRef| {
//!     Inbox::open(&opening, &socket);
//!     Ok::<(), Infallible>(())
//! };
//! let registering = core.clone();
//! let connected = async move |socket: SocketRef| {
//!     let (handle, mut events) = registering.register(socket);
//!     while let Some(event) = events.next().await {
//!         match event.ack {
//!             Some(ack) => handle.ack(ack, "thank you"),
//!             None => handle.emit("echo", &event.args),
//!         };
//!     }
//! };
//! io.ns("/", connected.with(opened));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
//! socketioxide_wire::serve(listener, Entry::new(engine, core, vec![]), stop).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What it asks for
//!
//! - The engine's common (JSON) parser, and its path `/socket.io`.
//! - What is sent to a socket goes by its [`Handle`]. What only the engine can do
//!   (an emit that waits for an answer) goes by [`Handle::by_engine`].
//! - Broadcasts go over lists of handles ([`Rooms`]), not over the engine's rooms.

mod core;
mod entry;
mod frame;
mod handle;
mod inbox;
mod line;
mod out;
mod polling;
mod public_id;
mod rooms;
mod serve;
mod stats;
mod sync;
mod wire;

pub use crate::core::{Core, Gathering, Now, Settings};
pub use crate::entry::{Engine, Entry, HandshakeId};
pub use crate::frame::Frame;
pub use crate::handle::Handle;
pub use crate::inbox::{Ack, Event, Inbox, Outlet};
pub use crate::rooms::{Member, Rooms};
pub use crate::serve::serve;
pub use crate::stats::Stats;
pub use crate::wire::Conn;
