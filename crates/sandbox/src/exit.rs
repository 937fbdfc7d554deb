//! How a program ended: the kernel's word, never the program's.

use std::time::Duration;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Code or signal.
    pub how: How,
    /// From its start to its end.
    pub wall_time: Duration,
    /// User and system time of all reaped processes.
    pub cpu_time: Duration,
    /// Highest memory use the watcher saw, in bytes; 0 where a cgroup measures it.
    pub memory_peak: u64,
    /// Whether the memory watcher killed it (only without cgroups).
    pub over_memory: bool,
    /// Whether it was killed for what it wrote to its directories (only
    /// without namespaces: elsewhere they are file systems with a size).
    pub over_disk: bool,
}

/// Code or signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It exited with this code (0 to 255).
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}
