//! The measuring itself: two servers in turns, first one request at a time, then
//! several clients at once. Never lets the two be asked at the same moment.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::contenders::Contender;
use super::figures::{Figures, Throughput};
use super::rows::{Check, Row};
use crate::http::Client;

/// Requests to each server before the counted ones.
pub(super) const WARM_UP: u32 = 10;

/// Pause before each single request in microseconds, from and below: a server
/// that works ahead has time to, and nothing is measured back to back.
const PAUSE_MICROS: (u64, u64) = (20_000, 40_000);

/// Longest time for the single requests of a row; those made until then count.
pub(super) const SINGLE_TIME: Duration = Duration::from_secs(120);

/// Clients that ask at once in the closed loop.
pub(super) const CLIENTS: usize = 8;

/// How long one server is asked before the other's turn, at most.
const SLICE: Duration = Duration::from_secs(3);

/// Pause between two slices, in which a server puts away what the last one left.
pub(super) const SLICE_PAUSE: Duration = Duration::from_millis(300);

/// Measures a row on both servers. Asks each of them `requests` times in turns,
/// then for `seconds` in slices. Returns the figures in the order of `servers`.
///
/// # Errors
/// When a request fails or is answered with anything but what the row says.
pub(super) fn measure(
    row: &'static Row,
    servers: [&Contender; 2],
    requests: u32,
    seconds: u32,
) -> Result<[Figures; 2]> {
    let check = Check::new(row);
    let [ours, other] = single(row, &check, servers, requests)?;
    let [our_rate, other_rate] = closed_loop(row, &check, servers, seconds)?;
    Ok([Figures::of(ours, our_rate), Figures::of(other, other_rate)])
}

/// Returns how long each counted request took. Who goes first changes each time.
fn single(
    row: &Row,
    check: &Check,
    servers: [&Contender; 2],
    requests: u32,
) -> Result<[Vec<Duration>; 2]> {
    let mut clients = servers.map(Contender::client);
    let mut times = [Vec::new(), Vec::new()];
    let mut pauses = Pauses::new();
    let mut deadline = Instant::now() + SINGLE_TIME;
    for turn in 0..WARM_UP + requests {
        if turn == WARM_UP {
            deadline = Instant::now() + SINGLE_TIME;
        }
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for server in order {
            thread::sleep(pauses.next());
            let time = ask(row, check, &mut clients[server])
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

/// Returns how many requests each server answered to several clients, of which
/// each asks again as soon as it has its answer.
fn closed_loop(
    row: &Row,
    check: &Check,
    servers: [&Contender; 2],
    seconds: u32,
) -> Result<[Throughput; 2]> {
    let mut clients =
        servers.map(|server| -> Vec<Client> { (0..CLIENTS).map(|_| server.client()).collect() });
    let mut sums = [Throughput::default(); 2];
    let mut left = Duration::from_secs(u64::from(seconds));
    while !left.is_zero() {
        let slice = left.min(SLICE);
        left -= slice;
        for server in [0, 1] {
            thread::sleep(SLICE_PAUSE);
            let done = ask_at_once(row, check, &mut clients[server], slice)
                .with_context(|| format!("{} failed under load", servers[server].name))?;
            sums[server].add(done);
        }
    }
    Ok(sums)
}

/// Lets all clients ask for so long, and waits for the answers to what they asked
/// last.
fn ask_at_once(
    row: &Row,
    check: &Check,
    clients: &mut [Client],
    slice: Duration,
) -> Result<Throughput> {
    let started = Instant::now();
    let counts = thread::scope(|scope| {
        let asking: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || -> Result<u32> {
                    let mut count = 0;
                    while started.elapsed() < slice {
                        ask(row, check, client)?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        asking
            .into_iter()
            .map(|thread| thread.join().ok().context("a client's thread panicked")?)
            .collect::<Result<Vec<u32>>>()
    })?;
    Ok(Throughput {
        requests: counts.iter().sum(),
        time: started.elapsed(),
    })
}

/// Asks once, checks the answer, and returns how long it took to come.
fn ask(row: &Row, check: &Check, client: &mut Client) -> Result<Duration> {
    let body = row.request();
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
    fn pauses_differ_and_stay_in_range() {
        let mut pauses = Pauses::new();
        let pauses: Vec<Duration> = (0..1000).map(|_| pauses.next()).collect();
        let range = Duration::from_millis(20)..Duration::from_millis(40);
        assert!(pauses.iter().all(|pause| range.contains(pause)));
        let short = pauses.iter().filter(|pause| pause.as_millis() < 30);
        assert!((400..600).contains(&short.count()));
    }
}
