//! The `Range` header (RFC 9110): one range of bytes. Whatever else it says is
//! answered with the whole file, as the standard allows.

use axum::http::HeaderValue;

/// What a request wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Range {
    /// All of it.
    Whole,
    /// A part that is there: never empty, never beyond the end.
    Part { begin: u64, length: u64 },
    /// A part that is not there.
    Beyond,
}

/// Reads the header for a file of `size` bytes.
pub(in crate::http) fn range(value: &HeaderValue, size: u64) -> Range {
    let text = value.to_str().unwrap_or_default();
    let Some((begin, end)) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Range::Whole;
    };
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    match (number(begin), number(end)) {
        (Some(begin), end) if end.is_some_and(|end| end < begin) => Range::Whole,
        (Some(begin), Some(end)) => part(begin, end, size),
        (Some(begin), None) if text.ends_with('-') => part(begin, u64::MAX, size),
        // So many from the end.
        (None, Some(0)) if begin.is_empty() => Range::Beyond,
        (None, Some(last)) if begin.is_empty() => part(size.saturating_sub(last), u64::MAX, size),
        _ => Range::Whole,
    }
}

fn part(begin: u64, end: u64, size: u64) -> Range {
    if begin >= size {
        return Range::Beyond;
    }
    let length = end.min(size - 1) - begin + 1;
    Range::Part { begin, length }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read() {
        let part = |begin, length| Range::Part { begin, length };
        for (text, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-4", part(2, 3)),
            ("bytes=9-", part(9, 1)),
            ("bytes=0-", part(0, 10)),
            ("bytes=5-99999999999999999999", part(5, 5)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=10-", Range::Beyond),
            ("bytes=99999999999999999999-", Range::Beyond),
            ("bytes=-0", Range::Beyond),
            ("bytes=4-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("bytes=--1", Range::Whole),
            ("items=0-1", Range::Whole),
            ("", Range::Whole),
        ] {
            let value = HeaderValue::from_static(text);
            assert_eq!(range(&value, 10), expected, "{text}");
        }
        let value = HeaderValue::from_static("bytes=-5");
        assert_eq!(
            range(&value, 0),
            Range::Beyond,
            "an empty file has no last bytes"
        );
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(text in "(bytes=)?[0-9,+-]{0,24}", size in any::<u64>()) {
            let value = HeaderValue::try_from(text).expect("plain");
            if let Range::Part { begin, length } = range(&value, size) {
                prop_assert!(length > 0);
                prop_assert!(begin.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }
}
