//! The project's own commands: `cargo xtask up | build | test | tidy | …`.
//!
//! Holds no product code and is never shipped. Everything that it starts it
//! also ends, by process id.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands talk to the person who typed them"
)]

mod apt;
mod bench;
mod browser;
mod build;
mod census;
mod conformance;
mod container;
mod crash;
mod debian;
mod dist;
mod escape;
mod fuzz;
mod guest;
mod http;
mod image;
mod live;
mod load;
mod lock;
mod openapi;
mod ordinary;
mod process;
mod promtool;
mod regress;
mod syscalls;
mod tally;
mod test;
mod tidy;
mod unit;
mod up;
mod venv;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Install what tests need and run everything it takes to trust a commit.
    Test {
        /// The long checks too.
        #[arg(long)]
        full: bool,
    },
    /// Trace the languages' cases, and print which allowed system calls none uses.
    Syscalls,
    /// Check the rules that no compiler knows.
    Tidy,
    /// Write openapi.json and openapi-actions.json anew from the code.
    Openapi,
    /// Pin the newest packages for programs, of Python and JavaScript.
    Lock,
    /// Compare a cold hello world with a bare FastAPI and subprocess server.
    Bench {
        /// Counted requests to each server, for each language.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        requests: u32,
        /// Fail when a ratio of medians is above this.
        #[arg(long, default_value_t = bench::RATIO_LIMIT)]
        limit: f64,
    },
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
    /// Make the release: a static binary in a tarball, with its checksum.
    Dist(dist::Arguments),
    /// Check the OpenAPI documents and probe a live server with schemathesis.
    Conformance {
        /// A long run.
        #[arg(long)]
        full: bool,
        /// Binary to check; built in the dev profile when left out.
        #[arg(long)]
        binary: Option<PathBuf>,
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
        Command::Up { serve } => up::up(&serve)?,
        Command::Build => println!("{}", build::release()?.display()),
        // It told its failures itself: the sums are its last line.
        Command::Test { full } if !test::test(full) => return Ok(ExitCode::FAILURE),
        Command::Test { .. } => {}
        Command::Syscalls => syscalls::syscalls()?,
        Command::Tidy => tidy::tidy()?,
        Command::Openapi => openapi::regenerate()?,
        Command::Lock => lock::lock()?,
        Command::Bench { requests, limit } => bench::bench(requests, limit)?,
        Command::Load(arguments) => load::load(&arguments)?,
        Command::Escape(arguments) => escape::escape(&arguments)?,
        Command::Fuzz(arguments) => fuzz::fuzz(&arguments)?,
        Command::Regress(arguments) => regress::regress(&arguments)?,
        Command::Guest => guest::guest()?,
        Command::Container { binary } => container::container(&build::or_debug(binary)?)?,
        Command::Browser { binary } => browser::browser(&build::or_debug(binary)?)?,
        Command::Image { binary } => image::image(binary)?,
        Command::Unit { binary } => unit::unit(binary)?,
        Command::Dist(arguments) => dist::dist(&arguments)?,
        Command::Conformance { full, binary } => {
            conformance::conformance(&build::or_debug(binary)?, full)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
