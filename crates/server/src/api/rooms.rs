//! `/rooms*`.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use starling_protocol::ErrorBody;
use starling_protocol::http::{
    MemberPatch, MembersAdd, RoomBody, RoomCreate, RoomPatch, RoomsBody,
};

use super::ApiState;
use super::error::ApiResult;
use super::extract::{Body, Caller, MemberPath, RoomPath};

#[utoipa::path(get, path = "/rooms", responses((status = 200, body = RoomsBody)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Caller(who): Caller,
) -> ApiResult<Json<RoomsBody>> {
    Ok(Json(RoomsBody { rooms: state.chat.rooms(who.user).await? }))
}

#[utoipa::path(post, path = "/rooms", request_body = RoomCreate, responses(
    (status = 201, body = RoomBody), (status = 200, body = RoomBody, description = "the direct room exists"),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn create(
    State(state): State<ApiState>,
    Caller(who): Caller,
    Body(request): Body<RoomCreate>,
) -> ApiResult<(StatusCode, Json<RoomBody>)> {
    let (room, created) = state.chat.create_room(who.user, request).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(RoomBody { room })))
}

#[utoipa::path(get, path = "/rooms/{id}", params(("id" = i32, Path)), responses(
    (status = 200, body = RoomBody), (status = 404, body = ErrorBody),
))]
pub(super) async fn show(
    State(state): State<ApiState>,
    Caller(who): Caller,
    RoomPath(room): RoomPath,
) -> ApiResult<Json<RoomBody>> {
    Ok(Json(RoomBody { room: state.chat.room(who.user, room).await? }))
}

#[utoipa::path(patch, path = "/rooms/{id}", params(("id" = i32, Path)), request_body = RoomPatch, responses(
    (status = 200, body = RoomBody), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn rename(
    State(state): State<ApiState>,
    Caller(who): Caller,
    RoomPath(room): RoomPath,
    Body(patch): Body<RoomPatch>,
) -> ApiResult<Json<RoomBody>> {
    Ok(Json(RoomBody { room: state.chat.rename_room(who.user, room, &patch.name).await? }))
}

#[utoipa::path(post, path = "/rooms/{id}/members", params(("id" = i32, Path)), request_body = MembersAdd, responses(
    (status = 200, body = RoomBody), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn add_members(
    State(state): State<ApiState>,
    Caller(who): Caller,
    RoomPath(room): RoomPath,
    Body(request): Body<MembersAdd>,
) -> ApiResult<Json<RoomBody>> {
    Ok(Json(RoomBody { room: state.chat.add_members(who.user, room, &request).await? }))
}

#[utoipa::path(patch, path = "/rooms/{id}/members/{userId}", params(("id" = i32, Path), ("userId" = i32, Path)),
    request_body = MemberPatch, responses(
    (status = 200, body = RoomBody), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
))]
pub(super) async fn set_role(
    State(state): State<ApiState>,
    Caller(who): Caller,
    MemberPath(room, user): MemberPath,
    Body(patch): Body<MemberPatch>,
) -> ApiResult<Json<RoomBody>> {
    Ok(Json(RoomBody { room: state.chat.set_role(who.user, room, user, patch.role).await? }))
}

#[utoipa::path(delete, path = "/rooms/{id}/members/{userId}", params(("id" = i32, Path), ("userId" = i32, Path)),
    responses(
    (status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody),
))]
pub(super) async fn remove_member(
    State(state): State<ApiState>,
    Caller(who): Caller,
    MemberPath(room, user): MemberPath,
) -> ApiResult<StatusCode> {
    state.chat.remove_member(who.user, room, user).await?;
    Ok(StatusCode::NO_CONTENT)
}
