//! What attacks, emulates and measures the server, for `cargo xtask NAME`.
//!
//! A crate of its own, so that whoever starts the server need not compile it.
//! Holds no product code and is never shipped. Everything that it starts it
//! also ends, by process id.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands talk to the person who typed them"
)]

mod bench;
mod browser;
mod bundle;
mod census;
mod clients;
mod conformance;
mod container;
mod crash;
mod debian;
mod escape;
mod fuzz;
mod guest;
mod http;
mod image;
mod live;
mod load;
mod mcp;
mod npm;
mod oauth;
mod ordinary;
mod prepare;
mod promtool;
mod regress;
mod roots;
mod stream;
mod syscalls;
mod tool;
mod unit;
mod venv;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::build;
use xtask::tally::Counts;

/// What attacks, emulates and measures the server.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The commands; `xtask::lab::COMMANDS` lists those that are not hidden.
#[derive(Debug, Subcommand)]
enum Command {
    /// Trace the languages' cases, and print which allowed system calls none uses.
    Syscalls,
    /// Compare latency and throughput with the naive FastAPI server or another build,
    /// and sessions with Jupyter's Kernel Gateway.
    Bench(bench::Arguments),
    /// Thousands of requests, then many at once, then a crash: nothing may be left.
    Load(load::Arguments),
    /// Attack every rung with the hostile corpus, and print what came of it.
    Escape(escape::Arguments),
    /// Try inputs that nobody thought of on every parser that faces a guest or
    /// a client.
    Fuzz(fuzz::Arguments),
    /// Run CPython's own tests and a script for Node inside a box and outside,
    /// side by side.
    Regress(regress::Arguments),
    /// Run the sandbox's tests on another kernel, with cgroup v2, in an
    /// emulated machine.
    Guest,
    /// Start the server as an ordinary user, in a plain container, and in one
    /// with the cure that the server names.
    Container {
        /// Binary to check; built in the dev profile when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
    },
    /// Look at the server's pages and files with a real browser.
    Browser {
        /// Binary to check; built in the dev profile when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
    },
    /// Put the Dockerfile's image together by hand and start it with each
    /// documented set of flags.
    Image {
        /// Binary to put into it; a static one is built when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
    },
    /// Start the systemd unit in an emulated machine with cgroup v2.
    Unit {
        /// Binary to put into it; a static one is built when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
    },
    /// Check the OpenAPI documents and probe a live server with schemathesis.
    Conformance {
        /// A long run.
        #[arg(long)]
        full: bool,
        /// Binary to check; built in the dev profile when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
    },
    /// Use a live server with stock MCP clients, the conformance suite and the inspector.
    Mcp {
        /// Binary to check; built in the dev profile when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
    },
    /// Read the events of runs with the clients that people use, and with a browser.
    Stream {
        /// Binary to check; built in the dev profile when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
    },
    /// Have clients of npm list what `connect --write` wrote, and use the bundle.
    Clients {
        /// Binary to check; built in the dev profile when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
    },
    /// Go through OAuth as ChatGPT, Claude and others do, with a browser, in network namespaces.
    Oauth {
        /// Binary to check; built in the dev profile when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
        /// In the namespaces, which are made already.
        #[arg(long, hide = true)]
        inside: bool,
        /// Acts to play; all when none is named.
        #[arg(value_parser = oauth::ACTS)]
        acts: Vec<String>,
    },
    /// Install what these commands need.
    #[command(hide = true)]
    Prepare,
    /// Pack a binary into a bundle for desktop clients.
    #[command(hide = true)]
    PackBundle {
        /// The binary.
        binary: PathBuf,
        /// The bundle.
        output: PathBuf,
    },
    /// Install what `cargo xtask dist` made in fresh systems, and try it there.
    #[command(hide = true)]
    TryRelease {
        /// Directory with the tarball, install.sh and SHA256SUMS.
        release: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Syscalls => syscalls::syscalls()?,
        Command::Bench(arguments) => bench::bench(&arguments)?,
        Command::Load(arguments) => load::load(&arguments)?,
        Command::Escape(arguments) => escape::escape(&arguments)?,
        Command::Fuzz(arguments) => return Ok(told(fuzz::fuzz(&arguments)?)),
        Command::Regress(arguments) => return Ok(told(regress::regress(&arguments)?)),
        Command::Guest => guest::guest()?,
        Command::Container { binary } => container::container(&build::or_debug(binary)?)?,
        Command::Browser { binary } => browser::browser(&build::or_debug(binary)?)?,
        Command::Image { binary } => image::image(binary)?,
        Command::Unit { binary } => unit::unit(binary)?,
        Command::Conformance { full, binary } => {
            conformance::conformance(&build::or_debug(binary)?, full)?;
        }
        Command::Mcp { binary } => mcp::mcp(&build::or_debug(binary)?)?,
        Command::Stream { binary } => {
            return Ok(told(stream::stream(&build::or_debug(binary)?)?));
        }
        Command::Oauth {
            binary,
            inside,
            acts,
        } => {
            let binary = build::or_debug(binary)?;
            if !inside {
                return oauth::oauth(&binary, &acts);
            }
            return Ok(told(oauth::inside(&binary, &acts)?));
        }
        Command::Clients { binary } => clients::clients(&build::or_debug(binary)?)?,
        Command::PackBundle { binary, output } => bundle::pack(&binary, &output)?,
        Command::Prepare => prepare::prepare()?,
        Command::TryRelease { release } => roots::all(&release)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the sums of a command that makes many checks, for `cargo xtask test`
/// to read, and returns the exit code that agrees.
fn told(counts: Counts) -> ExitCode {
    println!("\n{}", counts.closing_line());
    if counts.failed > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// What `cargo xtask --help` lists is what there is, in the same words.
    #[test]
    fn every_command_is_listed() {
        let command = Arguments::command();
        let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
        let shown: Vec<(String, String)> = shown
            .map(|one| {
                let about = one.get_about().map(ToString::to_string);
                (one.get_name().to_owned(), about.unwrap_or_default())
            })
            .collect();
        let listed = xtask::lab::COMMANDS.map(|(name, about)| (name.to_owned(), about.to_owned()));
        assert_eq!(shown, listed);
    }
}
