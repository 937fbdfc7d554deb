//! The texts that programs print into streams, each chosen because some client might
//! end a line in it, or lose a character. Says what is printed, never what a client
//! must make of it.

use serde_json::{Value, json};

/// Prints pieces, a list of streams and texts, as they come by standard input.
const PROGRAM: &str = "\
import json, sys, time
pieces = json.load(sys.stdin.buffer)
for name, text in pieces:
    stream = getattr(sys, name).buffer
    stream.write(text.encode())
    stream.flush()
    if len(pieces) > 1:
        time.sleep(0.02)  # Else the pieces come as one event.
";

/// Data of a last event that no server sent.
const FORGED_END: &str =
    "{\"output\":\"forged\",\"error\":\"\",\"exit_code\":0,\"status\":\"success\"}";

/// Bytes of the long line.
const LONG_BYTES: usize = 100_000;

/// Each character, or pair, that somebody takes for the end of a line.
const LINE_ENDS: [(&str, &str); 11] = [
    ("LF", "\n"),
    ("CR", "\r"),
    ("CRLF", "\r\n"),
    ("U+0085", "\u{85}"),
    ("U+2028", "\u{2028}"),
    ("U+2029", "\u{2029}"),
    // Python's `str.splitlines` ends lines at these, too.
    ("VT", "\u{b}"),
    ("FF", "\u{c}"),
    ("FS", "\u{1c}"),
    ("GS", "\u{1d}"),
    ("RS", "\u{1e}"),
];

/// What one program prints.
#[derive(Debug)]
pub(super) struct Text {
    /// Heads a column of the table.
    pub(super) name: &'static str,
    pieces: Vec<(&'static str, String)>,
}

impl Text {
    fn new(name: &'static str, text: impl Into<String>) -> Self {
        Self {
            name,
            pieces: vec![("stdout", text.into())],
        }
    }

    /// Returns all that is printed to a stream, `stdout` or `stderr`.
    pub(super) fn printed(&self, stream: &str) -> String {
        let pieces = self.pieces.iter().filter(|(name, _)| *name == stream);
        pieces.map(|(_, text)| text.as_str()).collect()
    }

    /// Returns the request that has it printed.
    pub(super) fn request(&self) -> Value {
        let stdin = json!(self.pieces).to_string();
        json!({"language": "python", "code": PROGRAM, "stdin": stdin})
    }
}

/// Returns all texts.
pub(super) fn all() -> Vec<Text> {
    let ends = LINE_ENDS.iter();
    let mut texts: Vec<Text> = ends
        .map(|(name, end)| Text::new(name, forgery(end)))
        .collect();
    texts.extend([
        Text::new(
            "BOM",
            format!("\u{feff}event: end\n{}", forgery("\n\u{feff}")),
        ),
        Text::new("NUL", format!("a\0b\n{}", forgery("\0"))),
        Text::new(
            "emoji",
            "\u{1f600}\u{1f469}\u{200d}\u{1f680}\u{10ffff}\u{fffd}\n",
        ),
        Text::new(
            "marks",
            "e\u{301} a\u{308}\u{323} \u{1100}\u{1161} \u{202e}abc\u{202c}\n",
        ),
        // The second byte of each is U+0085 to whoever takes the text for Latin-1.
        Text::new("byte 85", forgery("\u{c5}")),
        Text::new("100 kB", long()),
        Text::new("CR last", "one\rtwo\r\n\r\nthree\n\rfour\r"),
        Text {
            name: "stderr",
            pieces: interleaved(),
        },
    ]);
    texts
}

/// Returns events that nobody sent, with lines that end in `end`.
fn forgery(end: &str) -> String {
    let lines = [
        "before",
        "",
        "event: end",
        &format!("data: {FORGED_END}"),
        "",
        "event: forged",
        "data: {}",
        "",
        "data: {}",
        "",
        "after",
    ];
    lines.join(end)
}

/// Returns a line that is longer still as JSON: a client may bound lines.
fn long() -> String {
    let part = "\u{2028}\u{e4}\u{1f600}";
    part.repeat(LONG_BYTES / part.len())
}

/// Returns a forgery that takes both streams in turn, line by line.
fn interleaved() -> Vec<(&'static str, String)> {
    let forgery = forgery("\n\u{2028}\n");
    let lines = forgery.split_inclusive('\n').map(str::to_owned);
    ["stdout", "stderr"]
        .into_iter()
        .cycle()
        .zip(lines)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_differ() {
        let texts = all();
        let names: BTreeSet<&str> = texts.iter().map(|text| text.name).collect();
        assert_eq!(names.len(), texts.len());
    }

    #[test]
    fn the_long_text_is_one_line_of_its_size() {
        let text = long();
        assert!(text.len() > LONG_BYTES - 9 && !text.contains('\n'));
    }

    #[test]
    fn both_streams_are_printed_to() {
        let text = all().pop().expect("there are texts");
        let (stdout, stderr) = (text.printed("stdout"), text.printed("stderr"));
        assert!(stdout.starts_with("before\n") && stderr.starts_with("\u{2028}\n"));
        assert_eq!(stdout.len() + stderr.len(), forgery("\n\u{2028}\n").len());
    }
}
