//! Steps that a quick run and a whole one share: the source's checks, and the
//! tests that cargo knows.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xtask::tally::{self, Counts};
use xtask::{lab, process};

/// The profile in `.config/nextest.toml` that leaves out slow tests.
const FAST: [&str; 2] = ["--profile", "check"];

/// The code is formatted.
pub(crate) fn formatting() -> Result<()> {
    component("fmt", "rustfmt")?;
    process::run(
        "check the formatting (cure: `cargo fmt --all`)",
        process::cargo().args(["fmt", "--all", "--check"]),
    )
}

/// Clippy has nothing to say of any crate.
pub(crate) fn clippy() -> Result<()> {
    component("clippy", "clippy")?;
    let mut clippy = process::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--"]);
    process::run("pass clippy", clippy.args(["-D", "warnings"]))
}

fn component(subcommand: &str, name: &str) -> Result<()> {
    if !process::succeeds(process::cargo().args([subcommand, "--version"])) {
        bail!("cargo has no `{subcommand}`; run `rustup component add {name}`, then try again");
    }
    Ok(())
}

/// Runs the tests of every crate.
pub(crate) fn all_tests() -> Result<Counts> {
    if !has_nextest() {
        println!("with cargo's own runner, as there is no nextest");
        return counted(cargo_test().arg("--tests"), tally::runner_counts);
    }
    let cases = Cases::build()?;
    let others = format!("not {}", Cases::BINARY);
    let others = counted(nextest().args(["-E", &others]), tally::runner_counts)?;
    let run = cases.run(&[])?;
    Ok(Counts {
        passed: others.passed + run.passed,
        failed: others.failed + run.failed,
        skipped: others.skipped + run.skipped,
    })
}

/// Runs the tests of some crates but those that take long. What is compiled is
/// the same as for [`all_tests`], so that neither compiles for the other again.
pub(crate) fn fast_tests(crates: &BTreeSet<String>) -> Result<Counts> {
    if !has_nextest() {
        println!("with cargo's own runner, as there is no nextest: unit tests of every crate");
        return counted(&mut cargo_test(), tally::runner_counts);
    }
    let wanted: Vec<String> = crates
        .iter()
        .map(|name| format!("package(={name})"))
        .collect();
    let wanted = format!("({}) - {}", wanted.join(" + "), Cases::BINARY);
    let mut counts = counted(
        nextest().args(FAST).args(["-E", &wanted]),
        tally::runner_counts,
    )?;
    if crates.contains(Cases::CRATE) {
        let run = Cases::build()?.run(&["--skip", "cases_at_"])?;
        counts.passed += run.passed;
        counts.failed += run.failed;
    }
    // Those that are not meant here.
    Ok(Counts {
        skipped: 0,
        ..counts
    })
}

/// The test binary that runs the languages' cases. All share an engine, which
/// takes a second to start: so they are run in one process, and not in one each,
/// as nextest would.
struct Cases(PathBuf);

impl Cases {
    const CRATE: &str = "engine";
    /// As nextest calls it.
    const BINARY: &str = "binary_id(engine::it)";
    const SOURCE: &str = "crates/engine/tests/it/main.rs";

    /// Builds it, as part of all that the tests take.
    fn build() -> Result<Self> {
        let mut cargo = process::cargo();
        cargo.args(["test", "--workspace", "--lib", "--bins", "--tests"]);
        cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]);
        println!("building the tests");
        let built = process::capture("build the tests", &mut cargo)?;
        let place = built
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|told| {
                let source = told["target"]["src_path"].as_str();
                source.is_some_and(|source| source.ends_with(Self::SOURCE))
            })
            .find_map(|told| told["executable"].as_str().map(PathBuf::from));
        place.map(Self).context("cargo built no cases")
    }

    /// Runs them with some arguments.
    fn run(&self, arguments: &[&str]) -> Result<Counts> {
        let mut cases = process::command(&self.0);
        cases.arg("--color=never").args(arguments);
        counted(&mut cases, tally::last_counts)
    }
}

fn has_nextest() -> bool {
    process::succeeds(process::cargo().args(["nextest", "--version"]))
}

fn nextest() -> Command {
    let mut cargo = process::cargo();
    cargo.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    cargo.args(["--status-level", "slow", "--color", "never"]);
    cargo
}

fn cargo_test() -> Command {
    let mut cargo = process::cargo();
    cargo.args(["test", "--workspace", "--lib", "--bins"]);
    cargo.args(["--no-fail-fast", "--color", "never"]);
    cargo
}

fn counted(command: &mut Command, read: fn(&str) -> Counts) -> Result<Counts> {
    command.env(lab::ATTACKS_APART, "1");
    let (status, output) = process::tee("run the tests", command)?;
    let counts = read(&output);
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
            counted(&mut shell, tally::runner_counts)
        };
        let passing = check("echo 'test result: ok. 2 passed; 0 failed; 0 ignored'");
        assert_eq!(passing.expect("it passes").passed, 2);
        let failing = check("echo 'test result: FAILED. 2 passed; 1 failed; 0 ignored'; exit 101");
        assert_eq!(failing.expect("it counted").failed, 1);
        assert!(check("echo 'error: could not compile'; exit 101").is_err());
    }
}
