//! The tools, called: arguments to an order, and the answer to content that a
//! model reads.
//!
//! A program that fails is a result. Only what we refuse is an error, and says
//! in words what to do. Dropping the future kills the run.

use std::sync::Arc;
use std::time::Duration;

use engine::{Event, Events, quote};
use rmcp::RoleServer;
use rmcp::model::{
    CallToolResult, ContentBlock, JsonObject, ProgressNotificationParam, ProgressToken,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::files;
use super::tools::ATTACHMENTS;
use super::view::{self, Picture};
use crate::api::error::whole_seconds;
use crate::api::{
    Encoding, ExecuteResponse, FileOut, Languages, Order, Problem, ResultOut, attachments, fit,
};
use crate::app::App;
use crate::config::RateLimit;
use crate::runs::{self, Caller, ClientLimits, Deadline};

/// Characters of the texts of a result, which stand in it twice, as content
/// and structured: clients take 100 000 in all.
const TEXT_CHARS: usize = 45_000;

/// Pictures that a result shows; the others are links.
const PICTURES: usize = 10;

/// Bytes of the pictures of a result together, before Base64.
const PICTURE_BYTES: usize = 4 * 1024 * 1024;

/// How often a client that asks for it is told that the program still runs.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Bytes of the end of a run's output that are kept to tell its last line.
const TAIL: usize = 512;

/// The shortest wait for a place that is worth a word.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// Runs a program for the caller.
pub(super) async fn run_code(
    app: &Arc<App>,
    mut caller: Caller,
    arguments: JsonObject,
    context: &RequestContext<RoleServer>,
) -> CallToolResult {
    let verdict = app.rate.check(caller.principal.id.as_str());
    if !verdict.allowed {
        return refused(&rate_limited(app.config.rate, verdict.reset));
    }
    let order = match order(arguments) {
        Ok(order) => order,
        Err(problem) => return refused(&problem.detail),
    };
    let begun = Instant::now();
    let limit = app.config.mcp_timeout;
    caller.client = ClientLimits {
        deadline: Some(Deadline {
            at: begun + limit,
            limit,
            whose: "an MCP call",
        }),
        ..ClientLimits::default()
    };
    let (sink, events) = engine::events(app.engine.bounds().events());
    let mut progress = Progress::new(context, begun);
    let running = async {
        let prepared = runs::prepare(app, &caller, order).await?;
        runs::execute(app, &caller, prepared, Some(sink)).await
    };
    let answered = tokio::select! {
        answered = running => answered,
        () = context.ct.cancelled() => return refused("The call was cancelled; its program was stopped."),
        () = progress.tell(events) => unreachable!("progress is told until the run ends"),
    };
    let mut answer = match answered {
        Ok(answer) => answer,
        Err(problem) => return refused(&problem.detail),
    };
    if let Some(waited) = progress.started.map(|started| started - begun)
        && waited >= WORTH_TELLING
    {
        let waited = waited.as_secs_f64();
        answer.warn_first(vec![format!("the run waited {waited:.1} s for a place")]);
    }
    let has_address = app.config.public_url.is_some();
    let is_shown = view::is_shown(context.client_capabilities().as_ref());
    result(answer, has_address, is_shown)
}

/// Reads a call's arguments; files of the chat are fetched as an Action's are.
fn order(mut arguments: JsonObject) -> Result<Order, Problem> {
    let attached = arguments.remove(ATTACHMENTS);
    let mut order = Order::try_from(arguments)?;
    if let Some(attached) = attached.filter(|value| !value.is_null()) {
        order.file_refs.extend(attachments(attached)?);
    }
    Ok(order)
}

/// Lists the languages with their packages.
pub(super) fn list_languages(app: &App) -> CallToolResult {
    let languages = Languages::of(app.engine.languages(), &app.engine.packages(), app.intent());
    let languages: Vec<Value> = languages
        .languages
        .iter()
        .map(|one| {
            let packages = one.packages.as_ref();
            let packages = packages.map_or(&[][..], |packages| &packages.installed);
            let packages: Vec<String> = packages
                .iter()
                .map(|package| format!("{} {}", package.name, package.version))
                .collect();
            json!({
                "name": one.name,
                "version": one.version,
                "available": one.available,
                "packages": packages,
            })
        })
        .collect();
    let listed = json!({ "languages": languages });
    let mut result = CallToolResult::success(vec![ContentBlock::text(listed.to_string())]);
    result.structured_content = Some(listed);
    result
}

/// Our refusal, in words that a model can act on.
pub(super) fn refused(words: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(words)])
}

