//! The public error codes: one table for REST, acknowledgements and events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What went wrong, in one stable word.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A field is missing, ill-typed or out of its range.
    ValidationFailed,
    /// No token, or one that is bad, expired or of an ended session.
    Unauthorized,
    /// The caller may see the thing but not do this to it.
    Forbidden,
    /// It does not exist, or the caller is not in the room it belongs to.
    NotFound,
    /// It contradicts what is stored already.
    Conflict,
    /// The body is above `MAX_PAYLOAD_BYTES`.
    PayloadTooLarge,
    /// Too fast; `retryAfterMs` says when to come back.
    RateLimited,
    /// PostgreSQL or this server can't serve now; nothing was acknowledged.
    Unavailable,
}

impl Code {
    /// The HTTP status that carries this code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::ValidationFailed => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::PayloadTooLarge => 413,
            Self::RateLimited => 429,
            Self::Unavailable => 503,
        }
    }

    /// The code as it is written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ValidationFailed => "validation_failed",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
        }
    }
}

/// An error as clients see it: a code, a sentence, and what helps to react.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    thiserror::Error,
    ts_rs::TS,
    utoipa::ToSchema,
)]
#[serde(rename_all = "camelCase")]
#[error("{}: {message}", code.as_str())]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
    /// Milliseconds to wait before trying again; on every `rate_limited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional, type = "number")]
    pub retry_after_ms: Option<u64>,
    /// Reason by field, on `validation_failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub fields: Option<BTreeMap<String, String>>,
}

impl Failure {
    /// A failure with a code and a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, fields: None }
    }

    /// One field of the request is wrong.
    pub fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        let (field, reason) = (field.into(), reason.into());
        Self {
            message: format!("{field}: {reason}."),
            fields: Some(BTreeMap::from([(field, reason)])),
            ..Self::new(Code::ValidationFailed, "")
        }
    }

    /// Too fast: come back after so many milliseconds (at least 1).
    pub fn rate_limited(message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self {
            retry_after_ms: Some(retry_after_ms.max(1)),
            ..Self::new(Code::RateLimited, message)
        }
    }

    /// It does not exist for this caller.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// The caller may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Code::Forbidden, message)
    }

    /// It contradicts what is stored.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    /// Who the caller is could not be established.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(Code::Unauthorized, message)
    }

    /// Nothing can be stored or read just now.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(Code::Unavailable, "The service can't do this right now. Try again later.")
    }
}

/// The body of every REST error: `{"error": {…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS, utoipa::ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Failure,
}
