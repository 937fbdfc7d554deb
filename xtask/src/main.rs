//! The project's own commands: `cargo xtask up | build | check | test | tidy | …`.
//!
//! Commands that attack, emulate and measure are in the crate `lab`, and handed on
//! to it. Holds no product code and is never shipped. Everything that it starts
//! it also ends, by process id.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands talk to the person who typed them"
)]

mod changes;
mod check;
mod lock;
mod steps;
mod test;
mod tidy;
mod up;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use xtask::{build, dist, lab, openapi};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing, build, and start the server.
    Up {
        /// Flags for the server, such as `-- --port 9000`.
        #[arg(last = true)]
        serve: Vec<String>,
    },
    /// Build the release binary.
    Build,
    /// Check what a commit needs, in three minutes: the crates that changed.
    Check,
    /// Install what tests need and run everything it takes to trust a commit.
    Test {
        /// The long checks too.
        #[arg(long)]
        full: bool,
    },
    /// Check the rules that no compiler knows.
    Tidy,
    /// Write openapi.json and openapi-actions.json anew from the code.
    Openapi,
    /// Pin the newest packages for programs, of Python and JavaScript.
    Lock,
    /// Make the release: a static binary in a tarball, with its checksum.
    Dist(dist::Arguments),
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let done = if lab::is_meant(&words) {
        lab::become_it(&words).map(|()| ExitCode::SUCCESS)
    } else {
        run(command())
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for; the lab's commands are only listed, for `--help`.
fn command() -> Command {
    let listed = lab::COMMANDS.map(|(name, about)| clap::Command::new(name).about(about));
    let matches = Arguments::command().subcommands(listed).get_matches();
    match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments.command,
        Err(error) => error.exit(),
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up { serve } => up::up(&serve)?,
        Command::Build => println!("{}", build::release()?.display()),
        // They told their failures themselves: the sums are their last line.
        Command::Check if !check::check() => return Ok(ExitCode::FAILURE),
        Command::Check => {}
        Command::Test { full } if !test::test(full) => return Ok(ExitCode::FAILURE),
        Command::Test { .. } => {}
        Command::Tidy => tidy::tidy()?,
        Command::Openapi => openapi::regenerate()?,
        Command::Lock => lock::lock()?,
        Command::Dist(arguments) => dist::dist(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
