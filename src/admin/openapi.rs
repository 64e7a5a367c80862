//! The description of the API (OpenAPI 3.1), made from the calls and from the types that they answer with.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::{calls, changes, problem};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tradewind admin API",
        description = "What operators, scrapers and scripts ask of a running Tradewind. Money is USD, shares are 0 to 1, times are RFC 3339 in \
                       UTC, durations have their unit in the name. What is not known is null or absent, never 0. Fields may be added.",
    ),
    paths(
        calls::livez, calls::readyz, calls::metrics, calls::status, calls::explain, calls::decisions, calls::prices, calls::overrides,
        calls::one_override, calls::follow, calls::config, serve, dashboard, changes::add_override, changes::end_override,
        changes::notice, changes::reload,
    ),
    components(schemas(problem::Document)),
    modifiers(&Common),
)]
struct Description;

/// Calls that need no token.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/openapi.json"];

/// What any call behind the guard may answer with.
const REFUSALS: [(&str, &str); 6] = [
    (
        "400",
        "The request cannot be read: `bad_host`, `bad_query`, `malformed_json`, `broken_body`, `bad_if_match`, `bad_idempotency_key`",
    ),
    ("401", "A token is needed: `no_token`, `unknown_token`, `expired_token`"),
    ("403", "It may not be done so: `role`, `foreign_host`, `foreign_origin`"),
    (
        "429",
        "Too many wrong tokens came from this address; `Retry-After` says when to come again: `too_many_attempts`",
    ),
    ("500", "A fault of Tradewind; its log has the cause: `internal`"),
    (
        "503",
        "The state directory cannot be used now, or it took too long: `not_stored`, `journal_unreadable`, `too_slow`, `too_many_streams`",
    ),
];

/// What any call with a body may answer with, too.
const BODY_REFUSALS: [(&str, &str); 4] = [
    ("408", "The body took longer than 10 s: `slow_body`"),
    ("413", "The body is larger than 64 KiB: `body_too_large`"),
    ("415", "The body is not JSON: `unsupported_media_type`"),
    (
        "422",
        "JSON, but not what can be done: `invalid_body`, `invalid_override`, `invalid_notice`, `idempotency_key_reused`",
    ),
];

/// The description as JSON.
pub fn json() -> serde_json::Value {
    serde_json::to_value(Description::openapi()).unwrap_or_default()
}

/// This description
#[utoipa::path(
    get, path = "/openapi.json", tag = "observe",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn serve() -> Json<serde_json::Value> {
    Json(json())
}

/// The dashboard
#[utoipa::path(
    get, path = "/", tag = "observe",
    responses(
        (status = 200, description = "A page for people, whose forms are no part of this API", body = String, content_type = "text/html"),
        (status = 401, description = "A page that asks for a token", body = String, content_type = "text/html"),
    )
)]
#[expect(dead_code, reason = "only described here: the pages have a router of their own")]
fn dashboard() {}

/// Adds what all calls have in common.
struct Common;

impl Modify for Common {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        if let Some(components) = &mut description.components {
            let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
            let bearer = bearer
                .description(Some("One of those in `[admin] tokens`; none are needed where there are none."))
                .build();
            components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
            let cookie = ApiKeyValue::new("tradewind_session");
            components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        }
        for (path, item) in &mut description.paths.paths {
            let operations = [&mut item.get, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten().filter(|_| !OPEN.contains(&&**path)) {
                refusals(operation, &REFUSALS);
                if operation.request_body.is_some() {
                    refusals(operation, &BODY_REFUSALS);
                }
                // The last one, without anything, is for an API without tokens.
                let scopes: [&str; 0] = [];
                let ways = ["bearer", "session"].map(|name| SecurityRequirement::new(name, scopes));
                operation.security = Some(ways.into_iter().chain([SecurityRequirement::default()]).collect());
            }
        }
    }
}

fn refusals(operation: &mut Operation, all: &[(&str, &str)]) {
    for (status, description) in all {
        let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
        let response = ResponseBuilder::new().description(*description);
        let response = response.content("application/problem+json", content).build();
        operation.responses.responses.entry((*status).to_owned()).or_insert(RefOr::T(response));
    }
}
