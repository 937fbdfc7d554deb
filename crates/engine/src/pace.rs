//! How fast output is read that nobody will see.
//!
//! A program that floods its output would otherwise cost the server as much
//! processor time as itself. Held back by a full pipe, it waits; it is never
//! killed for that, and an ordinary program never notices.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A read that brings less than this, in bytes, costs more than it brings.
const SMALL: usize = 4 * 1024;
/// What such a read counts, in bytes. While it is paid for the pipe fills, so
/// that the next one brings more.
const SMALL_COST: u64 = 32 * 1024;
/// How many seconds' worth may be read at once.
const BURST: u64 = 4;
/// Pauses shorter than this are saved up: a timer is no more precise.
const SHORTEST: Duration = Duration::from_millis(2);

/// A token bucket that all streams of a run share.
#[derive(Debug, Clone)]
pub(crate) struct Pace(Arc<Mutex<Bucket>>);

#[derive(Debug)]
struct Bucket {
    /// Bytes a second, more than 0.
    rate: u64,
    /// When all that was read is paid for.
    paid: Instant,
}

impl Pace {
    /// So many bytes a second, after a first burst.
    pub(crate) fn new(rate: u64) -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(Bucket {
            rate: rate.max(1),
            paid: now,
        })))
    }

    /// Counts a read of so many bytes, of which some are of no use to anybody.
    /// How long to pause before the next one, if at all.
    pub(crate) fn read(&self, count: usize, useless: usize) -> Option<Duration> {
        let least = if count < SMALL { SMALL_COST } else { 0 };
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = bucket.charge(least.max(useless as u64), Instant::now());
        (pause >= SHORTEST).then_some(pause)
    }
}

impl Bucket {
    /// How long to wait after a read at `now`.
    fn charge(&mut self, cost: u64, now: Instant) -> Duration {
        let micros = cost.saturating_mul(1_000_000) / self.rate;
        self.paid = self.paid.max(now) + Duration::from_micros(micros);
        let ahead = self.paid.duration_since(now);
        ahead.saturating_sub(Duration::from_secs(BURST))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::Pace;

    const MIB: usize = 1024 * 1024;

    async fn read(pace: &Pace, count: usize, useless: usize) {
        if let Some(pause) = pace.read(count, useless) {
            sleep(pause).await;
        }
    }

    /// Reads so much in pieces at a MiB a second; the time it takes.
    async fn time_of(total: usize, piece: usize) -> Duration {
        let begun = Instant::now();
        let pace = Pace::new(MIB as u64);
        for _ in 0..total / piece {
            read(&pace, piece, piece).await;
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_the_rest_is_paced() {
        let check = async |total: usize, piece: usize, seconds: u64| {
            let took = time_of(total, piece).await;
            let expected = Duration::from_secs(seconds);
            assert!(
                took.abs_diff(expected) < Duration::from_millis(100),
                "{total} in {piece}: {took:?}"
            );
        };
        check(4 * MIB, 64 * 1024, 0).await;
        check(10 * MIB, 64 * 1024, 6).await;
        check(10 * MIB, MIB, 6).await;
        // Reads that bring nothing cost too: 1 byte counts as 32 KiB.
        check(128, 1, 0).await;
        check(256, 1, 4).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_of_use_is_free() {
        let begun = Instant::now();
        let pace = Pace::new(1);
        for _ in 0..1000 {
            read(&pace, MIB, 0).await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_earns_the_next_burst() {
        let pace = Pace::new(MIB as u64);
        read(&pace, 4 * MIB, 4 * MIB).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let begun = Instant::now();
        read(&pace, 4 * MIB, 4 * MIB).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "and no more than that");
        read(&pace, MIB, MIB).await;
        assert!(begun.elapsed() >= Duration::from_millis(900));
    }
}
