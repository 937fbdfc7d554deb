//! The measuring itself: servers in turns, first one request at a time with
//! pauses, then in closed loops of one client and of several. Never lets two of them be asked at the same moment.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::contenders::Contender;
use super::figures::{Figures, Outcome, Rates, Throughput};
use super::rows::Check;
use crate::http::Client;

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

/// Measures a row on all servers. Asks each of them `requests` times in turns with
/// pauses, then for `seconds` in slices by one client, by two and by eight. Returns the
/// outcomes in the order of `servers`.
///
/// # Errors
/// When a request fails or is answered with anything but what the row says.
pub(super) fn measure(
    check: &Check,
    servers: &[&Contender],
    requests: u32,
    seconds: u32,
) -> Result<Vec<Outcome>> {
    let paused = single(check, servers, requests)?;
    let one = closed_loop(check, servers, 1, seconds)?;
    let two = closed_loop(check, servers, 2, seconds)?;
    let eight = closed_loop(check, servers, 8, seconds)?;
    let mut outcomes = Vec::new();
    for (((paused, one), two), eight) in paused.into_iter().zip(one).zip(two).zip(eight) {
        outcomes.push(Outcome {
            paused: Figures::of(paused),
            looped: Figures::of(one.times),
            rates: Rates {
                of_two: two.throughput.per_second(),
                of_eight: eight.throughput.per_second(),
            },
        });
    }
    Ok(outcomes)
}

/// Returns the order of a turn: who goes first changes each time.
pub(super) fn order(turn: u32, sides: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sides).collect();
    order.rotate_left(turn as usize % sides);
    order
}

/// Returns how long each counted request took.
fn single(check: &Check, servers: &[&Contender], requests: u32) -> Result<Vec<Vec<Duration>>> {
    let mut clients: Vec<Client> = servers.iter().map(|server| server.client()).collect();
    let mut times = vec![Vec::new(); servers.len()];
    let mut deadline = Instant::now() + SINGLE_TIME;
    for turn in 0..WARM_UP + requests {
        if turn == WARM_UP {
            deadline = Instant::now() + SINGLE_TIME;
        }
        for server in order(turn, servers.len()) {
            thread::sleep(check.row.pause());
            let time = ask(check, &mut clients[server])
                .with_context(|| format!("{} failed", servers[server].name))?;
            if turn >= WARM_UP {
                times[server].push(time);
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

/// Returns what each server did for so many clients, of which each asks again as soon
/// as it has its answer.
fn closed_loop(
    check: &Check,
    servers: &[&Contender],
    clients: usize,
    seconds: u32,
) -> Result<Vec<Loop>> {
    let mut loops = Vec::new();
    let mut asking: Vec<Vec<Client>> = Vec::new();
    for server in servers {
        loops.push(Loop::default());
        asking.push((0..clients).map(|_| server.client()).collect());
    }
    let mut left = Duration::from_secs(u64::from(seconds));
    let mut turn = 0;
    while !left.is_zero() {
        let slice = left.min(SLICE);
        left -= slice;
        for server in order(turn, servers.len()) {
            thread::sleep(SLICE_PAUSE);
            let done = ask_at_once(check, &mut asking[server], slice).with_context(|| {
                format!("{} failed with {clients} at once", servers[server].name)
            })?;
            loops[server].times.extend(done.times);
            loops[server].throughput.add(done.throughput);
        }
        turn += 1;
    }
    Ok(loops)
}

/// Lets all clients ask for so long, and waits for the answers to what they asked
/// last.
fn ask_at_once(check: &Check, clients: &mut [Client], slice: Duration) -> Result<Loop> {
    let started = Instant::now();
    let times = thread::scope(|scope| {
        let asking: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let mut times = Vec::new();
                    while started.elapsed() < slice {
                        times.push(ask(check, client)?);
                    }
                    Ok(times)
                })
            })
            .collect();
        asking
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

/// Asks once, checks the answer, and returns how long it took to come.
fn ask(check: &Check, client: &mut Client) -> Result<Duration> {
    let body = check.next_request();
    let started = Instant::now();
    let response = client.post("/execute", &body)?;
    let time = started.elapsed();
    check.pass(&response)?;
    Ok(time)
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
