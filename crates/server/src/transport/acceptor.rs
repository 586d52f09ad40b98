//! Accepts connections, and sends each request to the engine or to the API.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use starling_protocol::Failure;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::ClientAddr;
use super::engine::EngineService;
use super::guard::{self, Guard};
use super::public_id;
use super::sessions::Sessions;
use super::wire::{Conn, Wire, WireLimits, WireRef};

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Everything a request may be sent to.
pub struct Front {
    /// The Socket.IO engine.
    pub engine: EngineService,
    /// REST, health, metrics and the page.
    pub api: axum::Router,
    /// The checks before both.
    pub guard: Guard,
    /// Engine sessions and their connections.
    pub sessions: Arc<Sessions>,
    /// Bounds of each connection.
    pub limits: WireLimits,
}

/// A client that sends its header more slowly is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// A REST call that takes longer waits for a database that fell silent.
const API_TIMEOUT: Duration = Duration::from_secs(15);
/// What a client has not polled by then is sent after its upgrade by no one.
const BEFORE_UPGRADE: Duration = Duration::from_secs(5);
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
                stream.set_nodelay(true).ok();
                // Also for what waits in the kernel, where the backlog's clock
                // does not look: a peer that vanished is noticed.
                let timeout = Some(front.limits.write_timeout);
                socket2::SockRef::from(&stream).set_tcp_user_timeout(timeout).ok();
                let wire = Wire::new(stream, front.limits);
                tokio::spawn(serve(front.clone(), wire, peer.ip()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(front: Arc<Front>, wire: Arc<Wire>, peer: IpAddr) {
    let io = TokioIo::new(Conn(wire.clone()));
    let service = hyper::service::service_fn(move |request| {
        let (front, wire) = (front.clone(), wire.clone());
        async move { Ok::<_, Infallible>(respond(&front, &wire, peer, request).await) }
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

async fn respond(
    front: &Front,
    wire: &Arc<Wire>,
    peer: IpAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let client = front.guard.client_addr(peer, request.headers());
    request.extensions_mut().insert(ClientAddr(client));
    let origin = front.guard.origin(request.headers());
    // The page's copy of the client, /socket.io.esm.min.js, is none of the engine's.
    let path = request.uri().path();
    let is_socket = path == "/socket.io" || path.starts_with("/socket.io/");
    let mut response = match (&origin, is_socket) {
        (Some(Err(())), true) => {
            let failure = Failure::forbidden("This origin may not connect.");
            boxed(guard::error(StatusCode::FORBIDDEN, failure))
        }
        (Some(Ok(_)), _) if guard::is_preflight(&request) => {
            let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            boxed(guard::preflight(wanted))
        }
        (_, true) => socket(front, wire, client, request).await,
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

/// A parameter of the query, as the engine writes them: nothing is escaped.
fn query<'a>(uri: &'a http::Uri, name: &str) -> Option<&'a str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

async fn socket(
    front: &Front,
    wire: &Arc<Wire>,
    client: IpAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let upgrade = query(request.uri(), "transport") == Some("websocket");
    let sid = query(request.uri(), "sid").map(str::to_owned);
    let polls = request.method() == Method::GET && !upgrade;
    match &sid {
        None if request.method() == Method::GET => {
            if let Err(refused) = front.guard.handshake(ClientAddr(client).network()).await {
                return boxed(refused);
            }
        }
        Some(sid) if (upgrade || polls) && !front.sessions.served_by(sid, wire) => {
            let body = r#"{"code":1,"message":"Session ID unknown"}"#;
            let mut gone = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
            *gone.status_mut() = StatusCode::BAD_REQUEST;
            return boxed(gone);
        }
        Some(sid) if polls => {
            if let Some(kept) = front.sessions.kept_packets(sid) {
                let mut answer = Response::new(Full::new(kept));
                let text = header::HeaderValue::from_static("text/plain; charset=UTF-8");
                answer.headers_mut().insert(header::CONTENT_TYPE, text);
                return boxed(answer);
            }
        }
        Some(sid) if upgrade => {
            // The client goes on polling until the WebSocket has answered.
            let deadline = tokio::time::Instant::now() + BEFORE_UPGRADE;
            while !front.sessions.may_upgrade(sid) && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        _ => {}
    }
    if upgrade && sid.is_none() {
        // For sockets that begin as a WebSocket, which have no session id yet.
        request.extensions_mut().insert(WireRef(Arc::downgrade(wire)));
    }
    let response = match front.engine.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        wire.becomes_websocket();
    }
    let (mut parts, body) = response.into_parts();
    // In one piece with its length: some clients take each chunk for an answer.
    match body.collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            let mut body = public_id::rewrite(&body).map_or(body, Bytes::from);
            if let Some(sid) = sid.filter(|_| polls) {
                body = front.sessions.first_packets(&sid, body);
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            boxed(Response::from_parts(parts, Full::new(body)))
        }
        Err(_) => boxed(guard::unavailable()),
    }
}
