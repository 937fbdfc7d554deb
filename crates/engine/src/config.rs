//! Every bound of the engine, with its default. Read once; then immutable.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use sandbox::Isolation;

use crate::events::EventBounds;

const MIB: u64 = 1024 * 1024;

/// The engine's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory for materialised runtime files (`CODEX_HOME`).
    pub data_dir: PathBuf,
    /// `PATH`-like list in which interpreters are looked for.
    pub search_path: Vec<PathBuf>,
    /// The home directory below which version switchers keep interpreters;
    /// `None` looks nowhere but in [`Config::search_path`].
    pub switchers: Option<PathBuf>,
    /// Interpreters by the canonical name of their language, the preferred one
    /// first. A language that is named here is looked for nowhere else.
    pub interpreters: Vec<(String, PathBuf)>,
    /// The least isolation that will do, and the most that is tried.
    pub isolation: RangeInclusive<Isolation>,
    /// The bounds.
    pub bounds: Bounds,
}

/// The named bounds of design page "Defaults".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Wall time of a run when the caller names none.
    pub wall_time: Duration,
    /// The longest wall time a caller may ask for.
    pub wall_time_max: Duration,
    /// Memory of a run in bytes.
    pub memory: u64,
    /// The most memory a caller may ask for, in bytes.
    pub memory_max: u64,
    /// Processes and threads of a run; `None` for what the language needs, else
    /// [`Bounds::PROCESSES`].
    pub processes: Option<u32>,
    /// CPU of a run in thousandths of a core.
    pub cpu_millis: u32,
    /// Output kept of each stream, in bytes: three quarters head, one quarter tail.
    pub output: usize,
    /// Bytes of output a second that are read though they are not kept, after
    /// four seconds' worth; more than 0.
    pub output_rate: u64,
    /// Output of a streamed run that waits for its reader, in bytes.
    pub stream_buffer: usize,
    /// Output told of a streamed run, in bytes.
    pub stream_total: u64,
    /// How long a streamed run may be held up by its reader, in all.
    pub stream_wait: Duration,
    /// Size of workspace and `/tmp` together, in bytes.
    pub workspace: u64,
    /// Inodes of workspace and `/tmp` together.
    pub inodes: u64,
    /// Size of `/dev/shm`, in bytes, inside `memory`.
    pub shm: u64,
    /// Runs at once, at most [`Bounds::CONCURRENCY_MAX`].
    pub concurrency: usize,
    /// Jobs that may wait for a place.
    pub queue: usize,
    /// How long a job may wait for a place.
    pub queue_wait: Duration,
    /// Program text, in bytes.
    pub code: usize,
    /// Standard input, in bytes.
    pub stdin: usize,
    /// Number of program arguments.
    pub args: usize,
    /// Number of environment variables.
    pub env: usize,
    /// All arguments together, or all environment variables together, in bytes.
    pub args_bytes: usize,
    /// Number of input files.
    pub files_in: usize,
    /// All input files together, in bytes.
    pub files_in_bytes: u64,
    /// Number of files given back.
    pub files_out: usize,
    /// Size of one file given back, in bytes.
    pub file_out_bytes: u64,
    /// All files given back together, in bytes: they are held in memory.
    pub files_out_bytes: u64,
    /// Sessions in all.
    pub sessions: usize,
    /// Sessions of one owner.
    pub sessions_each: usize,
    /// How long a session may be idle before it is paused, when its caller says nothing.
    pub session_idle: Duration,
    /// Boxes of each language that wait for a program in quiet times; none for 0.
    pub ready: usize,
    /// How long a session may live, and the longest that a caller may ask for.
    pub session_ttl: Duration,
    /// Size of a session's workspace and `/tmp` together, in bytes.
    pub session_workspace: u64,
    /// How long the files of a run may be looked for and read; the rest is left out.
    pub collect_time: Duration,
}

