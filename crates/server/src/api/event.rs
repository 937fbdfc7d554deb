//! The events of a streamed run, and how bytes become the text in them.
//!
//! What a program prints is data in a JSON string and never a line of the
//! stream's own: it cannot end an event or begin another.

use engine::Started;
use serde::Serialize;

/// Data of `start`: the run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StartOut {
    /// Id of the run, the same as in `end`.
    pub id: String,
    /// Canonical name of the language.
    pub language: String,
    /// Version of the interpreter or compiler.
    pub version: String,
    /// The isolation that holds.
    pub isolation: &'static str,
}

impl From<Started> for StartOut {
    fn from(started: Started) -> Self {
        Self {
            id: started.id,
            language: started.language,
            version: started.version,
            isolation: started.isolation.as_str(),
        }
    }
}

/// Data of `queued`: all places are taken, and the run waits for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QueuedOut {
    /// Runs in progress.
    pub running: usize,
    /// Runs that wait.
    pub waiting: usize,
}

/// Data of `stdout` and `stderr`: text that the program wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TextOut {
    /// The text.
    pub text: String,
}

/// Data of `dropped`: the reader was too slow, and this much is missing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DroppedOut {
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// Bytes.
    pub bytes: u64,
}

/// Data of `truncated`: as much was streamed as one run may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TruncatedOut {
    /// That bound, in bytes.
    pub limit: u64,
}

/// Makes text of one stream's bytes as they come. A character that a border
/// between two pieces cuts waits for its end; bytes that are not UTF-8 become
/// U+FFFD, the very ones that would in the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextDecoder {
    /// The beginning of a character: at most three bytes.
    begun: Vec<u8>,
    /// Bytes missing before what comes next.
    missing: u64,
}

/// What a decoder gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// Bytes that are missing before the text.
    pub missing: u64,
    /// The text.
    pub text: String,
}

impl TextDecoder {
    /// The text of some more bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Piece {
        if self.missing > 0 {
            // The end of a character whose beginning is missing.
            let end = bytes.iter().take(3).take_while(|&&byte| is_inside(byte));
            let (torn, rest) = bytes.split_at(end.count());
            self.missing += torn.len() as u64;
            bytes = rest;
            if bytes.is_empty() {
                return Piece::default();
            }
        }
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut rest = all.as_slice();
        let mut text = String::with_capacity(rest.len());
        while !rest.is_empty() {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break;
                }
                Err(error) => error,
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(length) = error.error_len() else {
                self.begun = invalid.to_vec();
                break;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &invalid[length..];
        }
        Piece {
            missing: std::mem::take(&mut self.missing),
            text,
        }
    }

    /// Bytes are missing here. A character that was begun goes with them.
    pub fn gap(&mut self, bytes: u64) {
        self.missing += bytes + self.begun.len() as u64;
        self.begun.clear();
    }

    /// What follows is not told: a character that was begun is forgotten.
    pub fn cut(&mut self) {
        self.begun.clear();
    }

    /// Nothing follows: what is left.
    pub fn finish(&mut self) -> Piece {
        let begun = std::mem::take(&mut self.begun);
        Piece {
            missing: std::mem::take(&mut self.missing),
            text: String::from_utf8_lossy(&begun).into_owned(),
        }
    }
}

/// Whether a byte continues a character.
fn is_inside(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use super::*;

    fn decode(pieces: &[Vec<u8>]) -> String {
        let mut decoder = TextDecoder::default();
        let mut text = String::new();
        for piece in pieces {
            let piece = decoder.push(piece);
            assert_eq!(piece.missing, 0);
            text.push_str(&piece.text);
            assert!(decoder.begun.len() <= 3);
        }
        text + &decoder.finish().text
    }

    #[test]
    fn characters_wait_for_their_end() {
        let check = |pieces: &[&[u8]], expected: &[&str]| {
            let mut decoder = TextDecoder::default();
            let texts: Vec<String> = pieces.iter().map(|p| decoder.push(p).text).collect();
            let end = decoder.finish().text;
            let all: Vec<&str> = texts.iter().chain([&end]).map(String::as_str).collect();
            assert_eq!(all, expected, "{pieces:?}");
        };
        check(&[b"abc"], &["abc", ""]);
        check(&[b"\xe6\x97", b"\xa5x"], &["", "日x", ""]);
        check(&[b"\xf0", b"\x9f", b"\x98\x80"], &["", "", "😀", ""]);
        check(&[b"a\xe6\x97"], &["a", "\u{fffd}"]);
        check(&[b"\xe6", b"x"], &["", "\u{fffd}x", ""]);
        check(&[b"\xff\xfe"], &["\u{fffd}\u{fffd}", ""]);
    }

    #[test]
    fn a_gap_tears_no_character() {
        let mut decoder = TextDecoder::default();
        assert_eq!(decoder.push(b"a\xe6\x97").text, "a");
        decoder.gap(10);
        // The last two bytes of a character whose first is missing.
        let piece = decoder.push(b"\x97\xa5b");
        assert_eq!((piece.missing, piece.text.as_str()), (14, "b"));
        decoder.gap(5);
        assert_eq!(decoder.push(b"\x97"), Piece::default());
        assert_eq!(decoder.finish().missing, 6);
    }

    proptest! {
        #[test]
        fn pieces_say_what_the_whole_says(
            pieces in proptest::collection::vec(piece(), 0..20),
        ) {
            let whole = pieces.concat();
            assert_eq!(decode(&pieces), String::from_utf8_lossy(&whole));
        }

        #[test]
        fn every_split_says_the_same(text in ".{0,40}", at in 0..100_usize) {
            let (first, rest) = text.as_bytes().split_at(at.min(text.len()));
            assert_eq!(decode(&[first.to_vec(), rest.to_vec()]), text);
        }

        #[test]
        fn no_byte_is_forgotten_at_gaps(
            texts in proptest::collection::vec("[aé日😀]{1,20}", 1..9),
            gap in 1..9_u64,
        ) {
            let mut decoder = TextDecoder::default();
            let (mut told, mut bytes) = (0, 0);
            for text in &texts {
                decoder.gap(gap);
                // Half a character may stand at both ends of each piece.
                let half = text.len() / 2;
                for piece in [&text.as_bytes()[half..], &text.as_bytes()[..half]] {
                    let given = decoder.push(piece);
                    let replaced = given.text.matches(char::REPLACEMENT_CHARACTER).count();
                    assert_eq!(replaced, 0, "{given:?}");
                    told += given.missing + given.text.len() as u64;
                    decoder.gap(gap);
                    bytes += piece.len() as u64 + gap;
                }
                bytes += gap;
            }
            assert_eq!(told + decoder.finish().missing, bytes);
        }
    }

    /// Text, parts of characters, and rubbish.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..6),
            ".{0,6}".prop_map(String::into_bytes),
            (".{1,3}", 1..4_usize).prop_map(|(text, cut)| {
                let bytes = text.into_bytes();
                bytes[..bytes.len() - cut.min(bytes.len())].to_vec()
            }),
        ]
    }
}
