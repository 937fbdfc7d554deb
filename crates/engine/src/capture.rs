//! Keeps a bounded part of what a program writes: the head and the tail.
//!
//! Reading never stops before the stream ends, so a program is never killed
//! for writing much; it is only slowed when nobody has a use for what it writes.
//! What was kept lives outside the reading future: cancel that, and the output
//! up to then is still there.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::events::{Sink, Stream};
use crate::outcome::Output;
use crate::pace::Pace;

/// Bytes asked of the stream at once: a pipe's default capacity.
const CHUNK: usize = 64 * 1024;

/// Where a stream's bytes go besides the capture, and how fast they are read.
#[derive(Debug, Clone)]
pub(crate) struct Tap {
    pub(crate) stream: Stream,
    pub(crate) sink: Option<Sink>,
    pub(crate) pace: Pace,
}

/// What is kept of one stream. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    kept: Arc<Mutex<Kept>>,
}

impl Capture {
    /// Keeps at most `limit` bytes: the first three quarters and the last quarter.
    pub(crate) fn new(limit: usize) -> Self {
        let tail_limit = limit / 4;
        Self {
            kept: Arc::new(Mutex::new(Kept {
                head: Vec::new(),
                tail: VecDeque::new(),
                head_limit: limit - tail_limit,
                tail_limit,
                total: 0,
            })),
        }
    }

    /// Reads to the end of the stream, or until a pause is due: then again
    /// after that. May be dropped at any time.
    ///
    /// # Errors
    /// When reading fails; what came before is kept.
    pub(crate) async fn read_from(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        tap: &Tap,
    ) -> io::Result<Option<Duration>> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = stream.read(&mut chunk).await?;
            if count == 0 {
                return Ok(None);
            }
            let bytes = &chunk[..count];
            let discarded = self.lock().push(bytes);
            let left_out = match &tap.sink {
                Some(sink) => sink.output(tap.stream, bytes).await,
                None => count,
            };
            let pause = tap.pace.read(count, discarded.min(left_out));
            if pause.is_some() {
                return Ok(pause);
            }
        }
    }

    /// Keeps bytes that were read elsewhere.
    pub(crate) fn keep(&self, bytes: &[u8]) {
        self.lock().push(bytes);
    }

    /// Returns what has been kept until now, and keeps it.
    pub(crate) fn so_far(&self) -> Output {
        self.lock().clone().take()
    }

    /// Returns how many bytes there were until now, kept or not.
    pub(crate) fn total(&self) -> u64 {
        self.lock().total
    }

    /// What has been kept until now; the capture is empty afterwards.
    pub(crate) fn finish(&self) -> Output {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing below panics half-way through a change.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
struct Kept {
    head: Vec<u8>,
    /// What came after the head, the oldest bytes dropped first.
    tail: VecDeque<u8>,
    head_limit: usize,
    tail_limit: usize,
    total: u64,
}

impl Kept {
    /// Keeps what is to be kept; how many bytes that cost, old or new ones.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let before = self.head.len() + self.tail.len();
        self.total = self.total.saturating_add(bytes.len() as u64);
        let (first, rest) = bytes.split_at(bytes.len().min(self.head_limit - self.head.len()));
        let wanted = self.head.len() + first.len();
        if wanted > self.head.capacity() {
            let capacity = grown(self.head.capacity(), wanted, self.head_limit);
            self.head.reserve_exact(capacity - self.head.len());
        }
        self.head.extend_from_slice(first);

        let rest = &rest[rest.len().saturating_sub(self.tail_limit)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.tail_limit);
        self.tail.drain(..surplus);
        let wanted = self.tail.len() + rest.len();
        if wanted > self.tail.capacity() {
            let capacity = grown(self.tail.capacity(), wanted, self.tail_limit);
            self.tail.reserve_exact(capacity - self.tail.len());
        }
        self.tail.extend(rest);
        before + bytes.len() - (self.head.len() + self.tail.len())
    }

    fn take(&mut self) -> Output {
        let total = std::mem::take(&mut self.total);
        let mut bytes = std::mem::take(&mut self.head);
        let tail = Vec::from(std::mem::take(&mut self.tail));
        if total == (bytes.len() + tail.len()) as u64 {
            bytes.extend(tail);
            return Output {
                bytes,
                total,
                truncated: false,
            };
        }
        bytes.truncate(whole_characters(&bytes));
        let tail = &tail[broken_characters(&tail)..];
        let omitted = total - (bytes.len() + tail.len()) as u64;
        if bytes.last().is_some_and(|&last| last != b'\n') {
            bytes.push(b'\n');
        }
        bytes.extend(marker(omitted).into_bytes());
        bytes.extend(tail);
        Output {
            bytes,
            total,
            truncated: true,
        }
    }
}

/// The line that stands where bytes are missing.
fn marker(omitted: u64) -> String {
    format!("… [{omitted} bytes omitted] …\n")
}

/// Doubling, but never past the limit, so that memory is bounded by it.
fn grown(capacity: usize, wanted: usize, limit: usize) -> usize {
    capacity.saturating_mul(2).clamp(wanted, limit.max(wanted))
}

/// Length of `head` without a UTF-8 sequence that its end cuts in two.
fn whole_characters(head: &[u8]) -> usize {
    let last = head.len().saturating_sub(3);
    let lead = (last..head.len()).rev().find(|&at| head[at] & 0xC0 != 0x80);
    match lead {
        Some(at) if sequence_length(head[at]) > head.len() - at => at,
        _ => head.len(),
    }
}

