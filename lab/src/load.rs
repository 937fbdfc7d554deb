//! Thousands of requests in a row, then many at once, then a crash: whatever
//! the server made for them must be gone, and its memory flat.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::census::{self, Census};
use crate::crash;
use crate::http::Client;
use crate::live::{Home, Server};
use xtask::build;

/// Requests before anything is counted: pools fill, caches warm.
const WARM_UP: u32 = 40;

/// Between two counts of the time before; several equal ones are steady.
const PAUSE: Duration = Duration::from_millis(500);
const STEADY_COUNTS: u32 = 4;

/// How many of the requests at once have to be answered with 200, in percent.
const ANSWERED_PERCENT: usize = 95;

/// Within which time.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// How long the server may take to put everything away afterwards.
const SETTLE_TIME: Duration = Duration::from_secs(10);

/// Growth of the server's memory that still counts as flat, in KiB.
const FLAT_KIB: u64 = 32 * 1024;

/// The bounds of the server under load: room for all, so that the queue is
/// what is tested, not the refusal.
pub(crate) const BOUNDS: [(&str, &str); 2] = [("CODEX_QUEUE", "512"), ("CODEX_QUEUE_WAIT", "60")];

/// `hello` in each language, and what it must print.
pub(crate) const HELLO: [(&str, &str, &str); 3] = [
    ("python", "print(2+2)", "4\n"),
    ("javascript", "console.log(2+2)", "4\n"),
    ("bash", "echo $((2+2))", "4\n"),
];

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Requests in a row, alternating between the languages.
    #[arg(long, default_value_t = 2000)]
    requests: u32,
    /// Requests at once.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    at_once: u16,
    /// Runs that are live when the server is killed.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    live: u16,
    /// Binary to check; built in the dev profile when left out.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Runs all three parts.
pub(crate) fn load(arguments: &Arguments) -> Result<()> {
    let binary = build::or_debug(arguments.binary.clone())?;
    many(&binary, arguments)?;
    crash::crash(&binary, arguments.live)
}

fn many(binary: &Path, arguments: &Arguments) -> Result<()> {
    let home = Home::new()?;
    let server = Server::start(binary, &home, &BOUNDS)?;
    in_a_row(&mut server.client(), WARM_UP)?;
    // The same burst as later: pools (connections, network namespaces) reach
    // their size, which is no leak.
    at_once(&server, arguments.at_once)?;
    let before = steady(server.pid(), home.path())?;
    println!("before:  {before}");

    let started = Instant::now();
    in_a_row(&mut server.client(), arguments.requests)?;
    println!(
        "{} requests in a row: {:.1} s",
        arguments.requests,
        started.elapsed().as_secs_f64()
    );

    let burst = at_once(&server, arguments.at_once)?;
    println!("{} requests at once: {burst}", arguments.at_once);
    burst.check(usize::from(arguments.at_once))?;

    let after = settled(server.pid(), home.path(), &before)?;
    println!("after:   {after}");
    let growth = after.memory_kib.saturating_sub(before.memory_kib);
    ensure!(
        growth <= FLAT_KIB,
        "the server's memory grew by {growth} KiB; {FLAT_KIB} KiB would be flat"
    );
    let status = server.stop()?;
    ensure!(
        status.success(),
        "the server ended with {status} after SIGTERM"
    );
    Ok(())
}

/// Runs `hello` so many times over one connection and checks each answer.
fn in_a_row(client: &mut Client, requests: u32) -> Result<()> {
    for (number, (language, code, expected)) in (0..requests).zip(HELLO.into_iter().cycle()) {
        let response = client.execute(language, code)?;
        ensure!(
            response.status == 200,
            "request {number} ({language}) got {}: {}",
            response.status,
            response.text()
        );
        let answer = response.json()?;
        ensure!(
            answer["output"] == expected,
            "request {number} ({language}) should print {expected:?} and answered {answer}"
        );
    }
    Ok(())
}

/// What became of many requests at once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Burst {
    statuses: BTreeMap<u16, usize>,
    wrong: usize,
    time: Duration,
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (status, count) in &self.statuses {
            write!(f, "{count} x {status}, ")?;
        }
        write!(f, "{} wrong, {:.1} s", self.wrong, self.time.as_secs_f64())
    }
}

