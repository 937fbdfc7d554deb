//! Steps that a quick run and a whole one share: the source's checks, and the
//! tests that cargo knows.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, bail};
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
    if has_nextest() {
        return counted(&mut nextest());
    }
    println!("with cargo's own runner, as there is no nextest");
    counted(cargo_test().arg("--tests"))
}

/// Runs the tests of some crates but those that take long. What is compiled is
/// the same as for [`all_tests`], so that neither compiles for the other again.
pub(crate) fn fast_tests(crates: &BTreeSet<String>) -> Result<Counts> {
    let counts = if has_nextest() {
        let wanted: Vec<String> = crates
            .iter()
            .map(|name| format!("package(={name})"))
            .collect();
        counted(nextest().args(FAST).args(["-E", &wanted.join(" + ")]))?
    } else {
        println!("with cargo's own runner, as there is no nextest: unit tests of every crate");
        counted(&mut cargo_test())?
    };
    // Those that are not meant here.
    Ok(Counts {
        skipped: 0,
        ..counts
    })
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
