//! Whose a session of the older protocol is: rmcp knows sessions by their ids
//! alone, and an id that somebody else learnt must open nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::Owner;

/// Sessions of one owner at once; each costs some 50 KiB.
pub(crate) const EACH: usize = 64;

/// The sessions that are open, with their owners.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    owners: Mutex<HashMap<String, Owner>>,
}

impl Sessions {
    /// Notes whose a session is.
    pub(super) fn open(&self, id: &str, owner: &Owner) {
        self.lock().insert(id.to_owned(), owner.clone());
    }

    /// Says whether a session is this owner's.
    pub(super) fn is_of(&self, id: &str, owner: &Owner) -> bool {
        self.lock().get(id) == Some(owner)
    }

    /// Says whether an owner may open one more. `is_live` tells which sessions
    /// are still there; the others are forgotten.
    pub(super) fn has_room(&self, owner: &Owner, is_live: impl Fn(&str) -> bool) -> bool {
        let mut owners = self.lock();
        let count =
            |owners: &HashMap<String, Owner>| owners.values().filter(|one| *one == owner).count();
        if count(&owners) >= EACH {
            owners.retain(|id, _| is_live(id));
        }
        count(&owners) < EACH
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_its_owner_s_alone() {
        let sessions = Sessions::default();
        let (a, b) = (Owner::new("a"), Owner::new("b"));
        sessions.open("1", &a);
        assert!(sessions.is_of("1", &a));
        assert!(!sessions.is_of("1", &b) && !sessions.is_of("2", &a));
    }

    #[test]
    fn an_owner_has_so_many_and_the_dead_are_forgotten() {
        let sessions = Sessions::default();
        let (a, b) = (Owner::new("a"), Owner::new("b"));
        for number in 0..EACH {
            assert!(sessions.has_room(&a, |_| true));
            sessions.open(&number.to_string(), &a);
        }
        assert!(!sessions.has_room(&a, |_| true));
        assert!(sessions.has_room(&b, |_| true));
        assert!(sessions.has_room(&a, |id| id != "7"));
        assert!(!sessions.is_of("7", &a));
    }
}
