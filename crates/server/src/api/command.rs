//! Commands of a session on the wire.

use std::collections::BTreeMap;

use engine::{CommandDraft, CommandState};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::Problem;
use super::execute::{env, optional, text, timeout, wall_time};
use super::json::wrong_type;
use super::response::{lossy, seconds, status_schema, timestamp};

/// A command to run.
#[derive(Debug, Clone, Default, PartialEq, ToSchema)]
pub struct CommandRequest {
    /// The command, as a shell takes it.
    #[schema(example = "ls -l")]
    pub command: String,
    /// Directory below the working directory to run it in.
    pub directory: Option<String>,
    /// Environment variables to add.
    pub env: Option<BTreeMap<String, String>>,
    /// What it reads from standard input.
    pub stdin: Option<String>,
    /// Seconds after which it is ended; in the background it may run as long as the session.
    #[schema(minimum = 1, example = 10)]
    pub timeout: Option<f64>,
    /// Whether to answer as soon as it runs.
    #[schema(default = false)]
    pub background: Option<bool>,
}

impl TryFrom<Map<String, Value>> for CommandRequest {
    type Error = Problem;

    fn try_from(object: Map<String, Value>) -> Result<Self, Problem> {
        let mut request = Self::default();
        let mut command = None;
        for (name, value) in object {
            match name.as_str() {
                "command" => command = optional(value, |value| text("command", value))?,
                "directory" => {
                    request.directory = optional(value, |value| text("directory", value))?;
                }
                "env" => request.env = optional(value, |value| env("env", value))?,
                "stdin" => request.stdin = optional(value, |value| text("stdin", value))?,
                "timeout" => request.timeout = optional(value, timeout)?,
                "background" => {
                    request.background = optional(value, |value| match value {
                        Value::Bool(background) => Ok(background),
                        other => Err(wrong_type("background", &other, "Send true or false.")),
                    })?;
                }
                _ => {}
            }
        }
        request.command = command.ok_or_else(|| {
            let cure = "Send a command as a shell takes it, such as {\"command\": \"ls -l\"}.";
            Problem::field("command", "is missing", cure)
        })?;
        Ok(request)
    }
}

impl CommandRequest {
    /// Returns what the engine is asked for.
    ///
    /// # Errors
    /// A [`Problem`] for a time that is none.
    pub fn draft(self) -> Result<CommandDraft, Problem> {
        let directory = self
            .directory
            .filter(|path| !matches!(path.as_str(), "" | "." | "./"));
        Ok(CommandDraft {
            command: self.command,
            directory,
            env: self.env.unwrap_or_default().into_iter().collect(),
            stdin: self.stdin.map(String::into_bytes),
            wall_time: self.timeout.map(wall_time).transpose()?,
            background: self.background.unwrap_or_default(),
        })
    }
}

/// A command of a session.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Command)]
pub struct CommandOut {
    /// Its id within the session.
    #[schema(example = "1")]
    pub id: String,
    /// The command.
    pub command: String,
    /// Whether it runs.
    pub running: bool,
    /// Standard output so far.
    pub output: String,
    /// Standard error so far.
    pub error: String,
    /// Whether output was cut to a bound; the text says where.
    pub truncated: bool,
    /// When it began, RFC 3339 in UTC.
    #[schema(format = "date-time", example = "2026-01-02T03:04:05.678901Z")]
    pub started: String,
    /// How it ended; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = status_schema)]
    pub status: Option<String>,
    /// Exit code: 124 for a timeout, 128 + N for signal N; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub exit_code: Option<i32>,
    /// Seconds that it took; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub execution_time: Option<f64>,
}

/// The commands of a session.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Commands)]
pub struct CommandsOut {
    /// Each of them, the oldest first.
    pub commands: Vec<CommandOut>,
}

impl From<CommandState> for CommandOut {
    fn from(state: CommandState) -> Self {
        let [output, error] = &state.output;
        Self {
            id: state.id,
            command: state.command,
            running: state.ended.is_none(),
            output: lossy(output),
            error: lossy(error),
            truncated: output.truncated || error.truncated,
            started: timestamp(state.started),
            status: state.ended.map(|end| end.status.as_str().to_owned()),
            exit_code: state.ended.map(|end| end.exit_code),
            execution_time: state.ended.map(|end| seconds(end.wall_time)),
        }
    }
}

impl From<Vec<CommandState>> for CommandsOut {
    fn from(states: Vec<CommandState>) -> Self {
        Self {
            commands: states.into_iter().map(CommandOut::from).collect(),
        }
    }
}
