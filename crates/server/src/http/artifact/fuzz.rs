//! The `Range` header, from any bytes.

use axum::http::HeaderValue;

use super::range::{Range, range};

/// Reads a `Range` header against files of many sizes.
pub(crate) fn ranges(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    for size in [0, 1, 10, u64::from(u32::MAX), u64::MAX] {
        if let Range::Part { begin, length } = range(&value, size) {
            assert!(length > 0, "an empty part");
            let end = begin.checked_add(length);
            assert!(end.is_some_and(|end| end <= size), "a part beyond the end");
        }
    }
}
