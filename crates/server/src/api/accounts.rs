//! `/auth/*` and `/users*`.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use starling_protocol::http::{
    Authenticated, Login, Refresh, Register, UserBody, UserPatch, UsersBody,
};
use starling_protocol::{ErrorBody, Failure};

use super::ApiState;
use super::error::ApiResult;
use super::extract::{Body, Caller, Params, user_ids};

#[utoipa::path(post, path = "/auth/register", request_body = Register, responses(
    (status = 201, body = Authenticated),
    (status = 400, body = ErrorBody), (status = 409, body = ErrorBody), (status = 429, body = ErrorBody),
))]
pub(super) async fn register(
    State(state): State<ApiState>,
    Body(request): Body<Register>,
) -> ApiResult<(StatusCode, Json<Authenticated>)> {
    Ok((StatusCode::CREATED, Json(state.chat.register(request).await?)))
}

#[utoipa::path(post, path = "/auth/login", request_body = Login, responses(
    (status = 200, body = Authenticated),
    (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody),
))]
pub(super) async fn log_in(
    State(state): State<ApiState>,
    Body(request): Body<Login>,
) -> ApiResult<Json<Authenticated>> {
    Ok(Json(state.chat.log_in(request).await?))
}

#[utoipa::path(post, path = "/auth/refresh", request_body = Refresh, responses(
    (status = 200, body = Authenticated), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
))]
pub(super) async fn refresh(
    State(state): State<ApiState>,
    Body(request): Body<Refresh>,
) -> ApiResult<Json<Authenticated>> {
    Ok(Json(state.chat.refresh(&request.refresh_token).await?))
}

#[utoipa::path(post, path = "/auth/logout", responses((status = 204), (status = 401, body = ErrorBody)))]
pub(super) async fn log_out(
    State(state): State<ApiState>,
    Caller(who): Caller,
) -> ApiResult<StatusCode> {
    state.chat.log_out(who).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/users/me", responses((status = 200, body = UserBody), (status = 401, body = ErrorBody)))]
pub(super) async fn me(
    State(state): State<ApiState>,
    Caller(who): Caller,
) -> ApiResult<Json<UserBody>> {
    Ok(Json(UserBody { user: state.chat.me(who.user).await? }))
}

#[utoipa::path(patch, path = "/users/me", request_body = UserPatch, responses(
    (status = 200, body = UserBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
))]
pub(super) async fn update_me(
    State(state): State<ApiState>,
    Caller(who): Caller,
    Body(patch): Body<UserPatch>,
) -> ApiResult<Json<UserBody>> {
    Ok(Json(UserBody { user: state.chat.update_me(who.user, patch).await? }))
}

#[utoipa::path(get, path = "/users", params(
    ("search" = Option<String>, Query, description = "prefix of username or display name"),
    ("limit" = Option<i64>, Query, description = "1–100, 20 by default"),
    ("ids" = Option<String>, Query, description = "1–200 ids, comma-separated"),
), responses((status = 200, body = UsersBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(super) async fn users(
    State(state): State<ApiState>,
    Caller(_): Caller,
    params: Params,
) -> ApiResult<Json<UsersBody>> {
    let users = match (params.text("search"), params.text("ids")) {
        (Some(prefix), None) => state.chat.search_users(prefix, params.number("limit")?).await?,
        (None, Some(ids)) => {
            let wrong = || Failure::field("ids", "must be ids, separated by commas");
            state.chat.users(&user_ids(ids).ok_or_else(wrong)?).await?
        }
        _ => return Err(Failure::field("search", "give exactly one of search and ids").into()),
    };
    Ok(Json(UsersBody { users }))
}
