//! What became of a job: the only thing user code can bring about.
//!
//! A timeout, an out-of-memory kill or exit code 3 is an [`Outcome`]; an
//! `Err` always means that the server failed. Nothing here is ever derived
//! from what the program printed: status comes from the kernel.

use std::time::{Duration, SystemTime};

pub use sandbox::{DeniedCall, Isolation};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The program exited with code 0.
    Success,
    /// The program exited with another code, or did not compile.
    Error,
    /// The wall time ran out and the program was killed; exit code 124.
    Timeout,
    /// The kernel, or the memory watcher, killed it for want of memory; exit code 137.
    MemoryLimit,
    /// It ended unsuccessfully after it was refused another process or thread.
    ProcessLimit,
    /// A signal ended it; exit code 128 + N.
    Signalled,
    /// The server shut down and stopped the run; exit code 137.
    Cancelled,
    /// Its caller interrupted a cell of a session; exit code 130.
    Interrupted,
}

impl Status {
    /// Every status, for schemas and documentation.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::Error,
        Self::Timeout,
        Self::MemoryLimit,
        Self::ProcessLimit,
        Self::Signalled,
        Self::Cancelled,
        Self::Interrupted,
    ];

    /// The word used on the wire and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::MemoryLimit => "memory_limit",
            Self::ProcessLimit => "process_limit",
            Self::Signalled => "signalled",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What a program wrote to one stream, as much of it as was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The kept bytes: all, or head, a line that says how much is missing, and tail.
    pub bytes: Vec<u8>,
    /// Bytes the program wrote, kept or not.
    pub total: u64,
    /// Whether anything was left out.
    pub truncated: bool,
}

/// A file that the program left in its workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Path below the workspace, `/`-separated, valid UTF-8, never with `..`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// The contents.
    pub content: Vec<u8>,
}

/// What a run used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// From the start of the program to its end.
    pub wall_time: Duration,
    /// User and system time of all processes of the run; `None` where nothing
    /// measured it: without a cgroup, for a run that was killed.
    pub cpu_time: Option<Duration>,
    /// Highest memory use in bytes, where the kernel or the watcher measured it.
    pub memory_peak: Option<u64>,
}

/// One stage (compile, run) of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOutcome {
    /// The stage's name from the runtime's manifest, such as `run`.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Exit code in the shell's convention: 124 for a timeout, 128 + N for signal N.
    pub exit_code: i32,
    /// The signal that ended the program, if one did.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// What the stage used.
    pub usage: Usage,
}

/// A value or a picture that code showed, in each form that there is of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RichResult {
    /// Whether it is the value of a cell's last expression.
    pub is_value: bool,
    /// The forms, each media type once.
    pub forms: Vec<Form>,
}

/// One form of a [`RichResult`]: a program's word, whatever it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Media type, such as `image/png`: one of a fixed list.
    pub media_type: &'static str,
    /// Whether the content is text, and not Base64.
    pub is_text: bool,
    /// The content.
    pub content: String,
}

/// The error that ended a cell, as its interpreter tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Name of its type, such as `ValueError`.
    pub name: String,
    /// Its own words.
    pub message: String,
    /// How it came about, as the interpreter prints it.
    pub traceback: String,
}

/// What is known of a run because it was a cell of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellOutcome {
    /// The session's id.
    pub session: String,
    /// Name of the context.
    pub context: String,
    /// Which cell of its context it was, from 1.
    pub number: u64,
    /// The error that ended it.
    pub exception: Option<Exception>,
    /// What was written between the cell before and this one.
    pub late: [Output; 2],
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The job's id.
    pub id: String,
    /// How it ended: the status of the last stage that ran.
    pub status: Status,
    /// The stages that ran, in order; never empty.
    pub stages: Vec<StageOutcome>,
    /// New and changed files in the workspace, sorted by path.
    pub files: Vec<OutputFile>,
    /// What all stages used together.
    pub usage: Usage,
    /// Canonical name of the language.
    pub language: String,
    /// Version of the interpreter or compiler, such as `3.11.2`.
    pub version: String,
    /// The isolation that held during this run.
    pub isolation: Isolation,
    /// What the caller should know: files left out, children killed for memory.
    pub warnings: Vec<String>,
    /// The system calls that were denied, each once; `None` unless asked for.
    pub denied_calls: Option<Vec<DeniedCall>>,
    /// When the job was accepted.
    pub started: SystemTime,
    /// What was shown, in order.
    pub results: Vec<RichResult>,
    /// What there is besides of a cell of a session.
    pub cell: Option<CellOutcome>,
}

impl Outcome {
    /// The stage that decided the status.
    ///
    /// # Panics
    /// Never for an outcome the engine made: it always holds a stage.
    #[must_use]
    pub fn last(&self) -> &StageOutcome {
        self.stages
            .last()
            .expect("an outcome holds at least one stage")
    }
}
