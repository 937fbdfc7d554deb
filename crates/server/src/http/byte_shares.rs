//! Bytes of memory that callers share: those of the requests in hand.
//!
//! A caller may take bytes only while it then holds no more than stay free, so
//! one caller alone can never hold more than half. Never waits: who finds no
//! room is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::Owner;

/// A bound for bytes, shared by owner. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct ByteShares {
    bound: u64,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    total: u64,
    by_owner: HashMap<Owner, u64>,
}

/// Bytes that an owner holds, given back on drop.
#[derive(Debug)]
pub(super) struct ByteShare {
    shares: ByteShares,
    owner: Owner,
    bytes: u64,
}

impl Drop for ByteShare {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

impl ByteShare {
    /// Takes `more` bytes; says whether there was room for them.
    pub(super) fn grow(&mut self, more: u64) -> bool {
        let taken = self.shares.take(&self.owner, more);
        let Some(mut taken) = taken else { return false };
        self.bytes += taken.bytes;
        // They are this share's from here on.
        taken.bytes = 0;
        true
    }

    /// Gives back all but `bytes`.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        let mut held = self.shares.lock();
        held.total -= less;
        if let Some(own) = held.by_owner.get_mut(&self.owner) {
            *own -= less;
            if *own == 0 {
                held.by_owner.remove(&self.owner);
            }
        }
    }
}

impl ByteShares {
    /// Makes shares of `bound` bytes.
    pub(super) fn new(bound: u64) -> Self {
        Self {
            bound,
            held: Arc::default(),
        }
    }

    /// Takes bytes for an owner; `None` when it would hold more than stay free.
    pub(super) fn take(&self, owner: &Owner, bytes: u64) -> Option<ByteShare> {
        let mut held = self.lock();
        let own = held.by_owner.get(owner).copied().unwrap_or(0);
        let free = self.bound.checked_sub(held.total.checked_add(bytes)?)?;
        if own.checked_add(bytes)? > free {
            return None;
        }
        held.total += bytes;
        if bytes > 0 {
            held.by_owner.insert(owner.clone(), own + bytes);
        }
        drop(held);
        Some(ByteShare {
            shares: self.clone(),
            owner: owner.clone(),
            bytes,
        })
    }

    /// Returns how many bytes are held.
    pub(super) fn held(&self) -> u64 {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // The sums are whole between any two statements, whoever panicked.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many shares of ten bytes each letter's owner gets, of a hundred.
    fn shares(asking: &str) -> String {
        let shares = ByteShares::new(100);
        let mut held = Vec::new();
        let mut got = String::new();
        for name in asking.chars() {
            if let Some(share) = shares.take(&Owner::new(&name.to_string()), 10) {
                held.push(share);
                got.push(name);
            }
        }
        let total = shares.held();
        assert_eq!(total, 10 * held.len() as u64);
        drop(held);
        assert_eq!(shares.held(), 0);
        assert!(shares.lock().by_owner.is_empty());
        got
    }

    #[test]
    fn there_is_room_for_who_holds_none() {
        for (asking, expected) in [
            ("aaaaaaaaaa", "aaaaa"),
            ("aaaaaaaaaab", "aaaaab"),
            ("aaaaaaabbbb", "aaaaabb"),
            ("aaaaabbbcccd", "aaaaabbcd"),
            ("abcdefghij", "abcdefghi"),
        ] {
            assert_eq!(shares(asking), expected, "{asking}");
        }
    }

    #[test]
    fn what_is_not_needed_is_given_back() {
        let shares = ByteShares::new(100);
        let owner = Owner::default();
        let mut share = shares.take(&owner, 50).expect("half of all");
        assert!(shares.take(&owner, 1).is_none());
        assert!(!share.grow(1));
        share.shrink(4);
        assert!(share.grow(1));
        share.shrink(20);
        assert_eq!(shares.held(), 5);
        assert!(shares.take(&owner, 40).is_some());
        assert!(shares.take(&owner, u64::MAX).is_none());
        drop(share);
        assert_eq!(shares.held(), 0);
    }
}
