//! `cargo xtask fuzz`: every parser that faces a guest or a client, against
//! inputs that nobody thought of.
//!
//! Works with the toolchain that builds the rest: the crates of this repository
//! are compiled once more with LLVM's coverage counters, what they depend on is
//! not, and libFuzzer drives them. Debug assertions and overflow checks are on.
//! A bounded run is the same each time: it begins with the seeds alone and a
//! fixed random seed. A long one goes on where the last one ended.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use xtask::apt::{self, Need, Probe};
use xtask::build;
use xtask::process;
use xtask::tally::Counts;

/// What libFuzzer is compiled with.
pub(crate) const COMPILER: Need = Need {
    probe: Probe::Program(&["c++"]),
    packages: &["g++"],
    reason: "to compile libFuzzer",
    required: true,
};

/// Executions of each target where no other number is asked for.
const BOUNDED: u64 = 50_000;
/// The longest input, in bytes.
const INPUT: u32 = 4096;
/// Seconds after which one input counts as a hang.
const HANG: u32 = 10;
/// Memory that counts as a leak or as growth without a bound, in MiB.
const MEMORY: u32 = 2048;
/// A target that reaches fewer edges was compiled without counters.
const LEAST_COVERAGE: u64 = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Targets; all when none is named.
    targets: Vec<String>,
    /// Inputs to try on each target.
    #[arg(long, default_value_t = BOUNDED)]
    runs: u64,
    /// Try for so many seconds each instead, beginning with what earlier long
    /// runs found.
    #[arg(long, conflicts_with = "runs")]
    seconds: Option<u64>,
    /// Try this one file on the one target named, and show what happens.
    #[arg(long)]
    input: Option<PathBuf>,
}

/// How long to go on with a target.
#[derive(Debug, Clone, Copy)]
enum Span {
    Runs(u64),
    Seconds(u64),
}

/// What became of a target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    executions: u64,
    coverage: u64,
    features: u64,
}

/// Tries the targets and returns how many held; a target counts as a check.
///
/// # Errors
/// When the fuzzer can't be built or started.
pub(crate) fn fuzz(arguments: &Arguments) -> Result<Counts> {
    apt::ensure(&[COMPILER])?;
    let program = program()?;
    let targets = chosen(&targets(&program)?, &arguments.targets)?;
    if let Some(input) = &arguments.input {
        let [target] = targets.as_slice() else {
            bail!("name the one target that gets this file: cargo xtask fuzz TARGET --input FILE");
        };
        let mut fuzzer = process::command(&program);
        fuzzer.env("FUZZ_TARGET", target).arg(input);
        process::run("bear this input", &mut fuzzer)?;
        return Ok(Counts {
            passed: 1,
            ..Counts::default()
        });
    }
    let span = match arguments.seconds {
        Some(seconds) => Span::Seconds(seconds),
        None => Span::Runs(arguments.runs),
    };
    rounds(&program, &targets, span)
}

/// Builds the fuzzer's program.
fn program() -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            process::root().join("fuzz/rustc.sh"),
        )
        .args([
            "build",
            "--quiet",
            "--package",
            "fuzz",
            "--features",
            "fuzzer",
        ]);
    process::run("build the fuzzer", &mut cargo)?;
    Ok(build::target_directory().join("debug/fuzz"))
}

/// The targets as the program names them, each of which has seeds.
fn targets(program: &Path) -> Result<Vec<String>> {
    let mut list = process::command(program);
    let printed = process::capture("list the targets", list.env_remove("FUZZ_TARGET"))?;
    let targets: Vec<String> = printed.lines().map(str::to_owned).collect();
    let named: BTreeSet<&str> = targets.iter().map(String::as_str).collect();
    let entries = fs::read_dir(seeds()).context("failed to read fuzz/seeds")?;
    let seeded: BTreeSet<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let seeded: BTreeSet<&str> = seeded.iter().map(String::as_str).collect();
    ensure!(
        named == seeded && !named.is_empty(),
        "targets and folders in fuzz/seeds differ: {:?}",
        named.symmetric_difference(&seeded).collect::<Vec<_>>()
    );
    Ok(targets)
}

fn seeds() -> PathBuf {
    process::root().join("fuzz/seeds")
}

fn chosen(all: &[String], wanted: &[String]) -> Result<Vec<String>> {
    if wanted.is_empty() {
        return Ok(all.to_vec());
    }
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!(
            "there is no target {unknown}; there are: {}",
            all.join(", ")
        );
    }
    Ok(wanted.to_vec())
}

