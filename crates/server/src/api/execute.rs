//! The request of `POST /execute`.
//!
//! Requests are read by hand from a JSON object, so that each error names the
//! field, what was sent and the cure. Only shapes are checked here; whether a
//! value is allowed (length, path, name) is the engine's to say.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::{Draft, DraftFile, InSession};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::{Problem, quote};
use super::file_ref::FileRef;
use super::json::wrong_type;

/// Unknown fields that a warning names one by one.
const NAMED_UNKNOWN: usize = 8;

/// Bytes in a MiB.
const MIB: u64 = 1024 * 1024;

/// How the contents of a file are written in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The text itself.
    #[default]
    Utf8,
    /// Standard Base64 with padding.
    Base64,
}

/// A file to put into the working directory before the program starts.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(as = InputFile)]
pub struct FileIn {
    /// Relative path, such as `data/input.csv`; no `..`, no leading slash, each path once.
    #[schema(min_length = 1, example = "data.csv")]
    pub path: String,
    /// The contents, written as `encoding` says.
    #[schema(example = "a,b\n1,2\n")]
    pub content: String,
    /// `utf8` for text, `base64` for anything else.
    #[schema(default = "utf8", required = false)]
    pub encoding: Encoding,
}

/// Code to run.
#[derive(Debug, Clone, Default, PartialEq, ToSchema)]
pub struct ExecuteRequest {
    /// The program text. It may not be empty nor hold a NUL character.
    #[schema(min_length = 1, max_length = 1_048_576, example = "print(2+2)")]
    pub code: String,
    /// Language of the code.
    #[schema(schema_with = language_schema)]
    pub language: Option<String>,
    /// Seconds of wall time before the program is killed; fractions are allowed.
    #[schema(minimum = 1, maximum = 30, default = 10, example = 10)]
    pub timeout: Option<f64>,
    /// What the program reads from standard input.
    #[schema(default = "", example = "")]
    pub stdin: Option<String>,
    /// Arguments of the program, without its own name.
    #[schema(max_items = 256)]
    pub args: Option<Vec<String>>,
    /// Environment variables to add.
    pub env: Option<BTreeMap<String, String>>,
    /// Files to put into the working directory before the program starts.
    #[schema(max_items = 100)]
    pub files: Option<Vec<FileIn>>,
    /// Memory of the run in MiB; no interpreter starts with less than 16.
    #[schema(minimum = 16, example = 512)]
    pub memory_mb: Option<u64>,
    /// Whether to name the system calls that the sandbox denied, in `denied_calls`; each of them takes longer then.
    #[schema(default = false)]
    pub explain: Option<bool>,
    /// The session in which to run the code, as a cell that finds the state of those before; without one it gets a fresh sandbox.
    pub session_id: Option<String>,
    /// The session's interpreter; without one that of the language.
    pub context: Option<String>,
}

/// A request as the server carries it out: the draft for the engine, and what
/// the server itself does before and after.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// What the engine is asked for.
    pub draft: Draft,
    /// Files to fetch into the draft, as ChatGPT names them.
    pub file_refs: Vec<FileRef>,
    /// What the caller should know about the request itself.
    pub warnings: Vec<String>,
}

impl TryFrom<Map<String, Value>> for Order {
    type Error = Problem;

    fn try_from(object: Map<String, Value>) -> Result<Self, Problem> {
        let mut request = ExecuteRequest::default();
        let mut file_refs = Vec::new();
        let mut unknown = Vec::new();
        let mut code = None;
        for (name, value) in object {
            match name.as_str() {
                "code" => code = Some(code_text(value)?),
                "language" => request.language = optional(value, language)?,
                "timeout" => request.timeout = optional(value, timeout)?,
                "stdin" => request.stdin = optional(value, |v| text("stdin", v))?,
                "args" => request.args = optional(value, args)?,
                "env" => request.env = optional(value, |value| env("env", value))?,
                "files" => request.files = optional(value, files)?,
                "openaiFileIdRefs" => {
                    file_refs = optional(value, super::file_ref::file_refs)?.unwrap_or_default();
                }
                "memory_mb" => request.memory_mb = optional(value, memory)?,
                "explain" => request.explain = optional(value, explain)?,
                "session_id" => {
                    request.session_id = optional(value, |value| text("session_id", value))?;
                }
                "context" => request.context = optional(value, |value| text("context", value))?,
                _ => unknown.push(name),
            }
        }
        request.code = code.ok_or_else(|| {
            Problem::field(
                "code",
                "is missing",
                "Send the program text as a string, such as {\"code\": \"print(2+2)\"}.",
            )
        })?;
        Ok(Self {
            draft: Draft::try_from(request)?,
            file_refs,
            warnings: unknown_warning(&unknown).into_iter().collect(),
        })
    }
}

