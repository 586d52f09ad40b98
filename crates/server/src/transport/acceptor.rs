//! Accepts connections, and sends each request to the engine or to the API.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use socketioxide::adapter::LocalAdapter;
use socketioxide_wire::{Conn, Core, Entry, HandshakeId};
use starling_protocol::Failure;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Level, debug_span, info_span};

use super::ClientAddr;
use super::guard::{self, Guard};

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Everything a request may be sent to.
pub struct Front {
    /// The way to the Socket.IO engine.
    pub entry: Entry,
    /// What its connections share.
    pub core: Arc<Core>,
    /// REST, health, metrics and the page.
    pub api: axum::Router,
    /// The checks before both.
    pub guard: Guard,
}

/// A client that sends its header more slowly is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// A REST call that takes longer waits for a database that fell silent.
const API_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections that the kernel holds for us while we are busy.
const BACKLOG: u32 = 4096;

/// Binds the listening socket.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        tokio::net::TcpSocket::new_v4()?
    } else {
        tokio::net::TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Accepts until `stop` is cancelled.
pub async fn run(listener: TcpListener, front: Arc<Front>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let conn = Conn::new(stream, &front.core);
                tokio::spawn(serve(front.clone(), conn, peer.ip()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(front: Arc<Front>, conn: Conn, peer: IpAddr) {
    let io = TokioIo::new(conn);
    let service = hyper::service::service_fn(move |request| {
        let front = front.clone();
        async move { Ok::<_, Infallible>(respond(&front, peer, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(io, service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended");
    }
}

fn boxed(response: Response<Full<Bytes>>) -> Response<Body> {
    response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

/// Answers a request, in a span that has its id, with one line about it at `debug`. The
/// id is that of a proxy in front, which the answer names too, or a new one.
async fn respond(front: &Front, peer: IpAddr, mut request: Request<Incoming>) -> Response<Body> {
    let id = request_id(request.headers());
    if tracing::enabled!(Level::DEBUG) {
        request.extensions_mut().insert(HandshakeId(id.as_str().into()));
    }
    let method = request.method().clone();
    // Polling is a request for every few messages: those are looked at only if asked for.
    let span = if is_socket(&request) {
        debug_span!("request", id, %method)
    } else {
        info_span!("request", id, %method)
    };
    let began = Instant::now();
    let mut response = answer(front, peer, request).instrument(span.clone()).await;
    span.in_scope(|| {
        let status = response.status().as_u16();
        // Paths and queries may name people, words and sessions: the route doesn't.
        let route = response.extensions().get::<Route>().map(|route| &*route.0);
        tracing::debug!(status, route, micros = began.elapsed().as_micros() as u64, "request");
    });
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The pattern of the path that a request matched.
#[derive(Clone)]
pub struct Route(pub Arc<str>);

/// As NGINX (`$request_id`), Envoy and others call it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id that a request brings, if it can stand in a log, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(plain);
    given.map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_owned)
}

fn is_socket<B>(request: &Request<B>) -> bool {
    // The page's copy of the client, /socket.io.esm.min.js, is none of the engine's.
    let path = request.uri().path();
    path == "/socket.io" || path.starts_with("/socket.io/")
}

async fn answer(front: &Front, peer: IpAddr, mut request: Request<Incoming>) -> Response<Body> {
    let client = front.guard.client_addr(peer, request.headers());
    request.extensions_mut().insert(ClientAddr(client));
    let origin = front.guard.origin(request.headers());
    let mut response = match (&origin, is_socket(&request)) {
        (Some(Err(())), true) => {
            if Entry::<LocalAdapter>::is_handshake(&request) {
                guard::count_handshake("forbidden");
            }
            let failure = Failure::forbidden("This origin may not connect.");
            boxed(guard::error(StatusCode::FORBIDDEN, failure))
        }
        (Some(Ok(_)), _) if guard::is_preflight(&request) => {
            let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            boxed(guard::preflight(wanted))
        }
        (_, true) => boxed(socket(front, client, request).await),
        (_, false) => {
            let answer = front.api.clone().oneshot(request);
            match tokio::time::timeout(API_TIMEOUT, answer).await {
                Ok(Ok(response)) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
                Ok(Err(never)) => match never {},
                Err(_) => boxed(guard::unavailable()),
            }
        }
    };
    if let Some(Ok(origin)) = &origin {
        guard::allow(response.headers_mut(), origin);
    }
    response
}

async fn socket(
    front: &Front,
    client: IpAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if !Entry::<LocalAdapter>::is_handshake(&request) {
        return front.entry.call(request).await;
    }
    if let Err(refused) = front.guard.handshake(ClientAddr(client).network()).await {
        return refused;
    }
    let response = front.entry.call(request).await;
    let refused = response.status().is_client_error() || response.status().is_server_error();
    guard::count_handshake(if refused { "invalid" } else { "accepted" });
    response
}
