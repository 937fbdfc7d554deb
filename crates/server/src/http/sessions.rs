//! Sessions: `POST /sessions` and what is below it.
//!
//! Only translates; whose session it is, the engine looks at. Cells run by
//! `POST /execute` with a `session_id`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use engine::{Call, InSession, Owner, Reply, SessionCall};
use serde_json::{Map, Value};

use super::context::Context;
use super::state::Shared;
use super::{body, content_type};
use crate::api::{
    ContextRequest, ForkRequest, Problem, SessionOrder, SessionOut, SessionRequest, Sessions,
    context_named, parse_object,
};
use crate::runs;

/// Create a session
///
/// Makes a sandbox that lives on between calls. Its interpreters keep their state and its working directory its files, until it is deleted, idle for too long, or its time is over. Run code in it with `session_id` on `/execute`.
#[utoipa::path(
    post,
    path = "/sessions",
    operation_id = "createSession",
    request_body = Option<SessionRequest>,
    responses((status = 201, description = "The session is there", body = SessionOut)),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    context: Context,
    request: Request,
) -> Result<(StatusCode, Json<SessionOut>), Problem> {
    let (owner, object) = read(&shared, &context, request).await?;
    let order = SessionOrder::try_from(object)?;
    let call = SessionCall::Create(Box::new(order.draft));
    let mut session = one(&shared, owner, call).await?;
    session.warnings = order.warnings;
    Ok((StatusCode::CREATED, Json(session)))
}

/// List sessions
///
/// Lists the sessions of the token that asks.
#[utoipa::path(
    get,
    path = "/sessions",
    operation_id = "listSessions",
    responses((status = 200, description = "The sessions", body = Sessions)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    context: Context,
) -> Result<Json<Sessions>, Problem> {
    match ask(&shared, owner(&context), SessionCall::List).await? {
        Reply::Sessions(states) => Ok(Json(states.into())),
        _ => Err(Problem::internal()),
    }
}

/// Show a session
///
/// Tells what a session is now, and what its interpreters do. This is no use of it.
#[utoipa::path(
    get,
    path = "/sessions/{id}",
    operation_id = "getSession",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "The session", body = SessionOut)),
)]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<SessionOut>, Problem> {
    one(&shared, owner(&context), SessionCall::Show(id))
        .await
        .map(Json)
}

/// Delete a session
///
/// Ends a session, with all that runs in it and all its files.
#[utoipa::path(
    delete,
    path = "/sessions/{id}",
    operation_id = "deleteSession",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    ask(&shared, owner(&context), SessionCall::End(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Interrupt a session
///
/// Stops the code that runs, as Ctrl-C does, and keeps the state. Code that does not stop within two seconds is ended with its interpreter.
#[utoipa::path(
    post,
    path = "/sessions/{id}/interrupt",
    operation_id = "interruptSession",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "It is told to stop, if anything ran", body = SessionOut)),
)]
pub(super) async fn interrupt(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<SessionOut>, Problem> {
    in_context(&shared, &context, id, request, SessionCall::Interrupt).await
}

/// Restart an interpreter
///
/// Ends the interpreters of a session, or that of the `context` named in the body. The next cell starts a fresh one; files stay.
#[utoipa::path(
    post,
    path = "/sessions/{id}/restart",
    operation_id = "restartSession",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "The state is gone", body = SessionOut)),
)]
pub(super) async fn restart(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<SessionOut>, Problem> {
    in_context(&shared, &context, id, request, SessionCall::Restart).await
}

/// Pause a session
///
/// Stops all programs of a session, which keep their memory and use no processor time. The next call lets them go on.
#[utoipa::path(
    post,
    path = "/sessions/{id}/pause",
    operation_id = "pauseSession",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "It is paused", body = SessionOut)),
)]
pub(super) async fn pause(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<SessionOut>, Problem> {
    one(&shared, owner(&context), SessionCall::Pause(id))
        .await
        .map(Json)
}

/// Resume a session
///
/// Lets the programs of a paused session go on; any other call does so as well.
#[utoipa::path(
    post,
    path = "/sessions/{id}/resume",
    operation_id = "resumeSession",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "It goes on", body = SessionOut)),
)]
pub(super) async fn resume(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<SessionOut>, Problem> {
    one(&shared, owner(&context), SessionCall::Resume(id))
        .await
        .map(Json)
}

/// Create a context
///
/// Makes a further interpreter in a session, beside the others and with the same files. Name it as `context` on `/execute`.
#[utoipa::path(
    post,
    path = "/sessions/{id}/contexts",
    operation_id = "createContext",
    params(("id" = String, Path, description = "The session's id")),
    request_body = ContextRequest,
    responses((status = 201, description = "The session, with the context", body = SessionOut)),
)]
pub(super) async fn add_context(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<SessionOut>), Problem> {
    let (owner, object) = read(&shared, &context, request).await?;
    let request = ContextRequest::try_from(object)?;
    let call = SessionCall::AddContext {
        session: id,
        language: request.language,
        name: request.name,
    };
    let session = one(&shared, owner, call).await?;
    Ok((StatusCode::CREATED, Json(session)))
}

