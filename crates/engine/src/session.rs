//! Sessions: boxes that live on between calls, with interpreters that keep their state.
//!
//! A session is a box with a workspace and a few *contexts*; a context is an
//! interpreter that runs *cells* one after the other. A session belongs to its owner;
//! for all others it is not there. It holds a place to run in only while a cell does.
//!
//! ```text
//!             create                     idle for `idle_timeout`, or asked to
//!   (nothing) ──────▶ live ─────────────────────────────────────────▶ paused
//!                      │ ▲                                              │ │
//!                      │ └──────────── the next call, or asked to ──────┘ │
//!                      ▼                                                  ▼
//!                    ended ◀── deleted · idle too long · `ttl` over · box died ·
//!                              made way for others · the server stops
//!
//!   context:   (nothing) ─▶ idle ⇄ busy ─▶ lost ─▶ idle (afresh, with the next cell)
//! ```
//!
//! A paused session uses no processor time and keeps its memory. Where no cgroup counts
//! memory somebody has to look at a box as long as anything in it can run, so there its
//! programs are stopped as soon as no cell runs: an idle session costs nothing anywhere.
//!
//! Never trusted: anything that comes from the box.

mod cell;
mod command;
mod context;
mod contexts;
pub(crate) mod files;
mod fork;
pub(crate) mod frames;
mod live;
mod store;

use std::time::{Duration, SystemTime};

use crate::outcome::Isolation;

pub(crate) use cell::{CellJob, run, turn};
pub use command::{CommandDraft, CommandEnd, CommandState};
pub use files::{Content, FileCall, FileEntry, FileKind, FileList, SessionFile};

pub(crate) use command::Running as RunningCommand;
pub(crate) use context::Context;
pub(crate) use fork::{Forked, fork};
pub(crate) use live::{InUse, Language, Session, Shell, Terms, Warm};
pub(crate) use store::{Seat, Sessions};

/// What a caller asks of a session to be. `None` means the default.
#[derive(Debug, Clone, Default)]
pub struct SessionDraft {
    /// Language of its first context, started at once; by name or alias.
    pub language: Option<String>,
    /// A name for people.
    pub name: Option<String>,
    /// Words that the caller keeps with it.
    pub metadata: Vec<(String, String)>,
    /// Variables of all its interpreters.
    pub env: Vec<(String, String)>,
    /// Memory of all that it holds, in bytes.
    pub memory: Option<u64>,
    /// How long it may live, used or not.
    pub ttl: Option<Duration>,
    /// How long it may be idle before it is paused.
    pub idle_timeout: Option<Duration>,
}

/// What can be asked of sessions.
#[derive(Debug, Clone)]
pub enum SessionCall {
    /// Make one.
    Create(Box<SessionDraft>),
    /// Name the caller's.
    List,
    /// Tell of one.
    Show(String),
    /// End one.
    End(String),
    /// Stop the programs of one until the next call.
    Pause(String),
    /// Let the programs of one go on.
    Resume(String),
    /// Stop the cell that runs, and keep the state.
    Interrupt(InSession),
    /// Make a context.
    AddContext {
        /// The session's id.
        session: String,
        /// Language, by name or alias.
        language: String,
        /// Its name; `None` for one of ours.
        name: Option<String>,
    },
    /// Start the interpreter of a context afresh, without its state.
    Restart(InSession),
    /// End a context.
    EndContext(InSession),
    /// Fork a context's interpreter, and give the second one a context of this name.
    Fork(InSession, Option<String>),
}

/// What can be asked of the commands of a session.
#[derive(Debug, Clone)]
pub enum CommandCall {
    /// Run one: to its end, or only to its beginning if nobody waits for it.
    Run(Box<CommandDraft>),
    /// Name those there are.
    List,
    /// Tell of one, after waiting at most so long for its end.
    Show(String, Duration),
    /// Give one input, and close that if this is all.
    Feed(String, Vec<u8>, bool),
    /// End one.
    Kill(String),
}

/// A place in a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InSession {
    /// The session's id.
    pub session: String,
    /// Name of a context; `None` for the one of the language.
    pub context: Option<String>,
}

/// What a session is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: Option<String>,
    /// The caller's words.
    pub metadata: Vec<(String, String)>,
    /// Whether its programs are stopped.
    pub paused: bool,
    /// The isolation that holds.
    pub isolation: Isolation,
    /// Memory that it may use, in bytes.
    pub memory: u64,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last used.
    pub last_used: SystemTime,
    /// When it ends at the latest.
    pub expires: SystemTime,
    /// How long it may be idle before it is paused.
    pub idle_timeout: Duration,
    /// Its contexts, by name.
    pub contexts: Vec<ContextState>,
}

/// What a context is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextState {
    /// Its name.
    pub name: String,
    /// Canonical name of its language.
    pub language: String,
    /// What it does.
    pub activity: Activity,
    /// Cells that it has begun.
    pub cells: u64,
    /// Cells that wait for their turn.
    pub waiting: usize,
}

/// What a context does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It has no interpreter yet; the next cell starts one.
    New,
    /// It waits for a cell.
    Idle,
    /// It runs a cell.
    Busy,
    /// Its interpreter ended, with all state; the next cell starts one afresh.
    Lost,
}

impl Activity {
    /// Every activity, for schemas.
    pub const ALL: [Self; 4] = [Self::New, Self::Idle, Self::Busy, Self::Lost];

    /// The word used on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Lost => "lost",
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// Its owner ended it.
    Deleted,
    /// Nobody used it for too long.
    Idle,
    /// Its time was over.
    Expired,
    /// Its box died: it ran out of memory, or its programs killed what kept them.
    Died,
    /// It was idle, and others needed room.
    Evicted,
    /// The server is shutting down.
    Stopped,
    /// The server was started again since.
    Lost,
    /// There is none of that id, or it is somebody else's.
    Unknown,
}

impl SessionEnd {
    /// Says why there is no such session, as the end of a sentence.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Deleted => "it was deleted",
            Self::Idle => "it was ended because it had not been used for too long",
            Self::Expired => "its time to live was over",
            Self::Died => {
                "its sandbox died, for want of memory or because a program killed what kept it"
            }
            Self::Evicted => "it was paused, and others needed its room",
            Self::Stopped => "the server is shutting down",
            Self::Lost => "it was lost when the server was started again",
            Self::Unknown => "none of yours has this id",
        }
    }
}
