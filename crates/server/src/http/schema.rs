//! The OpenAPI documents, with the address under which they were asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Shared;
use super::openapi;
use super::serve::Connection;
use crate::public_url::of_request;

/// The registered media type of YAML.
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");

/// OpenAPI document (JSON)
///
/// This whole API in OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApiJson",
    tag = "schemas",
    responses((status = 200, description = "The document", body = Value, content_type = "application/json")),
)]
pub(super) async fn json(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
) -> Json<Value> {
    Json(whole(&shared, connection, &headers))
}

/// OpenAPI document (YAML)
///
/// This whole API in OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/openapi.yaml",
    operation_id = "getOpenApiYaml",
    tag = "schemas",
    responses((status = 200, description = "The document", body = Value, content_type = "application/yaml")),
)]
pub(super) async fn yaml(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
) -> Response {
    as_yaml(&whole(&shared, connection, &headers))
}

/// Document for ChatGPT Actions (JSON)
///
/// The part of this API that ChatGPT uses, in the form that its importer takes.
#[utoipa::path(
    get,
    path = "/actions/openapi.json",
    operation_id = "getActionsJson",
    tag = "schemas",
    responses((status = 200, description = "The document", body = Value, content_type = "application/json")),
)]
pub(super) async fn actions_json(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
) -> Json<Value> {
    Json(for_actions(&shared, connection, &headers))
}

/// Document for ChatGPT Actions (YAML)
///
/// The part of this API that ChatGPT uses, in the form that its importer takes.
#[utoipa::path(
    get,
    path = "/actions/openapi.yaml",
    operation_id = "getActionsYaml",
    tag = "schemas",
    responses((status = 200, description = "The document", body = Value, content_type = "application/yaml")),
)]
pub(super) async fn actions_yaml(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
) -> Response {
    as_yaml(&for_actions(&shared, connection, &headers))
}

fn whole(shared: &Shared, connection: Connection, headers: &HeaderMap) -> Value {
    let config = &shared.app.config;
    let url = of_request(config, connection.peer.ip(), headers);
    let engine = &shared.app.engine;
    openapi::document_within(
        &url,
        config.access,
        engine.bounds(),
        &engine.languages(),
        &engine.packages(),
    )
}

fn for_actions(shared: &Shared, connection: Connection, headers: &HeaderMap) -> Value {
    let config = &shared.app.config;
    let url = of_request(config, connection.peer.ip(), headers);
    let engine = &shared.app.engine;
    openapi::actions_document_within(
        &url,
        config.access,
        engine.bounds(),
        &engine.languages(),
        &engine.packages(),
    )
}

fn as_yaml(document: &Value) -> Response {
    ([(header::CONTENT_TYPE, YAML)], openapi::to_yaml(document)).into_response()
}
