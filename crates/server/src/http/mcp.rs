//! `/mcp`: the Model Context Protocol over HTTP. Only mounts it: reads bodies
//! within their bounds, and ends a stream when its client goes away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::response::Response;
use hyper::body::Frame;

use super::body;
use super::connection::ClientGone;
use super::context::Context;
use super::state::Shared;
use crate::api::Problem;
use crate::runs::ClientLimits;

/// Answers a message, or opens the stream of a session, or ends one.
pub(super) async fn mcp(
    State(shared): State<Arc<Shared>>,
    context: Context,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = context.caller(ClientLimits::default());
    let config = &shared.app.config;
    let owner = (&shared.requests, &caller.principal.id);
    let (limit, patience) = (config.body_limit, config.client_timeout);
    let (bytes, room) = body::read(&parts.headers, body, owner, limit, patience).await?;
    let room = Arc::new(room);
    let response = shared.mcp.answer(caller, parts, bytes, room).await;
    let socket = Arc::clone(&context.socket);
    Ok(response.map(|body| {
        Body::new(UntilClosed {
            body,
            closed: Box::pin(async move { socket.closed().await }),
            _context: context,
        })
    }))
}

/// A body that ends when its client closes the connection.
struct UntilClosed {
    body: Body,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    _context: Context,
}

impl HttpBody for UntilClosed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(ClientGone.into())));
        }
        Pin::new(&mut self.body)
            .poll_frame(cx)
            .map_err(axum::BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
