//! The buffer under readers that are quick, slow, stalled and gone.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use tokio::time::Instant;

use super::{Event, EventBounds, Events, Isolation, RichResult, Sink, Started, Stream, events};

const WAIT: Duration = Duration::from_millis(500);

fn bounds(buffer: usize, total: u64, wait: Duration) -> EventBounds {
    EventBounds {
        buffer,
        total,
        wait,
    }
}

fn started() -> Started {
    Started {
        id: "1".to_owned(),
        language: "python".to_owned(),
        version: "3".to_owned(),
        isolation: Isolation::Full,
    }
}

async fn all(mut events: Events) -> Vec<Event> {
    let mut found = Vec::new();
    while let Some(event) = events.next().await {
        found.push(event);
    }
    found
}

/// Bytes told and bytes said to be missing, of one stream.
fn sums(events: &[Event], of: Stream) -> (Vec<u8>, u64) {
    let (mut told, mut missing) = (Vec::new(), 0);
    for event in events {
        match event {
            Event::Output { stream, bytes } if *stream == of => {
                assert!(!bytes.is_empty());
                told.extend_from_slice(bytes);
            }
            Event::Dropped { stream, bytes } if *stream == of => missing += bytes,
            _ => {}
        }
    }
    (told, missing)
}

#[tokio::test(start_paused = true)]
async fn a_quick_reader_gets_everything_in_order() {
    let (sink, reader) = events(bounds(1000, 1 << 20, WAIT));
    let write = async move {
        sink.started(started());
        for number in 0..5000_u32 {
            let text = format!("{number}\n");
            assert_eq!(sink.output(Stream::Stdout, text.as_bytes()).await, 0);
        }
        assert_eq!(sink.output(Stream::Stderr, b"end").await, 0);
    };
    let ((), found) = tokio::join!(write, all(reader));
    assert_eq!(found.first(), Some(&Event::Started(started())));
    let (told, missing) = sums(&found, Stream::Stdout);
    let lines = String::from_utf8(told).unwrap();
    assert!(
        lines
            .lines()
            .map(|line| line.parse::<u32>().unwrap())
            .eq(0..5000)
    );
    assert_eq!(missing, 0);
    assert_eq!(sums(&found, Stream::Stderr), (b"end".to_vec(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_holds_the_run_up_once() {
    let (sink, mut reader) = events(bounds(64 * 1024, 1 << 30, WAIT));
    let begun = Instant::now();
    let mut lost = 0;
    for _ in 0..1000 {
        lost += sink.output(Stream::Stdout, &[b'x'; 10_000]).await;
    }
    assert!((WAIT..WAIT * 2).contains(&begun.elapsed()), "once for all");
    assert!(sink.0.0.lock().size <= 64 * 1024);
    // It comes back, and finds the gap where it was.
    let first = reader.next().await;
    assert!(matches!(first, Some(Event::Output { .. })), "{first:?}");
    drop(sink);
    let mut found = all(reader).await;
    assert!(matches!(found.last(), Some(Event::Dropped { .. })));
    found.extend(first);
    let (told, missing) = sums(&found, Stream::Stdout);
    assert_eq!(missing, lost as u64);
    assert_eq!(told.len() + lost, 10_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_before_what_follows_it() {
    let (sink, mut reader) = events(bounds(10_000, 1 << 30, Duration::ZERO));
    assert_eq!(sink.output(Stream::Stdout, &[b'a'; 9000]).await, 0);
    assert!(sink.output(Stream::Stdout, &[b'b'; 9000]).await > 0);
    // As long as it is more than half full nothing is taken, however small.
    assert_eq!(sink.output(Stream::Stdout, b"c").await, 1);
    while sink.0.0.lock().size > 0 {
        reader.next().await;
    }
    assert_eq!(sink.output(Stream::Stdout, b"d").await, 0);
    drop(sink);
    let found = all(reader).await;
    let kinds: Vec<bool> = found
        .iter()
        .map(|event| matches!(event, Event::Dropped { .. }))
        .collect();
    assert_eq!(kinds, [true, false], "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_total_is_told() {
    let (sink, reader) = events(bounds(1 << 20, 10, WAIT));
    assert_eq!(sink.output(Stream::Stdout, b"1234567").await, 0);
    assert_eq!(sink.output(Stream::Stderr, b"1234567").await, 4);
    assert_eq!(sink.output(Stream::Stdout, b"1").await, 1);
    drop(sink);
    let found = all(reader).await;
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found.last(), Some(&Event::Truncated { limit: 10 }));
    assert_eq!(sums(&found, Stream::Stderr), (b"123".to_vec(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_gone_holds_nobody_up() {
    let (sink, reader) = events(bounds(1000, 1 << 30, Duration::MAX));
    let waiting = tokio::spawn(async move { sink.output(Stream::Stdout, &[0; 5000]).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "it waits for room");
    drop(reader);
    assert!(waiting.await.unwrap() > 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_program_left_waits_for_nobody() {
    let (sink, reader) = events(bounds(1000, 1 << 30, Duration::MAX));
    sink.draining(true);
    let begun = Instant::now();
    assert_eq!(sink.output(Stream::Stdout, &[b'x'; 65_536]).await, 0);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(sink);
    assert_eq!(sums(&all(reader).await, Stream::Stdout).0.len(), 65_536);
}

#[tokio::test(start_paused = true)]
async fn small_writes_gather_for_a_while() {
    let (sink, mut reader) = events(bounds(1 << 20, 1 << 30, WAIT));
    let pause = Duration::from_millis(10);
    let begun = Instant::now();
    sink.started(started());
    let first = reader.next_gathered(Duration::MAX).await;
    assert_eq!(first, Some(Event::Started(started())), "at once");
    let write = async {
        for _ in 0..5 {
            sink.output(Stream::Stdout, b"a").await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (second, ()) = tokio::join!(reader.next_gathered(pause), write);
    assert_eq!(begun.elapsed(), pause);
    let output = |bytes: &[u8]| Event::Output {
        stream: Stream::Stdout,
        bytes: bytes.to_vec(),
    };
    assert_eq!(second, Some(output(b"aaaaa")));
    sink.output(Stream::Stdout, &[b'b'; 20_000]).await;
    reader.next_gathered(Duration::MAX).await;
    drop(sink);
    let last = reader.next_gathered(Duration::MAX).await;
    assert_eq!(last, Some(output(&[b'b'; 20_000 - 16_384])));
    assert_eq!(reader.next_gathered(Duration::MAX).await, None);
}

/// What happens to a buffer: a write of so many bytes, or a read.
#[derive(Debug, Clone)]
enum Act {
    Write(Stream, usize),
    Read,
}

fn act() -> impl Strategy<Value = Act> {
    let stream = any::<bool>().prop_map(|out| Stream::ALL[usize::from(out)]);
    prop_oneof![
        (stream, 1..40_000_usize).prop_map(|(stream, count)| Act::Write(stream, count)),
        proptest::strategy::Just(Act::Read),
    ]
}

proptest! {
    #[test]
    fn every_byte_is_told_or_said_to_be_missing(
        buffer in 1000..100_000_usize,
        total in 1..1_000_000_u64,
        acts in proptest::collection::vec(act(), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(check_acts(buffer, total, &acts));
    }
}

async fn check_acts(buffer: usize, total: u64, acts: &[Act]) {
    let (sink, mut reader) = events(bounds(buffer, total, Duration::ZERO));
    let (mut written, mut lost, mut found) = ([0, 0], 0, Vec::new());
    for act in acts {
        match act {
            Act::Write(stream, count) => {
                lost += write(&sink, *stream, *count).await;
                written[*stream as usize] += count;
            }
            Act::Read if sink.0.0.lock().size > 0 => found.extend(reader.next().await),
            Act::Read => {}
        }
        // Gaps and the last word are told whatever else is in the buffer.
        assert!(sink.0.0.lock().size <= buffer + 3 * super::EVENT_COST);
    }
    drop(sink);
    found.extend(all(reader).await);
    let truncated = found
        .iter()
        .any(|event| matches!(event, Event::Truncated { .. }));
    let mut told_of_all = 0;
    for stream in Stream::ALL {
        let (told, missing) = sums(&found, stream);
        let sum = told.len() as u64 + missing;
        let wrote = written[stream as usize] as u64;
        assert!(sum == wrote || (truncated && sum < wrote));
        told_of_all += told.len();
    }
    assert!(told_of_all as u64 <= total);
    assert_eq!(told_of_all + lost, written[0] + written[1]);
}

async fn write(sink: &Sink, stream: Stream, count: usize) -> usize {
    sink.output(stream, &vec![b'x'; count]).await
}

#[tokio::test]
async fn results_are_counted_until_the_reader_goes_on() {
    let (sink, mut reader) = events(bounds(1000, 1 << 20, WAIT));
    let untold = reader.untold();
    let result = Arc::new(RichResult {
        is_value: false,
        forms: Vec::new(),
    });
    for bytes in [100, 20] {
        sink.result(Arc::clone(&result), bytes);
        sink.started(started());
    }
    let mut counted = Vec::new();
    for _ in 0..4 {
        counted.push(untold.results());
        reader.next().await;
    }
    assert_eq!(counted, [120, 120, 20, 20]);
    assert_eq!(untold.results(), 0);
    sink.result(Arc::clone(&result), 7);
    assert_eq!(untold.results(), 7);
    drop(reader);
    sink.result(result, 7);
    assert_eq!(untold.results(), 0, "nobody waits for it");
}
