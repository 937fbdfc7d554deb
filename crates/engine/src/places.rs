//! Places that owners share: who gets a free one, who waits, who is refused.
//!
//! A free place goes to the waiting owner who holds fewest, and among those to
//! the one whose last place is longest ago, so nobody waits behind all that
//! others have asked for. One place more than the capacity is kept for owners
//! who hold none. A full queue refuses the owner who has most waiting. Never
//! starts anything itself; it hands out places.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::owner::Owner;

/// Places beyond the capacity, for owners who hold none.
const KEPT: usize = 1;

/// Places shared by owner. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct FairPlaces {
    state: Arc<Mutex<State>>,
}

/// A place, given back on drop.
#[derive(Debug)]
pub struct FairPlace {
    places: FairPlaces,
    owner: Owner,
}

/// Why there was no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The queue is full, and with one more waiting nobody would have more
    /// than this owner.
    #[error("the queue is full")]
    Full,
    /// None was free in time.
    #[error("no place was free in time")]
    Late,
    /// No places are given any more.
    #[error("no more places are given")]
    Closed,
}

#[derive(Debug)]
struct State {
    capacity: usize,
    queue: usize,
    held: HashMap<Owner, usize>,
    total: usize,
    /// When each owner who holds a place or waits for one got the last, as the
    /// number of that grant.
    last_grants: HashMap<Owner, u64>,
    grants: u64,
    /// Those who wait, by arrival.
    waiting: BTreeMap<u64, Waiter>,
    arrivals: u64,
    closed: bool,
}

#[derive(Debug)]
struct Waiter {
    owner: Owner,
    answer: oneshot::Sender<Result<FairPlace, NoPlace>>,
}

/// A position in the queue, given up on drop.
struct Position<'a> {
    places: &'a FairPlaces,
    arrival: u64,
}

impl Drop for Position<'_> {
    fn drop(&mut self) {
        // One that was answered is out already. Dropped without the lock: the
        // end of its sender wakes a task.
        let waiter = self.places.lock().waiting.remove(&self.arrival);
        drop(waiter);
    }
}

impl Drop for FairPlace {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.give_back(&self.owner);
        let granted = state.grant();
        drop(state);
        self.places.send(granted);
    }
}

