//! `GET /languages`: what can run here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::state::Shared;
use crate::api::Languages;

/// List supported languages
///
/// Lists each language with its version, whether it can run on this server now, and the packages that its programs can use.
#[utoipa::path(
    get,
    path = "/languages",
    operation_id = "listLanguages",
    responses((status = 200, description = "The languages, the default first", body = Languages)),
)]
pub(super) async fn languages(State(shared): State<Arc<Shared>>) -> Json<Languages> {
    let engine = &shared.app.engine;
    let intent = shared.app.intent();
    Json(Languages::of(
        engine.languages(),
        &engine.packages(),
        intent,
    ))
}
