//! The HTTP front door: a thin translation to [`runs`](crate::runs).
//!
//! From outside in: frame (id, log, security headers, problem documents),
//! panics, CORS, gate (host, origin, token), then the routes. Nothing below
//! this module knows of HTTP, and nothing here runs code itself.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::api::Problem;
use crate::app::App;
use crate::mcp::Endpoint;
use crate::telemetry;

mod accept;
mod access_log;
mod actions;
mod artifact;
mod body;
mod byte_shares;
mod commands;
mod connection;
mod connections;
mod content_type;
mod context;
mod docs;
mod events;
mod execute;
mod failures;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gate;
mod health;
mod hooks;
mod host;
mod languages;
mod limits;
mod mcp;
mod metrics;
mod oauth;
pub mod openapi;
mod pages;
mod peer;
mod route;
mod routes;
mod schema;
mod scrape;
mod serve;
mod session_files;
mod session_upload;
mod sessions;
mod state;
mod stream;
mod unread;

#[cfg(test)]
pub(crate) use body::REQUEST_BYTES;
pub use connection::Connection;
#[cfg(test)]
pub(crate) use failures::REFUSALS;
#[cfg(test)]
pub(crate) use oauth::{ALL as CLIENTS_ALL, EACH as CLIENTS_EACH};
use openapi::Description;
#[cfg(test)]
pub(crate) use serve::FIRST_HEADER;
use state::Shared;

/// Seconds that a browser may remember the answer to a CORS question.
const CORS_AGE: Duration = Duration::from_secs(3600);

/// Serves `app` on `listener` until `shutdown` resolves, then refuses new
/// calls and waits for the running ones, at most `drain_grace`.
///
/// # Errors
/// When the listener itself is broken; what still runs is drained first.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = router(Arc::clone(&app));
    serve::serve(listener, router, app, shutdown).await
}

/// Returns this API's description, of which both documents are made.
#[must_use]
pub fn description() -> Description {
    Description::of(routes::all())
}

/// Returns the router of all routes with all layers.
fn router(app: Arc<App>) -> Router {
    let metrics = metrics::Metrics::of(&app.engine, app.tunnel.as_ref());
    let shared = Arc::new(Shared {
        mcp: Endpoint::of_http(&app),
        description: description(),
        unread: metrics.unread(app.config.unread),
        requests: body::shares(app.config.body_limit),
        metrics,
        failures: failures::Failures::default(),
        oauth: oauth::OAuth::new(app.config.oauth_client_keys),
        app,
    });
    layered(routes::router(&shared), &shared)
}

fn layered(routes: Router, shared: &Arc<Shared>) -> Router {
    let state = || Arc::clone(shared);
    let gated = routes.layer(middleware::from_fn_with_state(state(), gate::gate));
    let origins = &shared.app.config.cors_origins;
    let shared_with_browsers = if origins.is_empty() {
        gated
    } else {
        gated.layer(cors(origins))
    };
    let around = frame::Around {
        patience: shared.app.config.client_timeout,
        metrics: shared.metrics.clone(),
    };
    framed(shared_with_browsers, around)
}

/// The two layers that nothing gets around.
fn framed(router: Router, around: frame::Around) -> Router {
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(around, frame::frame))
}

/// Returns the layer that lets the listed origins call.
fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("mcp-protocol-version"),
        ])
        .expose_headers(
            [
                "ratelimit",
                "ratelimit-policy",
                "retry-after",
                "x-request-id",
            ]
            .map(HeaderName::from_static),
        )
        .max_age(CORS_AGE);
    let any = origins.iter().any(|origin| origin == "*");
    let listed = origins.iter();
    let listed: Vec<HeaderValue> = listed.filter_map(|origin| origin.parse().ok()).collect();
    layer.allow_origin(AllowOrigin::predicate(move |origin, request| {
        // OAuth has rules of its own, whatever is listed.
        oauth::may_be_called(request.uri.path()).unwrap_or_else(|| any || listed.contains(origin))
    }))
}

/// A handler panicked: one request is lost, not the server.
fn panicked(panic: Box<dyn Any + Send>) -> Response<Body> {
    let words = telemetry::panic_words(&*panic).to_owned();
    let mut response = Problem::internal().into_response();
    response.extensions_mut().insert(frame::Panic(words));
    response
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use axum::routing::get;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_one_problem_and_no_more() {
        async fn boom() {
            panic!("secret words");
        }
        let around = frame::Around {
            patience: Duration::from_secs(1),
            metrics: metrics::Metrics::new(),
        };
        let router = framed(Router::new().route("/", get(boom)), around);
        for _ in 0..2 {
            let request = Request::new(Body::empty());
            let response = tower::ServiceExt::oneshot(router.clone(), request).await;
            let (parts, body) = response.expect("never fails").into_parts();
            assert_eq!(parts.status, 500);
            let kind = &parts.headers[header::CONTENT_TYPE];
            assert_eq!(kind, "application/problem+json");
            let body = axum::body::to_bytes(body, 10_000).await.expect("a body");
            let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(
                json["request_id"],
                parts.headers["x-request-id"].to_str().expect("text")
            );
            assert!(!json.to_string().contains("secret"));
        }
    }
}