impl FairPlaces {
    /// Makes `capacity` places (at least one) and one more for owners who hold
    /// none, with room for `queue` who wait.
    #[must_use]
    pub fn new(capacity: usize, queue: usize) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                capacity: capacity.max(1),
                queue,
                held: HashMap::new(),
                total: 0,
                last_grants: HashMap::new(),
                grants: 0,
                waiting: BTreeMap::new(),
                arrivals: 0,
                closed: false,
            })),
        }
    }

    /// Waits for a place, at most `patience`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`NoPlace`] when the queue is full, the wait too long, or the places
    /// are closed.
    pub async fn enter(&self, owner: &Owner, patience: Duration) -> Result<FairPlace, NoPlace> {
        let (answer, mut answered) = oneshot::channel();
        let arrival = {
            let mut state = self.lock();
            if state.closed {
                return Err(NoPlace::Closed);
            }
            if state.fits(owner) {
                state.take(owner);
                drop(state);
                return Ok(self.place(owner));
            }
            if patience.is_zero() {
                return Err(NoPlace::Late);
            }
            let gives_way = state.make_room(owner)?;
            state.arrivals += 1;
            let arrival = state.arrivals;
            let waiter = Waiter {
                owner: owner.clone(),
                answer,
            };
            state.waiting.insert(arrival, waiter);
            drop(state);
            if let Some(waiter) = gives_way {
                // One who has given up by now needs no answer.
                drop(waiter.answer.send(Err(NoPlace::Full)));
            }
            arrival
        };
        let _position = Position {
            places: self,
            arrival,
        };
        match tokio::time::timeout(patience, &mut answered).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(_dropped)) => Err(NoPlace::Closed),
            // Granted in the very moment in which the time was over.
            Err(_late) => answered.try_recv().unwrap_or(Err(NoPlace::Late)),
        }
    }

    /// Gives no more places; those who wait are refused.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waiter in waiting.into_values() {
            drop(waiter.answer.send(Err(NoPlace::Closed)));
        }
    }

    /// Returns how many places are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().total
    }

    /// Returns how many wait for a place.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns how many of those who wait are this owner's.
    #[must_use]
    pub fn waiting_of(&self, owner: &Owner) -> usize {
        self.lock().waiting_of(owner)
    }

    fn place(&self, owner: &Owner) -> FairPlace {
        FairPlace {
            places: self.clone(),
            owner: owner.clone(),
        }
    }

    /// Hands each place to its waiter. Must be called without the lock: where
    /// the waiter is gone, dropping the place takes it again.
    fn send(&self, granted: Vec<Waiter>) {
        for waiter in granted {
            let place = self.place(&waiter.owner);
            drop(waiter.answer.send(Ok(place)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn held_by(&self, owner: &Owner) -> usize {
        self.held.get(owner).copied().unwrap_or(0)
    }

    /// Whether the owner could have a place now.
    fn fits(&self, owner: &Owner) -> bool {
        let kept = if self.held_by(owner) == 0 { KEPT } else { 0 };
        self.total < self.capacity + kept
    }

    fn take(&mut self, owner: &Owner) {
        *self.held.entry(owner.clone()).or_default() += 1;
        self.total += 1;
        self.grants += 1;
        self.last_grants.insert(owner.clone(), self.grants);
    }

    fn give_back(&mut self, owner: &Owner) {
        self.total -= 1;
        if let Some(held) = self.held.get_mut(owner) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(owner);
            }
        }
    }

    /// Takes places for those who wait, while there are any that fit, and
    /// returns whom to tell.
    fn grant(&mut self) -> Vec<Waiter> {
        let mut granted = Vec::new();
        loop {
            let fitting = self.waiting.iter().filter(|(_, one)| self.fits(&one.owner));
            let turn = |owner: &Owner| {
                let last = self.last_grants.get(owner).copied().unwrap_or(0);
                (self.held_by(owner), last)
            };
            let next = fitting.min_by_key(|(arrival, one)| (turn(&one.owner), **arrival));
            let Some(arrival) = next.map(|(arrival, _)| *arrival) else {
                self.forget_idle();
                return granted;
            };
            let Some(waiter) = self.waiting.remove(&arrival) else {
                return granted;
            };
            self.take(&waiter.owner);
            granted.push(waiter);
        }
    }

    /// Forgets the grants of owners who neither hold a place nor wait for one.
    fn forget_idle(&mut self) {
        let waiting: HashSet<&Owner> = self.waiting.values().map(|one| &one.owner).collect();
        let held = &self.held;
        self.last_grants
            .retain(|owner, _| held.contains_key(owner) || waiting.contains(owner));
    }

    fn waiting_of(&self, owner: &Owner) -> usize {
        let waiting = self.waiting.values();
        waiting.filter(|one| one.owner == *owner).count()
    }

    /// Makes room in the queue for one more of `owner`. Returns who gives way:
    /// the last that came, of the owner who has most waiting.
    fn make_room(&mut self, owner: &Owner) -> Result<Option<Waiter>, NoPlace> {
        if self.waiting.len() < self.queue {
            return Ok(None);
        }
        let mut counts: HashMap<&Owner, usize> = HashMap::new();
        for one in self.waiting.values() {
            *counts.entry(&one.owner).or_default() += 1;
        }
        let own = counts.get(owner).copied().unwrap_or(0) + 1;
        let most = counts.values().copied().max().unwrap_or(0);
        if most <= own {
            return Err(NoPlace::Full);
        }
        let last = self.waiting.iter().rev();
        let last = last
            .filter(|(_, one)| counts.get(&one.owner) == Some(&most))
            .map(|(arrival, _)| *arrival)
            .next();
        Ok(last.and_then(|arrival| self.waiting.remove(&arrival)))
    }
}

#[cfg(test)]
mod tests;