impl TryFrom<ExecuteRequest> for Draft {
    type Error = Problem;

    fn try_from(request: ExecuteRequest) -> Result<Self, Problem> {
        let files = request.files.unwrap_or_default().into_iter().enumerate();
        let session = match (request.session_id, request.context) {
            (Some(session), context) => Some(InSession { session, context }),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Problem::field(
                    "context",
                    "is given without `session_id`",
                    "Send the id of the session that has it.",
                ));
            }
        };
        Ok(Self {
            owner: engine::Owner::default(),
            code: request.code,
            language: request.language,
            stdin: request.stdin.unwrap_or_default().into_bytes(),
            args: request.args.unwrap_or_default(),
            env: request.env.unwrap_or_default().into_iter().collect(),
            files: files
                .map(|(at, file)| draft_file(at, file))
                .collect::<Result<_, _>>()?,
            wall_time: request.timeout.map(wall_time).transpose()?,
            memory: request.memory_mb.map(memory_bytes).transpose()?,
            queue_wait: None,
            explain: request.explain.unwrap_or_default(),
            session,
        })
    }
}

pub(super) fn memory_bytes(mib: u64) -> Result<u64, Problem> {
    mib.checked_mul(MIB)
        .ok_or_else(|| out_of_range("memory_mb", &mib.to_string(), MEMORY_CURE))
}

const MEMORY_CURE: &str = "Send a whole number of MiB, such as 512.";
const TIMEOUT_CURE: &str = "Send a number of seconds, at least 1, such as 10.";

/// `null` stands for the default, like a field that is not there.
pub(super) fn optional<T>(
    value: Value,
    read: impl FnOnce(Value) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    match value {
        Value::Null => Ok(None),
        value => read(value).map(Some),
    }
}

fn out_of_range(field: &str, sent: &str, cure: &str) -> Problem {
    Problem::field(field, &format!("is {}, out of range", quote(sent)), cure)
}

pub(super) fn text(field: &str, value: Value) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(field, &other, "Send a string.")),
    }
}

fn code_text(value: Value) -> Result<String, Problem> {
    match value {
        Value::String(code) => Ok(code),
        other => Err(wrong_type(
            "code",
            &other,
            "Send the program text as a string.",
        )),
    }
}

pub(super) fn language(value: Value) -> Result<String, Problem> {
    match value {
        Value::String(name) => Ok(name),
        other => Err(wrong_type(
            "language",
            &other,
            "Send the name of a language as a string; GET /languages lists them.",
        )),
    }
}

fn explain(value: Value) -> Result<bool, Problem> {
    match value {
        Value::Bool(explain) => Ok(explain),
        other => Err(wrong_type("explain", &other, "Send true or false.")),
    }
}

pub(super) fn timeout(value: Value) -> Result<f64, Problem> {
    value
        .as_f64()
        .ok_or_else(|| wrong_type("timeout", &value, TIMEOUT_CURE))
}

/// Any duration that there is: which of them are allowed is the engine's to say.
pub(super) fn wall_time(seconds: f64) -> Result<Duration, Problem> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        // A number with hundreds of digits is told by its exponent.
        let sent = if seconds.abs() < 1e15 {
            seconds.to_string()
        } else {
            format!("{seconds:e}")
        };
        out_of_range("timeout", &sent, TIMEOUT_CURE)
    })
}

pub(super) fn memory(value: Value) -> Result<u64, Problem> {
    // 512.0 is a whole number that some clients write with a point.
    let whole = value.as_u64().or_else(|| {
        value
            .as_f64()
            .filter(|mib| mib.fract() == 0.0)
            .and_then(|mib| format!("{mib:.0}").parse().ok())
    });
    match (whole, &value) {
        (Some(mib), _) => Ok(mib),
        (_, Value::Number(number)) => {
            Err(out_of_range("memory_mb", &number.to_string(), MEMORY_CURE))
        }
        _ => Err(wrong_type("memory_mb", &value, MEMORY_CURE)),
    }
}

fn args(value: Value) -> Result<Vec<String>, Problem> {
    let Value::Array(items) = value else {
        return Err(wrong_type(
            "args",
            &value,
            "Send an array of strings, such as [\"--verbose\"].",
        ));
    };
    let numbered = items.into_iter().enumerate();
    numbered
        .map(|(at, item)| text(&format!("args[{at}]"), item))
        .collect()
}

