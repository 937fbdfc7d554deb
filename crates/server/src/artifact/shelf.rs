//! What is kept, and who gives way at a bound. Knows no disk.
//!
//! A key may fill all the room that others leave. When room gets short, it is
//! the key that holds most of what is short which gives up its oldest files,
//! with the new file counted to the key that brings it: so nobody can drive
//! out the files of a key that holds less than its share.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Iter};

use super::{Bounds, Id, Kept};

/// What there is, with its sums.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    kept: HashMap<Id, Kept>,
    owners: HashMap<String, Owned>,
    /// Of all keys together.
    sum: Amount,
}

/// Files and their bytes, those being written included.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

impl Amount {
    /// One file.
    fn file(bytes: u64) -> Self {
        Self { files: 1, bytes }
    }

    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.files -= other.files;
        self.bytes -= other.bytes;
    }
}

/// What a key holds.
#[derive(Debug, Default)]
struct Owned {
    /// Files that can be given up and their bytes, oldest first.
    order: BTreeMap<(u64, Id), u64>,
    sum: Amount,
}

/// A key in the search for who gives way.
struct Holder<'a> {
    order: Iter<'a, (u64, Id), u64>,
    sum: Amount,
}

impl Shelf {
    /// What is kept under that id.
    pub(super) fn get(&self, id: Id) -> Option<&Kept> {
        self.kept.get(&id)
    }

    /// Adds a file for which nothing was reserved.
    pub(super) fn put(&mut self, kept: Kept) {
        self.reserve(&kept.owner, kept.size);
        self.place(kept);
    }

    /// Sets room aside for a file that is being written.
    pub(super) fn reserve(&mut self, owner: &str, size: u64) {
        self.sum.add(Amount::file(size));
        let owned = self.owners.entry(owner.to_owned()).or_default();
        owned.sum.add(Amount::file(size));
    }

    /// Gives reserved room back.
    pub(super) fn unreserve(&mut self, owner: &str, size: u64) {
        self.sum.subtract(Amount::file(size));
        if let Some(owned) = self.owners.get_mut(owner) {
            owned.sum.subtract(Amount::file(size));
            if owned.sum.files == 0 {
                self.owners.remove(owner);
            }
        }
    }

    /// Puts a file into the room that was reserved for it.
    pub(super) fn place(&mut self, kept: Kept) {
        if let Some(owned) = self.owners.get_mut(&kept.owner) {
            owned.order.insert((kept.made, kept.id), kept.size);
        }
        self.kept.insert(kept.id, kept);
    }

    /// Takes a file away.
    pub(super) fn take(&mut self, id: Id) -> Option<Kept> {
        let kept = self.kept.remove(&id)?;
        if let Some(owned) = self.owners.get_mut(&kept.owner) {
            owned.order.remove(&(kept.made, id));
        }
        self.unreserve(&kept.owner, kept.size);
        Some(kept)
    }

    /// Takes files away until `new` of `owner` fits; `None`, and nothing is
    /// taken, where that would be at the cost of who holds less.
    pub(super) fn make_room(
        &mut self,
        bounds: &Bounds,
        owner: &str,
        new: Option<u64>,
    ) -> Option<Vec<Id>> {
        let gone = self.in_the_way(bounds, owner, new)?;
        for id in &gone {
            self.take(*id);
        }
        Some(gone)
    }

    fn in_the_way(&self, bounds: &Bounds, owner: &str, new: Option<u64>) -> Option<Vec<Id>> {
        let new = new.map_or_else(Amount::default, Amount::file);
        let mut sum = self.sum;
        sum.add(new);
        let mut gone = Vec::new();
        if sum.bytes <= bounds.bytes && sum.files <= bounds.count {
            return Some(gone);
        }
        let nothing = BTreeMap::new();
        let mut owners: Vec<Holder<'_>> = Vec::with_capacity(self.owners.len() + 1);
        for (name, owned) in &self.owners {
            owners.push(Holder {
                order: owned.order.iter(),
                sum: owned.sum,
            });
            if name == owner
                && let Some(last) = owners.last_mut()
            {
                last.sum.add(new);
            }
        }
        if !self.owners.contains_key(owner) {
            owners.push(Holder {
                order: nothing.iter(),
                sum: new,
            });
        }
        while sum.bytes > bounds.bytes || sum.files > bounds.count {
            let by_bytes = sum.bytes > bounds.bytes;
            let most = owners.iter_mut().max_by_key(|owner| {
                let held = if by_bytes {
                    owner.sum.bytes
                } else {
                    owner.sum.files as u64
                };
                // Of several that hold the same, the one with the oldest file.
                let oldest = owner.order.clone().next().map(|(age, _)| Reverse(*age));
                (held, oldest)
            })?;
            let (&(_, oldest), &bytes) = most.order.next()?;
            most.sum.subtract(Amount::file(bytes));
            sum.subtract(Amount::file(bytes));
            gone.push(oldest);
        }
        Some(gone)
    }

    /// The files whose time is over, `now` in seconds since 1970.
    pub(super) fn ended(&self, now: u64) -> Vec<Id> {
        let all = self.kept.values();
        all.filter(|kept| kept.expires <= now)
            .map(|kept| kept.id)
            .collect()
    }

    #[cfg(test)]
    pub(super) fn sum(&self) -> Amount {
        self.sum
    }

    /// Checks the sums against the files; nothing may be being written.
    #[cfg(test)]
    pub(super) fn check(&self) -> Vec<String> {
        let mut sum = Amount::default();
        for kept in self.kept.values() {
            sum.add(Amount::file(kept.size));
            assert!(
                self.owners[&kept.owner]
                    .order
                    .contains_key(&(kept.made, kept.id))
            );
        }
        assert_eq!(sum, self.sum);
        let owned = self.owners.values();
        let mut of_owners = Amount::default();
        owned.for_each(|owned| of_owners.add(owned.sum));
        assert_eq!(of_owners, sum);
        let mut ids: Vec<String> = self.kept.keys().map(Id::to_string).collect();
        ids.sort();
        ids
    }
}
