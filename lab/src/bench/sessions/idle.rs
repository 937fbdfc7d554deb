//! What sessions and kernels hold that nobody uses: memory, and processor time. Each
//! must have kept its variable afterwards. Reads `/proc` only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;

use super::gateway::Kernel;
use super::ours::Session;
use crate::bench::contenders::Contender;
use crate::bench::memory::{field, pss_kib};
use crate::census;

/// Kernels of the gateway, which hold more than a session.
pub(super) const KERNELS: u32 = 20;

/// Wait until what was begun has come to rest.
const REST: Duration = Duration::from_secs(3);

/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Attempts to measure memory where others disturb it.
const ATTEMPTS: u32 = 3;

/// What part of the larger of fall and rise the other has to be.
const AGREEMENT: f64 = 0.8;

/// Between two looks at what they have used.
const GLANCE: Duration = Duration::from_millis(500);

/// Looks at the free memory, of which the middle one counts.
const LOOKS: usize = 9;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// What some that are idle hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Idle {
    /// Whose they are.
    pub(super) server: &'static str,
    /// How many.
    pub(super) count: u32,
    /// Fall of `MemAvailable` for each, in MiB, without what others took meanwhile: the
    /// mean of the fall when they began and the rise when they had ended.
    pub(super) memory_mib: f64,
    /// Whether fall and rise differ so much that others must have had a part in them.
    pub(super) is_disturbed: bool,
    /// Proportional set size of all processes for each, in MiB, where it may be read.
    pub(super) pss_mib: Option<f64>,
    /// Processor time of the server and its processes, in percent of a core.
    pub(super) cpu_percent: f64,
}

/// One that is idle.
trait Sleeper {
    /// Runs a cell of Python whose value is to read so.
    fn gives(&mut self, code: &str, expected: &str) -> Result<()>;

    /// Lets it be.
    fn leave(&mut self) {}
}

impl Sleeper for Session {
    fn gives(&mut self, code: &str, expected: &str) -> Result<()> {
        self.run("python", code)?.reads(expected)
    }
}

impl Sleeper for Kernel {
    fn gives(&mut self, code: &str, expected: &str) -> Result<()> {
        self.run(code)?.reads(expected)
    }

    fn leave(&mut self) {
        Kernel::leave(self);
    }
}

/// Measures so many sessions of ours.
pub(super) fn sessions(server: &Contender, count: u32) -> Result<Idle> {
    let asked = json!({"language": "python"});
    measure(server, count, || Session::open(server, &asked))
}

/// Measures kernels of the gateway.
pub(super) fn kernels(gateway: &Contender) -> Result<Idle> {
    measure(gateway, KERNELS, || Kernel::start(gateway))
}

/// Measures again where others on the machine have disturbed it.
fn measure<S: Sleeper>(
    server: &Contender,
    count: u32,
    mut begin: impl FnMut() -> Result<S>,
) -> Result<Idle> {
    // One comes and goes first: what the server makes once is no session's.
    begin()?.gives("2+2", "4")?;
    let mut idle = measure_once(server, count, &mut begin)?;
    for _ in 1..ATTEMPTS {
        if !idle.is_disturbed {
            break;
        }
        println!("  memory was disturbed: once more");
        idle = measure_once(server, count, &mut begin)?;
    }
    Ok(idle)
}

fn measure_once<S: Sleeper>(
    server: &Contender,
    count: u32,
    begin: &mut impl FnMut() -> Result<S>,
) -> Result<Idle> {
    thread::sleep(REST);
    let (available, pss) = (available_kib(server)?, pss_kib(server)?);
    let mut all = Vec::new();
    for number in 0..count {
        let mut one = begin()?;
        one.gives(&format!("kept = {number}; kept"), &number.to_string())?;
        one.leave();
        all.push(one);
    }
    thread::sleep(REST);
    let low = available_kib(server)?;
    let grown = pss.zip(pss_kib(server)?).map(|(before, now)| now - before);
    let cpu_percent = cpu_percent(server)?;
    for (number, one) in all.iter_mut().enumerate() {
        one.gives("kept", &number.to_string())
            .with_context(|| format!("number {number} has lost its state"))?;
    }
    drop(all);
    thread::sleep(REST);
    let (fall, rise) = (available - low, available_kib(server)? - low);
    let each = |kib: f64| kib / 1024.0 / f64::from(count);
    Ok(Idle {
        server: server.name,
        count,
        memory_mib: each((fall + rise) / 2.0),
        is_disturbed: are_apart(fall, rise),
        pss_mib: grown.map(each),
        cpu_percent,
    })
}

