//! The measuring itself: servers in turns, first one request at a time with
//! pauses, then in closed loops of one client and of several. Never lets two of them be asked at the same moment.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::asking::{Asking, Side, sides};
use super::bare::Bare;
use super::contenders::Contender;
use super::figures::{Figures, Outcome, Rates, Throughput};
use super::rows::Check;

/// Requests to each server before the counted ones.
pub(super) const WARM_UP: u32 = 10;

/// Pause before each single request of other comparisons in microseconds, from and
/// below: a server that works ahead has time to, and nothing is measured back to back.
const PAUSE_MICROS: (u64, u64) = (20_000, 40_000);

/// Longest time for the single requests of a row; those made until then count.
pub(super) const SINGLE_TIME: Duration = Duration::from_secs(120);

/// How long one server is asked before the other's turn, at most.
const SLICE: Duration = Duration::from_secs(3);

/// Pause between two slices, in which a server puts away what the last one left.
pub(super) const SLICE_PAUSE: Duration = Duration::from_millis(300);

/// Measures a row on all servers, and on what is no server. Asks each of them
/// `requests` times in turns with pauses, then for `seconds` in slices by one client,
/// and the servers by two and by eight as well. Returns names and outcomes, of `servers`
/// first.
///
/// # Errors
/// When a request fails or is answered with anything but what the row says.
pub(super) fn measure(
    check: &Check,
    servers: &[&Contender],
    bare: &mut [Bare],
    requests: u32,
    seconds: u32,
) -> Result<Vec<(&'static str, Outcome)>> {
    let door = check.row.door;
    let mut ones = sides(servers, door, 1)?;
    ones.extend(bare.iter_mut().map(|bare| Side {
        name: bare.name,
        asking: vec![Asking::Bare(bare)],
    }));
    let paused = single(check, &mut ones, requests)?;
    let looped = closed_loop(check, &mut ones, seconds)?;
    let two = closed_loop(check, &mut sides(servers, door, 2)?, seconds)?;
    let eight = closed_loop(check, &mut sides(servers, door, 8)?, seconds)?;
    let rates = two.into_iter().zip(eight).map(|(two, eight)| Rates {
        of_two: two.throughput.per_second(),
        of_eight: eight.throughput.per_second(),
    });
    let mut rates = rates.fuse();
    let mut outcomes = Vec::new();
    for ((side, paused), looped) in ones.iter().zip(paused).zip(looped) {
        let outcome = Outcome {
            paused: Figures::of(paused),
            looped: Figures::of(looped.times),
            rates: rates.next(),
        };
        outcomes.push((side.name, outcome));
    }
    Ok(outcomes)
}

/// Returns the order of a turn: who goes first changes each time.
pub(super) fn order(turn: u32, sides: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sides).collect();
    order.rotate_left(turn as usize % sides);
    order
}

/// Returns how long each counted request took by the first who asks.
fn single(check: &Check, sides: &mut [Side<'_>], requests: u32) -> Result<Vec<Vec<Duration>>> {
    let mut times = vec![Vec::new(); sides.len()];
    let mut deadline = Instant::now() + SINGLE_TIME;
    for turn in 0..WARM_UP + requests {
        if turn == WARM_UP {
            deadline = Instant::now() + SINGLE_TIME;
        }
        for at in order(turn, sides.len()) {
            let Side { name, asking } = &mut sides[at];
            thread::sleep(check.row.pause());
            let time = asking[0]
                .ask(check)
                .with_context(|| format!("{name} failed"))?;
            if turn >= WARM_UP {
                times[at].push(time);
            }
        }
        if turn >= WARM_UP && Instant::now() >= deadline {
            break;
        }
    }
    Ok(times)
}

/// What a server did in a closed loop.
#[derive(Debug, Default)]
struct Loop {
    /// How long each request took.
    times: Vec<Duration>,
    throughput: Throughput,
}

/// Returns what each side did when all who ask it ask again as soon as they have their
/// answers.
fn closed_loop(check: &Check, sides: &mut [Side<'_>], seconds: u32) -> Result<Vec<Loop>> {
    let mut loops: Vec<Loop> = sides.iter().map(|_| Loop::default()).collect();
    let mut left = Duration::from_secs(u64::from(seconds));
    let mut turn = 0;
    while !left.is_zero() {
        let slice = left.min(SLICE);
        left -= slice;
        for at in order(turn, sides.len()) {
            thread::sleep(SLICE_PAUSE);
            let Side { name, asking } = &mut sides[at];
            let done = ask_at_once(check, asking, slice)
                .with_context(|| format!("{name} failed with {} at once", asking.len()))?;
            loops[at].times.extend(done.times);
            loops[at].throughput.add(done.throughput);
        }
        turn += 1;
    }
    Ok(loops)
}

/// Lets all ask for so long, and waits for the answers to what they asked
/// last.
fn ask_at_once(check: &Check, asking: &mut [Asking<'_>], slice: Duration) -> Result<Loop> {
    let started = Instant::now();
    let times = thread::scope(|scope| {
        let threads: Vec<_> = asking
            .iter_mut()
            .map(|one| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let mut times = Vec::new();
                    while started.elapsed() < slice {
                        times.push(one.ask(check)?);
                    }
                    Ok(times)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().ok().context("a client's thread panicked")?)
            .collect::<Result<Vec<_>>>()
    })?;
    let time = started.elapsed();
    let times = times.concat();
    let requests = u32::try_from(times.len()).context("there are too many requests")?;
    Ok(Loop {
        times,
        throughput: Throughput { requests, time },
    })
}

/// Pauses of no regular length, the same in each run: an xorshift generator.
#[derive(Debug)]
pub(super) struct Pauses(u64);

impl Pauses {
    /// Returns them from the first one on.
    pub(super) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Returns the next one.
    pub(super) fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let (from, below) = PAUSE_MICROS;
        Duration::from_micros(from + self.0 % (below - from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_first_in_its_turn() {
        let check = |turn, sides, expected: &[usize]| assert_eq!(order(turn, sides), expected);
        check(0, 1, &[0]);
        check(7, 1, &[0]);
        check(0, 2, &[0, 1]);
        check(1, 2, &[1, 0]);
        check(4, 3, &[1, 2, 0]);
    }

    #[test]
    fn pauses_differ_and_stay_in_range() {
        let mut pauses = Pauses::new();
        let pauses: Vec<Duration> = (0..1000).map(|_| pauses.next()).collect();
        let range = Duration::from_millis(20)..Duration::from_millis(40);
        assert!(pauses.iter().all(|pause| range.contains(pause)));
        let short = pauses.iter().filter(|pause| pause.as_millis() < 30);
        assert!((400..600).contains(&short.count()));
    }
}
