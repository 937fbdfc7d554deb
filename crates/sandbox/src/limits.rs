//! What a box may use and what it used.

use std::time::Duration;

/// Ceilings of one box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes, swap off; tmpfs contents count.
    pub memory: u64,
    /// Processes and threads together, the box's init not counted.
    pub processes: u32,
    /// CPU in thousandths of a core.
    pub cpu_millis: u32,
    /// Size of `/workspace` and `/tmp` together, in bytes.
    pub workspace: u64,
    /// Inodes of `/workspace` and `/tmp` together.
    pub inodes: u64,
    /// Size of `/dev/shm` in bytes.
    pub shm: u64,
    /// Open files of one process.
    pub open_files: u64,
}

/// What a box used, as the kernel counted it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its processes.
    pub cpu_time: Duration,
    /// Highest memory use in bytes; 0 when nothing measured it.
    pub memory_peak: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Times a process or thread was refused.
    pub forks_refused: u64,
}
