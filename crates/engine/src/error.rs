//! Our own failures. User code never causes one: what it does is an `Outcome`.

use std::time::Duration;

use crate::job::Invalid;
use crate::session::SessionEnd;

/// Why the engine could not run a job.
#[expect(
    clippy::error_impl_error,
    reason = "read as engine::Error, in the manner of std::io::Error"
)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// All places are taken and the queue is full, or the wait for a place was too long.
    #[error("the server is busy: {running} running, {waiting} waiting")]
    Overloaded {
        /// Runs in progress.
        running: usize,
        /// Jobs in the queue.
        waiting: usize,
        /// How many of those are of the same owner.
        own_waiting: usize,
        /// Whether it was sent away because the queue was full, and not because
        /// the wait was too long.
        queue_full: bool,
        /// When to try again.
        retry_after: Duration,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Draining,
    /// The language is known but its interpreter is not on this machine.
    #[error("{language} is not available here: {cure}")]
    Unavailable {
        /// Canonical name of the language.
        language: String,
        /// How to make it available.
        cure: String,
    },
    /// There is no such session.
    #[error("there is no session {id}: {}", end.reason())]
    NoSession {
        /// The id that was asked for.
        id: String,
        /// Why there is none.
        end: SessionEnd,
    },
    /// There is no such context in the session.
    #[error("the session has no context {name:?}")]
    NoContext {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// There is no such command in the session.
    #[error("the session has no command {id:?}")]
    NoCommand {
        /// The id that was asked for.
        id: String,
    },
    /// There are as many sessions as there may be.
    #[error("there are {limit} sessions already")]
    TooManySessions {
        /// How many there may be.
        limit: usize,
        /// Whether they are all of this owner.
        own: bool,
    },
    /// As many cells wait for a context as may.
    #[error("{waiting} cells wait for this context already")]
    ContextBusy {
        /// How many wait.
        waiting: usize,
    },
    /// A context's interpreter can't be forked as it is.
    #[error("the interpreter can't be forked: {}", reasons.join("; "))]
    NotForked {
        /// What stands in the way, a phrase each; some are an interpreter's word.
        reasons: Vec<String>,
    },
    /// A session has no process or memory left for a program.
    #[error("the session has no room for a program: {reason}")]
    NoRoom {
        /// What the system says.
        reason: String,
    },
    /// A file can't be written into a session's workspace.
    #[error("the workspace does not take {path:?}: {reason}")]
    NotWritten {
        /// The file's path, or what is known of it.
        path: String,
        /// Why.
        reason: String,
        /// Whether the workspace is full.
        full: bool,
    },
    /// There is no such file in the session.
    #[error("there is no file {path:?}: {reason}")]
    NoFile {
        /// The path that was asked for.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// What was asked for is not to be had.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The sandbox could not be set up or broke down.
    #[error("the sandbox failed")]
    Sandbox(#[from] sandbox::Error),
    /// A system call of the engine itself failed.
    #[error("failed to {step}")]
    Io {
        /// What the engine was doing.
        step: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Returns the error and its causes on one line, for the log and for `doctor`.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No sound sandbox can be set up here, or none at the level asked for.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Refusal),
    /// A runtime's manifest is wrong.
    #[error("runtime {name}: {problem}")]
    Manifest {
        /// The folder's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The data directory cannot be used.
    #[error("failed to {step}")]
    Io {
        /// What was being done.
        step: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}