/// Bytes at the start of `tail` that continue a UTF-8 sequence cut off before it.
fn broken_characters(tail: &[u8]) -> usize {
    tail.iter()
        .take(3)
        .take_while(|&&byte| byte & 0xC0 == 0x80)
        .count()
}

/// Bytes in the UTF-8 sequence that this byte leads; 1 where it leads none.
fn sequence_length(lead: u8) -> usize {
    match lead {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    }
}

#[cfg(any(test, fuzzing, feature = "hooks"))]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{Strategy, any, proptest};
    use tokio::io::AsyncWriteExt;

    use super::{Capture, Output, Tap, marker};
    use crate::events::Stream;
    use crate::pace::Pace;

    fn tap() -> Tap {
        Tap {
            stream: Stream::Stdout,
            sink: None,
            pace: Pace::new(1 << 30),
        }
    }

    fn capture(limit: usize, chunks: &[Vec<u8>]) -> Output {
        let capture = Capture::new(limit);
        let (mut written, mut discarded) = (0, 0);
        for chunk in chunks {
            discarded += capture.lock().push(chunk);
            written += chunk.len();
            let kept = capture.lock();
            assert_eq!(kept.head.len() + kept.tail.len(), written - discarded);
            assert!(
                kept.head.capacity() + kept.tail.capacity() <= limit,
                "memory above the limit"
            );
        }
        capture.finish()
    }

    fn check(limit: usize, input: &str, expected: &str) {
        let output = capture(limit, &[input.as_bytes().to_vec()]);
        assert_eq!(
            String::from_utf8(output.bytes).unwrap(),
            expected,
            "{limit} of {input:?}"
        );
        assert_eq!(output.total, input.len() as u64);
        assert_eq!(output.truncated, expected != input);
    }

    #[test]
    fn keeps_head_and_tail() {
        check(8, "", "");
        check(8, "12345678", "12345678");
        check(8, "123456789", "123456\n… [1 bytes omitted] …\n89");
        check(8, "12345\n7\n9", "12345\n… [1 bytes omitted] …\n\n9");
        check(0, "abc", "… [3 bytes omitted] …\n");
        check(4, "日本日本", "日\n… [9 bytes omitted] …\n");
        check(8, "12345日本", "12345\n… [6 bytes omitted] …\n");
        check(
            16,
            "123456789ab日12日",
            "123456789ab\n… [4 bytes omitted] …\n2日",
        );
    }

    proptest! {
        #[test]
        fn head_and_tail_are_what_was_written(
            limit in 0..200_usize,
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 0..9),
        ) {
            let all: Vec<u8> = chunks.concat();
            let output = capture(limit, &chunks);
            assert_eq!(output.total, all.len() as u64);
            assert_eq!(output.truncated, all.len() > limit);
            if !output.truncated {
                assert_eq!(output.bytes, all);
                return Ok(());
            }
            let (head, tail) = split(&output.bytes, all.len());
            assert!(all.starts_with(head) || all.starts_with(&head[..head.len() - 1]));
            assert!(all.ends_with(tail));
            assert!(head.len() + tail.len() <= limit + 1);
            // At most one character is lost at each cut.
            assert!(head.len() + tail.len() + 6 >= limit);
        }

        #[test]
        fn text_stays_text(
            limit in 0..100_usize,
            text in proptest::collection::vec(any::<char>(), 0..200).prop_map(String::from_iter),
            size in 1..10_usize,
        ) {
            let chunks: Vec<Vec<u8>> = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            assert!(std::str::from_utf8(&capture(limit, &chunks).bytes).is_ok());
        }
    }

    /// Head and tail around the marker, whose number must fit.
    fn split(bytes: &[u8], total: usize) -> (&[u8], &[u8]) {
        for at in 0..bytes.len() {
            for newline in [0, 1] {
                let Some(kept) = (0..=total).find(|&omitted| {
                    let line = marker(omitted as u64);
                    bytes[at..].starts_with(line.as_bytes())
                        && total - omitted + line.len() + newline == bytes.len()
                }) else {
                    continue;
                };
                let length = marker(kept as u64).len();
                return (&bytes[..at], &bytes[at + length..]);
            }
        }
        panic!("no marker in {:?}", String::from_utf8_lossy(bytes));
    }

    #[tokio::test]
    async fn output_survives_the_reader_s_cancellation() {
        let (mut writer, mut reader) = tokio::io::duplex(64);
        let capture = Capture::new(1000);
        writer.write_all(b"before the kill").await.unwrap();
        let read = tokio::time::timeout(
            Duration::from_millis(50),
            capture.read_from(&mut reader, &tap()),
        )
        .await;
        assert!(read.is_err());
        assert_eq!(capture.finish().bytes, b"before the kill");
    }

    #[tokio::test]
    async fn the_stream_is_drained_to_its_end() {
        let (mut writer, mut reader) = tokio::io::duplex(16);
        let capture = Capture::new(8);
        let write = async move {
            for _ in 0..1000 {
                writer.write_all(b"x").await.unwrap();
            }
        };
        let tap = tap();
        let (read, ()) = tokio::join!(capture.read_from(&mut reader, &tap), write);
        assert_eq!(read.unwrap(), None, "nothing to pause for");
        let output = capture.finish();
        assert_eq!(output.total, 1000);
        assert_eq!(
            output.bytes,
            "xxxxxx\n… [992 bytes omitted] …\nxx".as_bytes()
        );
    }
}
