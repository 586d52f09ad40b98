//! `/healthz`, `/readyz`, `/metrics`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use super::ApiState;
use super::error::{self, ApiError};

/// The process lives.
pub(super) async fn alive() -> &'static str {
    "ok"
}

/// A Redis that takes longer to answer does not.
const REDIS_PATIENCE: Duration = Duration::from_secs(1);

/// Whether clients should be sent here: not while draining, nor without database, nor
/// without Redis if there is to be one.
pub(super) async fn ready(State(state): State<ApiState>) -> (StatusCode, Json<Value>) {
    let ping = async {
        match &state.redis {
            Some(redis) => Some(redis.ping(REDIS_PATIENCE).await.is_ok()),
            None => None,
        }
    };
    let (database, redis) = tokio::join!(state.chat.repository().ping(), ping);
    let database = database.is_ok();
    let draining = state.draining.is_cancelled();
    let ready = database && redis != Some(false) && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = |good: bool, yes: &'static str, no: &'static str| if good { yes } else { no };
    // Without Redis the chat goes on, on this instance alone.
    let otherwise = match (draining, database) {
        (true, _) => "draining",
        (false, true) => "degraded",
        (false, false) => "unavailable",
    };
    let mut body = json!({
        "status": word(ready, "ready", otherwise),
        "database": word(database, "up", "down"),
    });
    if let Some(redis) = redis {
        body["redis"] = json!(word(redis, "up", "down"));
    }
    (status, Json(body))
}

/// Prometheus text, unless that has an address of its own.
pub(super) async fn metrics(State(state): State<ApiState>) -> Result<String, ApiError> {
    match state.metrics {
        Some(metrics) => Ok(metrics.render()),
        None => Err(error::no_such_path().await),
    }
}
