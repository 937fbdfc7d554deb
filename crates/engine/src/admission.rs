//! Who may run now, who waits, and who is sent away.
//!
//! [`FairPlaces`] shares the places between owners; this adds the bounds in
//! force, and tells those who are sent away when to come back. Never starts
//! anything itself; it hands out permits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Bounds;
use crate::error::Error;
use crate::owner::Owner;
use crate::places::{FairPlace, FairPlaces, NoPlace};

/// What a run is thought to take before any has ended.
const FIRST_GUESS: Duration = Duration::from_secs(1);
/// The shortest time a client is told to wait.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// How much of the estimate the last run replaces: one part in this many.
const LAST_RUN_SHARE: u32 = 8;

/// How busy the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Runs in progress: at most `capacity`, and one more of an owner who has
    /// no other.
    pub running: usize,
    /// Jobs in the queue.
    pub waiting: usize,
    /// Runs possible at once.
    pub capacity: usize,
}

/// The places to run in and the queue before them.
#[derive(Debug)]
pub(crate) struct Admission {
    places: FairPlaces,
    capacity: usize,
    /// Upper bound of `retry_after`.
    queue_wait: Duration,
    /// A moving average of how long a place is held.
    held: Arc<Mutex<Duration>>,
    /// Told when a place is free again.
    freed: Arc<Notify>,
}

/// A place to run in, given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    _place: FairPlace,
    /// Dropped after the place, which is free then.
    _freed: Freed,
    since: Instant,
    held: Arc<Mutex<Duration>>,
}

/// Tells at its end that a place is free again.
#[derive(Debug)]
struct Freed(Arc<Notify>);

impl Drop for Freed {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = (*held * (LAST_RUN_SHARE - 1) + self.since.elapsed()) / LAST_RUN_SHARE;
    }
}

impl Admission {
    /// Shares the places that the bounds give; `freed` is told when one is free again.
    pub(crate) fn new(bounds: &Bounds, freed: Arc<Notify>) -> Self {
        let capacity = bounds.concurrency.clamp(1, Bounds::CONCURRENCY_MAX);
        Self {
            places: FairPlaces::new(capacity, bounds.queue),
            capacity,
            queue_wait: bounds.queue_wait,
            held: Arc::new(Mutex::new(FIRST_GUESS)),
            freed,
        }
    }

    /// Waits for a place, at most `patience`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the queue is full or the wait too long,
    /// [`Error::Draining`] when the server is shutting down.
    pub(crate) async fn enter(&self, owner: &Owner, patience: Duration) -> Result<Permit, Error> {
        match self.places.enter(owner, patience).await {
            Ok(place) => Ok(Permit {
                _place: place,
                _freed: Freed(Arc::clone(&self.freed)),
                since: Instant::now(),
                held: Arc::clone(&self.held),
            }),
            Err(NoPlace::Closed) => Err(Error::Draining),
            Err(why) => Err(self.overloaded(owner, why == NoPlace::Full)),
        }
    }

    /// Admits nobody any more; those who wait are sent away.
    pub(crate) fn close(&self) {
        self.places.close();
    }

    /// Returns who runs and who waits now.
    pub(crate) fn load(&self) -> Load {
        Load {
            running: self.places.held(),
            waiting: self.places.waiting(),
            capacity: self.capacity,
        }
    }

    /// Returns when a place should be free: all who wait now, and the one who
    /// asks, take the places in turns.
    fn overloaded(&self, owner: &Owner, queue_full: bool) -> Error {
        let load = self.load();
        let held = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = (load.waiting + 1).div_ceil(self.capacity);
        let wait = held.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX));
        Error::Overloaded {
            running: load.running,
            waiting: load.waiting,
            own_waiting: self.places.waiting_of(owner),
            queue_full,
            retry_after: wait.clamp(RETRY_MIN, self.queue_wait.max(RETRY_MIN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Admission, Permit};
    use crate::config::Bounds;
    use crate::error::Error;
    use crate::owner::Owner;

    const WAIT: Duration = Duration::from_secs(30);

    fn admission(concurrency: usize, queue: usize) -> Arc<Admission> {
        Arc::new(Admission::new(
            &Bounds {
                concurrency,
                queue,
                queue_wait: WAIT,
                ..Bounds::default()
            },
            Arc::default(),
        ))
    }

    fn enter(admission: &Arc<Admission>) -> tokio::task::JoinHandle<Result<Permit, Error>> {
        let admission = Arc::clone(admission);
        tokio::spawn(async move { admission.enter(&Owner::default(), WAIT).await })
    }

    fn check(admission: &Admission, running: usize, waiting: usize) {
        let load = admission.load();
        assert_eq!((load.running, load.waiting), (running, waiting));
    }

    #[test]
    fn places_are_at_least_one_and_bounded() {
        for (asked, expected) in [(0, 1), (7, 7), (512, 512), (1024, 512)] {
            assert_eq!(admission(asked, 0).load().capacity, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_sends_away_at_once() {
        let admission = admission(2, 1);
        let _held = (
            admission.enter(&Owner::default(), WAIT).await.unwrap(),
            admission.enter(&Owner::default(), WAIT).await.unwrap(),
        );
        let waiting = enter(&admission);
        tokio::task::yield_now().await;
        let before = tokio::time::Instant::now();
        let error = admission.enter(&Owner::default(), WAIT).await.unwrap_err();
        assert_eq!(before.elapsed(), Duration::ZERO);
        let Error::Overloaded {
            running,
            waiting: queued,
            own_waiting,
            queue_full,
            retry_after,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((running, queued, own_waiting), (2, 1, 1));
        assert!(queue_full);
        assert!(retry_after >= Duration::from_secs(1) && retry_after <= Duration::from_secs(30));
        waiting.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_ends_in_overload() {
        let admission = admission(1, 8);
        let _held = admission.enter(&Owner::default(), WAIT).await.unwrap();
        let before = tokio::time::Instant::now();
        let error = admission.enter(&Owner::default(), WAIT).await.unwrap_err();
        assert_eq!(before.elapsed(), Duration::from_secs(30));
        assert!(matches!(error, Error::Overloaded { .. }), "{error}");
        check(&admission, 1, 0);

        let before = tokio::time::Instant::now();
        for patience in [Duration::from_secs(3), Duration::ZERO] {
            let error = admission
                .enter(&Owner::default(), patience)
                .await
                .unwrap_err();
            assert!(matches!(error, Error::Overloaded { .. }), "{error}");
        }
        assert_eq!(before.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_estimate_follows_how_long_runs_take() {
        let admission = admission(1, 0);
        for _ in 0..60 {
            let held = admission.enter(&Owner::default(), WAIT).await.unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
            drop(held);
        }
        let _held = admission.enter(&Owner::default(), WAIT).await.unwrap();
        let Error::Overloaded { retry_after, .. } =
            admission.enter(&Owner::default(), WAIT).await.unwrap_err()
        else {
            panic!("not overloaded");
        };
        assert!(retry_after > Duration::from_secs(8) && retry_after <= Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn draining_sends_everybody_away_but_the_running() {
        let admission = admission(1, 8);
        let held = admission.enter(&Owner::default(), WAIT).await.unwrap();
        let waiting = enter(&admission);
        tokio::task::yield_now().await;
        admission.close();
        assert!(matches!(waiting.await.unwrap(), Err(Error::Draining)));
        assert!(matches!(
            admission.enter(&Owner::default(), WAIT).await,
            Err(Error::Draining)
        ));
        check(&admission, 1, 0);
        drop(held);
        check(&admission, 0, 0);
    }
}
