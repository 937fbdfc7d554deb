//! The tools for a session besides running code in it: its making, its commands and its
//! files. Schemas and calls stand together, since each is small.

use std::io::Read as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::{Call, CommandCall, Content, FileCall, InSession, Reply, SessionCall, quote};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use serde_json::{Map, Value, json};

use super::call::{rate_limited, refused};
use super::files::link_in_session;
use super::tools::tool;
use crate::api::{
    CommandOut, CommandRequest, FileListOut, ForkRequest, Problem, SessionOrder, SessionOut,
};
use crate::app::App;
use crate::media::Media;
use crate::runs::{self, Caller};

/// The tool that makes a session.
pub(super) const CREATE_SESSION: &str = "create_session";
/// The tool that copies an interpreter with its memory.
pub(super) const FORK_CONTEXT: &str = "fork_context";
/// The tool that runs a shell command.
pub(super) const RUN_COMMAND: &str = "run_command";
/// The tool that names files.
pub(super) const LIST_FILES: &str = "list_files";
/// The tool that reads a file.
pub(super) const READ_FILE: &str = "read_file";
/// The tool that writes a file.
pub(super) const WRITE_FILE: &str = "write_file";

/// Bytes of a text that one call reads: more is no use to a model.
const TEXT_BYTES: u64 = 90_000;
/// Bytes of a picture or another file that one call reads.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Files of a list that are linked, too.
const LINKS: usize = 50;

/// Returns the tools, by name.
pub(super) fn all() -> [Tool; 6] {
    [
        create_session(),
        fork_context(),
        list_files(),
        read_file(),
        run_command(),
        write_file(),
    ]
}

/// What a tool does, as clients ask for it: whether it only reads, and whether what it
/// changes was somebody's before. None reaches anything but its session.
fn hints(title: &str, reads: bool, replaces: bool) -> ToolAnnotations {
    let title = Some(title.to_owned());
    ToolAnnotations::from_raw(title, Some(reads), Some(replaces), Some(reads), Some(false))
}

/// Returns the schema of an object that names a session, with more properties.
fn input(more: Value, required: &[&str]) -> Value {
    let mut properties = json!({
        "session_id": { "type": "string", "description": "A session of create_session." },
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut properties, more) {
        all.extend(more);
    }
    let mut names = vec!["session_id"];
    names.extend(required);
    json!({ "type": "object", "properties": properties, "required": names })
}

fn create_session() -> Tool {
    let input = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "A name for people." },
            "memory_mb": { "type": "integer", "minimum": 16, "description": "Memory of the session in MiB." },
            "idle_timeout": {
                "type": "number",
                "minimum": 1,
                "description": "Seconds without a call before it is paused; it ends after an hour.",
            },
        },
    });
    let output = json!({
        "type": "object",
        "properties": {
            "session_id": { "type": "string", "description": "Pass it to run_code." },
            "expires": { "type": "string" },
            "memory_mb": { "type": "integer" },
        },
        "required": ["session_id", "expires", "memory_mb"],
    });
    tool(
        CREATE_SESSION,
        "Create a session",
        "Makes a sandbox that keeps variables and files between calls of run_code. Make one for a conversation and use it throughout.",
        input,
        output,
        hints("Create a session", false, false),
    )
}

fn fork_context() -> Tool {
    let output = json!({
        "type": "object",
        "properties": {
            "context": { "type": "string", "description": "Pass it to run_code, beside session_id." },
            "contexts": { "type": "array", "items": { "type": "string" } },
            "warnings": { "type": "array", "items": { "type": "string" } },
        },
        "required": ["context", "contexts", "warnings"],
    });
    let more = json!({
        "context": { "type": "string", "description": "The context to copy; needed only where there are several." },
        "name": { "type": "string", "description": "A name for the copy." },
        "end": { "type": "string", "description": "A context to end first, such as a try that failed." },
    });
    tool(
        FORK_CONTEXT,
        "Fork a context",
        "Copies a Python interpreter of a session with all its variables, in milliseconds, to try a second way and keep the better. Files stay shared.",
        input(more, &[]),
        output,
        hints("Fork a context", false, false),
    )
}

