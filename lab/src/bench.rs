//! Cold hello world against a bare FastAPI and subprocess server: the same
//! interpreters, a clean environment, requests taken in turns.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::http::Client;
use crate::live::{CLEAN_PATH, Home, Server};
use crate::load;
use crate::venv;
use xtask::apt::{self, Need, Probe};
use xtask::build;
use xtask::process;

/// The highest ratio of medians that we promise.
pub(crate) const RATIO_LIMIT: f64 = 1.6;

/// Requests to each server before the counted ones.
const WARM_UP: u32 = 20;

const NODE: Need = Need {
    probe: Probe::File("/usr/bin/node"),
    packages: &["nodejs"],
    reason: "the interpreter that both servers run",
    required: true,
};

/// Runs the comparison and prints it; fails above `limit`.
pub(crate) fn bench(requests: u32, limit: f64) -> Result<()> {
    apt::ensure(&[NODE])?;
    let python = venv::bin()?.join("python");
    let binary = build::release()?;
    let home = Home::new()?;
    let ours = Server::start(&binary, &home, &load::BOUNDS)?;
    let mut command = process::command(python);
    command
        .env_clear()
        .env("PATH", CLEAN_PATH)
        .arg("lab/python/baseline.py");
    let baseline = Server::spawn(&mut command, None)?;

    println!("{requests} requests to each, {WARM_UP} warm-ups, times in ms");
    println!(
        "{:<12} {:<10} {:>8} {:>8} {:>8}",
        "language", "server", "p50", "p90", "p99"
    );
    let mut slow = Vec::new();
    for (language, code, expected) in load::HELLO {
        let case = Case {
            language,
            code,
            expected,
        };
        let (a, b) = case.compare(&mut ours.client(), &mut baseline.client(), requests)?;
        a.print(language, "ours");
        b.print(language, "baseline");
        let ratio = a.median / b.median;
        println!("{language:<12} ratio of p50: {ratio:.2}");
        if ratio > limit {
            slow.push(format!("{language} {ratio:.2}"));
        }
    }
    ensure!(
        slow.is_empty(),
        "slower than {limit} times the baseline: {}",
        slow.join(", ")
    );
    Ok(())
}

/// A program and what it must print.
#[derive(Debug, Clone, Copy)]
struct Case {
    language: &'static str,
    code: &'static str,
    expected: &'static str,
}

impl Case {
    /// Takes turns, and swaps who goes first each time.
    fn compare(
        self,
        ours: &mut Client,
        baseline: &mut Client,
        requests: u32,
    ) -> Result<(Figures, Figures)> {
        for _ in 0..WARM_UP {
            self.time(ours)?;
            self.time(baseline)?;
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for turn in 0..requests {
            if turn % 2 == 0 {
                a.push(self.time(ours)?);
                b.push(self.time(baseline)?);
            } else {
                b.push(self.time(baseline)?);
                a.push(self.time(ours)?);
            }
        }
        Ok((Figures::of(a), Figures::of(b)))
    }

    fn time(self, client: &mut Client) -> Result<Duration> {
        let started = Instant::now();
        let response = client.execute(self.language, self.code)?;
        let time = started.elapsed();
        let answer = response.json()?;
        ensure!(
            response.status == 200 && answer["output"] == self.expected,
            "{} should print {:?} and got {}: {answer}",
            self.language,
            self.expected,
            response.status
        );
        Ok(time)
    }
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    median: f64,
    p90: f64,
    p99: f64,
}

impl Figures {
    /// Of at least one time.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            // Nearest rank: the smallest time that so many percent do not exceed.
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times
                .get(rank - 1)
                .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
        };
        Self {
            median: at(50),
            p90: at(90),
            p99: at(99),
        }
    }

    fn print(self, language: &str, server: &str) {
        println!(
            "{language:<12} {server:<10} {:>8.2} {:>8.2} {:>8.2}",
            self.median, self.p90, self.p99
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let check = |millis: &[u64], expected: (f64, f64, f64)| {
            let figures = Figures::of(millis.iter().map(|&ms| Duration::from_millis(ms)).collect());
            assert_eq!((figures.median, figures.p90, figures.p99), expected);
        };
        check(&[5], (5.0, 5.0, 5.0));
        check(&[3, 1, 2], (2.0, 3.0, 3.0));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        check(&hundred, (50.0, 90.0, 99.0));
    }
}
