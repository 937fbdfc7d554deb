//! `POST /execute`: runs code and waits for what becomes of it, or hands the
//! run to [`events`](super::events) to be told while it goes on.
//!
//! Only translates: the order of a request to [`runs`], and what comes back to
//! a response. Dropping the handler's future, which happens when the client
//! goes away, kills the run.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::accept::{self, Form};
use super::context::Context;
use super::state::Shared;
use super::unread::Slot;
use super::{actions, body, content_type, events};
use crate::api::{ExecuteRequest, ExecuteResponse, Order, Problem, parse_object};
use crate::runs;

/// Execute code
///
/// Runs a program in a fresh sandbox and answers with its output. A program that fails, is killed or runs out of time is still answered with 200: look at `status` and `exit_code`.
#[utoipa::path(
    post,
    path = "/execute",
    operation_id = "executeCode",
    request_body = ExecuteRequest,
    responses((
        status = 200,
        description = "The code ran, to whatever end",
        content((ExecuteResponse = "application/json"), (String = "text/event-stream")),
    )),
)]
pub(super) async fn execute(
    State(shared): State<Arc<Shared>>,
    context: Context,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    content_type::require_json(&parts.headers)?;
    let config = &shared.app.config;
    let action = actions::limits(&parts.headers, context.arrived, config.action_timeout);
    let form = match action {
        Some(_) => Form::Json,
        None => accept::form(&parts.headers)?,
    };
    let caller = context.caller(action.unwrap_or_default());
    let owner = (&shared.requests, &caller.principal.id);
    let (limit, patience) = (config.body_limit, config.client_timeout);
    let (bytes, room) = body::read(&parts.headers, body, owner, limit, patience).await?;
    let order = Order::try_from(parse_object(&bytes)?)?;
    drop(bytes);
    if form == Form::Events {
        return events::answer(shared, context, caller, order, room).await;
    }
    let prepared = runs::prepare(&shared.app, &caller, order).await?;
    let answer = runs::execute(&shared.app, &caller, prepared, None).await?;
    drop(room);
    context.note_run(&answer.status);
    let key = caller.principal.id.as_str();
    let held = shared
        .unread
        .hold(key, Slot::default(), answer.to_json(), 0);
    let mut response = Response::new(Body::new(held));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