fn run_command() -> Tool {
    let output = json!({
        "type": "object",
        "properties": {
            "output": { "type": "string", "description": "Standard output." },
            "error": { "type": "string", "description": "Standard error." },
            "status": { "type": "string" },
            "exit_code": { "type": "integer" },
            "truncated": { "type": "boolean" },
        },
        "required": ["output", "error", "status", "exit_code", "truncated"],
    });
    let more = json!({
        "command": { "type": "string", "description": "A shell command." },
        "directory": { "type": "string", "description": "Folder below the working directory." },
        "timeout": { "type": "number", "minimum": 1, "description": "Seconds before it is ended." },
    });
    tool(
        RUN_COMMAND,
        "Run a command",
        "Runs a shell command in a session, with its files, without network.",
        input(more, &["command"]),
        output,
        hints("Run a command", false, false),
    )
}

fn list_files() -> Tool {
    let output = json!({
        "type": "object",
        "properties": {
            "files": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "path": { "type": "string" },
                        "kind": { "type": "string" },
                        "size": { "type": "integer" },
                        "modified": { "type": "string" },
                    },
                    "required": ["path", "kind", "size", "modified"],
                },
            },
            "truncated": { "type": "boolean" },
        },
        "required": ["files", "truncated"],
    });
    let more = json!({
        "path": { "type": "string", "description": "A folder; without one the working directory." },
        "deep": { "type": "boolean", "description": "Whether to go into folders." },
    });
    tool(
        LIST_FILES,
        "List files",
        "Lists the files of a session.",
        input(more, &[]),
        output,
        hints("List files", true, false),
    )
}

fn read_file() -> Tool {
    let output = json!({
        "type": "object",
        "properties": {
            "path": { "type": "string" },
            "size": { "type": "integer" },
            "text": { "type": "string", "description": "Absent for what is no text." },
            "truncated": { "type": "boolean" },
        },
        "required": ["path", "size", "truncated"],
    });
    let more =
        json!({ "path": { "type": "string", "description": "Path below the working directory." } });
    tool(
        READ_FILE,
        "Read a file",
        "Reads a file of a session: a text, or a picture.",
        input(more, &["path"]),
        output,
        hints("Read a file", true, false),
    )
}

fn write_file() -> Tool {
    let output = json!({
        "type": "object",
        "properties": { "path": { "type": "string" }, "size": { "type": "integer" } },
        "required": ["path", "size"],
    });
    let more = json!({
        "path": { "type": "string", "description": "Path below the working directory." },
        "content": { "type": "string" },
        "encoding": { "type": "string", "enum": ["utf8", "base64"], "default": "utf8" },
    });
    tool(
        WRITE_FILE,
        "Write a file",
        "Writes a file of a session, in place of what is there.",
        input(more, &["path", "content"]),
        output,
        hints("Write a file", false, true),
    )
}

/// Calls one of these tools; `None` where there is none of that name.
pub(super) async fn call(
    app: &Arc<App>,
    caller: &Caller,
    name: &str,
    arguments: JsonObject,
) -> Option<CallToolResult> {
    let answered = match name {
        CREATE_SESSION => make(app, caller, arguments).await,
        FORK_CONTEXT => fork(app, caller, arguments).await,
        RUN_COMMAND => command(app, caller, arguments).await,
        LIST_FILES => list(app, caller, arguments).await,
        READ_FILE => read(app, caller, arguments).await,
        WRITE_FILE => write(app, caller, arguments).await,
        _ => return None,
    };
    Some(answered.unwrap_or_else(|problem| refused(&problem.detail)))
}

async fn ask(app: &App, call: Call) -> Result<Reply, Problem> {
    app.engine
        .call(call)
        .await
        .map_err(|error| runs::failed(&error))
}

/// Takes one from the caller's rate, as a run does.
fn within_rate(app: &App, caller: &Caller) -> Result<(), Problem> {
    let verdict = app.rate.check(caller.principal.id.as_str());
    match verdict.allowed {
        true => Ok(()),
        false => Err(Problem::new(
            crate::api::Code::RateLimited,
            rate_limited(app.config.rate, verdict.reset),
        )),
    }
}

/// Takes a text out of the arguments.
fn text(arguments: &mut Map<String, Value>, name: &str) -> Result<String, Problem> {
    match arguments.remove(name) {
        Some(Value::String(text)) => Ok(text),
        None => Err(Problem::field(name, "is missing", "Send a string.")),
        Some(_) => Err(Problem::field(name, "is no text", "Send a string.")),
    }
}

