//! Rate limits by key, with the figures that the standard headers carry.
//! The map of keys is bounded: strangers cannot make it grow.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::config::RateLimit;

/// Keys with a bucket of their own. Whoever comes beyond shares one.
const KEYS: usize = 10_000;
/// Requests after which full buckets are forgotten.
const SWEEP: u32 = 1024;
/// The bucket of those beyond [`KEYS`]; no key can have this name.
const CROWD: &str = "*";

/// The answer to "may this key call now?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Requests that a full bucket holds; `u32::MAX` when nothing is limited.
    pub limit: u32,
    /// Requests left now.
    pub remaining: u32,
    /// Until the next request is possible (refused), or the bucket is full again (allowed).
    pub reset: Duration,
}

/// Token buckets by key.
#[derive(Debug)]
pub struct Rate {
    /// `None` when nothing is limited.
    buckets: Option<Buckets<DefaultClock>>,
}

impl Rate {
    /// Buckets of one shape for all keys.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        let buckets = (!limit.is_off()).then(|| Buckets::new(limit, DefaultClock::default(), KEYS));
        Self { buckets }
    }

    /// Takes one request from `key`'s bucket.
    #[must_use]
    pub fn check(&self, key: &str) -> Verdict {
        match &self.buckets {
            Some(buckets) => buckets.check(key),
            None => Verdict {
                allowed: true,
                limit: u32::MAX,
                remaining: u32::MAX,
                reset: Duration::ZERO,
            },
        }
    }
}

/// When each key's bucket will be full again, in a map of bounded size.
#[derive(Debug)]
struct Arrivals {
    times: Mutex<HashMap<String, Nanos>>,
    keys: usize,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Nanos>> {
        // The map is whole between any two statements, whoever panicked.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for Arrivals {
    type Key = String;

    fn measure_and_replace<T, F, E>(&self, key: &String, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut times = self.lock();
        if let Some(time) = times.get_mut(key) {
            let (answer, next) = decide(Some(*time))?;
            *time = next;
            return Ok(answer);
        }
        let key = if times.len() < self.keys { key } else { CROWD };
        let (answer, next) = decide(times.get(key).copied())?;
        times.insert(key.to_owned(), next);
        Ok(answer)
    }
}

impl ShrinkableKeyedStateStore<String> for Arrivals {
    fn retain_recent(&self, drop_below: Nanos) {
        self.lock().retain(|_, time| *time > drop_below);
    }

    fn shrink_to_fit(&self) {
        self.lock().shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

type Limiter<C> = RateLimiter<String, Arrivals, C, StateInformationMiddleware>;

struct Buckets<C: Clock> {
    limiter: Limiter<C>,
    clock: C,
    /// Time in which one request comes back.
    refill: Duration,
    burst: u32,
    since_sweep: AtomicU32,
}

impl<C: Clock> fmt::Debug for Buckets<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets")
            .field("refill", &self.refill)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

impl<C: Clock + Clone> Buckets<C> {
    fn new(limit: RateLimit, clock: C, keys: usize) -> Self {
        // Never zero: a period is at least a second, its requests a million.
        let refill = (limit.period / limit.requests.max(1)).max(Duration::from_nanos(1));
        let burst = NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(refill)
            .expect("refill is at least a nanosecond")
            .allow_burst(burst);
        let arrivals = Arrivals {
            times: Mutex::default(),
            keys,
        };
        let limiter = Limiter::new(quota, arrivals, clock.clone());
        Self {
            limiter,
            clock,
            refill,
            burst: burst.get(),
            since_sweep: AtomicU32::new(0),
        }
    }

    fn check(&self, key: &str) -> Verdict {
        if self.since_sweep.fetch_add(1, Ordering::Relaxed) >= SWEEP {
            self.since_sweep.store(0, Ordering::Relaxed);
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        match self.limiter.check_key(&key.to_owned()) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                Verdict {
                    allowed: true,
                    limit: self.burst,
                    remaining,
                    reset: self.refill * self.burst.saturating_sub(remaining),
                }
            }
            Err(not_yet) => Verdict {
                allowed: false,
                limit: self.burst,
                remaining: 0,
                reset: not_yet.wait_time_from(self.clock.now()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn buckets(
        requests: u32,
        burst: u32,
        keys: usize,
    ) -> (Buckets<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let limit = RateLimit {
            requests,
            period: Duration::from_secs(60),
            burst,
        };
        (Buckets::new(limit, clock.clone(), keys), clock)
    }

    fn allowed(buckets: &Buckets<FakeRelativeClock>, key: &str, calls: usize) -> usize {
        (0..calls).filter(|_| buckets.check(key).allowed).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let (buckets, clock) = buckets(120, 30, KEYS);
        assert_eq!(allowed(&buckets, "a", 200), 30);
        clock.advance(Duration::from_secs(1));
        assert_eq!(allowed(&buckets, "a", 200), 2);
        clock.advance(Duration::from_secs(600));
        assert_eq!(allowed(&buckets, "a", 200), 30);
    }

    #[test]
    fn the_figures_are_those_of_the_headers() {
        let (buckets, clock) = buckets(60, 2, KEYS);
        let check = |allowed: bool, remaining: u32, reset: u64| {
            let expected = Verdict {
                allowed,
                limit: 2,
                remaining,
                reset: Duration::from_secs(reset),
            };
            assert_eq!(buckets.check("a"), expected);
        };
        check(true, 1, 1);
        check(true, 0, 2);
        check(false, 0, 1);
        clock.advance(Duration::from_secs(1));
        check(true, 0, 2);
        clock.advance(Duration::from_secs(60));
        check(true, 1, 1);
    }

    #[test]
    fn keys_do_not_disturb_each_other() {
        let (buckets, _) = buckets(10, 10, KEYS);
        assert_eq!(allowed(&buckets, "a", 20), 10);
        assert_eq!(allowed(&buckets, "b", 20), 10);
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let (buckets, clock) = buckets(60, 2, 10);
        let names: Vec<String> = (0..5000).map(|i| i.to_string()).collect();
        let let_in = names
            .iter()
            .filter(|name| buckets.check(name).allowed)
            .count();
        assert_eq!(
            let_in,
            10 + 2,
            "ten buckets of their own, and one for the crowd"
        );
        assert!(buckets.limiter.len() <= 11);
        assert_eq!(
            allowed(&buckets, "0", 5),
            1,
            "who was known keeps what is left"
        );
        clock.advance(Duration::from_secs(60));
        let let_in = allowed(&buckets, "new", 2000);
        assert!(
            (2..=4).contains(&let_in),
            "the crowd's bucket, then perhaps its own: {let_in}"
        );
        assert!(buckets.limiter.len() <= 11);
        clock.advance(Duration::from_secs(60));
        assert!(
            names
                .iter()
                .take(2000)
                .any(|name| buckets.check(name).allowed)
        );
        assert!(buckets.limiter.len() <= 11);
    }

    #[test]
    fn off_limits_nothing() {
        let rate = Rate::new(RateLimit::OFF);
        assert!((0..10_000).all(|_| rate.check("a").allowed));
        let rate = Rate::new(RateLimit {
            requests: 1_000_000,
            period: Duration::from_secs(1),
            burst: 1_000_000,
        });
        assert!(rate.check("a").allowed);
    }
}
