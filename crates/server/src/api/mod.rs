//! The HTTP edge: REST under `/api`, health, metrics and the web app.

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, patch, post};
use starling_chat::Chat;
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;
use crate::transport::acceptor::Route;

mod accounts;
mod error;
mod extract;
mod health;
mod limit;
mod messages;
mod openapi;
mod pages;
mod rooms;

pub use pages::DemoUser;

/// What the handlers share.
#[derive(Clone)]
pub struct ApiState {
    /// The use cases.
    pub chat: Chat,
    /// What `/metrics` prints; `None` when it has an address of its own.
    pub metrics: Option<Metrics>,
    /// What several instances have in common.
    pub redis: Option<starling_redis::Redis>,
    /// Cancelled when the server is about to go.
    pub draining: CancellationToken,
    /// A larger body is refused.
    pub max_payload_bytes: usize,
    /// Logins and registrations a second from one address; 0 = no limit.
    pub auth_rate_per_ip: u32,
    /// Whom the log-in page offers to log in as.
    pub demo_users: Vec<DemoUser>,
}

/// Every route.
pub fn router(state: ApiState) -> Router {
    let entrance = Router::new()
        .route("/auth/register", post(accounts::register))
        .route("/auth/login", post(accounts::log_in))
        .route("/auth/refresh", post(accounts::refresh));
    let entrance = limit::per_address(entrance, state.auth_rate_per_ip);
    let api = Router::new()
        .merge(entrance)
        .route("/auth/logout", post(accounts::log_out))
        .route("/users/me", get(accounts::me).patch(accounts::update_me))
        .route("/users", get(accounts::users))
        .route("/rooms", get(rooms::list).post(rooms::create))
        .route("/rooms/{id}", get(rooms::show).patch(rooms::rename))
        .route("/rooms/{id}/members", post(rooms::add_members))
        .route(
            "/rooms/{id}/members/{user}",
            delete(rooms::remove_member).merge(patch(rooms::set_role)),
        )
        .route("/rooms/{id}/messages", get(messages::history))
        .route("/messages/search", get(messages::search))
        .route("/openapi.json", get(openapi::document))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method);
    Router::new()
        .nest("/api", api)
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/", get(pages::home))
        .fallback(pages::serve)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(middleware::from_fn(name_route))
        .with_state(state)
}

/// Tells the log what was asked for.
async fn name_route(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(path) = path {
        response.extensions_mut().insert(Route(path.as_str().into()));
    }
    response
}