fn said(words: impl Into<String>, structured: Value) -> CallToolResult {
    let mut result = CallToolResult::success(vec![ContentBlock::text(words)]);
    result.structured_content = Some(structured);
    result
}

async fn make(
    app: &App,
    caller: &Caller,
    arguments: JsonObject,
) -> Result<CallToolResult, Problem> {
    within_rate(app, caller)?;
    let order = SessionOrder::try_from(arguments)?;
    let create = SessionCall::Create(Box::new(order.draft));
    let Reply::Session(state) =
        ask(app, Call::Session(caller.principal.id.clone(), create)).await?
    else {
        return Err(Problem::internal());
    };
    let session = SessionOut::from(*state);
    let words = format!(
        "Session {}. Pass it as session_id to run_code; variables and files stay until it ends.",
        session.id
    );
    let told = json!({
        "session_id": session.id,
        "expires": session.expires,
        "memory_mb": session.memory_mb,
    });
    Ok(said(words, told))
}

async fn fork(
    app: &App,
    caller: &Caller,
    mut arguments: JsonObject,
) -> Result<CallToolResult, Problem> {
    within_rate(app, caller)?;
    let session = text(&mut arguments, "session_id")?;
    let owner = &caller.principal.id;
    if arguments.contains_key("end") {
        let place = InSession {
            session: session.clone(),
            context: Some(text(&mut arguments, "end")?),
        };
        ask(
            app,
            Call::Session(owner.clone(), SessionCall::EndContext(place)),
        )
        .await?;
    }
    let request = ForkRequest::try_from(arguments)?;
    let place = InSession {
        session,
        context: request.context,
    };
    let call = SessionCall::Fork(place, request.name);
    let Reply::Forked(state, name, warnings) = ask(app, Call::Session(owner.clone(), call)).await?
    else {
        return Err(Problem::internal());
    };
    let mut words = vec![format!(
        "Context {}. Pass it as context to run_code, with the session_id; without one the first goes on.",
        quote(&name)
    )];
    words.extend(warnings.iter().map(|warning| format!("[{warning}]")));
    let contexts: Vec<String> = state.contexts.into_iter().map(|one| one.name).collect();
    let told = json!({ "context": name, "contexts": contexts, "warnings": warnings });
    Ok(said(words.join("\n"), told))
}

async fn command(
    app: &App,
    caller: &Caller,
    mut arguments: JsonObject,
) -> Result<CallToolResult, Problem> {
    within_rate(app, caller)?;
    let session = text(&mut arguments, "session_id")?;
    arguments.remove("background");
    let draft = CommandRequest::try_from(arguments)?.draft()?;
    let call = CommandCall::Run(Box::new(draft));
    let Reply::Command(state) = ask(
        app,
        Call::Command(caller.principal.id.clone(), session, call),
    )
    .await?
    else {
        return Err(Problem::internal());
    };
    let mut ran = CommandOut::from(*state);
    for text in [&mut ran.output, &mut ran.error] {
        ran.truncated |= cut(text);
    }
    let exit_code = ran.exit_code.unwrap_or_default();
    let mut parts = vec![ran.output.trim_end_matches('\n').to_owned()];
    if !ran.error.is_empty() {
        parts.push(format!(
            "[standard error]\n{}",
            ran.error.trim_end_matches('\n')
        ));
    }
    if exit_code != 0 {
        parts.push(format!("[exit code {exit_code}]"));
    }
    parts.retain(|part| !part.is_empty());
    let words = match parts.is_empty() {
        true => "[no output]".to_owned(),
        false => parts.join("\n"),
    };
    let told = json!({
        "output": ran.output,
        "error": ran.error,
        "status": ran.status,
        "exit_code": exit_code,
        "truncated": ran.truncated,
    });
    Ok(said(words, told))
}

/// Cuts a text to what a model is shown, since it stands twice in a result. Says whether
/// anything was cut.
fn cut(text: &mut String) -> bool {
    const MOST: usize = 20_000;
    if text.len() <= MOST {
        return false;
    }
    let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    text.push('…');
    true
}

