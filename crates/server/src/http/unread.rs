//! Answers that are whole and wait to be read.
//!
//! A run is over long before a slow reader has its answer, and its place among
//! the runs is free for the next: so answers could pile up in memory without
//! end. Here they are counted. Beyond the bound the oldest is cut off, of the
//! key that has most of them waiting, and its memory is free at once, whatever
//! its reader does. A reader that keeps up is never the oldest for long.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

/// Bytes that are handed on at once, as a copy: what still waits can be let go.
pub(super) const PIECE: usize = 64 * 1024;

/// The answer was cut off for want of room.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut off: its reader is slow, and others need the room")]
pub(super) struct CutOff;

/// All answers that wait. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Unread {
    /// Bytes of all together.
    bound: u64,
    pile: Arc<Mutex<Pile>>,
    bytes: IntGauge,
    cut: IntCounter,
}

#[derive(Debug, Default)]
struct Pile {
    bytes: u64,
    count: u64,
    /// Oldest first.
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    key: String,
    size: u64,
    slot: Slot,
}

/// Where an answer waits: with its reader, and where it can be taken from it.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    content: Mutex<Vec<u8>>,
    cut: Mutex<bool>,
    told: Notify,
}

impl Slot {
    /// Waits until the answer is cut off.
    pub(super) async fn cut(&self) {
        // Kept for who asks later, should nobody wait now.
        self.0.told.notified().await;
    }

    fn cut_off(&self) {
        *lock(&self.0.cut) = true;
        drop(std::mem::take(&mut *lock(&self.0.content)));
        self.0.told.notify_one();
    }
}

impl Unread {
    /// At most `bound` bytes, but always the newest answer; `bytes` and `cut`
    /// tell how it stands.
    pub(super) fn new(bound: u64, bytes: IntGauge, cut: IntCounter) -> Self {
        Self {
            bound,
            pile: Arc::default(),
            bytes,
            cut,
        }
    }

    /// Keeps an answer of `key` in `slot` until it is read. `beside` is what
    /// else its reader keeps in memory. One that is handed on at once anyhow
    /// is not counted.
    pub(super) fn hold(&self, key: &str, slot: Slot, mut content: Vec<u8>, beside: u64) -> Held {
        content.shrink_to_fit();
        let left = content.len();
        let counted = left > PIECE || beside > 0;
        let size = left as u64 + beside;
        *lock(&slot.0.content) = content;
        let entry = counted.then(|| self.enter(key, size, &slot));
        Held {
            slot,
            at: 0,
            left,
            entry,
        }
    }

    fn enter(&self, key: &str, size: u64, slot: &Slot) -> Entry {
        let mut pile = lock(&self.pile);
        let cut = pile.make_room(self.bound, key, size);
        pile.count += 1;
        pile.bytes += size;
        let age = pile.count;
        let waiting = Waiting {
            key: key.to_owned(),
            size,
            slot: slot.clone(),
        };
        pile.waiting.insert(age, waiting);
        self.tell(&pile);
        drop(pile);
        for slot in &cut {
            slot.cut_off();
        }
        self.cut.inc_by(cut.len() as u64);
        if !cut.is_empty() {
            tracing::warn!(
                answers = cut.len(),
                "slow readers were cut off: more finished answers wait than max_unread"
            );
        }
        Entry {
            unread: self.clone(),
            age,
        }
    }

    fn tell(&self, pile: &Pile) {
        self.bytes
            .set(i64::try_from(pile.bytes).unwrap_or(i64::MAX));
    }
}

impl Pile {
    /// Takes answers out until `size` more bytes of `key` fit.
    fn make_room(&mut self, bound: u64, key: &str, size: u64) -> Vec<Slot> {
        let mut cut = Vec::new();
        while self.bytes + size > bound {
            let Some(age) = self.gives_way(key, size) else {
                break;
            };
            cut.extend(self.take(age).map(|waiting| waiting.slot));
        }
        cut
    }

    /// The oldest answer of the key that has most waiting.
    fn gives_way(&self, key: &str, size: u64) -> Option<u64> {
        let mut held: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (&age, waiting) in &self.waiting {
            let new = if waiting.key == key { size } else { 0 };
            let (bytes, _oldest) = held.entry(&waiting.key).or_insert((new, age));
            *bytes += waiting.size;
        }
        let most = held
            .into_values()
            .max_by_key(|(bytes, oldest)| (*bytes, std::cmp::Reverse(*oldest)));
        most.map(|(_, oldest)| oldest)
    }

    fn take(&mut self, age: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&age)?;
        self.bytes -= waiting.size;
        Some(waiting)
    }
}

/// An answer's place among those that are counted, until it is dropped.
#[derive(Debug)]
struct Entry {
    unread: Unread,
    age: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut pile = lock(&self.unread.pile);
        // One that was cut off is out already.
        pile.take(self.age);
        self.unread.tell(&pile);
    }
}

/// An answer that waits, as the body that hyper reads.
#[derive(Debug)]
pub(super) struct Held {
    slot: Slot,
    at: usize,
    left: usize,
    entry: Option<Entry>,
}

impl Held {
    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// When it was cut off.
    pub(super) fn next(&mut self) -> Option<Result<Bytes, CutOff>> {
        if self.left == 0 {
            return None;
        }
        if *lock(&self.slot.0.cut) {
            return Some(Err(CutOff));
        }
        let mut content = lock(&self.slot.0.content);
        let length = self.left.min(PIECE);
        let Some(piece) = content.get(self.at..self.at + length) else {
            return Some(Err(CutOff));
        };
        let piece = Bytes::copy_from_slice(piece);
        self.at += length;
        self.left -= length;
        if self.left == 0 {
            // Nobody waits for it any more, however long the rest takes.
            drop(std::mem::take(&mut *content));
            drop(content);
            self.entry = None;
        }
        Some(Ok(piece))
    }

    /// Whether all of it was handed on.
    pub(super) fn is_read(&self) -> bool {
        self.left == 0
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let next = self.next();
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_read()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "unread/tests.rs"]
mod tests;