impl Burst {
    fn check(&self, requests: usize) -> Result<()> {
        let good = self.statuses.get(&200).copied().unwrap_or(0);
        let wanted = (requests * ANSWERED_PERCENT).div_ceil(100);
        ensure!(
            good >= wanted,
            "{good} of {requests} were answered with 200; at least {wanted} should be"
        );
        ensure!(self.wrong == 0, "{} answers were wrong", self.wrong);
        ensure!(
            self.time <= ANSWER_TIME,
            "they took {:?}, more than {ANSWER_TIME:?}",
            self.time
        );
        let others: Vec<_> = self
            .statuses
            .keys()
            .filter(|status| !matches!(status, 200 | 429 | 503))
            .collect();
        ensure!(
            others.is_empty(),
            "a busy server answers 429 or 503, not {others:?}"
        );
        Ok(())
    }
}

/// Sends so many requests at one moment, each over its own open connection.
fn at_once(server: &Server, requests: u16) -> Result<Burst> {
    let barrier = Arc::new(Barrier::new(usize::from(requests) + 1));
    let mut threads = Vec::new();
    for ((language, code, expected), _) in HELLO.into_iter().cycle().zip(0..requests) {
        let (mut client, barrier) = (server.client(), Arc::clone(&barrier));
        threads.push(thread::spawn(move || -> Result<(u16, bool)> {
            let connected = client.connect();
            barrier.wait();
            connected?;
            let response = client.execute(language, code)?;
            let right = response.status != 200 || response.json()?["output"] == expected;
            Ok((response.status, right))
        }));
    }
    barrier.wait();
    let started = Instant::now();
    let mut burst = Burst::default();
    for thread in threads {
        let answer = thread.join().ok().context("a client thread panicked")?;
        let (status, right) = answer?;
        *burst.statuses.entry(status).or_default() += 1;
        burst.wrong += usize::from(!right);
    }
    burst.time = started.elapsed();
    Ok(burst)
}

/// Counts until nothing changes any more: what the warm-up needed is put away.
pub(crate) fn steady(pid: u32, home: &Path) -> Result<Census> {
    let deadline = Instant::now() + SETTLE_TIME;
    let (mut last, mut equal) = (Census::take(pid, home)?, 1);
    while equal < STEADY_COUNTS && Instant::now() < deadline {
        thread::sleep(PAUSE);
        let now = Census::take(pid, home)?;
        let same = now.excess(&last).is_empty() && last.excess(&now).is_empty();
        equal = if same { equal + 1 } else { 1 };
        last = now;
    }
    Ok(last)
}

/// Counts again until nothing is more than before, or time is up.
pub(crate) fn settled(pid: u32, home: &Path, before: &Census) -> Result<Census> {
    let deadline = Instant::now() + SETTLE_TIME;
    loop {
        let now = Census::take(pid, home)?;
        let excess = now.excess(before);
        if excess.is_empty() {
            return Ok(now);
        }
        if Instant::now() >= deadline {
            bail!(
                "something is left behind {SETTLE_TIME:?} later: {}\n{}",
                excess.join("; "),
                census::listing(pid)?
            );
        }
        thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(statuses: &[(u16, usize)], wrong: usize, seconds: u64) -> Burst {
        Burst {
            statuses: statuses.iter().copied().collect(),
            wrong,
            time: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_burst_passes_only_when_answered_right_and_in_time() {
        let check =
            |burst: Burst, passes: bool| assert_eq!(burst.check(200).is_ok(), passes, "{burst}");
        check(burst(&[(200, 200)], 0, 5), true);
        check(burst(&[(200, 190), (503, 9), (429, 1)], 0, 30), true);
        check(burst(&[(200, 189), (503, 11)], 0, 5), false);
        check(burst(&[(200, 199), (500, 1)], 0, 5), false);
        check(burst(&[(200, 200)], 1, 5), false);
        check(burst(&[(200, 200)], 0, 31), false);
        check(burst(&[], 0, 0), false);
    }

    #[test]
    fn what_stays_is_an_error() {
        let home = tempfile::tempdir().expect("a directory");
        let pid = std::process::id();
        let none = Census::take(pid, home.path()).expect("/proc is there");
        let roomy = Census {
            processes: usize::MAX,
            mounts: usize::MAX,
            cgroups: usize::MAX,
            fds: usize::MAX,
            ..none
        };
        assert!(settled(pid, home.path(), &roomy).is_ok());
    }
}
