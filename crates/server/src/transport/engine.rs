//! The Socket.IO engine, set up.

use std::sync::Arc;

use socketioxide::SocketIo;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide_wire::{Core, Engine, Inbox, Outlet};
use starling_chat::Identity;

use super::hub::Hub;
use crate::config::Config;

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

/// Packets that may wait in the engine for one client that polls: what fits into
/// the byte limit if they are small.
const QUEUE: usize = 16_384;

/// Builds the engine and lets the application serve its sockets. Returns the
/// service, and the handle that keeps the engine's namespaces.
#[must_use]
pub fn build<A: App>(
    config: &Config,
    core: Arc<Core>,
    hub: Arc<Hub>,
    app: A,
) -> (Engine, SocketIo) {
    let (service, io) = SocketIo::builder()
        .req_path("/socket.io")
        .ping_interval(config.ping_interval)
        .ping_timeout(config.ping_timeout)
        .max_payload(config.max_payload_bytes as u64)
        .ws_max_message_size(config.max_payload_bytes)
        .ws_max_frame_size(config.max_payload_bytes)
        .max_buffer_size(QUEUE)
        // Connections read ahead for it.
        .ws_read_buffer_size(0)
        .build_svc();

    let (authenticating, opening) = (app.clone(), core.clone());
    let authenticate = async move |socket: SocketRef, TryData(auth): TryData<serde_json::Value>| {
        let token = token(auth.ok(), &socket);
        let Some(who) = authenticating.authenticate(token).await else {
            count_connect("unauthorized");
            return Err(Refused);
        };
        // Before the answer to CONNECT, so that nothing that comes at once is lost.
        Inbox::open_with(&opening, &socket, who);
        Ok::<(), Refused>(())
    };
    let connected = async move |socket: SocketRef| {
        let (handle, outlet, Some(who)) = core.register_with::<Identity, _>(socket) else { return };
        let link = hub.register(who, handle);
        let (hub, closing) = (hub.clone(), link.clone());
        outlet.at_close(move |_| hub.remove(&closing));
        app.serve(link, outlet).await;
    };
    // The local adapter is ready at once.
    io.ns("/", connected.with(authenticate));
    (service, io)
}

/// Counts a CONNECT to the namespace.
pub fn count_connect(result: &'static str) {
    metrics::counter!("starling_connects_total", "result" => result).increment(1);
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
