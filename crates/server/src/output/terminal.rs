//! What a terminal is shown of bytes that nobody has vouched for.
//!
//! A terminal obeys what is printed to it: it can be told to fill the
//! clipboard, to type answers, to rename its window, to write over lines that
//! were there before. So of a program's output it gets text, colours and the
//! moves within a line that progress bars need; everything else is written
//! out visibly, as `cat -v` would. Never for pipes and files, which obey nothing.

/// Longest sequence that is waited for.
const SEQUENCE: usize = 32;

/// Ends every colour that was begun.
const RESET: &[u8] = b"\x1b[0m";

/// Tames one stream, however its bytes are cut into pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tamer {
    /// The beginning of a sequence or of a character.
    begun: Vec<u8>,
    /// A colour holds.
    coloured: bool,
}

impl Tamer {
    /// What may be printed of some more bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.byte(byte, &mut out);
        }
        out
    }

    /// Nothing follows: what is left, and the end of all colours.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.give_up(&mut out);
        if std::mem::take(&mut self.coloured) {
            out.extend_from_slice(RESET);
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.begun.first() {
            None => self.ground(byte, out),
            Some(0x1b) => self.in_sequence(byte, out),
            Some(_) => self.in_character(byte, out),
        }
    }

    fn ground(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b'\n' | b'\r' | b'\t' | 0x08 | 0x20..=0x7e => out.push(byte),
            0x1b | 0xc2..=0xf4 => self.begun.push(byte),
            0x00..=0x1f | 0x7f => out.extend([b'^', byte ^ 0x40]),
            _ => out.extend(format!("\\x{byte:02x}").bytes()),
        }
    }

    fn in_sequence(&mut self, byte: u8, out: &mut Vec<u8>) {
        let ends = match (self.begun.len(), byte) {
            (1, b'[') => false,
            (2.., b'0'..=b'9' | b';' | b':') if self.begun.len() < SEQUENCE => false,
            // Colours and the erasing of a line's rest.
            (2.., b'm' | b'K') => true,
            _ => {
                self.give_up(out);
                return self.byte(byte, out);
            }
        };
        self.begun.push(byte);
        if ends {
            if byte == b'm' {
                self.coloured = !matches!(self.begun.as_slice(), b"\x1b[m" | b"\x1b[0m");
            }
            out.append(&mut self.begun);
        }
    }

    fn in_character(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.begun.push(byte);
        match std::str::from_utf8(&self.begun) {
            // Half of the terminals obey these as they obey ESC.
            Ok(text) if text.chars().all(char::is_control) => self.give_up(out),
            Ok(_) => out.append(&mut self.begun),
            Err(error) if error.error_len().is_none() => {}
            Err(_) => {
                self.begun.pop();
                self.give_up(out);
                self.byte(byte, out);
            }
        }
    }

    /// Writes out visibly what was begun and comes to nothing.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        for byte in self.begun.drain(..) {
            match byte {
                0x1b => out.extend(b"^["),
                0x20..=0x7e => out.push(byte),
                _ => out.extend(format!("\\x{byte:02x}").bytes()),
            }
        }
    }
}

/// Text on one line, without anything that a terminal obeys or that turns the
/// order of what is read: for names and messages of others.
#[must_use]
pub fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) || matches!(c, '\u{2028}' | '\u{2029}') {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use super::*;

    fn tame(pieces: &[&[u8]]) -> String {
        let mut tamer = Tamer::default();
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| tamer.push(piece)).collect();
        out.extend(tamer.finish());
        String::from_utf8(out).expect("what is shown is text")
    }

    #[test]
    fn terminals_are_shown_text_and_colours_alone() {
        let check = |sent: &[u8], shown: &str| assert_eq!(tame(&[sent]), shown, "{sent:?}");
        check(b"plain\ttext\r\n\x08", "plain\ttext\r\n\x08");
        check("日本 😀".as_bytes(), "日本 😀");
        check(
            b"\x1b[1;38:5:9mred\x1b[0m\x1b[K",
            "\x1b[1;38:5:9mred\x1b[0m\x1b[K",
        );
        check(b"\x1b[8mhidden", "\x1b[8mhidden\x1b[0m");
        check(b"\x1b[31ma\x1b[mb", "\x1b[31ma\x1b[mb");
        check(b"\x1b]52;c;cm0=\x07", "^[]52;c;cm0=^G");
        check(b"\x1b[2J\x1b[1A", "^[[2J^[[1A");
        check(b"\x1b[?1049h\x1b[6n", "^[[?1049h^[[6n");
        check(b"\x1bP+q\x1b\\", "^[P+q^[\\");
        check(b"\x1b\x1b[0m", "^[\x1b[0m");
        check(b"\xc2\x9b31m", "\\xc2\\x9b31m");
        check(b"\x9b31m\xff\xe6\x97x", "\\x9b31m\\xff\\xe6\\x97x");
        check(b"\xe6\x97\x1b[1", "\\xe6\\x97^[[1");
        check(b"\x00\x7f\x0e", "^@^?^N");
        check(
            format!("\x1b[{}m", "1;".repeat(40)).as_bytes(),
            &format!("^[[{}m", "1;".repeat(40)),
        );
    }

    #[test]
    fn names_are_on_one_line() {
        let check = |text: &str, shown: &str| assert_eq!(printable(text), shown, "{text:?}");
        check("plot 日.png", "plot 日.png");
        check("a\nb\x1b[0m\u{9b}", "a\\nb\\u{1b}[0m\\u{9b}");
        check("a\u{202e}gnp.exe", "a\\u{202e}gnp.exe");
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(pieces in proptest::collection::vec(piece(), 0..12)) {
            let whole = pieces.concat();
            let cut: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            assert_eq!(tame(&cut), tame(&[&whole]));
        }

        #[test]
        fn nothing_is_obeyed_but_colours(pieces in proptest::collection::vec(piece(), 0..12)) {
            let shown = tame(&[&pieces.concat()]);
            for after in shown.split('\x1b').skip(1) {
                let rest = after.strip_prefix('[').expect("nothing but CSI");
                let end = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == ':');
                assert!(end.starts_with(['m', 'K']), "{shown:?}");
            }
            let obeyed = |c: char| c.is_control() && !"\n\r\t\x08\x1b".contains(c);
            assert!(!shown.contains(obeyed), "{shown:?}");
        }
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..6),
            "[\u{1b}\u{9b}\\[\\]0-9;:?mKJ\u{7}a日]{0,12}".prop_map(String::into_bytes),
        ]
    }
}