async fn list(
    app: &App,
    caller: &Caller,
    mut arguments: JsonObject,
) -> Result<CallToolResult, Problem> {
    let session = text(&mut arguments, "session_id")?;
    let path = arguments
        .remove("path")
        .and_then(|path| path.as_str().map(str::to_owned));
    let path = path.unwrap_or_default().trim_matches('/').to_owned();
    let path = if path == "." { String::new() } else { path };
    let deep = arguments
        .remove("deep")
        .and_then(|deep| deep.as_bool())
        .unwrap_or_default();
    let call = Call::File(
        caller.principal.id.clone(),
        session.clone(),
        FileCall::List { path, deep },
    );
    let Reply::Files(list) = ask(app, call).await? else {
        return Err(Problem::internal());
    };
    let mut list = FileListOut::from(list);
    list.truncated |= list.files.len() > 500;
    list.files.truncate(500);
    let lines = list.files.iter().map(|one| match one.kind.as_str() {
        "file" => format!("{} ({} bytes)", quote(&one.path), one.size),
        kind => format!("{} ({kind})", quote(&one.path)),
    });
    let mut lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        lines.push("[no files]".to_owned());
    }
    if list.truncated {
        lines.push("[more are not listed]".to_owned());
    }
    let told = serde_json::to_value(&list).unwrap_or_default();
    let mut result = said(lines.join("\n"), told);
    let files = list.files.iter().filter(|one| one.kind == "file");
    result.content.extend(
        files
            .take(LINKS)
            .map(|one| ContentBlock::resource_link(link_in_session(&session, &one.path, one.size))),
    );
    Ok(result)
}

async fn read(
    app: &App,
    caller: &Caller,
    mut arguments: JsonObject,
) -> Result<CallToolResult, Problem> {
    let session = text(&mut arguments, "session_id")?;
    let path = text(&mut arguments, "path")?;
    let call = Call::File(
        caller.principal.id.clone(),
        session,
        FileCall::Open(path.clone()),
    );
    let Reply::File(file) = ask(app, call).await? else {
        return Err(Problem::internal());
    };
    let size = file.size;
    let media = Media::of(&path);
    let picture = matches!(media.essence(), "image/png" | "image/jpeg") && size <= FILE_BYTES;
    let most = if picture { FILE_BYTES } else { TEXT_BYTES };
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        file.file.take(most).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            tracing::debug!(%error, "failed to read a file of a session");
            return Err(Problem::internal());
        }
        Err(_panicked) => return Err(Problem::internal()),
    };
    if picture {
        let told = json!({ "path": path, "size": size, "truncated": false });
        let mut result = said(format!("{} ({size} bytes)", quote(&path)), told);
        let data = BASE64.encode(&bytes);
        result
            .content
            .push(ContentBlock::image(data, media.essence()));
        return Ok(result);
    }
    let truncated = (bytes.len() as u64) < size;
    let whole = match std::str::from_utf8(&bytes) {
        Ok(text) => Some(text),
        // Cut within a character.
        Err(error) if truncated && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let Some(text) = whole else {
        return Err(Problem::field(
            "path",
            "names a file that is no text",
            "Read it with run_code, or give the user its link.",
        ));
    };
    let mut text = text.to_owned();
    let truncated = cut(&mut text) || truncated;
    let told = json!({ "path": path, "size": size, "text": text, "truncated": truncated });
    Ok(said(text, told))
}

async fn write(
    app: &App,
    caller: &Caller,
    mut arguments: JsonObject,
) -> Result<CallToolResult, Problem> {
    within_rate(app, caller)?;
    let session = text(&mut arguments, "session_id")?;
    let path = text(&mut arguments, "path")?;
    let content = text(&mut arguments, "content")?;
    let bytes = match arguments
        .remove("encoding")
        .as_ref()
        .and_then(Value::as_str)
    {
        Some("base64") => {
            let letters: String = content
                .chars()
                .filter(|c| !c.is_ascii_whitespace())
                .collect();
            BASE64.decode(letters).map_err(|_| {
                Problem::field(
                    "content",
                    "is not Base64",
                    "Send standard Base64 with padding.",
                )
            })?
        }
        _ => content.into_bytes(),
    };
    let size = bytes.len();
    let content = Content(Box::pin(std::io::Cursor::new(bytes)));
    let put = FileCall::Put(path.clone(), content);
    ask(app, Call::File(caller.principal.id.clone(), session, put)).await?;
    let words = format!("Wrote {} ({size} bytes).", quote(&path));
    Ok(said(words, json!({ "path": path, "size": size })))
}
