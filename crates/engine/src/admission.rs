//! Who may run now, who waits, and who is sent away.
//!
//! First come, first served: a bounded number run, a bounded number wait, for
//! a bounded time. Never starts anything itself; it hands out permits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Bounds;
use crate::engine::Load;
use crate::error::Error;

/// What a run is thought to take before any has ended.
const FIRST_GUESS: Duration = Duration::from_secs(1);
/// The shortest time a client is told to wait.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// How much of the estimate the last run replaces: one part in this many.
const LAST_RUN_SHARE: u32 = 8;

/// The places to run in and the queue before them.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    capacity: usize,
    waiting: AtomicUsize,
    queue: usize,
    /// The longest wait that anybody may be told of.
    queue_wait: Duration,
    /// A moving average of how long a place is held.
    held: Arc<Mutex<Duration>>,
}

/// A place to run in, given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
    since: Instant,
    held: Arc<Mutex<Duration>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = (*held * (LAST_RUN_SHARE - 1) + self.since.elapsed()) / LAST_RUN_SHARE;
    }
}

/// A position in the queue, given up on drop.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Admission {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let capacity = bounds.concurrency.clamp(1, Bounds::CONCURRENCY_MAX);
        Self {
            places: Arc::new(Semaphore::new(capacity)),
            capacity,
            waiting: AtomicUsize::new(0),
            queue: bounds.queue,
            queue_wait: bounds.queue_wait,
            held: Arc::new(Mutex::new(FIRST_GUESS)),
        }
    }

    /// Waits for a place, at most `patience`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the queue is full or the wait too long,
    /// [`Error::Draining`] when the server is shutting down.
    pub(crate) async fn enter(&self, patience: Duration) -> Result<Permit, Error> {
        if self.places.is_closed() {
            return Err(Error::Draining);
        }
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(self.permit(place));
        }
        if patience.is_zero() {
            return Err(self.overloaded());
        }
        let _waiting = self.wait()?;
        let place = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(patience, place).await {
            Ok(Ok(place)) => Ok(self.permit(place)),
            Ok(Err(_closed)) => Err(Error::Draining),
            Err(_late) => Err(self.overloaded()),
        }
    }

    /// Admits nobody any more; those who wait are sent away.
    pub(crate) fn close(&self) {
        self.places.close();
    }

    /// Who runs and who waits now.
    pub(crate) fn load(&self) -> Load {
        Load {
            running: self.capacity - self.places.available_permits().min(self.capacity),
            waiting: self.waiting.load(Ordering::Acquire),
            capacity: self.capacity,
        }
    }

    fn wait(&self) -> Result<Waiting<'_>, Error> {
        let room = |waiting: usize| (waiting < self.queue).then_some(waiting + 1);
        match self
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
        {
            Ok(_) => Ok(Waiting(&self.waiting)),
            Err(_) => Err(self.overloaded()),
        }
    }

    fn permit(&self, place: OwnedSemaphorePermit) -> Permit {
        Permit {
            _place: place,
            since: Instant::now(),
            held: Arc::clone(&self.held),
        }
    }

    /// Says when a place should be free: all who wait now, and the one who asks,
    /// take the places in turns.
    fn overloaded(&self) -> Error {
        let load = self.load();
        let held = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = (load.waiting + 1).div_ceil(self.capacity);
        let wait = held.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX));
        Error::Overloaded {
            running: load.running,
            waiting: load.waiting,
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

    const WAIT: Duration = Duration::from_secs(30);

    fn admission(concurrency: usize, queue: usize) -> Arc<Admission> {
        Arc::new(Admission::new(&Bounds {
            concurrency,
            queue,
            queue_wait: WAIT,
            ..Bounds::default()
        }))
    }

    fn enter(admission: &Arc<Admission>) -> tokio::task::JoinHandle<Result<Permit, Error>> {
        let admission = Arc::clone(admission);
        tokio::spawn(async move { admission.enter(WAIT).await })
    }

    fn check(admission: &Admission, running: usize, waiting: usize) {
        let load = admission.load();
        assert_eq!((load.running, load.waiting), (running, waiting));
    }

    #[test]
    fn there_are_fewer_places_than_the_sandbox_has_slots() {
        for (asked, expected) in [(0, 1), (7, 7), (512, 512), (1024, 512)] {
            assert_eq!(admission(asked, 0).load().capacity, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_order_of_arrival() {
        let admission = admission(1, 8);
        let first = admission.enter(WAIT).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(enter(&admission));
            tokio::task::yield_now().await;
        }
        check(&admission, 1, 3);
        let mut held = first;
        for (turn, next) in waiting.into_iter().enumerate() {
            drop(held);
            held = next.await.unwrap().unwrap();
            check(&admission, 1, 2 - turn);
        }
        drop(held);
        check(&admission, 0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_sends_away_at_once() {
        let admission = admission(2, 1);
        let _held = (
            admission.enter(WAIT).await.unwrap(),
            admission.enter(WAIT).await.unwrap(),
        );
        let waiting = enter(&admission);
        tokio::task::yield_now().await;
        let before = tokio::time::Instant::now();
        let error = admission.enter(WAIT).await.unwrap_err();
        assert_eq!(before.elapsed(), Duration::ZERO);
        let Error::Overloaded {
            running,
            waiting: queued,
            retry_after,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((running, queued), (2, 1));
        assert!(retry_after >= Duration::from_secs(1) && retry_after <= Duration::from_secs(30));
        waiting.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_ends_in_overload() {
        let admission = admission(1, 8);
        let _held = admission.enter(WAIT).await.unwrap();
        let before = tokio::time::Instant::now();
        let error = admission.enter(WAIT).await.unwrap_err();
        assert_eq!(before.elapsed(), Duration::from_secs(30));
        assert!(matches!(error, Error::Overloaded { .. }), "{error}");
        check(&admission, 1, 0);

        let before = tokio::time::Instant::now();
        for patience in [Duration::from_secs(3), Duration::ZERO] {
            let error = admission.enter(patience).await.unwrap_err();
            assert!(matches!(error, Error::Overloaded { .. }), "{error}");
        }
        assert_eq!(before.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_estimate_follows_how_long_runs_take() {
        let admission = admission(1, 0);
        for _ in 0..60 {
            let held = admission.enter(WAIT).await.unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
            drop(held);
        }
        let _held = admission.enter(WAIT).await.unwrap();
        let Error::Overloaded { retry_after, .. } = admission.enter(WAIT).await.unwrap_err() else {
            panic!("not overloaded");
        };
        assert!(retry_after > Duration::from_secs(8) && retry_after <= Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_queue() {
        let admission = admission(1, 1);
        let held = admission.enter(WAIT).await.unwrap();
        let waiting = enter(&admission);
        tokio::task::yield_now().await;
        check(&admission, 1, 1);
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        check(&admission, 1, 0);
        drop(held);
        admission.enter(WAIT).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn draining_sends_everybody_away_but_the_running() {
        let admission = admission(1, 8);
        let held = admission.enter(WAIT).await.unwrap();
        let waiting = enter(&admission);
        tokio::task::yield_now().await;
        admission.close();
        assert!(matches!(waiting.await.unwrap(), Err(Error::Draining)));
        assert!(matches!(admission.enter(WAIT).await, Err(Error::Draining)));
        check(&admission, 1, 0);
        drop(held);
        check(&admission, 0, 0);
    }
}
