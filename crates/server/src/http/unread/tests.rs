//! Answers that wait: who is cut off, and that nothing is left counted.

use super::*;

const BOUND: u64 = 1_000_000;

fn unread() -> Unread {
    let gauge = IntGauge::new("bytes", "bytes").expect("a name");
    let counter = IntCounter::new("cut", "cut").expect("a name");
    Unread::new(BOUND, gauge, counter)
}

fn hold(unread: &Unread, key: &str, size: usize) -> Held {
    unread.hold(key, Slot::default(), vec![b'x'; size], 0)
}

/// Reads the rest; `None` when it was cut off.
fn rest(held: &mut Held) -> Option<usize> {
    let mut length = 0;
    while let Some(piece) = held.next() {
        length += piece.ok()?.len();
    }
    Some(length)
}

/// Who holds how many thousands of bytes, one after the other, and who can
/// still be read at the end.
#[test]
fn beyond_the_bound_the_oldest_of_who_has_most_is_cut_off() {
    let check = |answers: &[(&str, usize)], left: &[usize]| {
        let unread = unread();
        let one = |(key, size): &(&str, usize)| hold(&unread, key, size * 1000);
        let mut held: Vec<Held> = answers.iter().map(one).collect();
        let whole = |at: &usize| rest(&mut held[*at]) == Some(answers[*at].1 * 1000);
        let found: Vec<usize> = (0..answers.len()).filter(whole).collect();
        assert_eq!(found, left, "{answers:?}");
        let cut = answers.len() - left.len();
        assert_eq!(unread.cut.get(), cut as u64);
        drop(held);
        assert_eq!(unread.bytes.get(), 0, "{answers:?}");
        assert!(lock(&unread.pile).waiting.is_empty());
    };
    check(&[("a", 500), ("a", 500)], &[0, 1]);
    check(&[("a", 500), ("a", 500), ("a", 100)], &[1, 2]);
    check(
        &[("a", 100), ("b", 500), ("b", 400), ("b", 100)],
        &[0, 2, 3],
    );
    check(&[("b", 900), ("a", 100), ("a", 100)], &[1, 2]);
    check(
        &[("a", 300), ("b", 300), ("c", 300), ("d", 300)],
        &[1, 2, 3],
    );
    check(&[("a", 2000)], &[0]);
    check(&[("a", 900), ("b", 2000)], &[1]);
    // What is handed on at once is not counted, and not cut off.
    check(&[("a", 60), ("a", 500), ("a", 900)], &[0, 2]);
}

#[test]
fn what_was_read_is_not_counted() {
    let unread = unread();
    let mut read = hold(&unread, "a", 900_000);
    let mut part = hold(&unread, "a", 100_000);
    assert_eq!(unread.bytes.get(), 1_000_000);
    assert_eq!(rest(&mut read), Some(900_000));
    assert_eq!(unread.bytes.get(), 100_000, "though it is not dropped yet");
    assert!(part.next().is_some_and(|piece| piece.is_ok()));
    let slot = part.slot.clone();
    let other = hold(&unread, "a", 950_000);
    assert_eq!(unread.bytes.get(), 950_000);
    assert!(
        lock(&slot.0.content).is_empty(),
        "its memory is free at once"
    );
    assert!(part.next().is_some_and(|piece| piece.is_err()));
    drop(other);
    assert_eq!(unread.bytes.get(), 0);
}

#[tokio::test]
async fn who_waits_is_told_that_it_was_cut_off() {
    let unread = unread();
    let slot = Slot::default();
    // Small, but with a buffer that its reader has not emptied.
    let held = unread.hold("a", slot.clone(), b"end".to_vec(), 900_000);
    let other = hold(&unread, "b", 950_000);
    slot.cut().await;
    drop((held, other));
}
