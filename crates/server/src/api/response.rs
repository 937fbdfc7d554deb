//! The response of `POST /execute`, made from an engine's outcome.
//!
//! The fields that the first clients know are always there and always of one
//! type: `output` and `error` are strings whatever bytes a program wrote.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::{
    CellOutcome, DeniedCall, Form, Outcome, Output, OutputFile, RichResult, StageOutcome, Usage,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::execute::Encoding;
use super::health::whole_seconds;
use super::json::parse_object;
use crate::media::{Media, label};

/// Bytes of file contents that one response carries, all files together.
pub const INLINE_BYTES: usize = 4 * 1024 * 1024;

/// Files, and again pictures, that ChatGPT takes of one answer.
const CHATGPT_FILES: usize = 10;

/// Bytes of a file that ChatGPT takes.
const CHATGPT_FILE_BYTES: u64 = 10_000_000;

/// What a run used.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageOut {
    /// Seconds from the start of the program to its end.
    #[schema(minimum = 0, example = 0.012)]
    pub wall_time: f64,
    /// Seconds of processor time of all processes together; absent when nothing measured it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, example = 0.011, nullable = false)]
    pub cpu_time: Option<f64>,
    /// Highest memory use in bytes; null where it cannot be measured.
    #[schema(minimum = 0, example = 9_437_184)]
    pub memory_peak: Option<u64>,
}

/// A file that the program left in its working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = OutputFile)]
pub struct FileOut {
    /// Id under which it is kept for download; absent when it is not kept, which `warnings` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "4f9f1a52f0c94a64a6b1c6fd1c3c8a17")]
    pub id: Option<String>,
    /// Its name, without folders.
    #[schema(example = "plot.png")]
    pub name: String,
    /// Path below the working directory.
    #[schema(example = "out/plot.png")]
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Media type by the ending of its name.
    #[schema(example = "image/png")]
    pub media_type: String,
    /// Where it can be downloaded without a token until `expires`; absent when it is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        format = "uri",
        example = "https://codex.example.com/artifacts/4f9f1a52f0c94a64a6b1c6fd1c3c8a17/plot.png?expires=1767325445&signature=…"
    )]
    pub url: Option<String>,
    /// Until when it is kept, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        format = "date-time",
        example = "2026-01-02T04:04:05Z"
    )]
    pub expires: Option<String>,
    /// The contents, written as `encoding` says; absent when a bound was reached, which `warnings` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub content: Option<String>,
    /// `utf8` for text, `base64` for anything else; absent with `content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub encoding: Option<Encoding>,
}

/// A system call that the sandbox denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DeniedCall)]
pub struct DeniedCallOut {
    /// Its name; `unknown` for a number without one here, `foreign` for a call of another architecture.
    #[schema(example = "ptrace")]
    pub name: String,
    /// How often, up to a million.
    #[schema(minimum = 1, maximum = 1_000_000, example = 1)]
    pub count: u32,
    /// What it failed with: `EPERM`, or `ENOSYS` where libraries are to fall back.
    #[schema(example = "EPERM")]
    pub errno: String,
    /// Why it is denied, or for which arguments it is allowed.
    #[schema(
        example = "looking into or reaching into other processes; the box's init shares the program's uid"
    )]
    pub reason: String,
}

impl From<DeniedCall> for DeniedCallOut {
    fn from(call: DeniedCall) -> Self {
        Self {
            name: call.name.to_owned(),
            count: call.count,
            errno: call.errno.to_owned(),
            reason: call.reason.to_owned(),
        }
    }
}

/// One stage of a run that has several, such as compile and run.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Stage)]
pub struct StageOut {
    /// The stage's name.
    #[schema(example = "compile")]
    pub name: String,
    /// How it ended, in the words of the whole run's `status`.
    pub status: String,
    /// Exit code: 124 for a timeout, 128 + N for signal N.
    pub exit_code: i32,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub error: String,
    /// What the stage used.
    pub usage: UsageOut,
}

