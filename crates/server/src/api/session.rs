//! Sessions on the wire: what is asked of one, and what it is now.
//!
//! Only shapes are checked here, as for runs; whether a value is allowed is the
//! engine's to say.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::{ContextState, SessionDraft, SessionState};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::Problem;
use super::execute::{env, language, memory, memory_bytes, optional, text, unknown_warning};
use super::json::wrong_type;
use super::response::{isolation_schema, timestamp, words};

/// What a session is to be.
#[derive(Debug, Clone, Default, PartialEq, ToSchema)]
pub struct SessionRequest {
    /// Language of the first context, whose interpreter starts with the first cell. A context of any other language is made when a cell names it.
    #[schema(example = "python")]
    pub language: Option<String>,
    /// A name for people.
    #[schema(max_length = 100, example = "analysis of march")]
    pub name: Option<String>,
    /// Words that the server keeps with the session and gives back.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Environment variables of all its interpreters.
    pub env: Option<BTreeMap<String, String>>,
    /// Memory of the session in MiB, files in its folders included.
    #[schema(minimum = 16, example = 512)]
    pub memory_mb: Option<u64>,
    /// Seconds after which it ends, used or not.
    #[schema(minimum = 1, maximum = 86400, default = 86400)]
    pub ttl: Option<f64>,
    /// Seconds without a call after which it is paused; it ends after an hour, or after twice as long if that is longer.
    #[schema(minimum = 1, maximum = 86400, default = 600)]
    pub idle_timeout: Option<f64>,
}

/// A session that is asked for, and what the caller should know of the request.
#[derive(Debug, Clone, Default)]
pub struct SessionOrder {
    /// What the engine is asked for.
    pub draft: SessionDraft,
    /// What the caller should know about the request itself.
    pub warnings: Vec<String>,
}

impl TryFrom<Map<String, Value>> for SessionOrder {
    type Error = Problem;

    fn try_from(object: Map<String, Value>) -> Result<Self, Problem> {
        let mut draft = SessionDraft::default();
        let mut unknown = Vec::new();
        let pairs = |map: Option<BTreeMap<String, String>>| map.unwrap_or_default().into_iter();
        for (name, value) in object {
            match name.as_str() {
                "language" => draft.language = optional(value, language)?,
                "name" => draft.name = optional(value, |value| text("name", value))?,
                "metadata" => {
                    draft.metadata =
                        pairs(optional(value, |value| env("metadata", value))?).collect();
                }
                "env" => draft.env = pairs(optional(value, |value| env("env", value))?).collect(),
                "memory_mb" => {
                    let mib = optional(value, memory)?;
                    draft.memory = mib.map(memory_bytes).transpose()?;
                }
                "ttl" => draft.ttl = optional(value, |value| span("ttl", &value))?,
                "idle_timeout" => {
                    draft.idle_timeout = optional(value, |value| span("idle_timeout", &value))?;
                }
                _ => unknown.push(name),
            }
        }
        Ok(Self {
            draft,
            warnings: unknown_warning(&unknown).into_iter().collect(),
        })
    }
}

fn span(field: &str, value: &Value) -> Result<Duration, Problem> {
    let cure = "Send a number of seconds, such as 600.";
    let seconds = value
        .as_f64()
        .ok_or_else(|| wrong_type(field, value, cure))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| Problem::field(field, "is out of range", cure))
}

/// What is asked of one context of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, ToSchema)]
pub struct ContextRequest {
    /// Language of the context's interpreter.
    #[schema(example = "python")]
    pub language: String,
    /// Its name; without one it gets its language's, with a number where that is taken.
    #[schema(max_length = 100, example = "second-try")]
    pub name: Option<String>,
}

impl TryFrom<Map<String, Value>> for ContextRequest {
    type Error = Problem;

    fn try_from(object: Map<String, Value>) -> Result<Self, Problem> {
        let mut request = Self::default();
        let mut given = None;
        for (name, value) in object {
            match name.as_str() {
                "language" => given = optional(value, language)?,
                "name" => request.name = optional(value, |value| text("name", value))?,
                _ => {}
            }
        }
        request.language = given.ok_or_else(|| {
            let cure = "Send the language of the context, such as {\"language\": \"python\"}.";
            Problem::field("language", "is missing", cure)
        })?;
        Ok(request)
    }
}