pub(super) fn rate_limited(rate: RateLimit, wait: Duration) -> String {
    format!(
        "{} runs in {} s are allowed and used up. Wait {} s, then call again.",
        rate.requests,
        rate.period.as_secs(),
        whole_seconds(wait)
    )
}

/// What is told of a run while it goes on.
struct Progress<'a> {
    context: &'a RequestContext<RoleServer>,
    token: Option<ProgressToken>,
    begun: Instant,
    /// When the run got its place.
    started: Option<Instant>,
    /// The end of its output.
    tail: String,
}

impl<'a> Progress<'a> {
    fn new(context: &'a RequestContext<RoleServer>, begun: Instant) -> Self {
        Self {
            context,
            token: context.meta.get_progress_token(),
            begun,
            started: None,
            tail: String::new(),
        }
    }

    /// Reads the events of a run and tells the client, where it asked for it,
    /// each second and at once. Never ends.
    async fn tell(&mut self, mut events: Events) {
        if self.token.is_none() {
            // Its output is nobody's to follow: reading it costs the run time.
            while self.started.is_none()
                && let Some(event) = events.next().await
            {
                self.note(&event);
            }
            drop(events);
            return std::future::pending().await;
        }
        let mut beat = tokio::time::interval(HEARTBEAT);
        let mut more = true;
        loop {
            tokio::select! {
                event = events.next(), if more => match event {
                    Some(event) => self.note(&event),
                    None => more = false,
                },
                _ = beat.tick() => self.send().await,
            }
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Started(_) => self.started = Some(Instant::now()),
            Event::Output { bytes, .. } => {
                self.tail.push_str(&String::from_utf8_lossy(bytes));
                let begin = self.tail.len().saturating_sub(TAIL);
                let begin = (begin..).find(|at| self.tail.is_char_boundary(*at));
                self.tail.drain(..begin.unwrap_or(0));
            }
            Event::Result(_) | Event::Dropped { .. } | Event::Truncated { .. } => {}
        }
    }

    async fn send(&self) {
        let Some(token) = &self.token else { return };
        let seconds = self.begun.elapsed().as_secs_f64();
        let mut lines = self.tail.lines().rev();
        let message = match (self.started, lines.find(|line| !line.trim().is_empty())) {
            (None, _) => "waiting for a place".to_owned(),
            (Some(_), None) => "running".to_owned(),
            (Some(_), Some(line)) => format!("running: {}", quote(line.trim())),
        };
        let told = ProgressNotificationParam::new(token.clone(), seconds).with_message(message);
        // A client that is gone is seen by its transport.
        if let Err(error) = self.context.peer.notify_progress(told).await {
            tracing::debug!(%error, "failed to tell an MCP client of progress");
        }
    }
}

/// Makes a tool's result of an answer: texts first, then pictures, then links
/// to the files. Links for people are given where there is a public address. The
/// page that shows a run gets the pictures once more, where the client has it:
/// hosts need not hand it those of the content, nor say which file each is.
fn result(mut answer: ExecuteResponse, has_address: bool, is_shown: bool) -> CallToolResult {
    let mut pictures = take_pictures(&mut answer.files);
    pictures.extend(take_shown(&mut answer.results, &pictures));
    for file in &mut answer.files {
        // The resource gives them; here they would be read by a model.
        (file.content, file.encoding) = (None, None);
        if !has_address {
            file.url = None;
        }
    }
    let answer = fit(answer, TEXT_CHARS);
    let mut content = vec![ContentBlock::text(text(&answer))];
    let meta = is_shown.then(|| view::pictures(&pictures)).flatten();
    content.extend(
        pictures
            .into_iter()
            .map(|one| ContentBlock::image(one.data, one.media_type)),
    );
    for file in &answer.files {
        if let Some(id) = &file.id {
            content.push(ContentBlock::resource_link(files::link(
                id, &file.name, file.size,
            )));
        }
    }
    let mut result = CallToolResult::success(content);
    result.structured_content = Some(structured(&answer));
    result.meta = meta;
    result
}

