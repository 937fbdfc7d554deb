//! What a server, which may be anybody's, answers to `run --url`.

use serde_json::Value;

use super::answer::Answer;
use crate::cli::peer::events::Reader;

/// A stream of events, its first byte the size of the pieces it comes in.
pub(crate) fn events(bytes: &[u8]) {
    let [size, rest @ ..] = bytes else {
        return;
    };
    let mut cut = Reader::default();
    let pieces = rest.chunks(usize::from(*size).max(1));
    let in_pieces: Vec<_> = pieces
        .flat_map(|piece| cut.push(piece).expect("it is short"))
        .collect();
    let whole = Reader::default().push(rest).expect("it is short");
    assert_eq!(in_pieces, whole, "cuts change the events");
    for event in whole {
        if let Ok(value) = serde_json::from_str::<Value>(&event.data) {
            drop(Answer::of(value));
        }
    }
}
