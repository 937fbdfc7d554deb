//! How long to wait before asking the control plane again. Pure arithmetic
//! but for the jitter.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use jiff::Timestamp;

/// The first pause, and the longest (OpenAI's own client: the same).
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// The longest that the other side may ask for.
const ASKED_MOST: Duration = Duration::from_secs(60);

/// Pauses that grow with each failure in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Begins anew after a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns the next pause, at least `asked`.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let pause = FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let mut random = [0];
        // Without randomness there is no jitter, and nothing worse.
        let given = getrandom::fill(&mut random).is_ok();
        let share = if given { f64::from(random[0]) } else { 0.0 };
        let jitter = pause.mul_f64(share / 1024.0);
        (pause + jitter).max(asked.unwrap_or_default())
    }
}

/// Returns how long the other side asks to wait, in seconds or until a date;
/// nothing for what is malformed or past.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(until.duration_since(now)).ok()?
        }
    };
    (!asked.is_zero()).then_some(asked.min(ASKED_MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        let mut backoff = Backoff::default();
        for least in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let least = Duration::from_millis(least);
            let pause = backoff.next(None);
            assert!(pause >= least && pause <= least.mul_f64(1.25), "{pause:?}");
        }
        assert!(backoff.next(Some(Duration::from_secs(60))) >= Duration::from_secs(60));
        backoff.reset();
        assert!(backoff.next(None) < Duration::from_millis(400));
    }

    #[test]
    fn waits_are_read() {
        let now: Timestamp = "2026-11-29T10:00:00Z".parse().expect("a time");
        for (text, expected) in [
            ("1", Some(1)),
            ("600", Some(60)),
            ("0", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 29 Nov 2026 10:00:07 GMT", Some(7)),
            ("Sun, 29 Nov 2026 09:00:00 GMT", None),
            ("Sun, 29 Nov 2026 12:00:00 GMT", Some(60)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a value"));
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
    }
}
