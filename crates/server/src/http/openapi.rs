//! The OpenAPI documents, made from the code that answers.
//!
//! Paths, parameters and schemas come from the handlers and the wire types;
//! the refusals from the one table of problems. Nothing is written twice, and
//! golden copies at the root of the repository show each change in review.

use std::sync::LazyLock;

use engine::Bounds;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::api::{
    Code, Encoding, ExecuteRequest, ExecuteResponse, FileIn, FileOut, Health, HealthStatus,
    LanguageOut, Languages, LoadOut, ProblemDocument, StageOut, UsageOut,
};
use crate::config::Access;

mod flatten;

/// The address in the golden copies.
pub const EXAMPLE_URL: &str = "https://codex.example.com";

/// The name of the one security scheme.
const SCHEME: &str = "BearerAuth";

/// Bytes in a MiB.
const MIB: u64 = 1024 * 1024;

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Codex Code Execution Server",
        description = "Runs code in a sandbox and answers with its output, errors and files."
    ),
    paths(
        super::execute::execute,
        super::health::health,
        super::languages::languages,
        super::pages::index,
        super::pages::privacy,
        super::schema::json,
        super::schema::yaml,
        super::schema::actions_json,
        super::schema::actions_yaml,
    ),
    components(schemas(
        Encoding, ExecuteRequest, ExecuteResponse, FileIn, FileOut, Health, HealthStatus,
        LanguageOut, Languages, LoadOut, ProblemDocument, StageOut, UsageOut,
    )),
    tags(
        (name = "execution", description = "Running code"),
        (name = "server", description = "What this server is and can do"),
        (name = "schemas", description = "This API, described"),
        (name = "pages", description = "For people"),
    )
)]
struct Api;

/// The part that is the same for every server.
static BASE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::to_value(Api::openapi()).expect("a document of strings and numbers serialises")
});

/// The whole API as OpenAPI 3.1, with the default bounds.
#[must_use]
pub fn document(base_url: &str, access: Access) -> Value {
    document_within(base_url, access, &Bounds::default())
}

/// The part for ChatGPT Actions, flattened, with the default bounds.
#[must_use]
pub fn actions_document(base_url: &str, access: Access) -> Value {
    actions_document_within(base_url, access, &Bounds::default())
}

/// A document as YAML.
#[must_use]
pub fn to_yaml(document: &Value) -> String {
    yaml_serde::to_string(document).expect("any JSON value is a YAML value")
}

/// [`document`] of a server with these bounds.
#[must_use]
pub fn document_within(base_url: &str, access: Access, bounds: &Bounds) -> Value {
    let mut document = BASE.clone();
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    document["info"]["license"] = json!({
        "name": "Apache-2.0 OR MIT",
        "identifier": "Apache-2.0 OR MIT",
    });
    document["servers"] = json!([{ "url": base_url }]);
    document["components"]["securitySchemes"] = json!({
        SCHEME: { "type": "http", "scheme": "bearer" },
    });
    bound(&mut document, bounds);
    let paths = document["paths"].as_object_mut();
    for (path, item) in paths.into_iter().flatten() {
        for (_, operation) in item.as_object_mut().into_iter().flatten() {
            complete(path, operation, access);
        }
    }
    document
}

/// [`actions_document`] of a server with these bounds.
#[must_use]
pub fn actions_document_within(base_url: &str, access: Access, bounds: &Bounds) -> Value {
    flatten::flatten(&document_within(base_url, access, bounds), access)
}

/// Writes the bounds in force into the request's schema.
fn bound(document: &mut Value, bounds: &Bounds) {
    let request = &mut document["components"]["schemas"]["ExecuteRequest"]["properties"];
    request["code"]["maxLength"] = json!(bounds.code);
    request["args"]["maxItems"] = json!(bounds.args);
    request["files"]["maxItems"] = json!(bounds.files_in);
    request["timeout"]["default"] = json!(bounds.wall_time.as_secs());
    request["timeout"]["maximum"] = json!(bounds.wall_time_max.as_secs());
    request["memory_mb"]["default"] = json!(bounds.memory / MIB);
    request["memory_mb"]["maximum"] = json!(bounds.memory_max / MIB);
}

/// Adds to an operation what no handler says by itself.
fn complete(path: &str, operation: &mut Value, access: Access) {
    let guarded = !super::gate::is_open_path(path);
    if guarded && access == Access::Token {
        operation["security"] = json!([{ SCHEME: [] }]);
    } else {
        operation["security"] = json!([]);
    }
    let responses = &mut operation["responses"];
    let mut ok_headers = headers(&["X-Request-Id"]);
    if guarded {
        ok_headers.append(&mut headers(&["RateLimit", "RateLimit-Policy"]));
    }
    responses["200"]["headers"] = Value::Object(ok_headers);
    for code in refusals(guarded, access) {
        responses[code.status().to_string()] = refusal(code);
    }
}

/// The problems that an operation can end in.
fn refusals(guarded: bool, access: Access) -> Vec<Code> {
    let of_all = [Code::InvalidRequest, Code::Internal];
    if !guarded {
        return of_all.to_vec();
    }
    let mut codes = vec![
        Code::Forbidden,
        Code::RequestTimeout,
        Code::BodyTooLarge,
        Code::UnsupportedMediaType,
        Code::RateLimited,
        Code::Unavailable,
    ];
    codes.extend(of_all);
    if access == Access::Token {
        codes.push(Code::Unauthorized);
    }
    codes
}

fn refusal(code: Code) -> Value {
    let mut names = vec!["X-Request-Id"];
    match code {
        Code::Unauthorized => names.push("WWW-Authenticate"),
        Code::RateLimited => names.extend(["Retry-After", "RateLimit", "RateLimit-Policy"]),
        Code::Unavailable => names.push("Retry-After"),
        _ => {}
    }
    json!({
        "description": code.doc(),
        "headers": headers(&names),
        "content": {
            "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" },
                "example": {
                    "type": code.type_uri(),
                    "title": code.title(),
                    "status": code.status(),
                    "detail": example_detail(code),
                    "request_id": "019b7c1e-5a3f-7c10-8a51-0242ac120002",
                },
            },
        },
    })
}

fn example_detail(code: Code) -> String {
    match code {
        Code::Unauthorized => crate::api::Problem::unauthorized().detail,
        _ => code.doc().to_owned(),
    }
}

/// Response headers by name, each with its meaning.
fn headers(names: &[&str]) -> Map<String, Value> {
    let header = |name: &&str| {
        let (kind, text) = match *name {
            "Retry-After" => ("integer", "Seconds until the next try is worth while."),
            "RateLimit" => ("string", "Requests left (r) and seconds until more (t)."),
            "RateLimit-Policy" => ("string", "Requests (q) per window of seconds (w)."),
            "WWW-Authenticate" => ("string", "The scheme to authenticate with: Bearer."),
            _ => ("string", "Finds this request in the server's log."),
        };
        let header = json!({ "description": text, "schema": { "type": kind } });
        ((*name).to_owned(), header)
    };
    names.iter().map(header).collect()
}