/// A value or a picture that code showed, in each form that there is of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = RichResult)]
pub struct ResultOut {
    /// Whether it is the value of the last expression.
    pub is_value: bool,
    /// The forms by media type: text as it is, JSON as JSON, pictures and documents in Base64.
    #[schema(value_type = std::collections::HashMap<String, serde_json::Value>, example = json!({"text/plain": "4"}))]
    pub data: Map<String, Value>,
}

/// The error that ended a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Exception)]
pub struct ExceptionOut {
    /// Name of its type.
    #[schema(example = "ZeroDivisionError")]
    pub name: String,
    /// Its own words.
    #[schema(example = "division by zero")]
    pub message: String,
    /// How it came about, as the interpreter prints it.
    pub traceback: String,
}

/// What there is of a cell of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Cell)]
pub struct CellOut {
    /// The session's id.
    pub session_id: String,
    /// Name of the context.
    #[schema(example = "python")]
    pub context: String,
    /// Which cell of its context it was, from 1.
    #[schema(minimum = 1, example = 3)]
    pub number: u64,
    /// The error that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub exception: Option<ExceptionOut>,
    /// What was written to standard output since the cell before, by threads and processes that went on.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub late_output: String,
    /// The same of standard error.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub late_error: String,
}

impl ResultOut {
    /// Returns its form as plain text, if there is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.data.get("text/plain")?.as_str()
    }
}

impl From<RichResult> for ResultOut {
    fn from(result: RichResult) -> Self {
        let forms = result.forms.into_iter().map(|form| {
            let value = json_of(&form).map(Value::Object);
            let value = value.unwrap_or(Value::String(form.content));
            (form.media_type.to_owned(), value)
        });
        Self {
            is_value: result.is_value,
            data: forms.collect(),
        }
    }
}

/// A [`ResultOut`] of a result that somebody else holds: what may be large is not copied.
#[derive(Debug, Serialize)]
pub struct ResultRef<'a> {
    is_value: bool,
    data: BTreeMap<&'static str, FormRef<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum FormRef<'a> {
    Json(Map<String, Value>),
    Text(&'a str),
}

impl<'a> From<&'a RichResult> for ResultRef<'a> {
    fn from(result: &'a RichResult) -> Self {
        let forms = result.forms.iter().map(|form| {
            let json = json_of(form).map(FormRef::Json);
            let value = json.unwrap_or(FormRef::Text(&form.content));
            (form.media_type, value)
        });
        Self {
            is_value: result.is_value,
            data: forms.collect(),
        }
    }
}

/// What a form says as JSON; what says that it is JSON and is none stays text.
fn json_of(form: &Form) -> Option<Map<String, Value>> {
    let json = form.media_type.ends_with("json");
    json.then(|| parse_object(form.content.as_bytes()).ok())?
}

fn cell(cell: CellOutcome) -> CellOut {
    let [late_output, late_error] = cell.late.each_ref().map(lossy);
    CellOut {
        session_id: cell.session,
        context: cell.context,
        number: cell.number,
        exception: cell.exception.map(|exception| ExceptionOut {
            name: exception.name,
            message: exception.message,
            traceback: exception.traceback,
        }),
        late_output,
        late_error,
    }
}

