//! The Socket.IO engine, set up.

use std::sync::Arc;

use engineioxide::service::NotFoundService;
use socketioxide::SocketIo;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::service::SocketIoService;
use starling_chat::Identity;

use super::hub::Hub;
use super::inbox::{Inbox, Outlet, Taken};
use super::sessions::Sessions;
use super::wire::WireRef;
use crate::config::Config;

/// The engine as a hyper service.
pub type EngineService = SocketIoService<NotFoundService>;

/// What the application does with sockets.
pub trait App: Clone + Send + Sync + 'static {
    /// Who connects, from the `auth` payload or the `Authorization` header.
    /// `None` refuses the CONNECT with `unauthorized`.
    fn authenticate(&self, token: Option<String>) -> impl Future<Output = Option<Identity>> + Send;
    /// A socket is connected: serves it until its inbox ends.
    fn serve(&self, link: Arc<super::hub::Link>, events: Outlet)
    -> impl Future<Output = ()> + Send;
}

/// What a client reads in `connect_error`; it doesn't retry by itself then.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("unauthorized")]
pub struct Refused;

/// Packets that may wait in the engine for one socket. Its writer never blocks,
/// so only a burst within one turn of the runtime, or a client that doesn't
/// poll, gets near this.
const QUEUE: usize = 16_384;

/// Builds the engine and lets the application serve its sockets. Returns the
/// service, and the handle that keeps the engine's namespaces.
#[must_use]
pub fn build<A: App>(
    config: &Config,
    sessions: Arc<Sessions>,
    hub: Arc<Hub>,
    app: A,
) -> (EngineService, SocketIo) {
    let (service, io) = SocketIo::builder()
        .req_path("/socket.io")
        .ping_interval(config.ping_interval)
        .ping_timeout(config.ping_timeout)
        .max_payload(config.max_payload_bytes as u64)
        .ws_max_message_size(config.max_payload_bytes)
        .ws_max_frame_size(config.max_payload_bytes)
        .max_buffer_size(QUEUE)
        .build_svc();

    let authenticating = app.clone();
    let authenticate = async move |socket: SocketRef, TryData(auth): TryData<serde_json::Value>| {
        let token = token(auth.ok(), &socket);
        let who = authenticating.authenticate(token).await.ok_or(Refused)?;
        socket.extensions.insert(who);
        Ok::<(), Refused>(())
    };
    let connected = async move |socket: SocketRef| {
        let Some(who) = socket.extensions.get::<Identity>() else { return };
        let link = hub.register(who, socket.clone());
        let sid = socket.id.to_string();
        // A socket that began with polling registers with its upgrade.
        let wire = socket.req_parts().extensions.get::<WireRef>();
        if let Some(wire) = wire.and_then(|wire| wire.0.upgrade()) {
            sessions.served_by(&sid, &wire);
        }
        let (inbox, outlet) = Inbox::new(link.clone(), sessions.clone(), sid);
        // Registered before anything is awaited: a handler that is missing when
        // an event comes is an event lost.
        socket.extensions.insert(inbox.clone());
        socket.on_fallback(async |_: Taken| {});
        let (hub, sessions, closing) = (hub.clone(), sessions.clone(), link.clone());
        let clean = move |socket: &SocketRef| {
            hub.remove(&closing);
            inbox.close();
            // The inbox holds the socket, and the socket must not hold it for ever.
            socket.extensions.remove::<Inbox>();
            sessions.closed(socket.id.as_str());
        };
        let at_disconnect = clean.clone();
        socket.on_disconnect(async move |socket: SocketRef| at_disconnect(&socket));
        app.serve(link, outlet).await;
        // Again, for a socket that ended before its handler was set.
        clean(&socket);
    };
    // The local adapter is ready at once.
    io.ns("/", connected.with(authenticate));
    (service, io)
}

fn token(auth: Option<serde_json::Value>, socket: &SocketRef) -> Option<String> {
    if let Some(token) = auth.as_ref().and_then(|auth| auth.get("token")) {
        // An ill-typed token is a bad one: the header is no second try.
        return token.as_str().map(str::to_owned);
    }
    let header = socket.req_parts().headers.get(http::header::AUTHORIZATION)?;
    bearer(header).map(str::to_owned)
}

/// The token of an `Authorization: Bearer` header.
#[must_use]
pub fn bearer(header: &http::HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
