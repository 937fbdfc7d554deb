//! What is made of measured times: percentiles, rates and ratios. Never measures
//! or prints anything.

use std::time::Duration;

use serde::Serialize;

/// How long single requests took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Half of the requests took no longer, in milliseconds.
    pub(super) p50: f64,
    /// Nine of ten took no longer, in milliseconds.
    pub(super) p90: f64,
    /// 99 of 100 took no longer, in milliseconds; of fewer than 100 the slowest.
    pub(super) p99: f64,
    /// How many requests these are made of.
    pub(super) requests: usize,
}

/// How one server did in one row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Outcome {
    /// One client, with a pause before each request.
    #[serde(flatten)]
    pub(super) paused: Figures,
    /// One client that asks again as soon as it has its answer.
    pub(super) looped: Figures,
    /// Requests answered in a second when several clients ask at once, of a server.
    #[serde(flatten)]
    pub(super) rates: Option<Rates>,
}

/// Requests answered in a second by so many clients, or one server's divided by
/// another's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Two of them.
    #[serde(rename = "per_second_x2")]
    pub(super) of_two: f64,
    /// Eight of them.
    #[serde(rename = "per_second_x8")]
    pub(super) of_eight: f64,
}

/// Requests that were answered in a closed loop, and how long that took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Throughput {
    /// How many.
    pub(super) requests: u32,
    /// From the first question to the last answer, waits in between left out.
    pub(super) time: Duration,
}

impl Throughput {
    /// Adds another slice of the same loop.
    pub(super) fn add(&mut self, slice: Self) {
        self.requests += slice.requests;
        self.time += slice.time;
    }

    /// Returns requests per second, or NaN when no time has passed.
    pub(super) fn per_second(self) -> f64 {
        f64::from(self.requests) / self.time.as_secs_f64()
    }
}

impl Figures {
    /// Returns the figures of the times of single requests, at least one.
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            // Nearest rank: the smallest time that so many percent do not exceed.
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times
                .get(rank - 1)
                .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
        };
        Self {
            p50: at(50),
            p90: at(90),
            p99: at(99),
            requests: times.len(),
        }
    }
}

impl Outcome {
    /// Returns ours divided by another's. Below 1 ours took less time, or answered
    /// fewer requests in a second.
    pub(super) fn ratio(&self, other: &Self) -> Ratio {
        Ratio {
            p50: self.paused.p50 / other.paused.p50,
            p90: self.paused.p90 / other.paused.p90,
            p99: self.paused.p99 / other.paused.p99,
            looped_p50: self.looped.p50 / other.looped.p50,
            rates: self
                .rates
                .zip(other.rates)
                .map(|(ours, other)| ours.by(other)),
        }
    }
}

impl Rates {
    fn by(self, other: Self) -> Self {
        Self {
            of_two: self.of_two / other.of_two,
            of_eight: self.of_eight / other.of_eight,
        }
    }
}

/// Figures of one server divided by those of another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// Of the medians.
    pub(super) p50: f64,
    /// Of the 90th percentiles.
    pub(super) p90: f64,
    /// Of the 99th percentiles.
    pub(super) p99: f64,
    /// Of the medians of the client that makes no pauses.
    pub(super) looped_p50: f64,
    /// Of the requests per second.
    #[serde(flatten)]
    pub(super) rates: Option<Rates>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let check = |millis: &[u64], expected: (f64, f64, f64)| {
            let times = millis.iter().map(|&ms| Duration::from_millis(ms)).collect();
            let figures = Figures::of(times);
            assert_eq!((figures.p50, figures.p90, figures.p99), expected);
            assert_eq!(figures.requests, millis.len());
        };
        check(&[5], (5.0, 5.0, 5.0));
        check(&[3, 1, 2], (2.0, 3.0, 3.0));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        check(&hundred, (50.0, 90.0, 99.0));
    }

    #[test]
    fn rates_are_over_all_slices() {
        let check = |slices: &[(u32, u64)], expected: f64| {
            let mut all = Throughput::default();
            for &(requests, millis) in slices {
                let time = Duration::from_millis(millis);
                all.add(Throughput { requests, time });
            }
            assert_eq!(all.per_second(), expected);
        };
        check(&[(30, 3000)], 10.0);
        check(&[(30, 2000), (10, 500)], 16.0);
        check(&[(0, 1000)], 0.0);
        assert!(Throughput::default().per_second().is_nan());
    }

    #[test]
    fn ratios_are_ours_by_the_other() {
        let figures = |p50, p90| Figures {
            p50,
            p90,
            p99: p90 * 2.0,
            requests: 9,
        };
        let outcome = |p50: f64, p90: f64, looped: f64, of_two: f64| Outcome {
            paused: figures(p50, p90),
            looped: figures(looped, 1.0),
            rates: Some(Rates {
                of_two,
                of_eight: 3.0 * of_two,
            }),
        };
        let ratio = outcome(10.0, 30.0, 5.0, 50.0).ratio(&outcome(20.0, 20.0, 4.0, 40.0));
        let expected = Ratio {
            p50: 0.5,
            p90: 1.5,
            p99: 1.5,
            looped_p50: 1.25,
            rates: Some(Rates {
                of_two: 1.25,
                of_eight: 1.25,
            }),
        };
        assert_eq!(ratio, expected);
    }
}