/// Runs targets side by side, as many as there are processors.
fn rounds(program: &Path, targets: &[String], span: Span) -> Result<Counts> {
    println!("target        executions   edges  features  seconds  result");
    let waiting = Mutex::new(targets.iter());
    let failures = Mutex::new(Vec::new());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next() {
                    if let Err(error) = round(program, target, span)
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.push(format!("{target}: {error:#}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    for failure in &failures {
        println!("FAILED  {failure}");
    }
    let count = |number: usize| u32::try_from(number).context("so many targets");
    Ok(Counts {
        passed: count(targets.len() - failures.len())?,
        failed: count(failures.len())?,
        skipped: 0,
    })
}

/// Runs one target and prints its line.
fn round(program: &Path, target: &str, span: Span) -> Result<()> {
    let directory = build::target_directory().join("xtask/fuzz").join(target);
    let corpus = match span {
        // Alike each time: nothing is left of the last run.
        Span::Runs(_) => {
            let fresh = directory.join("bounded");
            drop(fs::remove_dir_all(&fresh));
            fresh
        }
        Span::Seconds(_) => directory.join("corpus"),
    };
    fs::create_dir_all(&corpus).with_context(|| format!("failed to make {}", corpus.display()))?;
    let log = directory.join("log");
    let output = fs::File::create(&log).context("failed to make the log")?;
    let errors = output.try_clone().context("failed to share the log")?;
    let (limit, most) = match span {
        Span::Runs(runs) => (format!("-runs={runs}"), Duration::from_secs(600)),
        Span::Seconds(seconds) => (
            format!("-max_total_time={seconds}"),
            Duration::from_secs(seconds + 120),
        ),
    };
    let started = Instant::now();
    let mut fuzzer = process::command("timeout");
    fuzzer
        .arg(most.as_secs().to_string())
        .arg(program)
        .env("FUZZ_TARGET", target)
        .env("RUST_BACKTRACE", "0")
        .args([
            limit,
            "-seed=1".to_owned(),
            "-print_final_stats=1".to_owned(),
        ])
        .args([
            format!("-max_len={INPUT}"),
            format!("-timeout={HANG}"),
            format!("-rss_limit_mb={MEMORY}"),
            format!("-artifact_prefix={}/", directory.display()),
        ])
        .arg(&corpus)
        .arg(seeds().join(target))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let status = fuzzer.status().context("failed to start the fuzzer")?;
    let text = fs::read(&log).context("failed to read the log")?;
    let text = String::from_utf8_lossy(&text);
    let told = told(&text);
    let good = status.success() && told.coverage >= LEAST_COVERAGE;
    println!(
        "{target:<12} {:>11} {:>7} {:>9} {:>8.1}  {}",
        told.executions,
        told.coverage,
        told.features,
        started.elapsed().as_secs_f64(),
        if good { "no crash" } else { "FAILED" }
    );
    if !status.success() {
        bail!("{}; the log is {}", reason(&text, target), log.display());
    }
    ensure!(
        told.coverage >= LEAST_COVERAGE,
        "only {} edges were reached: the counters are missing",
        told.coverage
    );
    if let Span::Runs(runs) = span {
        ensure!(
            told.executions >= runs,
            "only {} inputs were tried",
            told.executions
        );
    }
    Ok(())
}

/// What libFuzzer said of itself: its last line of figures and its closing ones.
fn told(log: &str) -> Told {
    let after = |text: &str, word: &str| -> Option<u64> {
        let (_, rest) = text.rsplit_once(word)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    Told {
        executions: after(log, "stat::number_of_executed_units:").unwrap_or_default(),
        coverage: after(log, " cov: ").unwrap_or_default(),
        features: after(log, " ft: ").unwrap_or_default(),
    }
}

/// Why a run failed, and how to see it again.
fn reason(log: &str, target: &str) -> String {
    let mut lines = log.lines();
    let panicked = lines.by_ref().find(|line| line.contains("panicked at"));
    let said = match panicked {
        Some(line) => format!("{line} {}", lines.next().unwrap_or_default()),
        None => log
            .lines()
            .find(|line| line.contains("ERROR: libFuzzer"))
            .unwrap_or("it ended without a word")
            .to_owned(),
    };
    let written = log.split("Test unit written to ").nth(1);
    match written.and_then(|rest| rest.lines().next()) {
        Some(file) => format!("{said}; again: cargo xtask fuzz {target} --input {file}"),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#2\tINITED cov: 12 ft: 12 corp: 2/9b\n\
        #50000\tDONE   cov: 604 ft: 1549 corp: 99/3Kb lim: 80 exec/s: 0 rss: 60Mb\n\
        stat::number_of_executed_units: 50000\n";

    #[test]
    fn figures_are_the_last_ones() {
        let expected = Told {
            executions: 50_000,
            coverage: 604,
            features: 1549,
        };
        assert_eq!(told(LOG), expected);
        assert_eq!(told("sh: not found"), Told::default());
    }

    #[test]
    fn a_crash_says_how_to_see_it_again() {
        let crash = "INFO: x\nthread '<unnamed>' (3) panicked at crates/a.rs:1:2:\nno such thing\n\
            ==1== ERROR: libFuzzer: deadly signal\nartifact_prefix='/t/'; Test unit written to /t/crash-1\nBase64: x\n";
        let said = reason(crash, "urls");
        assert!(said.contains("crates/a.rs:1:2: no such thing"), "{said}");
        assert!(
            said.ends_with("cargo xtask fuzz urls --input /t/crash-1"),
            "{said}"
        );
        let hang = "==1== ERROR: libFuzzer: timeout after 10 seconds\n";
        assert!(reason(hang, "urls").contains("timeout after 10"));
        assert!(reason("", "urls").contains("without a word"));
    }

    #[test]
    fn targets_are_known_by_name() {
        let all = ["a".to_owned(), "b".to_owned()];
        assert_eq!(chosen(&all, &[]).expect("all"), all);
        assert_eq!(chosen(&all, &all[1..]).expect("one"), all[1..]);
        let error = chosen(&all, &["c".to_owned()]).expect_err("unknown");
        assert!(error.to_string().contains("a, b"), "{error}");
    }
}
