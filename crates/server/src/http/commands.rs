//! Commands of a session: `POST /sessions/{id}/commands` and what is below it.
//!
//! Only translates; what may run, and whose it is, the engine looks at.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use engine::{Call, CommandCall, Owner, Reply};
use serde::Deserialize;

use super::accept::{self, Form};
use super::body;
use super::context::Context;
use super::events::{self, Ended, Running};
use super::sessions::{owner, read};
use super::state::Shared;
use crate::api::{CommandOut, CommandRequest, CommandsOut, Problem};
use crate::runs;

/// The longest that a caller may wait for the end of a command.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a command is waited for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WaitQuery {
    /// Seconds.
    #[serde(default)]
    wait: u64,
}

/// Whether input is all that a command gets.
#[derive(Debug, Default, Deserialize)]
pub(super) struct FeedQuery {
    #[serde(default)]
    close: bool,
}

/// Run a command
///
/// Runs a shell command in the sandbox of a session, beside its interpreters and with their files: to its end, or with `background` only to its beginning. With `Accept: text/event-stream` its output comes while it is printed.
#[utoipa::path(
    post,
    path = "/sessions/{id}/commands",
    operation_id = "runCommand",
    params(("id" = String, Path, description = "The session's id")),
    request_body = CommandRequest,
    responses(
        (status = 200, description = "The command ended, in whatever way", content((CommandOut = "application/json"), (String = "text/event-stream"))),
        (status = 201, description = "The command runs", body = CommandOut),
    ),
)]
pub(super) async fn run(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let form = accept::form(request.headers())?;
    let (owner, object) = read(&shared, &context, request).await?;
    let draft = CommandRequest::try_from(object)?.draft()?;
    let background = draft.background;
    let call = CommandCall::Run(Box::new(draft));
    if form == Form::Events && !background {
        return follow(shared, context, owner, id, call).await;
    }
    let status = match background {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let command = one(&shared, owner, id, call).await?;
    Ok((status, command).into_response())
}

/// Runs a command, and tells its output while it is printed.
async fn follow(
    shared: Arc<Shared>,
    context: Context,
    owner: Owner,
    id: String,
    call: CommandCall,
) -> Result<Response, Problem> {
    let app = Arc::clone(&shared.app);
    let (sink, told) = engine::events(app.engine.bounds().events());
    let call = Call::Command(owner.clone(), id, call);
    let running: Running = Box::pin(async move {
        let answered = app.engine.call_streaming(call, sink).await;
        match answered.map_err(|error| runs::failed(&error))? {
            Reply::Command(command) => {
                let command = CommandOut::from(*command);
                let json = serde_json::to_vec(&command).map_err(|_| Problem::internal())?;
                let status = command.status.unwrap_or_default();
                Ok(Ended { status, json })
            }
            _ => Err(Problem::internal()),
        }
    });
    events::follow(shared, context, owner, told, running).await
}

/// List commands
///
/// Lists the commands of a session that run, and the last ones that have ended.
#[utoipa::path(
    get,
    path = "/sessions/{id}/commands",
    operation_id = "listCommands",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "The commands, the oldest first", body = CommandsOut)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<CommandsOut>, Problem> {
    match ask(&shared, owner(&context), id, CommandCall::List).await? {
        Reply::Commands(commands) => Ok(Json(commands.into())),
        _ => Err(Problem::internal()),
    }
}

/// Show a command
///
/// Tells what a command has printed so far and how it ended, after waiting for its end for `wait` seconds at most.
#[utoipa::path(
    get,
    path = "/sessions/{id}/commands/{command}",
    operation_id = "getCommand",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("command" = String, Path, description = "The command's id"),
        ("wait" = Option<u64>, Query, description = "Seconds to wait for its end, at most 30"),
    ),
    responses((status = 200, description = "The command", body = CommandOut)),
)]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path((id, command)): Path<(String, String)>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<CommandOut>, Problem> {
    let patience = Duration::from_secs(query.wait).min(PATIENCE);
    let call = CommandCall::Show(command, patience);
    one(&shared, owner(&context), id, call).await
}

/// Give a command input
///
/// Gives a command that runs in the background the body as input; `close=true` says that this was all.
#[utoipa::path(
    post,
    path = "/sessions/{id}/commands/{command}/stdin",
    operation_id = "feedCommand",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("command" = String, Path, description = "The command's id"),
        ("close" = Option<bool>, Query, description = "Whether nothing more comes"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "The command", body = CommandOut)),
)]
pub(super) async fn feed(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path((id, command)): Path<(String, String)>,
    Query(query): Query<FeedQuery>,
    request: Request,
) -> Result<Json<CommandOut>, Problem> {
    let (parts, body) = request.into_parts();
    let owner = owner(&context);
    let config = &shared.app.config;
    let (limit, patience) = (config.body_limit, config.client_timeout);
    let counted = (&shared.requests, &owner);
    let (bytes, _room) = body::read(&parts.headers, body, counted, limit, patience).await?;
    let call = CommandCall::Feed(command, bytes.to_vec(), query.close);
    one(&shared, owner, id, call).await
}

/// End a command
///
/// Asks a command to end, and ends it after a second, with what is still of its process group.
#[utoipa::path(
    delete,
    path = "/sessions/{id}/commands/{command}",
    operation_id = "endCommand",
    params(
        ("id" = String, Path, description = "The session's id"),
        ("command" = String, Path, description = "The command's id"),
    ),
    responses((status = 200, description = "How it ended", body = CommandOut)),
)]
pub(super) async fn kill(
    State(shared): State<Arc<Shared>>,
    context: Context,
    Path((id, command)): Path<(String, String)>,
) -> Result<Json<CommandOut>, Problem> {
    one(&shared, owner(&context), id, CommandCall::Kill(command)).await
}

async fn one(
    shared: &Shared,
    owner: Owner,
    id: String,
    call: CommandCall,
) -> Result<Json<CommandOut>, Problem> {
    match ask(shared, owner, id, call).await? {
        Reply::Command(command) => Ok(Json((*command).into())),
        _ => Err(Problem::internal()),
    }
}

async fn ask(
    shared: &Shared,
    owner: Owner,
    id: String,
    call: CommandCall,
) -> Result<Reply, Problem> {
    let answered = shared.app.engine.call(Call::Command(owner, id, call)).await;
    answered.map_err(|error| runs::failed(&error))
}
