//! `cargo xtask test`: everything it takes to trust a commit.
//!
//! Steps go on after a failure, so that one run tells all; what can't run
//! here (a missing tool or kernel ability) is a failure with its cure.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use xtask::lab;
use xtask::tally::{self, Counts, Tally};
use xtask::{apt, build, dist, process};

use crate::tidy;

/// Seconds for each fuzzing target in the full run.
const FULL_FUZZING: &str = "60";

/// Swaps of files under a collection in the full run; a few thousand else.
const FULL_SWAPS: &str = "100000";

/// Installs what tests need and runs them all. Whether all passed.
pub(crate) fn test(full: bool) -> bool {
    let mut tally = Tally::new();
    tally.step("what tests need", prepare);
    source(&mut tally);
    tally.counted("tests of every crate", || nextest_or_cargo("run the tests"));
    tally.step("documentation tests", || {
        let mut cargo = process::cargo();
        cargo.args(["test", "--workspace", "--doc", "--quiet"]);
        process::run("pass the documentation tests", &mut cargo)
    });
    tally.counted("fuzzing of every parser", || {
        let long: &[&str] = if full {
            &["--seconds", FULL_FUZZING]
        } else {
            &[]
        };
        lab::counted(&[&["fuzz"], long].concat())
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
const FULL: [(&str, &str); 4] = [
    ("sandbox tests in an emulated machine", "guest"),
    ("the systemd unit in an emulated machine", "unit"),
    ("the image with each set of flags", "image"),
    ("cold start against the baseline", "bench"),
];

/// Steps that let the lab at one server's binary.
fn attacked(tally: &mut Tally, binary: &Path, full: bool) {
    let words = |command: &'static str, knows_full: bool| -> Vec<&OsStr> {
        let mut words: Vec<&OsStr> = vec![command.as_ref(), "--binary".as_ref(), binary.as_ref()];
        words.extend((full && knows_full).then_some::<&OsStr>("--full".as_ref()));
        words
    };
    for (name, command, knows_full) in [
        (
            "ordinary user, plain container, cured container",
            "container",
            false,
        ),
        ("OpenAPI documents and schemathesis", "conformance", true),
        ("pages and files in a browser", "browser", false),
        ("the hostile corpus at every rung", "escape", true),
    ] {
        tally.step(name, || lab::check(&words(command, knows_full)));
    }
    tally.counted("ordinary programs inside and outside", || {
        lab::counted(&words("regress", true))
    });
    tally.step("load and crash", || lab::check(&words("load", false)));
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
    tally.step("formatting", || {
        component("fmt", "rustfmt")?;
        process::run(
            "check the formatting (cure: `cargo fmt --all`)",
            process::cargo().args(["fmt", "--all", "--check"]),
        )
    });
    tally.step("clippy", || {
        component("clippy", "clippy")?;
        let mut clippy = process::cargo();
        clippy.args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]);
        process::run("pass clippy", &mut clippy)
    });
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

fn component(subcommand: &str, name: &str) -> Result<()> {
    if !process::succeeds(process::cargo().args([subcommand, "--version"])) {
        bail!("cargo has no `{subcommand}`; run `rustup component add {name}`, then try again");
    }
    Ok(())
}

fn nextest_or_cargo(what: &str) -> Result<Counts> {
    if process::succeeds(process::cargo().args(["nextest", "--version"])) {
        println!("{what} with nextest");
        return counted(process::cargo().args([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--status-level",
            "slow",
            "--color",
            "never",
        ]));
    }
    println!("{what} with cargo's own runner");
    counted(process::cargo().args([
        "test",
        "--workspace",
        "--lib",
        "--bins",
        "--tests",
        "--no-fail-fast",
        "--color",
        "never",
    ]))
}

fn counted(command: &mut Command) -> Result<Counts> {
    command.env(lab::ATTACKS_APART, "1");
    let (status, output) = process::tee("run the tests", command)?;
    let counts = tally::runner_counts(&output);
    if !status.success() && counts.failed == 0 {
        bail!("the test runner ended with {status} before it counted a failure; see above");
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_that_dies_is_a_failure() {
        let check = |script: &str| {
            let mut shell = process::command("sh");
            shell.args(["-c", script]);
            counted(&mut shell)
        };
        let passing = check("echo 'test result: ok. 2 passed; 0 failed; 0 ignored'");
        assert_eq!(passing.expect("it passes").passed, 2);
        let failing = check("echo 'test result: FAILED. 2 passed; 1 failed; 0 ignored'; exit 101");
        assert_eq!(failing.expect("it counted").failed, 1);
        assert!(check("echo 'error: could not compile'; exit 101").is_err());
    }
}
