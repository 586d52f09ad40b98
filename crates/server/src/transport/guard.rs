//! Checks of a request before the engine or the API sees it: where it comes
//! from, whether its origin may connect, and whether there is room for it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use ipnet::IpNet;
use starling_chat::Limits;
use starling_chat::ports::Limited;
use starling_protocol::{ErrorBody, Failure};
use tokio_util::sync::CancellationToken;

/// What the checks need to know.
pub struct Guard {
    /// Origins other than the server's own.
    pub cors_origins: Vec<String>,
    /// Peers whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
    /// How many handshakes a second.
    pub limits: Arc<dyn Limits>,
    /// Cancelled when the server is about to go.
    pub draining: CancellationToken,
}

impl Guard {
    /// The client's address: of those that the proxies name, the last one that
    /// is no proxy of ours. Only trusted peers are believed.
    #[must_use]
    pub fn client_addr(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let trusted = |addr: &IpAddr| self.trusted_proxies.iter().any(|net| net.contains(addr));
        let mut client = peer.to_canonical();
        let forwarded: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        for hop in forwarded.iter().rev() {
            if !trusted(&client) {
                break;
            }
            let Ok(addr) = hop.trim().parse::<IpAddr>() else { break };
            client = addr.to_canonical();
        }
        client
    }

    /// Whether a page of this origin may connect: the server's own, or a listed
    /// one. `None` when the request names no origin.
    #[must_use]
    pub fn origin(&self, headers: &HeaderMap) -> Option<Result<HeaderValue, ()>> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().unwrap_or_default();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let own = text.split_once("://").is_some_and(|(_, authority)| Some(authority) == host);
        let listed = self.cors_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text));
        Some(if own || listed { Ok(origin.clone()) } else { Err(()) })
    }

    /// Whether a new connection may begin: not while draining, and not too many
    /// a second. The answer is an HTTP error, since clients retry after that
    /// and not after a refusal by the namespace.
    ///
    /// # Errors
    /// The answer to give.
    pub async fn handshake(&self, client: IpAddr) -> Result<(), Response<Full<Bytes>>> {
        if self.draining.is_cancelled() {
            count_handshake("draining");
            return Err(unavailable());
        }
        for what in [Limited::ConnectsFrom(client), Limited::Connects] {
            if let Err(wait) = self.limits.take(what).await {
                count_handshake("rate_limited");
                metrics::counter!("starling_rate_limited_total", "what" => "connects").increment(1);
                let failure = Failure::rate_limited("Too many connections. Retry later.", wait);
                return Err(error(StatusCode::SERVICE_UNAVAILABLE, failure));
            }
        }
        Ok(())
    }
}

/// Counts a request to open a session.
pub(super) fn count_handshake(result: &'static str) {
    metrics::counter!("starling_handshakes_total", "result" => result).increment(1);
}

/// An error as an HTTP answer.
#[must_use]
pub fn error(status: StatusCode, failure: Failure) -> Response<Full<Bytes>> {
    let wait = failure.retry_after_ms.map_or(1, |ms| ms.div_ceil(1000));
    let retry = status == StatusCode::SERVICE_UNAVAILABLE || failure.retry_after_ms.is_some();
    let body = serde_json::to_vec(&ErrorBody { error: failure }).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if retry {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
    }
    response
}

/// The answer when nothing can be done right now.
#[must_use]
pub fn unavailable() -> Response<Full<Bytes>> {
    error(StatusCode::SERVICE_UNAVAILABLE, Failure::unavailable())
}

/// The headers that let a page of another origin read an answer.
pub fn allow(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// The answer to a preflight.
#[must_use]
pub fn preflight(requested: Option<&HeaderValue>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST, PATCH, DELETE");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let plain = HeaderValue::from_static("authorization, content-type");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, requested.cloned().unwrap_or(plain));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Whether a request is a preflight.
#[must_use]
pub fn is_preflight<B>(request: &http::Request<B>) -> bool {
    request.method() == Method::OPTIONS
}
