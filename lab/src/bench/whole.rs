//! What is measured of a server as a whole: a burst of requests, its start, and what it
//! holds when nobody asks. Never lets two servers be asked at the same moment.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::contenders::Contender;
use super::memory;
use super::rows::{Check, ROWS};
use super::turns::order;
use crate::http::Client;

/// Requests of a burst.
const BURST: usize = 100;

/// Which answer of the other server our last one is compared with.
const SIXTIETH: usize = 60;

/// Bursts to each server, and starts of each: the median of them counts.
const BURSTS: u32 = 3;
const STARTS: u32 = 5;

/// Wait before a burst and before a look at memory, until what was begun has come to
/// rest.
const REST: Duration = Duration::from_secs(3);

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// From nothing to the first answer.
    Start,
    /// Many requests at one moment.
    Burst,
    /// Memory when nobody asks.
    Memory,
}

/// All of them by their names in `--rows`, in order: memory last, after all work.
const KINDS: [(&str, Kind); 3] = [
    ("start", Kind::Start),
    ("burst", Kind::Burst),
    ("memory", Kind::Memory),
];

/// One figure of both servers.
#[derive(Debug, Serialize)]
pub(super) struct Whole {
    /// Its name in `--rows`.
    pub(super) name: &'static str,
    /// What the figure is.
    pub(super) what: String,
    /// Of ours.
    pub(super) ours: f64,
    /// Of the other server.
    pub(super) other: f64,
    /// Ours divided by the other.
    pub(super) ratio: f64,
}

impl Whole {
    /// Returns a figure of both.
    pub(super) fn new(name: &'static str, what: impl Into<String>, ours: f64, other: f64) -> Self {
        Self {
            name,
            what: what.into(),
            ours,
            other,
            ratio: ours / other,
        }
    }
}

/// Starts a server anew.
pub(super) type Begin<'a> = &'a dyn Fn() -> Result<Contender>;

/// Returns the names of all.
pub(super) fn names() -> [&'static str; 3] {
    KINDS.map(|(name, _)| name)
}

/// Returns those of these names, or all when none is named.
pub(super) fn chosen(names: &[String]) -> Vec<(&'static str, Kind)> {
    let is_chosen = |name: &str| names.is_empty() || names.iter().any(|one| one == name);
    KINDS
        .into_iter()
        .filter(|(name, _)| is_chosen(name))
        .collect()
}

