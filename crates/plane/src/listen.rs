//! The plane's listener and its table of routes. A connection ends with the
//! plane, and may be dropped without an answer where a fault asks for it.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::answer::{Mark, Refusal};
use crate::state::Shared;
use crate::{control, product};

/// Answers connections until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = router(shared);
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let routes = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let service = service_fn(|request: hyper::Request<Incoming>| {
                let answer = routes.call(request);
                async move {
                    let Ok(response) = answer.await;
                    match response.extensions().get::<Mark>() {
                        Some(Mark::Cut) => Err(io::Error::other("dropped by a fault")),
                        Some(Mark::Silent) => std::future::pending().await,
                        None => Ok(response),
                    }
                }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // An error is a fault of the plane's, or a client that went away.
            connection.await.is_ok()
        });
        while connections.try_join_next().is_some() {}
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/tunnels/{id}", get(control::record))
        .route("/v1/tunnels/{id}/poll", get(control::poll))
        .route("/v1/tunnels/{id}/response", post(control::response))
        .route("/v1/mcp/{id}", post(product::call).delete(product::end))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .with_state(shared)
}

async fn unknown(State(shared): State<Arc<Shared>>, method: Method, uri: Uri) -> Response {
    let message = format!("no such endpoint: {method} {uri}");
    shared.refuse(Refusal::new(StatusCode::NOT_FOUND, "not_found", message))
}

async fn not_allowed(State(shared): State<Arc<Shared>>, method: Method, uri: Uri) -> Response {
    let message = format!("no such method: {method} {uri}");
    let refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    );
    if uri.path().starts_with("/v1/mcp/") {
        // The product's clients may ask for a stream of events, which is not there.
        return refusal.answer();
    }
    shared.refuse(refusal)
}
