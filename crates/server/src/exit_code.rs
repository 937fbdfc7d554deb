//! The table of exit codes: scripts and service units rely on it. A code is
//! never given a second meaning.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Success,
    /// It failed for a reason of its own.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The environment or `codex.toml` is wrong.
    Config,
    /// No sandbox, or none as strong as asked for.
    Sandbox,
    /// The port or address cannot be had.
    Address,
    /// A server runs already with this data directory.
    Running,
    /// The data directory or its database cannot be used.
    State,
    /// The server cannot be reached through its public URL, or ChatGPT not by its
    /// tunnel.
    Public,
    /// The sandbox broke down under a running server.
    Broken,
    /// `run` could not run the program, or not save what it left.
    NotRun,
    /// A second signal cut the shutdown short.
    Interrupted,
    /// `run` ran the program and this is its code.
    Program(u8),
}

/// Every code but the program's own, with its meaning.
pub const TABLE: [(Exit, &str); 12] = [
    (Exit::Success, "success"),
    (Exit::Failed, "failed for a reason that the message names"),
    (Exit::Usage, "the command line is wrong"),
    (
        Exit::Config,
        "a setting in the environment or in `codex.toml` is wrong",
    ),
    (
        Exit::Sandbox,
        "no sandbox can be set up here, or none as strong as asked for",
    ),
    (
        Exit::Address,
        "the port is taken, or the address cannot be listened on",
    ),
    (
        Exit::Running,
        "a server runs already with this data directory",
    ),
    (
        Exit::State,
        "the data directory or its database cannot be used",
    ),
    (
        Exit::Public,
        "`doctor --public`: the server cannot be reached through its public URL; `connect chatgpt`: ChatGPT cannot reach the server yet, or has not called in time",
    ),
    (
        Exit::Broken,
        "the sandbox broke down while serving; start the server again",
    ),
    (
        Exit::NotRun,
        "`run`, `session run`, `session exec`: the program could not be run at all, or what it left not be saved as asked",
    ),
    (
        Exit::Interrupted,
        "a second signal cut the shutdown, or a run, short",
    ),
];

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::Sandbox => 4,
            Self::Address => 5,
            Self::Running => 6,
            Self::State => 7,
            Self::Public => 8,
            Self::Broken => 9,
            Self::NotRun => 125,
            Self::Interrupted => 130,
            Self::Program(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_holds_the_table() {
        let page = include_str!("../../../docs/cli.md");
        for (exit, meaning) in TABLE {
            let row = format!("| {} | {meaning} |", exit.code());
            assert!(page.contains(&row), "docs/cli.md lacks: {row}");
        }
    }
}
