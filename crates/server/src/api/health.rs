//! `/healthz`, `/readyz`, `/metrics`.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use super::ApiState;

/// The process lives.
pub(super) async fn alive() -> &'static str {
    "ok"
}

/// Whether clients should be sent here: not while draining, nor without database.
pub(super) async fn ready(State(state): State<ApiState>) -> (StatusCode, Json<Value>) {
    let database = state.chat.repository().ping().await.is_ok();
    let draining = state.draining.is_cancelled();
    let ready = database && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = |good: bool, yes: &'static str, no: &'static str| if good { yes } else { no };
    (
        status,
        Json(json!({
            "status": word(ready, "ready", if draining { "draining" } else { "unavailable" }),
            "database": word(database, "up", "down"),
        })),
    )
}

/// Prometheus text.
pub(super) async fn metrics(State(state): State<ApiState>) -> String {
    let (size, idle) = state.chat.repository().pool_state();
    metrics::gauge!("starling_pool_connections").set(f64::from(size));
    metrics::gauge!("starling_pool_idle").set(idle as f64);
    state.traffic.measure();
    state.metrics.render()
}