/// Fork a context
///
/// Makes a second interpreter with the memory of the first, in milliseconds, whatever it holds: the variables of both are the same now and change apart from then on. Files are shared. Threads, child processes, connections, timers and waiting tasks are not copied: while there are any it is refused with 409, and says which.
#[utoipa::path(
    post,
    path = "/sessions/{id}/fork",
    operation_id = "forkContext",
    params(("id" = String, Path, description = "The session's id")),
    request_body = Option<ForkRequest>,
    responses((status = 201, description = "The session, with the new context", body = SessionOut)),
)]
pub(super) async fn fork(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<SessionOut>), Problem> {
    let (owner, object) = read(&shared, &context, request).await?;
    let request = ForkRequest::try_from(object)?;
    let place = InSession {
        session: id,
        context: request.context,
    };
    let call = SessionCall::Fork(place, request.name);
    match ask(&shared, owner, call).await? {
        Reply::Forked(state, name, warnings) => {
            let mut session = SessionOut::from(*state);
            session.forked = Some(name);
            session.warnings = warnings;
            Ok((StatusCode::CREATED, Json(session)))
        }
        _ => Err(Problem::internal()),
    }
}

/// Delete a context
///
/// Ends an interpreter of a session.
#[utoipa::path(
    delete,
    path = "/sessions/{id}/contexts/{context}",
    operation_id = "deleteContext",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("context" = String, Path, description = "The context's name"),
    ),
    responses((status = 200, description = "The session without it", body = SessionOut)),
)]
pub(super) async fn end_context(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path((id, name)): Path<(String, String)>,
) -> Result<Json<SessionOut>, Problem> {
    let call = SessionCall::EndContext(InSession {
        session: id,
        context: Some(name),
    });
    one(&shared, owner(&context), call).await.map(Json)
}

pub(super) fn owner(context: &Context) -> Owner {
    context.caller(runs::ClientLimits::default()).principal.id
}

/// Reads a body that may be empty.
pub(super) async fn read(
    shared: &Shared,
    context: &Context,
    request: Request,
) -> Result<(Owner, Map<String, Value>), Problem> {
    let (parts, body) = request.into_parts();
    let owner = owner(context);
    let config = &shared.app.config;
    let (limit, patience) = (config.body_limit, config.client_timeout);
    let counted = (&shared.requests, &owner);
    let (bytes, _room) = body::read(&parts.headers, body, counted, limit, patience).await?;
    let object = object(&parts.headers, &bytes)?;
    Ok((owner, object))
}

fn object(headers: &HeaderMap, bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    content_type::require_json(headers)?;
    parse_object(bytes)
}

/// Carries out a call on a context that the body may name.
async fn in_context(
    shared: &Shared,
    context: &Context,
    session: String,
    request: Request,
    call: fn(InSession) -> SessionCall,
) -> Result<Json<SessionOut>, Problem> {
    let (owner, object) = read(shared, context, request).await?;
    let place = InSession {
        session,
        context: context_named(object)?,
    };
    one(shared, owner, call(place)).await.map(Json)
}

async fn one(shared: &Shared, owner: Owner, call: SessionCall) -> Result<SessionOut, Problem> {
    match ask(shared, owner, call).await? {
        Reply::Session(state) => Ok((*state).into()),
        _ => Err(Problem::internal()),
    }
}

async fn ask(shared: &Shared, owner: Owner, call: SessionCall) -> Result<Reply, Problem> {
    let answered = shared.app.engine.call(Call::Session(owner, call)).await;
    answered.map_err(|error| runs::failed(&error))
}
