//! The commands of the crate `lab`, which is compiled when one of them is asked
//! for, and not before. Never needs to know what they do.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::tally::Counts;

/// Environment variable of the sandbox's tests: set where `escape` follows, which
/// attacks the rungs with the machine to itself, and shows its table.
pub const ATTACKS_APART: &str = "ESCAPE_TEST_APART";

/// Each command with a line for the list of all; a test of `lab` compares them.
pub const COMMANDS: [(&str, &str); 16] = [
    (
        "syscalls",
        "Trace the languages' cases, and print which allowed system calls none uses",
    ),
    (
        "bench",
        "Compare latency and throughput with the naive FastAPI server or another build, and sessions with Jupyter's Kernel Gateway",
    ),
    (
        "load",
        "Thousands of requests, then many at once, then a crash: nothing may be left",
    ),
    (
        "escape",
        "Attack every rung with the hostile corpus, and print what came of it",
    ),
    (
        "fuzz",
        "Try inputs that nobody thought of on every parser that faces a guest or a client",
    ),
    (
        "regress",
        "Run CPython's own tests and a script for Node inside a box and outside, side by side",
    ),
    (
        "guest",
        "Run the sandbox's tests on another kernel, with cgroup v2, in an emulated machine",
    ),
    (
        "container",
        "Start the server as an ordinary user, in a plain container, and in one with the cure that the server names",
    ),
    (
        "browser",
        "Look at the server's pages and files with a real browser",
    ),
    (
        "image",
        "Put the Dockerfile's image together by hand and start it with each documented set of flags",
    ),
    (
        "unit",
        "Start the systemd unit in an emulated machine with cgroup v2",
    ),
    (
        "conformance",
        "Check the OpenAPI documents and probe a live server with schemathesis",
    ),
    (
        "mcp",
        "Use a live server with stock MCP clients, the conformance suite and the inspector",
    ),
    (
        "stream",
        "Read the events of runs with the clients that people use, and with a browser",
    ),
    (
        "clients",
        "Have clients of npm list what `connect --write` wrote, and use the bundle",
    ),
    (
        "oauth",
        "Go through OAuth as ChatGPT, Claude and others do, with a browser, in network namespaces",
    ),
];

/// Returns whether a command line is for the lab: it begins with one of its
/// commands, or asks for help with one.
pub fn is_meant(words: &[OsString]) -> bool {
    let knows = |word: &OsString| COMMANDS.iter().any(|(name, _)| word == name);
    match words {
        [help, name] if help == "help" => knows(name),
        [name, ..] => knows(name),
        [] => false,
    }
}

/// Becomes the lab, with the same command line, directory and streams.
///
/// # Errors
/// When cargo can't be started; else this never returns.
pub fn become_it(words: &[OsString]) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(words);
    cargo.current_dir(env::current_dir().context("failed to ask for the current directory")?);
    let error = cargo.exec();
    Err(error).context("failed to start cargo; is the Rust toolchain in PATH?")
}

/// Runs one of its commands as one check.
///
/// # Errors
/// With the cause that the command names, when it fails.
pub fn check<S: AsRef<OsStr>>(words: &[S]) -> Result<()> {
    let (_, failure) = run(words)?;
    failure.map_or(Ok(()), |cause| bail!(cause))
}

/// Runs one of its commands that make many checks, and returns the sums that it
/// prints on its last line.
///
/// # Errors
/// When it printed none, or failed although none of its checks did.
pub fn counted<S: AsRef<OsStr>>(words: &[S]) -> Result<Counts> {
    let (output, failure) = run(words)?;
    let counts = output.lines().last().and_then(Counts::of_closing_line);
    match (counts, failure) {
        (Some(counts), None) => Ok(counts),
        (Some(counts), Some(_)) if counts.failed > 0 => Ok(counts),
        (_, Some(cause)) => bail!(cause),
        (None, None) => bail!("the lab printed no sums"),
    }
}

/// Returns what it printed and, when it failed, why.
fn run<S: AsRef<OsStr>>(words: &[S]) -> Result<(String, Option<String>)> {
    let mut cargo = cargo();
    cargo.args(words);
    let (status, output) = process::tee("run the lab", &mut cargo)?;
    let failure = (!status.success())
        .then(|| cause(&output).map_or_else(|| format!("it ended with {status}"), str::to_owned));
    Ok((output, failure))
}

/// The error at the end of what a command printed.
fn cause(output: &str) -> Option<&str> {
    let (_, cause) = output.rsplit_once("\nerror: ")?;
    Some(cause.trim_end())
}

fn cargo() -> Command {
    let mut cargo = process::cargo();
    cargo.args(["run", "--quiet", "--profile", "tools", "--package", "lab"]);
    cargo.arg("--manifest-path");
    cargo.arg(process::root().join("Cargo.toml")).arg("--");
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_for_the_lab_are_told_from_others() {
        let check = |line: &str, expected: bool| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            assert_eq!(is_meant(&words), expected, "{line}");
        };
        check("bench --requests 3", true);
        check("escape", true);
        check("help bench", true);
        check("help up", false);
        check("help", false);
        check("up -- bench", false);
        check("--help", false);
        check("", false);
    }

    #[test]
    fn the_cause_is_the_last_error() {
        let check = |output, expected| assert_eq!(cause(output), expected);
        check(
            "well\n\nerror: no rung\nof two lines\n",
            Some("no rung\nof two lines"),
        );
        check("\nerror: one\nx\n\nerror: two\n", Some("two"));
        check("an error: here\n", None);
    }
}
