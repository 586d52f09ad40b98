//! The demo page, compiled in.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header;

use super::ApiState;

const CSP: &str = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; \
                   frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

macro_rules! page {
    ($file:literal, $kind:literal) => {
        get(async || {
            let body: &'static [u8] = include_bytes!(concat!("../../../../frontend/demo/", $file));
            (
                [
                    (header::CONTENT_TYPE, $kind),
                    (header::CONTENT_SECURITY_POLICY, CSP),
                    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                    (header::REFERRER_POLICY, "no-referrer"),
                    (header::CACHE_CONTROL, "no-cache"),
                ],
                body,
            )
                .into_response()
        })
    };
}

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/", page!("index.html", "text/html; charset=utf-8"))
        .route("/app.js", page!("app.js", "text/javascript; charset=utf-8"))
        .route("/style.css", page!("style.css", "text/css; charset=utf-8"))
        .route(
            "/socket.io.esm.min.js",
            page!("socket.io.esm.min.js", "text/javascript; charset=utf-8"),
        )
}