/// Which context is forked, and what the new one is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, ToSchema)]
pub struct ForkRequest {
    /// Name of the context to fork; without one the only one that there is.
    #[schema(example = "python")]
    pub context: Option<String>,
    /// Name of the new context; without one it gets its language's with a number.
    #[schema(max_length = 100, example = "second-try")]
    pub name: Option<String>,
}

impl TryFrom<Map<String, Value>> for ForkRequest {
    type Error = Problem;

    fn try_from(mut object: Map<String, Value>) -> Result<Self, Problem> {
        let mut word = |field: &str| {
            let given = object.remove(field).unwrap_or_default();
            optional(given, |value| text(field, value))
        };
        Ok(Self {
            context: word("context")?,
            name: word("name")?,
        })
    }
}

/// Reads which context is meant: the field `context` of a body that may be empty.
///
/// # Errors
/// A [`Problem`] where it is no text.
pub fn context_named(mut object: Map<String, Value>) -> Result<Option<String>, Problem> {
    let named = object.remove("context").unwrap_or_default();
    optional(named, |value| text("context", value))
}

/// A session: a sandbox that keeps its files and its interpreters' state between calls.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionOut {
    /// Its id, for `session_id`; whoever has it and the token can use the session.
    #[schema(example = "ses_5f0c1a2b9d3e4f60718293a4b5c6d7e8f9012345")]
    pub id: String,
    /// `live`, or `paused`: its programs are stopped until the next call.
    #[schema(schema_with = state_schema)]
    pub state: String,
    /// The name that it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// The words that were given with it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    pub metadata: BTreeMap<String, String>,
    /// The isolation that holds.
    #[schema(schema_with = isolation_schema)]
    pub isolation: String,
    /// Memory of the session in MiB.
    pub memory_mb: u64,
    /// When it was made, RFC 3339 in UTC.
    #[schema(format = "date-time", example = "2026-01-02T03:04:05.678901Z")]
    pub created: String,
    /// When it was last used.
    #[schema(format = "date-time", example = "2026-01-02T03:04:05.678901Z")]
    pub last_used: String,
    /// When it ends at the latest.
    #[schema(format = "date-time", example = "2026-01-03T03:04:05.678901Z")]
    pub expires: String,
    /// Seconds without a call after which it is paused.
    pub idle_timeout: u64,
    /// Its interpreters.
    pub contexts: Vec<ContextOut>,
    /// Name of the context that was forked just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub forked: Option<String>,
    /// What the caller should know about the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub warnings: Vec<String>,
}

/// An interpreter of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SessionContext)]
pub struct ContextOut {
    /// Its name, for `context`.
    #[schema(example = "python")]
    pub name: String,
    /// Canonical name of its language.
    #[schema(example = "python")]
    pub language: String,
    /// What it does: `new` before the first cell, `lost` when the interpreter ended and its state with it.
    #[schema(schema_with = activity_schema)]
    pub state: String,
    /// Cells that it has begun.
    pub cells: u64,
    /// Cells that wait for their turn.
    pub waiting: usize,
}

/// The caller's sessions.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Sessions {
    /// Each of them.
    pub sessions: Vec<SessionOut>,
}

fn state_schema() -> utoipa::openapi::schema::Object {
    words(["live", "paused"])
}

fn activity_schema() -> utoipa::openapi::schema::Object {
    words(engine::Activity::ALL.map(engine::Activity::as_str))
}

impl From<SessionState> for SessionOut {
    fn from(state: SessionState) -> Self {
        Self {
            id: state.id,
            state: if state.paused { "paused" } else { "live" }.to_owned(),
            name: state.name,
            metadata: state.metadata.into_iter().collect(),
            isolation: state.isolation.as_str().to_owned(),
            memory_mb: state.memory >> 20,
            created: timestamp(state.created),
            last_used: timestamp(state.last_used),
            expires: timestamp(state.expires),
            idle_timeout: state.idle_timeout.as_secs(),
            contexts: state.contexts.into_iter().map(ContextOut::from).collect(),
            forked: None,
            warnings: Vec::new(),
        }
    }
}

