//! A validated request to run code. Parsed once, trusted afterwards.
//!
//! A [`Draft`] is what somebody said; [`Job`] is what the engine accepts.
//! Only `Engine::accept` makes one from the other, so a `Job` never needs a
//! second check.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::owner::Owner;
use crate::session::{Context, InSession, Session};

/// What a caller asks for, unchecked. `None` means the default.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Whose run it is.
    pub owner: Owner,
    /// The program text.
    pub code: String,
    /// Language name or alias; `None` for the default language.
    pub language: Option<String>,
    /// Standard input.
    pub stdin: Vec<u8>,
    /// Program arguments, without the program's own name.
    pub args: Vec<String>,
    /// Environment variables to add.
    pub env: Vec<(String, String)>,
    /// Files to put into the workspace before the program starts.
    pub files: Vec<DraftFile>,
    /// Wall time.
    pub wall_time: Option<Duration>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// How long it may wait for a place; never longer than
    /// [`Bounds::queue_wait`](crate::Bounds::queue_wait).
    pub queue_wait: Option<Duration>,
    /// Whether to tell which system calls were denied.
    pub explain: bool,
    /// The session in which it is to run, as a cell of one of its interpreters;
    /// `None` for a box of its own.
    pub session: Option<InSession>,
}

/// A file of a [`Draft`], its path unchecked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DraftFile {
    /// Path relative to the workspace.
    pub path: String,
    /// The contents.
    pub content: Vec<u8>,
}

/// Why a draft was refused: always the caller's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}. {cure}")]
pub struct Invalid {
    /// The field of the draft, in the wire's words (`code`, `files[2].path`).
    pub field: String,
    /// What is wrong with it, lower case, no full stop.
    pub problem: String,
    /// What to send instead, a sentence.
    pub cure: String,
}

/// A job the engine has accepted: every bound holds, the language exists.
#[derive(Debug, Clone)]
pub struct Job {
    pub(crate) id: String,
    pub(crate) language: String,
    pub(crate) draft: Draft,
    pub(crate) wall_time: Duration,
    pub(crate) memory: u64,
    pub(crate) processes: u32,
    pub(crate) queue_wait: Duration,
    pub(crate) started: SystemTime,
    pub(crate) cell: Option<Desk>,
}

/// Where in a session a job runs.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) session: Arc<Session>,
    pub(crate) context: Arc<Context>,
}

impl Job {
    /// Unique and sortable by time of acceptance.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Canonical name of the language.
    #[must_use]
    pub fn language(&self) -> &str {
        &self.language
    }

    /// The wall time it may take.
    #[must_use]
    pub fn wall_time(&self) -> Duration {
        self.wall_time
    }
}
