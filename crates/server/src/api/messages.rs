//! `/rooms/:id/messages` and `/messages/search`.

use axum::Json;
use axum::extract::State;
use starling_protocol::http::{HistoryPage, SearchPage};
use starling_protocol::{ErrorBody, Failure, RoomId};

use super::ApiState;
use super::error::ApiResult;
use super::extract::{Caller, Params, RoomPath};

#[utoipa::path(get, path = "/rooms/{id}/messages", params(
    ("id" = i32, Path),
    ("before" = Option<i64>, Query, description = "messages below this seq"),
    ("after" = Option<i64>, Query, description = "messages above this seq"),
    ("limit" = Option<i64>, Query, description = "1–100, 50 by default"),
), responses((status = 200, body = HistoryPage), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn history(
    State(state): State<ApiState>,
    Caller(who): Caller,
    RoomPath(room): RoomPath,
    params: Params,
) -> ApiResult<Json<HistoryPage>> {
    let (before, after) = (params.number("before")?, params.number("after")?);
    let limit = params.number("limit")?;
    Ok(Json(state.chat.history(who.user, room, before, after, limit).await?))
}

#[utoipa::path(get, path = "/messages/search", params(
    ("q" = String, Query, description = "words, all of them"),
    ("roomId" = Option<i32>, Query),
    ("before" = Option<String>, Query, description = "the nextBefore of the page before"),
    ("limit" = Option<i64>, Query, description = "1–100, 50 by default"),
), responses((status = 200, body = SearchPage), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn search(
    State(state): State<ApiState>,
    Caller(who): Caller,
    params: Params,
) -> ApiResult<Json<SearchPage>> {
    let words = params.text("q").ok_or_else(|| Failure::field("q", "is required"))?;
    let room = params.number("roomId")?.map(RoomId);
    let limit = params.number("limit")?;
    Ok(Json(state.chat.search(who.user, words, room, params.text("before"), limit).await?))
}
