//! The open connections, bounded, and which of them makes way for a new one.
//!
//! At the bound a new connection is let in all the same, so that nobody can
//! shut the door by holding connections open. While those that showed no
//! accepted token are more than a quarter, the one of them that was quiet
//! longest is closed; else the quietest of the caller who has most connections.
//! So neither strangers nor one caller can keep newcomers from showing a token.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::Owner;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::activity::InUse;

/// The share of the bound that connections without a token have for themselves:
/// one part in this many.
const STRANGERS_PART: usize = 4;

/// All open connections. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    state: Arc<Mutex<State>>,
    bound: usize,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<u64, Entry>,
    count: u64,
}

#[derive(Debug)]
struct Entry {
    /// Whose token was accepted on it.
    owner: Option<Owner>,
    /// When it last did something: it was opened, or a request began or ended.
    active: Instant,
    /// Requests being answered.
    busy: usize,
    /// Whether a whole header has come.
    has_called: bool,
    cut: Arc<Notify>,
}

/// The place of one connection, given back on drop.
#[derive(Debug)]
pub(super) struct Seat {
    connections: Connections,
    number: u64,
    cut: Arc<Notify>,
}

/// A request in progress on a connection, until its answer has been sent.
#[derive(Debug)]
pub(super) struct Busy {
    seat: Arc<Seat>,
    /// Keeps the server from counting as idle, where the request is use of it.
    in_use: OnceLock<InUse>,
}

impl Busy {
    /// Notes whose token was accepted on the connection.
    pub(super) fn belongs_to(&self, owner: &Owner) {
        self.seat.change(|entry| entry.owner = Some(owner.clone()));
    }

    /// Forgets whose token was accepted on the connection.
    pub(super) fn belongs_to_nobody(&self) {
        self.seat.change(|entry| entry.owner = None);
    }

    /// Counts the request as use of the server until it ends.
    pub(super) fn count(&self, in_use: InUse) {
        self.in_use.get_or_init(|| in_use);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // One that made way is out already.
        drop(self.connections.lock().open.remove(&self.number));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.seat.change(|entry| {
            entry.busy -= 1;
            entry.active = Instant::now();
        });
    }
}

impl Connections {
    /// Lets at most `bound` connections be open, at least one.
    pub(super) fn new(bound: usize) -> Self {
        Self {
            state: Arc::default(),
            bound: bound.max(1),
        }
    }

    /// Enters a new connection. At the bound another one is told to end.
    pub(super) fn enter(&self) -> Arc<Seat> {
        let cut = Arc::new(Notify::new());
        let mut state = self.lock();
        let gone = if state.open.len() >= self.bound {
            state
                .makes_way(self.bound)
                .and_then(|number| state.open.remove(&number))
        } else {
            None
        };
        state.count += 1;
        let number = state.count;
        state.open.insert(
            number,
            Entry {
                owner: None,
                active: Instant::now(),
                busy: 0,
                has_called: false,
                cut: Arc::clone(&cut),
            },
        );
        drop(state);
        if let Some(entry) = gone {
            entry.cut.notify_one();
        }
        Arc::new(Seat {
            connections: self.clone(),
            number,
            cut,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The map is whole between any two statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the connection that makes way for a new one.
    fn makes_way(&self, bound: usize) -> Option<u64> {
        let strangers = || self.open.iter().filter(|(_, one)| one.owner.is_none());
        let quietest = strangers().min_by_key(|(number, one)| (one.active, **number));
        let quietest = quietest.map(|(number, _)| *number);
        if strangers().count() > bound / STRANGERS_PART {
            return quietest;
        }
        self.quietest_of_most().or(quietest)
    }

    /// Returns the quietest connection of the caller who has most of them.
    fn quietest_of_most(&self) -> Option<u64> {
        let mut held: HashMap<&Owner, usize> = HashMap::new();
        for owner in self.open.values().filter_map(|one| one.owner.as_ref()) {
            *held.entry(owner).or_default() += 1;
        }
        let most = held.values().copied().max()?;
        let crowd = self.open.iter().filter(|(_, one)| {
            let count = one.owner.as_ref().and_then(|owner| held.get(owner));
            count == Some(&most)
        });
        let quietest = crowd.min_by_key(|(number, one)| (one.busy > 0, one.active, **number));
        quietest.map(|(number, _)| *number)
    }
}

impl Seat {
    /// Notes that a request began; it lasts until the guard is dropped.
    pub(super) fn begin(self: Arc<Self>) -> Busy {
        self.change(|entry| {
            entry.busy += 1;
            entry.has_called = true;
            entry.active = Instant::now();
        });
        Busy {
            seat: self,
            in_use: OnceLock::new(),
        }
    }

    /// Says whether a whole header has come on it.
    pub(super) fn has_called(&self) -> bool {
        let state = self.connections.lock();
        state
            .open
            .get(&self.number)
            .is_some_and(|one| one.has_called)
    }

    /// Waits until it has to make way.
    pub(super) async fn cut(&self) {
        self.cut.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.connections.lock().open.get_mut(&self.number) {
            change(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Opens a connection for each letter, a second apart, and says which of
    /// them make way for the `new` ones, which show no token. A small letter
    /// showed a token of that owner, a capital one is in a request as well, `.`
    /// shows none and `!` none in a request.
    async fn make_way(open: &str, new: usize) -> String {
        let connections = Connections::new(open.len());
        let mut seats = Vec::new();
        let mut requests = Vec::new();
        for letter in open.chars() {
            let seat = connections.enter();
            let request = Arc::clone(&seat).begin();
            if letter.is_alphabetic() {
                request.belongs_to(&Owner::new(&letter.to_lowercase().to_string()));
            }
            if letter.is_uppercase() || letter == '!' {
                requests.push(request);
            }
            seats.push(seat);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let entered: Vec<_> = (0..new).map(|_| connections.enter()).collect();
        assert_eq!(connections.lock().open.len(), open.len());
        let mut gone = String::new();
        for (at, seat) in seats.iter().enumerate() {
            if tokio::time::timeout(Duration::ZERO, seat.cut())
                .await
                .is_ok()
            {
                gone.push_str(&at.to_string());
            }
        }
        drop(entered);
        gone
    }

    #[tokio::test(start_paused = true)]
    async fn who_makes_way_for_a_new_connection() {
        for (open, new, expected) in [
            // Strangers alone, and strangers who are more than a quarter.
            ("...", 1, "0"),
            ("...", 2, "01"),
            ("a..", 1, "1"),
            ("a!.", 1, "1"),
            ("abc.", 1, "0"),
            // One caller who has nearly all leaves room for newcomers.
            ("aaaaaaa.", 1, "0"),
            ("aaaaaaa.", 2, "01"),
            ("aaaaaaa.", 3, "017"),
            ("aaaaaaaa", 1, "0"),
            // All have shown a token: of the one who has most.
            ("aab", 1, "0"),
            ("baa", 1, "1"),
            ("Aab", 1, "1"),
            ("AAb", 1, "0"),
        ] {
            assert_eq!(make_way(open, new).await, expected, "{open} {new}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_makes_a_connection_young_again() {
        let connections = Connections::new(2);
        let (first, second) = (connections.enter(), connections.enter());
        assert!(!first.has_called());
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(Arc::clone(&first).begin());
        assert!(first.has_called());
        let _third = connections.enter();
        let cut = tokio::time::timeout(Duration::ZERO, second.cut()).await;
        assert!(cut.is_ok(), "the second was the quieter one");
        drop((first, second));
        assert_eq!(connections.lock().open.len(), 1);
    }
}
