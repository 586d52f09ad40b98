//! Requests on their way to the engine.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engineioxide::service::NotFoundService;
use http::header::{self, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use socketioxide::adapter::{Adapter, LocalAdapter};
use socketioxide::service::SocketIoService;

use crate::core::Core;
use crate::line::Line;
use crate::polling::SEPARATOR;
use crate::wire::Conn;

/// The engine as a service.
pub type Engine<A = LocalAdapter> = SocketIoService<NotFoundService, A>;

/// What the application calls the request by which a connection began. Put into the
/// request's extensions, it is found there again by `socket.req_parts()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeId(pub Arc<str>);

/// Takes the requests for the engine: answers WebSocket upgrades itself, and sees
/// polling through.
pub struct Entry<A: Adapter = LocalAdapter> {
    engine: Engine<A>,
    core: Arc<Core>,
    keep: Vec<HeaderName>,
}

/// Why a request is refused, in Engine.IO's words and numbers.
#[derive(Clone, Copy)]
enum Refusal {
    UnknownTransport,
    UnknownSession,
    BadRequest,
    UnsupportedVersion,
}

impl Refusal {
    fn response(self) -> Response<Full<Bytes>> {
        // The texts of engine.io's `errorMessages`.
        let body = match self {
            Self::UnknownTransport => r#"{"code":0,"message":"Transport unknown"}"#,
            Self::UnknownSession => r#"{"code":1,"message":"Session ID unknown"}"#,
            Self::BadRequest => r#"{"code":3,"message":"Bad request"}"#,
            Self::UnsupportedVersion => r#"{"code":5,"message":"Unsupported protocol version"}"#,
        };
        let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

impl<A: Adapter> Entry<A> {
    /// For an engine that is made with `ws_read_buffer_size(0)`: connections read
    /// ahead for it. Of a request's headers a socket keeps those named here.
    pub fn new(engine: Engine<A>, core: Arc<Core>, keep: Vec<HeaderName>) -> Self {
        let closing = engine.clone();
        core.set_closer(Box::new(move |sid| {
            let uri = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
            let body = Either::<Incoming, _>::Right(Full::new(Bytes::from_static(b"1")));
            // The engine's own way to be told that a client leaves.
            if let Ok(request) = Request::post(uri).body(body) {
                let answer = closing.call(request);
                tokio::spawn(async move { answer.await.map(drop) });
            }
        }));
        Self { engine, core, keep }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Whether a request opens a new session, so that the application may count
    /// and refuse those.
    pub fn is_handshake<B>(request: &Request<B>) -> bool {
        request.method() == Method::GET && query(request.uri(), "sid").is_none()
    }

    /// Serves a request that came over a [`Conn`], after the application's own
    /// checks. Answers are in one piece with their length: some clients take each
    /// chunk for an answer.
    pub async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let get = request.method() == Method::GET;
        let sid = query(request.uri(), "sid").map(str::to_owned);
        if get && query(request.uri(), "transport") == Some("websocket") {
            return match self.upgrade(request, sid).await {
                Ok(response) => response,
                Err(refusal) => refusal.response(),
            };
        }
        let line = sid.as_deref().and_then(|sid| self.session(sid));
        match &line {
            Some(line) if line.has_ended() => Refusal::UnknownSession.response(),
            Some(line) if get => self.poll(line, request).await,
            Some(line) => self.post(line, request).await,
            None => {
                let (parts, body) = self.pass_on(request).await;
                // The answer to a handshake names the session.
                if sid.is_none()
                    && let Some(open) = body.strip_prefix(b"0")
                {
                    self.core.begun(open, None);
                }
                Response::from_parts(parts, Full::new(body))
            }
        }
    }

    fn session(&self, sid: &str) -> Option<Arc<Line>> {
        self.core.session(sid.parse().ok()?)
    }

    /// What the engine answers, with a body that is in memory.
    async fn pass_on(&self, request: Request<Incoming>) -> (Parts, Bytes) {
        let response = match self.engine.call(request.map(Either::<_, Full<Bytes>>::Left)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (mut parts, body) = response.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        // The engine's bodies are in memory as well: they can't fail.
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        (parts, body.unwrap_or_default())
    }

    async fn poll(&self, line: &Line, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let kept = {
            let mut polling = line.polling.lock();
            let Some(polling) = polling.as_mut() else {
                return Refusal::BadRequest.response();
            };
            polling.heard = Instant::now();
            polling.next_answer()
        };
        if let Some(kept) = kept {
            let mut answer = Response::new(Full::new(kept));
            let text = HeaderValue::from_static("text/plain; charset=UTF-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, text);
            return answer;
        }
        let (parts, mut body) = self.pass_on(request).await;
        if let Some(ids) = &self.core.public_ids {
            let packets: Vec<&[u8]> = body.split(|byte| *byte == SEPARATOR).collect();
            if packets.iter().any(|packet| packet.starts_with(b"40")) {
                let packets: Vec<_> = packets
                    .into_iter()
                    .map(|packet| ids.rewrite(packet).unwrap_or_else(|| packet.to_vec()))
                    .collect();
                body = packets.join(&SEPARATOR).into();
            }
        }
        if let Some(polling) = line.polling.lock().as_mut() {
            body = polling.first_packets(body);
        }
        Response::from_parts(parts, Full::new(body))
    }

    /// A body of the client: taken when the ones before it were looked at.
    async fn post(&self, line: &Line, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let turn = {
            let mut polling = line.polling.lock();
            polling.as_mut().map(|polling| {
                polling.heard = Instant::now();
                polling.posting.clone()
            })
        };
        let _turn = match turn {
            Some(turn) => turn.acquire_owned().await.ok(),
            None => None,
        };
        loop {
            let resumption = line.polling.lock().as_ref().and_then(|polling| polling.resumption());
            let Some(resumption) = resumption else { break };
            let resumed = resumption.notified();
            // Asked again, now that no notification can be missed.
            let paused = line.polling.lock().as_ref().is_some_and(|p| p.resumption().is_some());
            if paused {
                resumed.await;
            }
        }
        let (parts, body) = self.pass_on(request).await;
        Response::from_parts(parts, Full::new(body))
    }

    /// Answers an upgrade, and hands the connection over.
    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
        sid: Option<String>,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let key = websocket_key(&request)?;
        let line = match &sid {
            Some(sid) => Some(self.session(sid).ok_or(Refusal::UnknownSession)?),
            None => None,
        };
        if line.as_ref().is_some_and(|line| line.polling.lock().is_none()) {
            return Err(Refusal::BadRequest);
        }
        let own = self.own_request(&request).ok_or(Refusal::BadRequest)?;
        let upgrade = hyper::upgrade::on(&mut request);
        let engine = self.engine.clone();
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            // Any other connection would be the application's mistake.
            let Ok(parts) = upgraded.downcast::<TokioIo<Conn>>() else {
                tracing::error!("a WebSocket on a connection that is no Conn");
                return;
            };
            let conn = parts.io.into_inner();
            conn.0.becomes_websocket(&parts.read_buf);
            // A new session is known when the engine's open packet names it.
            if line.is_some_and(|line| !line.probe(&conn.0)) {
                return;
            }
            if let Err(error) = engine.call((conn, own)).await {
                tracing::debug!(%error, "the engine refused a WebSocket");
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let accept = HeaderValue::try_from(accept).map_err(|_| Refusal::BadRequest)?;
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        Ok(response)
    }

    /// What the engine keeps of a request for as long as its socket lives: copies,
    /// since the originals are slices of hyper's 8 KiB buffer.
    fn own_request<B>(&self, request: &Request<B>) -> Option<Request<()>> {
        let uri = request.uri().to_string().parse::<Uri>().ok()?;
        let mut own = Request::get(uri).body(()).ok()?;
        for name in &self.keep {
            for value in request.headers().get_all(name) {
                own.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
            }
        }
        if let Some(id) = request.extensions().get::<HandshakeId>() {
            own.extensions_mut().insert(id.clone());
        }
        Some(own)
    }
}

/// A parameter of the query, as the engine reads them: nothing is escaped.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The key of a proper upgrade request (RFC 6455 §4.2.1).
fn websocket_key<B>(request: &Request<B>) -> Result<String, Refusal> {
    match query(request.uri(), "EIO") {
        Some("4") => {}
        _ => return Err(Refusal::UnsupportedVersion),
    }
    if query(request.uri(), "transport") != Some("websocket") {
        return Err(Refusal::UnknownTransport);
    }
    let headers = request.headers();
    let says = |name: HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    if !says(header::CONNECTION, "upgrade")
        || !says(header::UPGRADE, "websocket")
        || !says(header::SEC_WEBSOCKET_VERSION, "13")
    {
        return Err(Refusal::BadRequest);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let key = key.ok_or(Refusal::BadRequest)?.trim();
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(key);
    match bytes {
        Ok(bytes) if bytes.len() == 16 => Ok(key.to_owned()),
        _ => Err(Refusal::BadRequest),
    }
}
