//! The protocol over HTTP: one service for both eras, mounted by the HTTP door
//! behind its gate, which says who calls.
//!
//! Adds what rmcp lacks: JSON-RPC's codes for what is no message, sessions
//! that are their owner's and bounded, and an end of all streams when the
//! server drains.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use engine::Owner;
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::calls::Calls;
use super::message::{self, Head, NoMessage};
use super::sessions::Sessions;
use super::{Callers, Handler};
use crate::app::App;
use crate::runs::Caller;

/// The header that names a session of the older protocol.
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// How long a session is kept without a message; longer than any call takes.
const IDLE: Duration = Duration::from_secs(600);

/// How long answers may take to be read once the server closes.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// JSON-RPC's code for a server's own refusals.
const REFUSED: i32 = -32000;

/// The service and the sessions that are open on it.
pub(crate) struct Endpoint {
    service: StreamableHttpService<Handler, LocalSessionManager>,
    manager: Arc<LocalSessionManager>,
    sessions: Sessions,
    /// The requests of sessions that are in flight.
    calls: Calls,
    /// The answers that are not read to their end.
    answering: TaskTracker,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Makes the endpoint of a server's own HTTP. When the server closes, answers
    /// are given their last moments, and then all streams end.
    pub(crate) fn of_http(app: &Arc<App>) -> Self {
        let closing = CancellationToken::new();
        let endpoint = Self::new(app, closing.clone());
        let (answering, app) = (endpoint.answering.clone(), app.closing.clone());
        tokio::spawn(async move {
            app.cancelled().await;
            answering.close();
            // It comes with the end of the last run, whose answer is on its way.
            let read = tokio::time::timeout(LAST_ANSWERS, answering.wait()).await;
            if read.is_err() {
                tracing::warn!("some MCP answers were not read before the server closed");
            }
            closing.cancel();
        });
        endpoint
    }

    /// Makes an endpoint whose streams all end with `closing`.
    pub(crate) fn new(app: &Arc<App>, closing: CancellationToken) -> Self {
        let mut manager = LocalSessionManager::default();
        manager.session_config.keep_alive = Some(IDLE.max(2 * app.config.mcp_timeout));
        let manager = Arc::new(manager);
        // Host and origin are the gate's to check, the size the body reader's.
        let config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_max_request_body_bytes(usize::MAX)
            .with_cancellation_token(closing);
        let handler = Handler::new(app, Callers::Parts);
        let service =
            StreamableHttpService::new(move || Ok(handler.clone()), Arc::clone(&manager), config);
        Self {
            service,
            manager,
            sessions: Sessions::default(),
            calls: Calls::default(),
            answering: TaskTracker::new(),
        }
    }

    /// Answers a request whose body has been read. `held` is what the request
    /// takes of the server, and is kept as long as anything works for it.
    pub(crate) async fn answer(
        &self,
        caller: Caller,
        mut parts: Parts,
        body: Bytes,
        held: impl Clone + Send + Sync + 'static,
    ) -> Response<Body> {
        // Members of a group share sessions, in which their calls stay apart.
        let owner = Owner::new(caller.principal.key());
        let session = parts.headers.get(SESSION);
        let session = session.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        let mut head = None;
        if parts.method == Method::POST {
            head = match message::head(&body) {
                Ok(head) => Some(head),
                Err(why) => return json(StatusCode::BAD_REQUEST, &why.answer()),
            };
            let method = head.as_ref().and_then(|head| head.method.as_deref());
            if method == Some("initialize") && session.is_none() {
                let live = self.manager.sessions.read().await;
                let is_live = |id: &str| live.contains_key(id);
                if !self.sessions.has_room(&owner, is_live) {
                    let words = "too many sessions are open with this token; end some with DELETE, or wait until they expire";
                    let refused = message::error(REFUSED, words);
                    return json(StatusCode::TOO_MANY_REQUESTS, &refused);
                }
            }
        }
        // Whoever learnt another's session learns nothing more of it.
        if let Some(id) = &session
            && !self.sessions.is_of(id, &owner)
        {
            let refused = message::error(REFUSED, "there is no such session; initialize a new one");
            return json(StatusCode::NOT_FOUND, &refused);
        }
        let mut call = None;
        if let (
            Some(session),
            Some(Head {
                id: Some(id),
                method: Some(_),
                ..
            }),
        ) = (&session, &head)
        {
            call = self.calls.begin(session, id);
            if call.is_none() {
                let refused = NoMessage::in_flight(id).answer();
                return json(StatusCode::BAD_REQUEST, &refused);
            }
        }
        // The caller stands for it from here on. A call of a session outlives its
        // connection, of which nothing is to be kept open for it.
        parts.headers.remove(header::AUTHORIZATION);
        parts.extensions.clear();
        parts.extensions.insert(caller);
        parts.extensions.insert(held);
        // Kept until the request has its answer, as rmcp keeps these.
        parts.extensions.insert(Arc::new(call));
        let request = Request::from_parts(parts, Full::new(body));
        let response = self.service.handle(request).await;
        if let Some(id) = response.headers().get(SESSION)
            && session.is_none()
        {
            self.sessions
                .open(&String::from_utf8_lossy(id.as_bytes()), &owner);
        }
        let answering = head.is_some().then(|| self.answering.token());
        response.map(|body| {
            Body::new(Answer {
                body: Body::new(body),
                _answering: answering,
            })
        })
    }
}

/// The body of an answer, which counts as read when it is dropped.
struct Answer {
    body: Body,
    _answering: Option<TaskTrackerToken>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn json(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
