//! The API's description, made from the code.

use axum::Json;
use utoipa::OpenApi;

use super::{accounts, messages, rooms};

#[derive(OpenApi)]
#[openapi(
    info(title = "Starling", description = "REST API of the Starling chat server"),
    servers((url = "/api")),
    paths(
        accounts::register,
        accounts::log_in,
        accounts::refresh,
        accounts::log_out,
        accounts::me,
        accounts::update_me,
        accounts::users,
        rooms::list,
        rooms::create,
        rooms::show,
        rooms::rename,
        rooms::add_members,
        rooms::set_role,
        rooms::remove_member,
        messages::history,
        messages::search,
    )
)]
struct Api;

/// `/api/openapi.json`
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}