/// Takes the contents of the pictures that are shown.
fn take_pictures(files: &mut [FileOut]) -> Vec<Picture> {
    let mut room = PICTURE_BYTES;
    let mut pictures = Vec::new();
    for file in files {
        let shown = matches!(file.media_type.as_str(), "image/png" | "image/jpeg");
        let size = usize::try_from(file.size).unwrap_or(usize::MAX);
        if !shown || pictures.len() == PICTURES || size > room {
            continue;
        }
        if let (Some(content), Some(Encoding::Base64)) = (&file.content, file.encoding) {
            pictures.push(Picture {
                name: file.path.clone(),
                media_type: file.media_type.clone(),
                data: content.clone(),
            });
            room -= size;
        }
    }
    pictures
}

/// Takes the pictures that a cell has shown, as far as there is room beside `others`.
fn take_shown(results: &mut [ResultOut], others: &[Picture]) -> Vec<Picture> {
    // Base64 has four letters for three bytes.
    let used: usize = others.iter().map(|one| one.data.len() / 4 * 3).sum();
    let mut room = PICTURE_BYTES.saturating_sub(used);
    let mut pictures = Vec::new();
    for (number, result) in results.iter_mut().enumerate() {
        let shown = ["image/png", "image/jpeg"];
        let Some(media_type) = shown.into_iter().find(|one| result.data.contains_key(*one)) else {
            continue;
        };
        let Some(Value::String(data)) = result.data.remove(media_type) else {
            continue;
        };
        let size = data.len() / 4 * 3;
        if size <= room && others.len() + pictures.len() < PICTURES {
            room -= size;
            let ending = media_type.trim_start_matches("image/");
            pictures.push(Picture {
                name: format!("result-{}.{ending}", number + 1),
                media_type: media_type.to_owned(),
                data,
            });
        }
    }
    pictures
}

/// Returns an answer as a text that a model reads.
fn text(answer: &ExecuteResponse) -> String {
    let mut parts = Vec::new();
    if !answer.output.is_empty() {
        parts.push(answer.output.trim_end_matches('\n').to_owned());
    }
    let plain = answer.results.iter().filter_map(ResultOut::text);
    parts.extend(plain.map(str::to_owned));
    if !answer.error.is_empty() {
        parts.push(format!(
            "[standard error]\n{}",
            answer.error.trim_end_matches('\n')
        ));
    }
    if answer.status != "success" {
        parts.push(format!(
            "[{}, exit code {}]",
            answer.status, answer.exit_code
        ));
    }
    for file in &answer.files {
        let link = file.url.as_deref().unwrap_or_default();
        parts.push(
            format!("[file {}, {} bytes] {link}", quote(&file.path), file.size)
                .trim_end()
                .to_owned(),
        );
    }
    parts.extend(answer.warnings.iter().map(|one| format!("[{one}]")));
    if parts.is_empty() {
        parts.push("[no output]".to_owned());
    }
    parts.join("\n")
}

/// Returns an answer as the output schema says.
fn structured(answer: &ExecuteResponse) -> Value {
    let files: Vec<Value> = answer
        .files
        .iter()
        .map(|file| {
            let mut told = json!({
                "path": file.path,
                "size": file.size,
                "media_type": file.media_type,
            });
            if let Some(id) = &file.id {
                told["uri"] = json!(files::uri(id, &file.name));
            }
            if let Some(url) = &file.url {
                told["url"] = json!(url);
            }
            told
        })
        .collect();
    let mut told = json!({
        "status": answer.status,
        "exit_code": answer.exit_code,
        "output": answer.output,
        "error": answer.error,
        "execution_time": answer.execution_time,
        "language": answer.language,
        "version": answer.version,
        "truncated": answer.truncated,
        "files": files,
        "warnings": answer.warnings,
    });
    if let Some(cell) = &answer.cell {
        let results = answer.results.iter().map(|result| {
            json!({
                "is_value": result.is_value,
                "text": result.text().unwrap_or_default(),
                "forms": result.data.keys().collect::<Vec<_>>(),
            })
        });
        told["results"] = results.collect();
        told["session_id"] = json!(cell.session_id);
        told["context"] = json!(cell.context);
    }
    told
}
