//! Accepts connections, and sends each request to the engine or to the API.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use socketioxide::adapter::LocalAdapter;
use socketioxide_wire::{Conn, Core, Entry};
use starling_protocol::Failure;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

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

async fn respond(front: &Front, peer: IpAddr, mut request: Request<Incoming>) -> Response<Body> {
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
    if Entry::<LocalAdapter>::is_handshake(&request)
        && let Err(refused) = front.guard.handshake(ClientAddr(client).network()).await
    {
        return refused;
    }
    front.entry.call(request).await
}