/// What became of the code. A program that fails is still a good answer: see `status`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ExecuteResponse {
    /// Standard output.
    #[schema(example = "4\n")]
    pub output: String,
    /// Standard error; empty when nothing was written to it.
    #[schema(example = "")]
    pub error: String,
    /// Exit code of the program: 124 for a timeout, 128 + N for signal N.
    #[schema(example = 0)]
    pub exit_code: i32,
    /// Seconds that the program took.
    #[schema(minimum = 0, example = 0.012)]
    pub execution_time: f64,
    /// When the run began, RFC 3339 in UTC.
    #[schema(format = "date-time", example = "2026-01-02T03:04:05.678901Z")]
    pub timestamp: String,
    /// Id of the run; later runs sort after earlier ones.
    #[schema(example = "019b7c1e-5a3f-7c10-8a51-0242ac120002")]
    pub id: String,
    /// How it ended.
    #[schema(schema_with = status_schema)]
    pub status: String,
    /// Whether output or files were cut to a bound; the text says where.
    pub truncated: bool,
    /// What the run used.
    pub usage: UsageOut,
    /// New and changed files in the working directory, by path.
    pub files: Vec<FileOut>,
    /// Markdown that shows the pictures among `files`; only for ChatGPT Actions. Repeat it in the reply to the user, links unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub markdown: Option<String>,
    /// Links to the other files, which ChatGPT hands on to the user; only for ChatGPT Actions.
    #[serde(rename = "openaiFileResponse", skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub openai_files: Vec<String>,
    /// What the code showed, in order: the value of a cell's last expression, figures, what `display` was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub results: Vec<ResultOut>,
    /// What there is besides of a cell of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cell: Option<CellOut>,
    /// Canonical name of the language.
    #[schema(example = "python")]
    pub language: String,
    /// Version of the interpreter or compiler.
    #[schema(example = "3.11.2")]
    pub version: String,
    /// The isolation that held during this run.
    #[schema(schema_with = isolation_schema)]
    pub isolation: String,
    /// What the caller should know: fields ignored, files left out.
    pub warnings: Vec<String>,
    /// The system calls that the sandbox denied; only with `explain`. Many programs try such calls and go on without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub denied_calls: Option<Vec<DeniedCallOut>>,
    /// The stages in order, when there were several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub stages: Vec<StageOut>,
}

pub(super) fn words(
    words: impl IntoIterator<Item = &'static str>,
) -> utoipa::openapi::schema::Object {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .enum_values(Some(words))
        .build()
}

pub(super) fn status_schema() -> utoipa::openapi::schema::Object {
    let mut schema = words(engine::Status::ALL.map(engine::Status::as_str));
    schema.description = Some("How it ended.".to_owned());
    schema
}

pub(super) fn isolation_schema() -> utoipa::openapi::schema::Object {
    let mut schema = words(engine::Isolation::LADDER.map(engine::Isolation::as_str));
    schema.description = Some("The isolation that held, strongest first.".to_owned());
    schema
}

/// Where a file of a response can be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Id under which it is kept.
    pub id: String,
    /// The whole URL.
    pub url: String,
    /// Until when, in seconds since 1970.
    pub expires: u64,
}

impl ExecuteResponse {
    /// Puts links to the files; one entry for each, in their order.
    pub fn link(&mut self, links: Vec<Option<Link>>) {
        for (file, link) in self.files.iter_mut().zip(links) {
            let Some(link) = link else { continue };
            let at = i64::try_from(link.expires).ok();
            let at = at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
            file.id = Some(link.id);
            file.url = Some(link.url);
            file.expires = at.map(whole_seconds);
        }
    }

    /// Offers the linked files in the ways that ChatGPT knows: pictures as
    /// Markdown, since it takes no others, and the rest by URL, if https.
    /// Contents that a model cannot read are left to the links.
    pub fn offer_to_chatgpt(&mut self) {
        let mut pictures = Vec::new();
        for file in &mut self.files {
            let Some(url) = &file.url else { continue };
            if file.encoding == Some(Encoding::Base64) {
                (file.content, file.encoding) = (None, None);
            }
            let media = Media::of(&file.name);
            if media.is_image() {
                pictures.push(format!("![{}]({url})", label(&file.name)));
            } else if !media.is_video()
                && file.size <= CHATGPT_FILE_BYTES
                && url.starts_with("https://")
            {
                self.openai_files.push(url.clone());
            }
        }
        pictures.truncate(CHATGPT_FILES);
        self.openai_files.truncate(CHATGPT_FILES);
        self.markdown = (!pictures.is_empty()).then(|| pictures.join("\n"));
    }

