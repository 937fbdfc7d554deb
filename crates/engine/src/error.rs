//! Our own failures. User code never causes one: what it does is an `Outcome`.

use std::time::Duration;

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
