//! When the server was last used, for a server that ends when nobody needs it.
//!
//! Only authenticated requests count as use, from the token check to the last
//! byte of the answer. Which of them do is the front door's to say; nothing
//! here knows an address.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shared by all requests; all clones are the same.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    in_use: usize,
    last: Instant,
}

/// The server is used until this is dropped.
#[derive(Debug)]
pub(crate) struct InUse(Activity);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.with(|state| {
            state.in_use -= 1;
            state.last = Instant::now();
        });
    }
}

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            in_use: 0,
            last: Instant::now(),
        })))
    }
}

impl Activity {
    /// A request begins that counts.
    pub(crate) fn begin(&self) -> InUse {
        self.with(|state| state.in_use += 1);
        InUse(self.clone())
    }

    /// How long nobody has used the server; nothing while somebody does.
    fn idle_for(&self) -> Duration {
        self.with(|state| match state.in_use {
            0 => state.last.elapsed(),
            _ => Duration::ZERO,
        })
    }

    /// Waits until nobody has used the server for `limit`; `busy` says whether
    /// it works for somebody all the same. A `warning` before that it says so
    /// in the log, where the limit is longer.
    pub async fn idle(&self, limit: Duration, warning: Duration, busy: impl Fn() -> bool) {
        let mut warned = false;
        loop {
            if busy() {
                self.with(|state| state.last = Instant::now());
            }
            let idle = self.idle_for();
            if idle >= limit {
                return;
            }
            let left = limit - idle;
            let warn = left <= warning && warning < limit;
            if warn && !warned {
                tracing::info!(
                    idle_s = idle.as_secs(),
                    left_s = left.as_secs(),
                    "idle: the server will stop unless somebody calls it (idle_shutdown)"
                );
            }
            warned = warn;
            let next = if warn || warning >= limit {
                left
            } else {
                left - warning
            };
            tokio::time::sleep(next).await;
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // No step in between leaves the two numbers at odds.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn ended_after(activity: &Activity, busy: impl Fn() -> bool) -> Duration {
        let begun = Instant::now();
        activity.idle(30 * MINUTE, MINUTE, busy).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_nobody_calls_is_idle() {
        let activity = Activity::default();
        assert_eq!(ended_after(&activity, || false).await, 30 * MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn each_use_puts_the_end_off() {
        let activity = Activity::default();
        let user = activity.clone();
        tokio::spawn(async move {
            tokio::time::sleep(20 * MINUTE).await;
            drop(user.begin());
            // In the last minute, and over the time at which it would have ended.
            tokio::time::sleep(30 * MINUTE - Duration::from_secs(1)).await;
            let long = user.begin();
            let second = user.begin();
            tokio::time::sleep(40 * MINUTE).await;
            drop(long);
            tokio::time::sleep(10 * MINUTE).await;
            drop(second);
        });
        let expected = 130 * MINUTE - Duration::from_secs(1);
        assert_eq!(ended_after(&activity, || false).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_puts_the_end_off_whoever_asked_for_it() {
        let activity = Activity::default();
        let running = Arc::new(AtomicBool::new(true));
        let end = Arc::clone(&running);
        tokio::spawn(async move {
            tokio::time::sleep(40 * MINUTE).await;
            end.store(false, Ordering::Relaxed);
        });
        let took = ended_after(&activity, || running.load(Ordering::Relaxed)).await;
        assert!(took >= 58 * MINUTE && took <= 70 * MINUTE, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_below_the_warning_is_kept() {
        let activity = Activity::default();
        let begun = Instant::now();
        let limit = Duration::from_millis(50);
        activity.idle(limit, MINUTE, || false).await;
        assert!(begun.elapsed() >= limit && begun.elapsed() < MINUTE);
    }
}
