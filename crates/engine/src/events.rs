//! What a run tells while it goes on: a bounded buffer between the run, which
//! must not wait for long, and a reader, which may be slow, stalled or gone.
//!
//! A full buffer holds the run up for a bounded time in all; from then on what
//! does not fit is left out, counted, and told at the place where it is
//! missing. Never cancels a run: that is done by dropping the call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::outcome::{Isolation, RichResult};

/// Most bytes of output in one event: what a reader is sent at once.
const EVENT_BYTES: usize = 16 * 1024;
/// What an event counts besides its bytes, for the memory it takes itself.
const EVENT_COST: usize = 128;
/// What a dead program's pipes and the hands of their readers may still hold
/// (a pipe: at most 1 MiB), which is taken without waiting for the reader.
const LEFTOVER: usize = 2 * (1024 + 64) * 1024;

/// One of a program's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The word used on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What is known of a run when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The job's id.
    pub id: String,
    /// Canonical name of the language.
    pub language: String,
    /// Version of the interpreter or compiler.
    pub version: String,
    /// The isolation that holds.
    pub isolation: Isolation,
}

/// Something that a run tells before its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The box is made; the first of all events.
    Started(Started),
    /// A part of a stream, as it was written. May end within a character.
    Output {
        /// Which stream.
        stream: Stream,
        /// The bytes, never none.
        bytes: Vec<u8>,
    },
    /// Something was shown, in each form that there is of it.
    Result(Arc<RichResult>),
    /// The reader was too slow: here bytes of a stream are missing.
    Dropped {
        /// Which stream.
        stream: Stream,
        /// How many bytes.
        bytes: u64,
    },
    /// So many bytes were told as one run may tell; no output follows.
    Truncated {
        /// That bound, in bytes.
        limit: u64,
    },
}

/// How much of a run may be told, and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventBounds {
    /// Bytes of output that wait for the reader.
    pub buffer: usize,
    /// Bytes of output in all.
    pub total: u64,
    /// How long the run may be held up for the reader, all waits together.
    pub wait: Duration,
}

/// Makes both ends of the buffer.
#[must_use]
pub fn events(bounds: EventBounds) -> (Sink, Events) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            shown: VecDeque::new(),
            in_hand: 0,
            size: 0,
            capacity: bounds.buffer,
            limit: bounds.total,
            left: bounds.total,
            wait: bounds.wait,
            missing: [0; 2],
            overflowed: false,
            truncated: false,
            draining: false,
            ended: false,
            closed: false,
        }),
        filled: Notify::new(),
        emptied: Notify::new(),
    });
    let sink = Sink(Arc::new(Writer(Arc::clone(&shared))));
    (sink, Events(shared))
}

/// The run's end of the buffer. Clones are one end; it ends with the last.
#[derive(Debug, Clone)]
pub struct Sink(Arc<Writer>);

#[derive(Debug)]
struct Writer(Arc<Shared>);

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        for stream in Stream::ALL {
            state.tell_missing(stream);
        }
        state.ended = true;
        drop(state);
        self.0.filled.notify_one();
    }
}

impl Sink {
    /// The run begins.
    pub(crate) fn started(&self, started: Started) {
        let shared = &self.0.0;
        shared.lock().put(Event::Started(started));
        shared.filled.notify_one();
    }

    /// Something is shown, of so many bytes. It is kept for the outcome in any case, so
    /// it costs nothing to wait here, and no reader is too slow for it.
    pub(crate) fn result(&self, result: Arc<RichResult>, bytes: usize) {
        let shared = &self.0.0;
        shared.lock().put_result(result, bytes);
        shared.filled.notify_one();
    }

    /// A program runs, or has ended: what is left in its pipes then is bounded
    /// and taken at once.
    pub(crate) fn draining(&self, draining: bool) {
        let shared = &self.0.0;
        shared.lock().draining = draining;
        shared.emptied.notify_waiters();
    }

    /// Tells a part of a stream, waiting for the reader while there is
    /// patience left. The bytes that were left out.
    pub(crate) async fn output(&self, stream: Stream, mut bytes: &[u8]) -> usize {
        let shared = &self.0.0;
        loop {
            let mut emptied = std::pin::pin!(shared.emptied.notified());
            // From here on no wake-up is missed.
            emptied.as_mut().enable();
            let (rest, patience) = {
                let mut state = shared.lock();
                let rest = state.push(stream, bytes);
                (rest, state.patience(stream, rest))
            };
            shared.filled.notify_one();
            let Some(patience) = patience else {
                return rest.len();
            };
            bytes = rest;
            let since = Instant::now();
            // Late or not, the state says how it goes on.
            timeout(patience, emptied).await.ok();
            let mut state = shared.lock();
            state.wait = state.wait.saturating_sub(since.elapsed());
        }
    }
}

/// The reader's end of the buffer. Dropped, it takes in nothing any more, and
/// the run goes on.
#[derive(Debug)]
pub struct Events(Arc<Shared>);

impl Events {
    /// A view of what this reader has not taken yet.
    #[must_use]
    pub fn untold(&self) -> Untold {
        Untold(Arc::clone(&self.0))
    }

