//! `GET /metrics`: hands out what the server counts.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::metrics::process;
use super::state::Shared;
use crate::api::Problem;
use crate::telemetry::chain;

/// The media type of the text form.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Metrics
///
/// Requests, runs, queue, durations and the server's own use of resources, in Prometheus' text form.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")),
)]
pub(super) async fn scrape(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let held = shared.requests.held();
    let text = shared.metrics.text(&shared.app.engine, held);
    let mut text = text.map_err(|error| {
        tracing::error!(error = %chain(&error), "failed to write the metrics");
        Problem::internal()
    })?;
    let started = shared.app.started.as_duration().as_secs_f64();
    text.push_str(&process::text(started));
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}
