//! `GET /health`: whether the server is up, for load balancers and people.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};

use super::connection::Connection;
use super::gate::{TOKEN_CHARS, bearer};
use super::peer::client_ip;
use super::state::Shared;
use crate::api::{Health, HealthStatus};
use crate::auth::Scope;
use crate::telemetry::chain;

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
pub(super) async fn health(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    headers: HeaderMap,
) -> (StatusCode, Json<Health>) {
    let tunnel = shared.app.tunnel.as_ref();
    let operator = tunnel.is_some() && is_operator(&shared, connection, &headers).await;
    let health = Health::of(&shared.app.engine, shared.app.started, tunnel, operator);
    let status = match health.status {
        HealthStatus::Healthy => StatusCode::OK,
        HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

/// Says whether the caller shows a token with the scope `admin`. Without one the
/// answer is what everybody gets; a wrong one counts as anywhere.
async fn is_operator(shared: &Shared, connection: Connection, headers: &HeaderMap) -> bool {
    let Some(token) = bearer(headers).filter(|token| token.len() <= TOKEN_CHARS) else {
        return false;
    };
    let (now, config) = (Instant::now(), &shared.app.config);
    let client = client_ip(config, connection.peer.ip(), headers);
    match shared.app.store.authenticate(token).await {
        Ok(Ok(principal)) => principal.check(Scope::Admin).is_ok(),
        Ok(Err(_)) => {
            shared.failures.note(client, now);
            false
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "failed to check a token");
            false
        }
    }
}