    /// The next event, waiting for it; `None` when the run has told all.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.until(|state| state.ended || !state.queue.is_empty())
            .await;
        let event = self.0.lock().take();
        self.0.emptied.notify_waiters();
        event
    }

    /// [`Events::next`], but output is waited for until there is enough for a
    /// whole event, the run has told all, or `pause` is over: so that a program
    /// that prints byte by byte does not make an event of each.
    pub async fn next_gathered(&mut self, pause: Duration) -> Option<Event> {
        self.until(|state| state.ended || !state.queue.is_empty())
            .await;
        let gathered = self.until(|state| {
            let is_output = matches!(state.queue.front(), Some(Event::Output { .. }));
            state.ended || !is_output || state.size >= EVENT_BYTES
        });
        // What has gathered by then is taken.
        timeout(pause, gathered).await.ok();
        self.next().await
    }

    async fn until(&self, met: impl Fn(&State) -> bool) {
        while !met(&self.0.lock()) {
            self.0.filled.notified().await;
        }
    }
}

/// What is still in the buffer, for others than its reader.
#[derive(Debug)]
pub struct Untold(Arc<Shared>);

impl Untold {
    /// Bytes of the results that wait for the reader, with the one that it took last:
    /// once the run is over they are kept for nobody else.
    #[must_use]
    pub fn results(&self) -> u64 {
        let state = self.0.lock();
        let waiting: usize = state.shown.iter().sum();
        (waiting + state.in_hand) as u64
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.queue = VecDeque::new();
        state.shown = VecDeque::new();
        state.in_hand = 0;
        state.size = 0;
        drop(state);
        self.0.emptied.notify_waiters();
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to take, or nothing more to come. One reader waits.
    filled: Notify,
    /// There is room again. Both streams' readers may wait.
    emptied: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Event>,
    /// Bytes of each result in the queue, and of the one that was taken last.
    shown: VecDeque<usize>,
    in_hand: usize,
    /// Bytes in the queue, with [`EVENT_COST`] for each event.
    size: usize,
    capacity: usize,
    /// Bytes of output that may be told in all, and those of them left.
    limit: u64,
    left: u64,
    /// How long the run may still be held up.
    wait: Duration,
    /// Bytes left out since something was last told, of each stream.
    missing: [u64; 2],
    /// Full once too long: nothing is taken before half of it is read.
    overflowed: bool,
    /// [`Event::Truncated`] was told.
    truncated: bool,
    /// The program is dead; what its pipes hold is taken at once.
    draining: bool,
    /// The run has told all.
    ended: bool,
    /// The reader is gone.
    closed: bool,
}

impl State {
    /// Takes of the output what there is room for; the rest.
    fn push<'a>(&mut self, stream: Stream, mut bytes: &'a [u8]) -> &'a [u8] {
        if self.overflowed && self.size > self.capacity / 2 {
            return bytes;
        }
        self.overflowed = false;
        while !bytes.is_empty() && !self.closed && self.left > 0 {
            let capacity = if self.draining {
                self.capacity.saturating_add(LEFTOVER)
            } else {
                self.capacity
            };
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            let room = capacity.saturating_sub(self.size + EVENT_COST);
            let count = bytes.len().min(EVENT_BYTES).min(room).min(left);
            if count == 0 {
                break;
            }
            self.tell_missing(stream);
            let (first, rest) = bytes.split_at(count);
            self.append(stream, first);
            self.left -= count as u64;
            bytes = rest;
        }
        bytes
    }

    /// How long to wait for room for `rest`; `None` for not at all: then it is
    /// written off.
    fn patience(&mut self, stream: Stream, rest: &[u8]) -> Option<Duration> {
        if rest.is_empty() || self.closed {
            return None;
        }
        if self.left == 0 {
            if !self.truncated {
                self.truncated = true;
                self.put(Event::Truncated { limit: self.limit });
            }
            return None;
        }
        if self.wait.is_zero() || self.draining {
            self.overflowed = true;
            self.missing[stream as usize] += rest.len() as u64;
            return None;
        }
        Some(self.wait)
    }

    /// Appends to the last event while that is small and of the same stream.
    fn append(&mut self, stream: Stream, more: &[u8]) {
        if let Some(Event::Output {
            stream: last,
            bytes,
        }) = self.queue.back_mut()
            && *last == stream
            && bytes.len() + more.len() <= EVENT_BYTES
        {
            bytes.extend_from_slice(more);
            self.size += more.len();
            return;
        }
        self.put(Event::Output {
            stream,
            bytes: more.to_vec(),
        });
    }

    fn tell_missing(&mut self, stream: Stream) {
        let bytes = std::mem::take(&mut self.missing[stream as usize]);
        if bytes > 0 {
            self.put(Event::Dropped { stream, bytes });
        }
    }

    fn put(&mut self, event: Event) {
        if !self.closed {
            self.size += cost(&event);
            self.queue.push_back(event);
        }
    }

    fn put_result(&mut self, result: Arc<RichResult>, bytes: usize) {
        if !self.closed {
            self.shown.push_back(bytes);
            self.put(Event::Result(result));
        }
    }

    fn take(&mut self) -> Option<Event> {
        self.in_hand = 0;
        let event = self.queue.pop_front()?;
        if let Event::Result(_) = &event {
            self.in_hand = self.shown.pop_front().unwrap_or_default();
        }
        self.size -= cost(&event);
        Some(event)
    }
}

/// What an event counts in the buffer.
fn cost(event: &Event) -> usize {
    match event {
        Event::Output { bytes, .. } => bytes.len() + EVENT_COST,
        _ => EVENT_COST,
    }
}

#[cfg(test)]
mod tests;
