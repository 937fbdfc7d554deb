//! A bounded queue before standard error, with a thread that writes it out.
//!
//! Whoever stops reading a server's log (a paused pager, a full pipe, a stuck
//! collector) must not stop the server: what does not fit is left out, counted,
//! and told at the place where it is missing. Never waits, but for the last words.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the last lines may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a full queue is asked for a place at the end.
const POLL: Duration = Duration::from_millis(5);

/// What waits to be written.
#[derive(Debug)]
enum Entry {
    Text(Vec<u8>),
    /// Says that all before it is written.
    Mark(Sender<()>),
}

/// The queue's open end.
#[derive(Debug)]
pub(super) struct Queue {
    entries: SyncSender<Entry>,
    /// Texts left out since the last one that was taken.
    left_out: AtomicU64,
}

impl Queue {
    /// Starts a thread that writes to `stream`; so many texts may wait for it.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(stream: impl Write + Send + 'static, capacity: usize) -> io::Result<Self> {
        let (entries, queued) = sync_channel(capacity);
        let thread = thread::Builder::new().name("log".to_owned());
        // It ends with the process, or when nobody can send any more.
        thread.spawn(move || write_out(&queued, stream))?;
        Ok(Self {
            entries,
            left_out: AtomicU64::new(0),
        })
    }

    /// Queues a text, or counts it as left out.
    pub(super) fn push(&self, text: &[u8]) {
        let told = self.tell_left_out();
        if !told || self.entries.try_send(Entry::Text(text.to_vec())).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says how many texts are missing here; whether that is said.
    fn tell_left_out(&self) -> bool {
        let count = self.left_out.swap(0, Ordering::Relaxed);
        if count == 0 {
            return true;
        }
        let note = format!(
            "warning: {count} lines are missing here: standard error was not read fast enough (log_queue)\n"
        );
        let told = self.entries.try_send(Entry::Text(note.into_bytes()));
        if told.is_err() {
            self.left_out.fetch_add(count, Ordering::Relaxed);
        }
        told.is_ok()
    }

    /// Queues a text that should not be missing: waits for its place, but for
    /// a bounded time, and counts it as left out only then.
    pub(super) fn push_last(&self, text: &[u8]) {
        if !self.insist(|| Entry::Text(text.to_vec()), Instant::now() + LAST_WORDS) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for a bounded time until all is written; whether it is.
    pub(super) fn flush(&self) -> bool {
        let until = Instant::now() + LAST_WORDS;
        let (written, mark) = channel();
        self.insist(|| Entry::Mark(written.clone()), until)
            && mark
                .recv_timeout(until.saturating_duration_since(Instant::now()))
                .is_ok()
    }

    /// Asks for a place again and again until then; whether there was one.
    fn insist(&self, entry: impl Fn() -> Entry, until: Instant) -> bool {
        while !self.tell_left_out() || self.entries.try_send(entry()).is_err() {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }
}

fn write_out(queued: &Receiver<Entry>, mut stream: impl Write) {
    for entry in queued {
        match entry {
            // Where even that fails there is nobody left to tell.
            Entry::Text(text) => drop(stream.write_all(&text)),
            // Who asked may have gone.
            Entry::Mark(written) => drop(written.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A stream that takes nothing until the other end is dropped.
    struct Stalled {
        until: Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Nothing is ever sent.
            self.until.recv().ok();
            self.taken.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stalled(capacity: usize) -> (Queue, Sender<()>, impl Fn() -> Vec<String>) {
        let (open, until) = channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&taken);
        let queue = Queue::start(Stalled { until, taken }, capacity).unwrap();
        let lines = move || {
            let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
            text.lines().map(str::to_owned).collect()
        };
        (queue, open, lines)
    }

    #[test]
    fn what_fits_comes_in_order() {
        let (queue, open, lines) = stalled(100);
        let expected: Vec<String> = (0..100).map(|i| i.to_string()).collect();
        for line in &expected {
            queue.push(format!("{line}\n").as_bytes());
        }
        drop(open);
        assert!(queue.flush());
        assert_eq!(lines(), expected);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_told() {
        let (queue, open, lines) = stalled(4);
        for _ in 0..500 {
            queue.push(b"line\n");
        }
        assert!(!queue.flush(), "nobody has read anything");
        drop(open);
        assert!(queue.flush());
        queue.push(b"last\n");
        assert!(queue.flush());
        let lines = lines();
        let whole = lines.iter().filter(|line| *line == "line").count();
        let told = lines.iter().filter_map(|line| {
            let (count, _) = line.strip_prefix("warning: ")?.split_once(" lines are")?;
            count.parse::<usize>().ok()
        });
        assert_eq!(whole + told.sum::<usize>(), 500, "{lines:?}");
        // Four in the queue and one in the thread's hand, each a line or a note.
        assert!((3..=5).contains(&whole), "{lines:?}");
        assert_eq!(lines.last().map(String::as_str), Some("last"));
    }

    #[test]
    fn the_last_words_wait_for_a_reader_who_is_late() {
        let (queue, open, lines) = stalled(1);
        for _ in 0..10 {
            queue.push(b"line\n");
        }
        let reader = thread::spawn(move || {
            thread::sleep(LAST_WORDS / 10);
            drop(open);
        });
        queue.push_last(b"last\n");
        assert!(queue.flush());
        reader.join().unwrap();
        assert_eq!(lines().last().map(String::as_str), Some("last"));
    }

    #[test]
    fn a_reader_that_went_away_holds_nobody_up() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let queue = Queue::start(writer, 4).unwrap();
        for _ in 0..100 {
            queue.push(b"line\n");
        }
        assert!(queue.flush());
    }
}
