//! The arithmetic of head and tail, against the plain words for it.

use super::Capture;

/// The longest marker: its words and the digits of a `u64`.
const MARKER: usize = 60;

/// Keeps what is in `bytes`, in pieces and within a limit that they choose.
pub(crate) fn captures(bytes: &[u8]) {
    let [limit, piece, rest @ ..] = bytes else {
        return;
    };
    let limit = usize::from(*limit);
    let capture = Capture::new(limit);
    let mut lost = 0;
    for piece in rest.chunks(usize::from(*piece).max(1)) {
        lost += capture.lock().push(piece);
    }
    let output = capture.finish();
    assert_eq!(output.total, rest.len() as u64);
    assert_eq!(output.truncated, rest.len() > limit, "of {}", rest.len());
    if !output.truncated {
        assert_eq!((output.bytes.as_slice(), lost), (rest, 0));
        return;
    }
    assert_eq!(lost, rest.len() - limit, "each byte is kept or lost");
    assert!(output.bytes.len() <= limit + MARKER + 1);
    let told = String::from_utf8_lossy(&output.bytes).into_owned();
    let marked = told.contains(" bytes omitted] …\n");
    assert!(marked, "{told:?}");
    // What was kept of the head is what came first.
    let head = (limit - limit / 4).saturating_sub(3);
    assert_eq!(output.bytes[..head], rest[..head]);
}
