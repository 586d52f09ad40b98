//! What a handler needs of a request.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use starling_chat::{Identity, no_room};
use starling_protocol::parse::from_json;
use starling_protocol::{Code, Failure, RoomId, UserId};

use super::ApiState;
use super::error::ApiError;
use crate::transport::engine::bearer;

/// Who is calling.
pub struct Caller(pub Identity);

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let token = parts.headers.get(AUTHORIZATION).and_then(bearer).ok_or_else(|| {
            Failure::unauthorized("An access token is needed: Authorization: Bearer <accessToken>.")
        })?;
        let who = state.chat.auth().identify(state.chat.repository(), token).await?;
        Ok(Self(who))
    }
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let too_large = || {
            let max = state.max_payload_bytes;
            Failure::new(Code::PayloadTooLarge, format!("The body is above {max} bytes."))
        };
        let declared = request
            .headers()
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > state.max_payload_bytes) {
            return Err(too_large().into());
        }
        let body = Limited::new(request.into_body(), state.max_payload_bytes);
        let bytes = body.collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                too_large()
            } else {
                Failure::field("body", "could not be read to its end")
            }
        })?;
        let bytes = bytes.to_bytes();
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Failure::field("body", "must be JSON in UTF-8"))?;
        Ok(Self(from_json(text)?))
    }
}

/// The room of the path.
pub struct RoomPath(pub RoomId);

/// The room and the user of the path.
pub struct MemberPath(pub RoomId, pub UserId);

impl FromRequestParts<ApiState> for RoomPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let room = path.ok().and_then(|Path(id)| whole_number(&id));
        room.map(|id| Self(RoomId(id))).ok_or_else(|| ApiError(no_room()))
    }
}

impl FromRequestParts<ApiState> for MemberPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let ids = path.ok().and_then(|Path((room, user))| {
            Some(Self(RoomId(whole_number(&room)?), UserId(whole_number(&user)?)))
        });
        ids.ok_or_else(|| ApiError(no_room()))
    }
}

/// The query, by name; of a repeated name the first counts.
pub struct Params(Vec<(String, String)>);

impl FromRequestParts<ApiState> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let unreadable = || Failure::field("query", "must be UTF-8, percent-encoded");
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| unreadable())?;
        // The decoder replaces what is no UTF-8: a search for that would lie.
        let raw = parts.uri.query().unwrap_or_default();
        if percent_encoding::percent_decode_str(raw).decode_utf8().is_err() {
            return Err(unreadable().into());
        }
        Ok(Self(pairs))
    }
}

impl Params {
    /// A value as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A value as a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.text(name)
            .map(|text| {
                whole_number(text).ok_or_else(|| Failure::field(name, "must be a whole number"))
            })
            .transpose()
    }
}

/// A number as JSON writes it: no plus sign, which Rust would accept.
fn whole_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// Ids separated by commas. One beyond what users can have names nobody.
pub fn user_ids(list: &str) -> Option<Vec<UserId>> {
    list.split(',')
        .map(|id| {
            let id: u64 = whole_number(id.trim())?;
            Some(UserId(i32::try_from(id).unwrap_or_default()))
        })
        .collect()
}
