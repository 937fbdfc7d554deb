//! `GET /health`: whether the server is up, for load balancers and people.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::state::Shared;
use crate::api::{Health, HealthStatus};

/// Health check
///
/// Tells the version, since when it runs, the isolation that runs get, the load, and the languages that can run.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "healthCheck",
    responses(
        (status = 200, description = "The server is healthy", body = Health),
        (status = 503, description = "No code can be run any more: the sandbox broke down, and the server is about to end", body = Health),
    ),
)]
pub(super) async fn health(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Health>) {
    let health = Health::of(
        &shared.app.engine,
        shared.app.started,
        shared.app.tunnel.as_ref(),
    );
    let status = match health.status {
        HealthStatus::Healthy => StatusCode::OK,
        HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}
