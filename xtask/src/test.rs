//! `cargo xtask test`: everything it takes to trust a commit.
//!
//! Steps go on after a failure, so that one run tells all; what can't run
//! here (a missing tool or kernel ability) is a failure with its cure.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::Result;
use xtask::lab;
use xtask::tally::Tally;
use xtask::{apt, build, dist, process};

use crate::{steps, tidy};

/// How long each parser is fuzzed: as many inputs, or so many seconds in the full
/// run.
const FUZZING: [&str; 2] = ["--runs", "20000"];
const FULL_FUZZING: [&str; 2] = ["--seconds", "60"];

/// Steps that let the lab at one server's binary: the command, and its arguments
/// in a run of every commit and in the full one.
const ATTACKS: [Attack; 9] = [
    (
        "ordinary user, plain container, cured container",
        "container",
        &[],
        &[],
    ),
    (
        "OpenAPI documents and schemathesis",
        "conformance",
        &[],
        &["--full"],
    ),
    ("stock MCP clients", "mcp", &[], &[]),
    ("clients that read events", STREAM, &[], &[]),
    ("pages and files in a browser", "browser", &[], &[]),
    ("OAuth in namespaces, with a browser", OAUTH, &[], &[]),
    (
        "the hostile corpus at every rung",
        "escape",
        &["--brief"],
        &["--full"],
    ),
    (
        "ordinary programs inside and outside",
        REGRESS,
        &[],
        &["--full"],
    ),
    ("load and crash", "load", &["--requests", "500"], &[]),
];

/// Name, command, arguments, arguments of the full run.
type Attack = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// Those of [`ATTACKS`] that count their own checks.
const OAUTH: &str = "oauth";
const REGRESS: &str = "regress";
const STREAM: &str = "stream";

/// Swaps of files under a collection in the full run; a few thousand else.
const FULL_SWAPS: &str = "100000";

/// Installs what tests need and runs them all. Whether all passed.
pub(crate) fn test(full: bool) -> bool {
    let mut tally = Tally::new();
    tally.step("what tests need", prepare);
    source(&mut tally);
    tally.counted("tests of every crate", steps::all_tests);
    tally.step("documentation tests", || {
        let mut cargo = process::cargo();
        cargo.args(["test", "--workspace", "--doc", "--quiet"]);
        process::run("pass the documentation tests", &mut cargo)
    });
    tally.counted("fuzzing of every parser", || {
        let span = if full { FULL_FUZZING } else { FUZZING };
        lab::counted(&[&["fuzz"], &span[..]].concat())
    });
    match build::tested() {
        Ok(binary) => attacked(&mut tally, &binary, full),
        Err(error) => tally.step("build the server", || Err(error)),
    }
    if full {
        tally.step("files swapped while they are collected", || {
            let mut race = process::cargo();
            race.env("ENGINE_TEST_SWAPS", FULL_SWAPS);
            race.args(["test", "--package", "engine", "--test", "race"]);
            process::run("collect what is swapped", &mut race)
        });
        for (name, command) in FULL {
            tally.step(name, || lab::check(&[command]));
        }
        tally.step("the tarball in fresh systems", dist::tried);
    }
    tally.finish()
}

/// Steps of the full run alone, each a command of the lab.
const FULL: [(&str, &str); 5] = [
    ("sandbox tests in an emulated machine", "guest"),
    ("the systemd unit in an emulated machine", "unit"),
    ("the image with each set of flags", "image"),
    ("clients that read what was written for them", "clients"),
    ("speed against the naive server", "bench"),
];

/// Lets the lab at a server's binary.
fn attacked(tally: &mut Tally, binary: &Path, full: bool) {
    for (name, command, brief, long) in ATTACKS {
        let mut words: Vec<&OsStr> = vec![command.as_ref(), "--binary".as_ref(), binary.as_ref()];
        let more = if full { long } else { brief };
        words.extend(more.iter().map(|word| OsStr::new(*word)));
        if [OAUTH, REGRESS, STREAM].contains(&command) {
            tally.counted(name, || lab::counted(&words));
        } else {
            tally.step(name, || lab::check(&words));
        }
    }
}

fn prepare() -> Result<()> {
    if !process::is_root() {
        println!("not root: the checks that need root will fail with their cure");
    }
    apt::ensure(&[build::COMPILER])?;
    lab::check(&["prepare"])
}

/// The checks of the source alone.
fn source(tally: &mut Tally) {
    tally.step("formatting", steps::formatting);
    tally.step("clippy", steps::clippy);
    tally.step("tidy", tidy::tidy);
    if process::find("cargo-deny").is_none() {
        tally.leave_out(
            "licences and bans",
            "cargo-deny is not installed (`cargo install --locked cargo-deny`)",
        );
    } else {
        tally.step("licences and bans", || {
            let mut deny = process::cargo();
            // Advisories need a database from the network: a job of its own.
            deny.args(["deny", "--offline", "check", "bans", "licenses", "sources"]);
            process::run("pass cargo deny", &mut deny)
        });
    }
}
