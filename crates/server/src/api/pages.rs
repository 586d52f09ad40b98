//! The web app: `frontend/dist`, compiled in (a debug build reads the folder itself).
//!
//! Names under `assets/` carry a hash of their content and may be kept for ever; the
//! rest is asked for again each time and answered by 304 while it is the same. The
//! build leaves `.br` and `.gz` twins beside what is worth compressing. A path that is
//! no file is a place in the app when a browser navigates to it.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use rust_embed::{EmbeddedFile, RustEmbed};
use serde::Serialize;

use super::ApiState;
use super::error::no_such_path;

const CSP: &str = "default-src 'self'; script-src 'self'; style-src 'self'; \
                   connect-src 'self' ws: wss:; img-src 'self' data: https:; font-src 'self'; \
                   object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
const INDEX: &str = "index.html";
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// What belongs to other parts of the server, wherever a browser navigates to.
const NOT_THE_APP: [&str; 5] = ["/api", "/socket.io", "/assets", "/healthz", "/readyz"];
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
    <title>Starling</title><h1>Starling runs</h1><p>The web app is not built yet. In the folder \
    <code>frontend</code> run <code>npm ci</code> and <code>npm run build</code>, or start the \
    server by <code>script/server</code>, which does both.</p></html>";

/// The files that Vite made; none before it ran.
#[derive(RustEmbed)]
#[folder = "$STARLING_WEB_APP"]
#[allow_missing = true]
struct Dist;

/// People that the log-in page offers to log in as: those of `starling dev` only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DemoUser {
    /// The unique name.
    pub username: &'static str,
    /// The name to show.
    pub display_name: &'static str,
    /// No secret: everybody is told.
    pub password: &'static str,
}

/// Serves a file of the app or, to a browser that navigates, its first page.
pub(super) async fn serve(State(state): State<ApiState>, request: Request) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    if method != Method::GET && method != Method::HEAD {
        return no_such_path().await.into_response();
    }
    let name = uri.path().trim_start_matches('/');
    if !name.is_empty()
        && name != INDEX
        && !is_twin(name)
        && let Some(file) = Dist::get(name)
    {
        return answer(name, file, headers);
    }
    if is_navigation(uri, headers) {
        index(&state, headers)
    } else {
        no_such_path().await.into_response()
    }
}

/// The first page.
pub(super) async fn home(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    index(&state, &headers)
}

fn index(state: &ApiState, headers: &HeaderMap) -> Response {
    match Dist::get(INDEX) {
        None => page(NOT_BUILT.to_owned()),
        Some(file) if state.demo_users.is_empty() => answer(INDEX, file, headers),
        Some(file) => {
            page(with_demo_users(&String::from_utf8_lossy(&file.data), &state.demo_users))
        }
    }
}

fn page(html: String) -> Response {
    let mut response = html.into_response();
    dress(&mut response, INDEX);
    response
}

/// The first page with the demo users in a `<meta>` element, which the app looks for.
fn with_demo_users(html: &str, users: &[DemoUser]) -> String {
    let json = serde_json::to_string(users).unwrap_or_default();
    let json = json.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&#39;");
    html.replacen("</head>", &format!("<meta name=\"starling-demo\" content='{json}'></head>"), 1)
}

fn answer(name: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let etag = etag(&file);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag))
    {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let (encoding, data) = match encoded(name, headers) {
            Some((encoding, twin)) => (Some(encoding), twin.data),
            None => (None, file.data),
        };
        let mut response = Body::from(data.into_owned()).into_response();
        if let Some(encoding) = encoding {
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        response
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    dress(&mut response, name);
    response
}

/// The headers that every file has.
fn dress(response: &mut Response, name: &str) {
    let cache = if name.starts_with("assets/") { FOR_EVER } else { "no-cache" };
    let all = [
        (header::CONTENT_TYPE, media_type(name)),
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::VARY, "accept-encoding"),
    ];
    for (key, value) in all {
        response.headers_mut().insert(key, HeaderValue::from_static(value));
    }
}

/// The same for all forms of a file, hence weak.
fn etag(file: &EmbeddedFile) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("W/\"");
    for byte in &file.metadata.sha256_hash()[..12] {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    text
}

fn is_twin(name: &str) -> bool {
    name.ends_with(".br") || name.ends_with(".gz")
}

/// The smallest form that the client takes.
fn encoded(name: &str, headers: &HeaderMap) -> Option<(&'static str, EmbeddedFile)> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    [("br", "br"), ("gzip", "gz")].into_iter().find_map(|(encoding, ending)| {
        let file =
            accepts(accepted, encoding).then(|| Dist::get(&format!("{name}.{ending}")))??;
        Some((encoding, file))
    })
}

fn accepts(list: &str, encoding: &str) -> bool {
    list.split(',').any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        let refused = parts.any(|part| {
            part.strip_prefix("q=").is_some_and(|q| q.parse().is_ok_and(|q: f32| q <= 0.0))
        });
        named && !refused
    })
}

fn is_navigation(uri: &Uri, headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let path = uri.path();
    let elsewhere = NOT_THE_APP.iter().any(|prefix| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    !elsewhere && accept.is_some_and(|accept| accept.contains("text/html"))
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn navigates(path: &str, accept: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        is_navigation(&path.parse().unwrap(), &headers)
    }

    #[test]
    fn only_a_browser_that_navigates_gets_the_app() {
        assert!(navigates("/rooms/7", "text/html,*/*"));
        assert!(navigates("/apiary", "text/html"));
        assert!(!navigates("/rooms/7", "*/*"));
        for path in ["/api", "/api/rooms", "/socket.io/", "/assets/gone.js", "/healthz"] {
            assert!(!navigates(path, "text/html"), "{path}");
        }
    }

    #[test]
    fn an_encoding_is_taken_unless_refused() {
        assert!(accepts("gzip, deflate, br", "br"));
        assert!(accepts("br;q=0.5", "br"));
        assert!(!accepts("gzip, br;q=0", "br"));
        assert!(!accepts("brotli", "br"));
    }

    #[test]
    fn demo_users_cannot_break_out_of_the_attribute() {
        let user = DemoUser { username: "o'b", display_name: "<O&B>", password: "x" };
        let html = with_demo_users("<head></head>", &[user]);
        assert!(html.contains("o&#39;b"), "{html}");
        assert!(html.contains("&lt;O&amp;B>"), "{html}");
        assert!(html.ends_with("</head>"), "{html}");
    }
}