/// Measures one of them on both servers, and on others like them that it starts.
///
/// # Errors
/// When a request fails or is answered wrongly, or memory may not be read.
pub(super) fn measure(
    (name, kind): (&'static str, Kind),
    servers: [&Contender; 2],
    begin: [Begin<'_>; 2],
) -> Result<Vec<Whole>> {
    match kind {
        Kind::Start => {
            let [ours, other] = starts(begin)?;
            let what = "start to first answer, ms";
            Ok(vec![Whole::new(name, what, millis(ours), millis(other))])
        }
        Kind::Burst => {
            let [ours, other] = bursts(servers)?;
            let (last, sixtieth) = (BURST - 1, SIXTIETH - 1);
            let figure = |what: String, ours: Duration, other: Duration| {
                Whole::new(name, what, millis(ours), millis(other))
            };
            Ok(vec![
                figure(
                    format!("{SIXTIETH}th answer of {BURST}, ms"),
                    ours[sixtieth],
                    other[sixtieth],
                ),
                figure(
                    format!("last answer of {BURST}, ms"),
                    ours[last],
                    other[last],
                ),
                figure(
                    format!("our last, its {SIXTIETH}th, ms"),
                    ours[last],
                    other[sixtieth],
                ),
            ])
        }
        Kind::Memory => {
            thread::sleep(REST);
            let [ours, other] = servers.map(|server| -> Result<f64> {
                let held = memory::pss_kib(server)?;
                let held = held.context("the memory of processes may not be read here")?;
                Ok(held / 1024.0)
            });
            Ok(vec![Whole::new(name, "idle, PSS MiB", ours?, other?)])
        }
    }
}

/// Returns the median time from the start of a server's process to its first answer.
fn starts(begin: [Begin<'_>; 2]) -> Result<[Duration; 2]> {
    let check = Check::new(&ROWS[0]);
    let mut times = [Vec::new(), Vec::new()];
    for turn in 0..STARTS {
        for at in order(turn, 2) {
            let server = begin[at]()?;
            let response = server.client().post("/execute", &check.next_request())?;
            times[at].push(server.age());
            check.pass(&response)?;
        }
    }
    Ok(times.map(median))
}

/// Returns when each of the answers to a burst came, by the median of some bursts.
fn bursts(servers: [&Contender; 2]) -> Result<[Vec<Duration>; 2]> {
    let check = Check::new(&ROWS[0]);
    let mut all = [Vec::new(), Vec::new()];
    for turn in 0..BURSTS {
        for at in order(turn, 2) {
            let server = servers[at];
            let times = burst(&check, server).with_context(|| format!("{} failed", server.name))?;
            all[at].push(times);
        }
    }
    Ok(all.map(|bursts| medians(&bursts)))
}

/// Returns the median of the first answers of all bursts, of the second ones, and so on.
fn medians(bursts: &[Vec<Duration>]) -> Vec<Duration> {
    let answers = bursts.first().map_or(0, Vec::len);
    (0..answers)
        .map(|at| median(bursts.iter().map(|times| times[at]).collect()))
        .collect()
}

/// Sends all requests at one moment, over open connections, and returns when the answers
/// came, the first one first.
///
/// # Errors
/// With their number, when some failed.
fn burst(check: &Check, server: &Contender) -> Result<Vec<Duration>> {
    let mut clients: Vec<Client> = (0..BURST).map(|_| server.client()).collect();
    for client in &mut clients {
        client.connect()?;
    }
    thread::sleep(REST);
    let barrier = Barrier::new(BURST);
    let outcomes = thread::scope(|scope| {
        let barrier = &barrier;
        let asking: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    let body = check.next_request();
                    barrier.wait();
                    let asked = Instant::now();
                    let response = client.post("/execute", &body)?;
                    let answered = Instant::now();
                    check.pass(&response)?;
                    Ok((asked, answered))
                })
            })
            .collect();
        asking
            .into_iter()
            .map(|thread| thread.join().ok().context("a client's thread panicked"))
            .collect::<Result<Vec<Result<(Instant, Instant)>>>>()
    })?;
    let mut times = Vec::new();
    let mut failures = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(one) => times.push(one),
            Err(error) => failures.push(error),
        }
    }
    ensure!(
        failures.is_empty(),
        "{} of {BURST} requests at once failed, such as: {:#}",
        failures.len(),
        failures[0]
    );
    Ok(since_first(&times))
}

/// Returns how long after the first question each answer came, in order.
fn since_first(times: &[(Instant, Instant)]) -> Vec<Duration> {
    let first = times.iter().map(|(asked, _)| *asked).min();
    let mut answers: Vec<Duration> = times
        .iter()
        .filter_map(|(_, answered)| Some(answered.duration_since(first?)))
        .collect();
    answers.sort_unstable();
    answers
}

/// Returns the middle one, the lower of two.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let middle = times.len().saturating_sub(1) / 2;
    times.get(middle).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durations(millis: &[u64]) -> Vec<Duration> {
        millis.iter().map(|&ms| Duration::from_millis(ms)).collect()
    }

    #[test]
    fn they_are_chosen_by_name() {
        let check = |names: &[&str], expected: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let chosen: Vec<&str> = chosen(&names).iter().map(|(name, _)| *name).collect();
            assert_eq!(chosen, expected);
        };
        check(&[], &["start", "burst", "memory"]);
        check(&["memory", "start"], &["start", "memory"]);
        check(&["python"], &[]);
    }

    #[test]
    fn medians_are_of_answers_with_the_same_place() {
        let check = |bursts: &[&[u64]], expected: &[u64]| {
            let bursts: Vec<_> = bursts.iter().map(|burst| durations(burst)).collect();
            assert_eq!(medians(&bursts), durations(expected));
        };
        check(&[&[1, 9], &[3, 4], &[2, 5]], &[2, 5]);
        check(&[&[1, 9]], &[1, 9]);
        check(&[], &[]);
    }

    #[test]
    fn answers_are_timed_from_the_first_question() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let times = [(at(3), at(50)), (at(0), at(20)), (at(5), at(7))];
        assert_eq!(since_first(&times), durations(&[7, 20, 50]));
        assert!(since_first(&[]).is_empty());
    }
}
