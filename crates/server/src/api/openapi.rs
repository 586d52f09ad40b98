//! The API's description, made from the code.

use axum::Json;
use utoipa::OpenApi;

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};

use super::{accounts, messages, rooms};

#[derive(OpenApi)]
#[openapi(
    info(title = "Starling", description = "REST API of the Starling chat server"),
    servers((url = "/api")),
    modifiers(&Everywhere),
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

/// What every call has in common: the token, and the refusals that any may meet.
struct Everywhere;

/// Calls that make or renew a login: they take no token and are limited by address.
const ENTRANCE: [&str; 3] = ["/auth/register", "/auth/login", "/auth/refresh"];

impl utoipa::Modify for Everywhere {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("The accessToken of a login."))
            .build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("accessToken", SecurityScheme::Http(bearer));
        for (path, item) in &mut api.paths.paths {
            let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                refusals(operation, ENTRANCE.contains(&path.as_str()));
            }
        }
    }
}

fn refusals(operation: &mut Operation, entrance: bool) {
    let mut may_answer = vec![("503", "The database or the server can't do it now.")];
    if operation.request_body.is_some() {
        may_answer.push(("400", "The body is not what is asked for."));
        may_answer.push(("413", "The body is above the payload limit."));
    }
    if entrance {
        may_answer.push(("429", "Too many attempts."));
    } else {
        may_answer.push(("401", "There is no valid access token."));
        let none: [&str; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new("accessToken", none)]);
    }
    for (status, description) in may_answer {
        let schema = Ref::from_schema_name("ErrorBody");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response =
            ResponseBuilder::new().description(description).content("application/json", content);
        operation.responses.responses.entry(status.to_owned()).or_insert(response.build().into());
    }
}

/// `/api/openapi.json`
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}
