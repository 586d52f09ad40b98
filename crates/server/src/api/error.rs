//! Failures as HTTP answers.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use starling_protocol::{Code, Failure};

use crate::transport::guard;

/// A failure on its way out.
pub struct ApiError(pub Failure);

/// What handlers give back.
pub type ApiResult<T> = Result<T, ApiError>;

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        guard::error(status, self.0).map(axum::body::Body::new)
    }
}

pub(super) async fn no_such_path() -> ApiError {
    ApiError(Failure::not_found("There is nothing at this path."))
}

pub(super) async fn no_such_method() -> Response {
    let failure = Failure::new(Code::NotFound, "This path does not take this method.");
    guard::error(StatusCode::METHOD_NOT_ALLOWED, failure).map(axum::body::Body::new)
}
