//! A limit on the calls that cost a password hash, by client address.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use starling_protocol::Failure;
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::KeyExtractor;
use tower_governor::{GovernorError, GovernorLayer};

use super::ApiState;
use crate::config::AUTH_RATE_BURST;
use crate::transport::{ClientAddr, guard};

/// Idle addresses are forgotten so often.
const SWEEP: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ByAddress;

impl KeyExtractor for ByAddress {
    type Key = IpAddr;

    fn extract<T>(&self, request: &Request<T>) -> Result<IpAddr, GovernorError> {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Ok(request.extensions().get::<ClientAddr>().map_or(local, |client| client.network()))
    }
}

fn refused(error: GovernorError) -> http::Response<Body> {
    metrics::counter!("starling_rate_limited_total", "what" => "logins").increment(1);
    let wait = match error {
        GovernorError::TooManyRequests { wait_time, .. } => wait_time.max(1) * 1000,
        _ => 1000,
    };
    let failure =
        Failure::rate_limited("Too many attempts from your address. Wait a moment.", wait);
    guard::error(StatusCode::TOO_MANY_REQUESTS, failure).map(Body::new)
}

/// Lets so many calls a second from one address through, after a burst.
pub(super) fn per_address(routes: Router<ApiState>, rate: u32) -> Router<ApiState> {
    let config = (rate > 0).then(|| {
        GovernorConfigBuilder::default()
            .key_extractor(ByAddress)
            .period(Duration::from_secs(1) / rate.max(1))
            .burst_size(AUTH_RATE_BURST)
            .finish()
    });
    let Some(config) = config.flatten() else { return routes };
    let config = Arc::new(config);
    let limiter = Arc::downgrade(config.limiter());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(limiter) = limiter.upgrade() else { return };
            limiter.retain_recent();
        }
    });
    routes.layer(GovernorLayer::new(config).error_handler(refused))
}
