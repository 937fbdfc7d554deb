//! The OpenAPI documents, with the address under which they were asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::connection::Connection;
use super::openapi::{self, Server};
use super::state::Shared;
use crate::app::App;
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
    responses((status = 200, description = "The document", body = Value, content_type = "application/json")),
)]
pub(super) async fn json(State(shared): State<Arc<Shared>>, server: Server) -> Json<Value> {
    Json(shared.description.document(&server))
}

/// OpenAPI document (YAML)
///
/// This whole API in OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/openapi.yaml",
    operation_id = "getOpenApiYaml",
    responses((status = 200, description = "The document", body = Value, content_type = "application/yaml")),
)]
pub(super) async fn yaml(State(shared): State<Arc<Shared>>, server: Server) -> Response {
    as_yaml(&shared.description.document(&server))
}

/// Document for ChatGPT Actions (JSON)
///
/// The part of this API that ChatGPT uses, in the form that its importer takes.
#[utoipa::path(
    get,
    path = "/actions/openapi.json",
    operation_id = "getActionsJson",
    responses((status = 200, description = "The document", body = Value, content_type = "application/json")),
)]
pub(super) async fn actions_json(State(shared): State<Arc<Shared>>, server: Server) -> Json<Value> {
    Json(shared.description.actions_document(&server))
}

/// Document for ChatGPT Actions (YAML)
///
/// The part of this API that ChatGPT uses, in the form that its importer takes.
#[utoipa::path(
    get,
    path = "/actions/openapi.yaml",
    operation_id = "getActionsYaml",
    responses((status = 200, description = "The document", body = Value, content_type = "application/yaml")),
)]
pub(super) async fn actions_yaml(State(shared): State<Arc<Shared>>, server: Server) -> Response {
    as_yaml(&shared.description.actions_document(&server))
}

/// This server, by the address under which it was asked.
impl FromRequestParts<Arc<Shared>> for Server {
    type Rejection = <ConnectInfo<Connection> as FromRequestParts<Arc<Shared>>>::Rejection;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Arc<Shared>,
    ) -> Result<Self, Self::Rejection> {
        let ConnectInfo::<Connection>(connection) =
            ConnectInfo::from_request_parts(parts, shared).await?;
        let App { engine, config, .. } = &*shared.app;
        Ok(Self {
            url: of_request(config, connection.peer.ip(), &parts.headers),
            access: config.access,
            bounds: *engine.bounds(),
            languages: engine.languages(),
            packages: engine.packages(),
        })
    }
}

fn as_yaml(document: &Value) -> Response {
    ([(header::CONTENT_TYPE, YAML)], openapi::to_yaml(document)).into_response()
}