impl From<ContextState> for ContextOut {
    fn from(state: ContextState) -> Self {
        Self {
            name: state.name,
            language: state.language,
            state: state.activity.as_str().to_owned(),
            cells: state.cells,
            waiting: state.waiting,
        }
    }
}

impl From<Vec<SessionState>> for Sessions {
    fn from(states: Vec<SessionState>) -> Self {
        Self {
            sessions: states.into_iter().map(SessionOut::from).collect(),
        }
    }
}

/// What is done to the files of a session: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, ToSchema)]
pub struct FileWork {
    /// A directory to make, with those on its way.
    #[schema(example = "data/raw")]
    pub mkdir: Option<String>,
    /// A file or directory to give another place.
    pub r#move: Option<FileMove>,
}

/// Files as a form has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, ToSchema)]
pub struct FileForm {
    /// Directory below the working directory for the files after it.
    #[schema(example = "data")]
    pub directory: Option<String>,
    /// The files, each with its name.
    #[schema(value_type = Vec<String>, format = Binary)]
    pub file: Vec<Vec<u8>>,
}

/// From where to where a file or directory goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, ToSchema)]
pub struct FileMove {
    /// Where it is.
    #[schema(example = "a.csv")]
    pub from: String,
    /// Where it will be; nothing may be there yet.
    #[schema(example = "data/a.csv")]
    pub to: String,
}

impl FileWork {
    /// Returns the problem of a request that asks for nothing.
    #[must_use]
    pub fn missing() -> Problem {
        Problem::field(
            "mkdir",
            "and `move` are both missing",
            "Send {\"mkdir\": \"data\"} or {\"move\": {\"from\": \"a\", \"to\": \"b\"}}.",
        )
    }
}

impl TryFrom<Map<String, Value>> for FileWork {
    type Error = Problem;

    fn try_from(mut object: Map<String, Value>) -> Result<Self, Problem> {
        let mut member = |name: &str| object.remove(name).unwrap_or_default();
        let mkdir = optional(member("mkdir"), |value| text("mkdir", value))?;
        let places = optional(member("move"), |value| match value {
            Value::Object(mut places) => {
                let mut place = |name: &str| {
                    let value = places.remove(name).unwrap_or_default();
                    text(&format!("move.{name}"), value)
                };
                Ok(FileMove {
                    from: place("from")?,
                    to: place("to")?,
                })
            }
            other => {
                let cure = "Send an object with `from` and `to`.";
                Err(wrong_type("move", &other, cure))
            }
        })?;
        Ok(Self {
            mkdir,
            r#move: places,
        })
    }
}

/// A file or directory of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SessionFile)]
pub struct FileEntryOut {
    /// Path below the working directory.
    #[schema(example = "data/a.csv")]
    pub path: String,
    /// What it is.
    #[schema(schema_with = kind_schema)]
    pub kind: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was changed last, RFC 3339 in UTC.
    #[schema(format = "date-time", example = "2026-01-02T03:04:05.678901Z")]
    pub modified: String,
}

impl FileEntryOut {
    /// Describes an opened file.
    #[must_use]
    pub fn of(path: String, file: &engine::SessionFile) -> Self {
        Self {
            path,
            kind: engine::FileKind::File.as_str().to_owned(),
            size: file.size,
            modified: timestamp(file.modified),
        }
    }
}

/// What is in a directory of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SessionFiles)]
pub struct FileListOut {
    /// The files and directories, by path.
    pub files: Vec<FileEntryOut>,
    /// Whether there are more than are listed.
    pub truncated: bool,
}

fn kind_schema() -> utoipa::openapi::schema::Object {
    words(engine::FileKind::ALL.map(engine::FileKind::as_str))
}

impl From<engine::FileList> for FileListOut {
    fn from(list: engine::FileList) -> Self {
        let entries = list.entries.into_iter().map(|entry| FileEntryOut {
            path: entry.path,
            kind: entry.kind.as_str().to_owned(),
            size: entry.size,
            modified: timestamp(entry.modified),
        });
        Self {
            files: entries.collect(),
            truncated: list.truncated,
        }
    }
}
