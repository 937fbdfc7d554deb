//! `POST /execute`: runs code and waits for what becomes of it, or hands the
//! run to [`events`](super::events) to be told while it goes on.
//!
//! Dropping the handler's future, which happens when the client goes away,
//! drops the call to the engine and so kills the run.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use engine::{Call, Draft, Outcome, Reply};
use tokio::time::Instant;

use super::accept::{self, Form};
use super::access_log::Note;
use super::events::Streamed;
use super::frame::Arrived;
use super::gate::OPEN_KEY;
use super::unread::Slot;
use super::{Shared, actions, artifact, body, chain, file_refs, require_json};
use crate::api::{Code, ExecuteRequest, ExecuteResponse, Link, Problem, fit, parse_object};
use crate::auth::Principal;

/// Execute code
///
/// Runs a program in a fresh sandbox and answers with its output. A program that fails, is killed or runs out of time is still answered with 200: look at `status` and `exit_code`.
#[utoipa::path(
    post,
    path = "/execute",
    operation_id = "executeCode",
    tag = "execution",
    request_body = ExecuteRequest,
    responses((
        status = 200,
        description = "The code ran, to whatever end",
        content((ExecuteResponse = "application/json"), (String = "text/event-stream")),
    )),
)]
pub(super) async fn execute(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    require_json(&parts.headers)?;
    let is_action = actions::is_action(&parts.headers);
    let form = if is_action {
        Form::Json
    } else {
        accept::form(&parts.headers)?
    };
    let config = &shared.app.config;
    let body = body::read(
        &parts.headers,
        body,
        config.body_limit,
        config.client_timeout,
    )
    .await?;
    let mut request = ExecuteRequest::try_from(parse_object(&body)?)?;
    drop(body);
    let mut warnings = std::mem::take(&mut request.warnings);
    let refs = std::mem::take(&mut request.file_refs);
    let engine = &shared.app.engine;
    let mut draft = Draft::try_from(request)?;
    let limit = config.action_timeout;
    let arrived = parts.extensions.get::<Arrived>();
    let deadline =
        arrived.map_or_else(Instant::now, |arrived| Instant::from_std(arrived.0)) + limit;
    let before = is_action.then(|| actions::last_fetch(deadline, limit));
    let fetched = file_refs::fetch(&shared, &refs, &mut draft, before, &mut warnings).await?;
    if is_action {
        let left = deadline.saturating_duration_since(Instant::now());
        warnings.extend(actions::fit_time(&mut draft, engine.bounds(), limit, left));
    }
    let job = engine.accept(draft)?;
    if form == Form::Events {
        let streamed = Streamed {
            shared: Arc::clone(&shared),
            parts,
            fetched,
            warnings,
        };
        return streamed.answer(job).await;
    }
    let call = engine.call(Call::Execute(Box::new(job)));
    let replied = if is_action {
        let answered = tokio::time::timeout_at(deadline, call).await;
        answered.map_err(|_| too_late(limit))?
    } else {
        call.await
    };
    drop(fetched);
    let Reply::Outcome(mut outcome) = replied.map_err(|error| failed(&error))?;
    if let Some(note) = parts.extensions.get::<Note>() {
        note.run(outcome.status.as_str());
    }
    let links = artifact::offer(&shared, &parts, &mut outcome).await;
    let answer = respond(*outcome, links, warnings, is_action);
    let content = json(&answer);
    drop(answer);
    let held = shared.unread.hold(key(&parts), Slot::default(), content, 0);
    let mut response = Response::new(Body::new(held));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// An answer as it is sent.
pub(super) fn json(answer: &ExecuteResponse) -> Vec<u8> {
    serde_json::to_vec(answer).expect("strings and finite numbers always serialise")
}

/// Who is to be counted for what a request takes.
pub(super) fn key(parts: &Parts) -> &str {
    let principal = parts.extensions.get::<Principal>();
    principal.map_or(OPEN_KEY, |principal| &principal.key)
}

fn respond(
    outcome: Outcome,
    links: Vec<Option<Link>>,
    warnings: Vec<String>,
    is_action: bool,
) -> ExecuteResponse {
    let mut response = ExecuteResponse::from(outcome);
    response.link(links);
    response.warn_first(warnings);
    if is_action {
        response.offer_to_chatgpt();
        fit(response, actions::CHARS)
    } else {
        response
    }
}

/// Says to the caller what it may know, and to the log the rest.
pub(super) fn failed(error: &engine::Error) -> Problem {
    let problem = Problem::from(error);
    if problem.code == Code::Internal {
        tracing::error!(error = %chain(error), "failed to run a job");
    } else {
        tracing::debug!(error = %chain(error), "refused a job");
    }
    problem
}

/// A last resort: queue and program together were given less.
fn too_late(limit: Duration) -> Problem {
    Problem::new(
        Code::Unavailable,
        format!(
            "The server is too busy to finish this within the {} s that a ChatGPT Action may take; the run was stopped. Try again, with a shorter `timeout` if the program allows it.",
            limit.as_secs()
        ),
    )
    .retry_after(Duration::from_secs(5))
}