pub(super) fn env(field: &str, value: Value) -> Result<BTreeMap<String, String>, Problem> {
    let Value::Object(members) = value else {
        return Err(wrong_type(
            field,
            &value,
            "Send an object of strings, such as {\"NAME\": \"value\"}.",
        ));
    };
    members
        .into_iter()
        .map(|(name, value)| text(&format!("{field}.{}", quote(&name)), value).map(|v| (name, v)))
        .collect()
}

fn files(value: Value) -> Result<Vec<FileIn>, Problem> {
    let Value::Array(items) = value else {
        return Err(wrong_type(
            "files",
            &value,
            "Send an array of objects with `path` and `content`.",
        ));
    };
    let numbered = items.into_iter().enumerate();
    numbered.map(|(at, item)| file(at, item)).collect()
}

fn file(at: usize, value: Value) -> Result<FileIn, Problem> {
    let Value::Object(mut members) = value else {
        return Err(wrong_type(
            &format!("files[{at}]"),
            &value,
            "Send an object with `path` and `content`.",
        ));
    };
    let mut member = |name: &str| {
        let field = format!("files[{at}].{name}");
        match members.remove(name) {
            Some(value) => text(&field, value),
            None => Err(Problem::field(field, "is missing", "Send a string.")),
        }
    };
    let (path, content) = (member("path")?, member("content")?);
    let encoding = match members.remove("encoding") {
        None | Some(Value::Null) => Encoding::Utf8,
        Some(value) => encoding(at, &value)?,
    };
    Ok(FileIn {
        path,
        content,
        encoding,
    })
}

fn encoding(at: usize, value: &Value) -> Result<Encoding, Problem> {
    match value.as_str() {
        Some("utf8" | "utf-8") => Ok(Encoding::Utf8),
        Some("base64") => Ok(Encoding::Base64),
        _ => Err(wrong_type(
            &format!("files[{at}].encoding"),
            value,
            "Send \"utf8\" or \"base64\".",
        )),
    }
}

fn draft_file(at: usize, file: FileIn) -> Result<DraftFile, Problem> {
    let content = match file.encoding {
        Encoding::Utf8 => file.content.into_bytes(),
        Encoding::Base64 => BASE64
            .decode(without_breaks(&file.content))
            .map_err(|error| {
                Problem::field(
                    format!("files[{at}].content"),
                    &format!("is not Base64: {}", base64_fault(&error)),
                    "Send standard Base64 with padding, or set `encoding` to \"utf8\".",
                )
            })?,
    };
    Ok(DraftFile {
        path: file.path,
        content,
    })
}

/// Returns Base64 without the white space by which `base64 FILE` and mails break it
/// into lines.
fn without_breaks(text: &str) -> Cow<'_, [u8]> {
    let is_space = |byte: &u8| byte.is_ascii_whitespace();
    if !text.as_bytes().iter().any(is_space) {
        return Cow::Borrowed(text.as_bytes());
    }
    let letters = text.bytes().filter(|byte| !is_space(byte));
    Cow::Owned(letters.collect())
}

fn base64_fault(error: &base64::DecodeError) -> String {
    match error {
        base64::DecodeError::InvalidByte(at, _) => format!("character {at} is none of its letters"),
        base64::DecodeError::InvalidLastSymbol { .. } => "the last character has stray bits".into(),
        base64::DecodeError::InvalidPadding => "the padding is wrong".into(),
        _ => "the length is wrong".into(),
    }
}

/// Returns the warning about fields that mean nothing; `None` without any.
pub(crate) fn unknown_warning(unknown: &[String]) -> Option<String> {
    if unknown.is_empty() {
        return None;
    }
    let named: Vec<String> = unknown
        .iter()
        .take(NAMED_UNKNOWN)
        .map(|name| format!("`{}`", quote(name)))
        .collect();
    let rest = unknown.len().saturating_sub(NAMED_UNKNOWN);
    let more = if rest > 0 {
        format!(" and {rest} more")
    } else {
        String::new()
    };
    Some(format!(
        "unknown fields ignored: {}{more}",
        named.join(", ")
    ))
}

fn language_schema() -> utoipa::openapi::schema::Object {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::SchemaType::from_iter([
            utoipa::openapi::schema::Type::String,
            utoipa::openapi::schema::Type::Null,
        ]))
        .description(Some(
            "Language of the code; short names such as `py`, `js` and `sh` work too, and versions such as `python3.12` where this server has several.",
        ))
        .enum_values(Some([Some("python"), Some("bash"), Some("javascript"), None]))
        .default(Some("python".into()))
        .build()
}

#[cfg(test)]
#[path = "execute/tests.rs"]
mod tests;