/// What cannot be set: the kernel's bounds, and those that nobody should meet.
impl Bounds {
    /// Processes and threads of a run, where neither the operator nor the language says.
    pub const PROCESSES: u32 = 64;
    /// Open files of one process.
    pub const OPEN_FILES: u64 = 1024;
    /// Folders below each other, in the path of an input file and of an output file.
    pub const PATH_DEPTH: usize = 32;
    /// Longest name of a file or folder in bytes: the kernel's `NAME_MAX`.
    pub const NAME_BYTES: usize = 255;
    /// Longest path of an input file in bytes.
    pub const PATH_BYTES: usize = 1024;
    /// Longest single argument, or `NAME=value` of the environment, in bytes:
    /// the kernel's `MAX_ARG_STRLEN` without the NUL that ends it.
    pub const ARG_BYTES: usize = 128 * 1024 - 1;
    /// Names in a workspace that are looked at when files are collected.
    pub const COLLECT_ENTRIES: usize = 100_000;
    /// The most runs at once: half of the sandbox's 1024 slots, so that there
    /// is always one while dead boxes are taken apart.
    pub const CONCURRENCY_MAX: usize = 512;
    /// Contexts of a session.
    pub const CONTEXTS: usize = 4;
    /// Commands of a session that nobody waits for, at once.
    pub const COMMANDS: usize = 8;
    /// The longest text of a command, in bytes: the kernel's `MAX_ARG_STRLEN`, less what
    /// leads to its directory.
    pub const COMMAND_BYTES: usize = 100 * 1024;
    /// Cells that may wait for one context.
    pub const CELLS_WAITING: usize = 16;
    /// Results of one cell.
    pub const RESULTS: usize = 100;
    /// Results of one cell together, in bytes as JSON has them: they are held in memory.
    pub const RESULTS_BYTES: usize = 8 * 1024 * 1024;
    /// Each text of the error that ended a cell, in bytes.
    pub const EXCEPTION_BYTES: usize = 64 * 1024;
    /// How long a session may be idle before it ends, paused or not.
    pub const SESSION_IDLE_END: Duration = Duration::from_secs(3600);
    /// The most that input files may be together, in bytes: with the program
    /// text they must fit into one command of the sandbox (256 MiB).
    pub const FILES_IN_BYTES_MAX: u64 = 128 * MIB;
    /// The most that arguments, and environment variables, may be together, in
    /// bytes: the kernel takes 2 MiB of both, pointers to them included.
    pub const ARGS_BYTES_MAX: usize = 512 * 1024;
}

impl Bounds {
    /// What holds for the events of a streamed run.
    #[must_use]
    pub fn events(&self) -> EventBounds {
        EventBounds {
            buffer: self.stream_buffer,
            total: self.stream_total,
            wait: self.stream_wait,
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            wall_time: Duration::from_secs(10),
            wall_time_max: Duration::from_secs(30),
            memory: 512 * MIB,
            memory_max: 4096 * MIB,
            processes: None,
            cpu_millis: 1000,
            output: 1024 * 1024,
            output_rate: 16 * MIB,
            stream_buffer: 256 * 1024,
            stream_total: 16 * MIB,
            stream_wait: Duration::from_millis(500),
            workspace: 256 * MIB,
            inodes: 20_000,
            shm: 64 * MIB,
            concurrency: 2 * cores,
            queue: 64,
            queue_wait: Duration::from_secs(30),
            code: 1024 * 1024,
            stdin: 8 * 1024 * 1024,
            args: 256,
            env: 128,
            args_bytes: 128 * 1024,
            files_in: 100,
            files_in_bytes: 32 * MIB,
            files_out: 20,
            file_out_bytes: 10 * MIB,
            files_out_bytes: 32 * MIB,
            sessions: 64,
            sessions_each: 16,
            session_idle: Duration::from_secs(600),
            ready: 2,
            session_ttl: Duration::from_secs(24 * 3600),
            session_workspace: 1024 * MIB,
            collect_time: Duration::from_secs(2),
        }
    }
}