    /// Returns it as it is sent.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and finite numbers always serialise")
    }

    /// Puts what the caller should know about the request before the run's own warnings.
    pub fn warn_first(&mut self, warnings: Vec<String>) {
        self.warnings.splice(0..0, warnings);
    }
}

impl From<Outcome> for ExecuteResponse {
    fn from(outcome: Outcome) -> Self {
        let last = outcome.last();
        let (output, error) = (lossy(&last.stdout), lossy(&last.stderr));
        let exit_code = last.exit_code;
        let cut = |stage: &StageOutcome| stage.stdout.truncated || stage.stderr.truncated;
        let mut warnings = outcome.warnings.clone();
        let (files, left_out) = inline(&outcome.files);
        warnings.extend(left_out);
        let truncated = outcome.stages.iter().any(cut);
        let results = outcome.results.into_iter().map(ResultOut::from).collect();
        let cell = outcome.cell.map(cell);
        let stages = if outcome.stages.len() > 1 {
            outcome.stages.iter().map(StageOut::from).collect()
        } else {
            Vec::new()
        };
        Self {
            output,
            error,
            exit_code,
            execution_time: seconds(outcome.usage.wall_time),
            timestamp: timestamp(outcome.started),
            id: outcome.id,
            status: outcome.status.as_str().to_owned(),
            truncated,
            usage: UsageOut::from(outcome.usage),
            files,
            markdown: None,
            openai_files: Vec::new(),
            results,
            cell,
            language: outcome.language,
            version: outcome.version,
            isolation: outcome.isolation.as_str().to_owned(),
            warnings,
            denied_calls: outcome
                .denied_calls
                .map(|calls| calls.into_iter().map(DeniedCallOut::from).collect()),
            stages,
        }
    }
}

impl From<&StageOutcome> for StageOut {
    fn from(stage: &StageOutcome) -> Self {
        Self {
            name: stage.name.clone(),
            status: stage.status.as_str().to_owned(),
            exit_code: stage.exit_code,
            output: lossy(&stage.stdout),
            error: lossy(&stage.stderr),
            usage: UsageOut::from(stage.usage),
        }
    }
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        Self {
            wall_time: seconds(usage.wall_time),
            cpu_time: usage.cpu_time.map(seconds),
            memory_peak: usage.memory_peak,
        }
    }
}

/// Bytes that are not UTF-8 become U+FFFD: the fields are always strings.
pub(super) fn lossy(output: &Output) -> String {
    String::from_utf8_lossy(&output.bytes).into_owned()
}

/// Whole microseconds, so that no figure has seventeen digits.
pub(super) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}

pub(super) fn timestamp(at: std::time::SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.6}")
}

/// The files with their contents while those fit, and a warning when they do not.
fn inline(files: &[OutputFile]) -> (Vec<FileOut>, Option<String>) {
    let mut room = INLINE_BYTES;
    let mut left_out = 0_usize;
    let files = files.iter().map(|file| {
        let (content, encoding) = match room.checked_sub(file.content.len()) {
            Some(rest) => {
                room = rest;
                let (content, encoding) = encode(&file.content);
                (Some(content), Some(encoding))
            }
            None => {
                left_out += 1;
                (None, None)
            }
        };
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        FileOut {
            id: None,
            name: name.to_owned(),
            path: file.path.clone(),
            size: file.size,
            media_type: Media::of(name).essence().to_owned(),
            url: None,
            expires: None,
            content,
            encoding,
        }
    });
    let files = files.collect();
    let warning = (left_out > 0).then(|| {
        format!(
            "files listed without content: {left_out}, since one response carries at most {} MiB of files",
            INLINE_BYTES / (1024 * 1024)
        )
    });
    (files, warning)
}

fn encode(content: &[u8]) -> (String, Encoding) {
    match std::str::from_utf8(content) {
        Ok(text) => (text.to_owned(), Encoding::Utf8),
        Err(_) => (BASE64.encode(content), Encoding::Base64),
    }
}

#[cfg(test)]
#[path = "response/tests.rs"]
mod tests;