/// Whether a fall and the rise after it are not the same thing.
fn are_apart(fall: f64, rise: f64) -> bool {
    let (less, more) = (fall.min(rise), fall.max(rise));
    less <= 0.0 || less < more * AGREEMENT
}

/// Returns the memory that would be available if no others had any of their own, the
/// middle one of several looks: others may compile, and end, meanwhile.
fn available_kib(server: &Contender) -> Result<f64> {
    let mut seen = Vec::new();
    for _ in 0..LOOKS {
        thread::sleep(BETWEEN_LOOKS);
        let text = fs::read_to_string("/proc/meminfo").context("failed to read /proc/meminfo")?;
        let now = field(&text, "MemAvailable:").context("the kernel tells no MemAvailable")?;
        seen.push(now + others_kib(server)?);
    }
    seen.sort_by(f64::total_cmp);
    Ok(seen[LOOKS / 2])
}

/// Returns what all processes but the server's hold, files left aside.
fn others_kib(server: &Contender) -> Result<f64> {
    let own: BTreeSet<u32> = census::lineage(server.pid())?
        .into_iter()
        .map(|process| process.pid)
        .collect();
    let entries = fs::read_dir("/proc").context("failed to read /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let others = pids.filter(|pid: &u32| !own.contains(pid));
    // A process may end meanwhile, and the kernel's threads have none.
    let held = others.filter_map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        field(&text, "RssAnon:")
    });
    Ok(held.sum())
}

/// Watches a server with its processes, and returns what they used.
fn cpu_percent(server: &Contender) -> Result<f64> {
    let started = Instant::now();
    let mut before = cpu_times(server)?;
    let mut used = 0;
    while started.elapsed() < WATCHED {
        thread::sleep(GLANCE);
        let now = cpu_times(server)?;
        used += grown(&before, &now);
        before = now;
    }
    let used = Duration::from_nanos(used).as_secs_f64();
    Ok(used / started.elapsed().as_secs_f64() * 100.0)
}

/// Returns what all threads together have used since `before`. Those that have ended
/// meanwhile do not count, for their sums are gone.
fn grown(before: &Times, now: &Times) -> u64 {
    let since = |(thread, time): (&(u32, String), &u64)| {
        time.saturating_sub(before.get(thread).copied().unwrap_or_default())
    };
    now.iter().map(since).sum()
}

/// The processor time of each thread in nanoseconds: ticks are too coarse for many
/// that do next to nothing.
type Times = BTreeMap<(u32, String), u64>;

fn cpu_times(server: &Contender) -> Result<Times> {
    let mut times = Times::new();
    let processes = census::lineage(server.pid())?;
    ensure!(!processes.is_empty(), "the server is gone");
    for process in processes {
        // A process or thread may end meanwhile.
        let threads = fs::read_dir(format!("/proc/{}/task", process.pid));
        for thread in threads.into_iter().flatten().filter_map(Result::ok) {
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let used = text.split(' ').next().and_then(|word| word.parse().ok());
            let name = thread.file_name().to_string_lossy().into_owned();
            times.insert((process.pid, name), used.unwrap_or_default());
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fall_that_does_not_rise_again_is_disturbed() {
        let check = |fall, rise, expected| assert_eq!(are_apart(fall, rise), expected);
        check(100.0, 100.0, false);
        check(100.0, 85.0, false);
        check(85.0, 100.0, false);
        check(100.0, 70.0, true);
        check(-10.0, 100.0, true);
        check(-10.0, -10.0, true);
    }

    #[test]
    fn threads_that_have_ended_take_nothing_away() {
        let times = |all: &[(&str, u64)]| -> Times {
            let named = all
                .iter()
                .map(|(name, time)| ((1, (*name).to_owned()), *time));
            named.collect()
        };
        let before = times(&[("1", 100), ("2", 900)]);
        assert_eq!(grown(&before, &times(&[("1", 130), ("3", 7)])), 37);
    }
}
