//! Whether bytes that come in pieces can still become a JSON object. It tells
//! junk at its first byte, so that nothing of it is kept; it proves nothing of
//! what it lets through, which is parsed once it is whole.

/// Deepest nesting, which is the parser's own limit.
const DEEPEST: usize = 127;

/// The shape of what has come so far.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// What closes each object and list that is open.
    open: Vec<u8>,
    place: Place,
}

/// What may come next.
#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    Value,
    /// A value, or the end of an empty list.
    FirstValue,
    Name,
    /// A name, or the end of an empty object.
    FirstName,
    Colon,
    /// What stands after a value.
    After,
    /// The rest of a string, which may be a name.
    Text {
        name: bool,
        escaped: bool,
    },
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    /// More of a number, or what stands after it.
    Number,
}

impl Shape {
    /// Takes the next bytes; false as soon as they are no JSON object.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| self.step(*byte))
    }

    fn step(&mut self, byte: u8) -> bool {
        let next = match self.place {
            Place::Text { name, escaped } => in_text(byte, name, escaped),
            Place::Word(rest) => in_word(byte, rest),
            Place::Number if byte.is_ascii_digit() || b"+-.eE".contains(&byte) => {
                Some(Place::Number)
            }
            _ if byte.is_ascii_whitespace() && byte != b'\x0c' => Some(match self.place {
                Place::Number => Place::After,
                place => place,
            }),
            Place::Number | Place::After => self.after(byte),
            Place::FirstValue | Place::FirstName if self.open.last() == Some(&byte) => {
                self.after(byte)
            }
            Place::Value | Place::FirstValue => self.value(byte),
            Place::Name | Place::FirstName => (byte == b'"').then_some(Place::Text {
                name: true,
                escaped: false,
            }),
            Place::Colon => (byte == b':').then_some(Place::Value),
        };
        self.place = next.unwrap_or_default();
        next.is_some()
    }

    /// The place after the first byte of a value.
    fn value(&mut self, byte: u8) -> Option<Place> {
        let (end, place) = match byte {
            b'{' => (b'}', Place::FirstName),
            // The whole is an object.
            _ if self.open.is_empty() => return None,
            b'[' => (b']', Place::FirstValue),
            b'"' => {
                return Some(Place::Text {
                    name: false,
                    escaped: false,
                });
            }
            b't' => return Some(Place::Word(b"rue")),
            b'f' => return Some(Place::Word(b"alse")),
            b'n' => return Some(Place::Word(b"ull")),
            b'-' | b'0'..=b'9' => return Some(Place::Number),
            _ => return None,
        };
        self.open.push(end);
        (self.open.len() <= DEEPEST).then_some(place)
    }

    /// The place after a byte that follows a value, or ends what is empty.
    fn after(&mut self, byte: u8) -> Option<Place> {
        match (byte, self.open.last()?) {
            (b',', b'}') => Some(Place::Name),
            (b',', _) => Some(Place::Value),
            (byte, end) if byte == *end => {
                self.open.pop();
                Some(Place::After)
            }
            _ => None,
        }
    }
}

fn in_text(byte: u8, name: bool, escaped: bool) -> Option<Place> {
    match byte {
        0..=0x1f => None,
        b'"' if !escaped && name => Some(Place::Colon),
        b'"' if !escaped => Some(Place::After),
        byte => Some(Place::Text {
            name,
            escaped: !escaped && byte == b'\\',
        }),
    }
}

fn in_word(byte: u8, rest: &'static [u8]) -> Option<Place> {
    match rest.split_first() {
        Some((next, [])) if *next == byte => Some(Place::After),
        Some((next, rest)) if *next == byte => Some(Place::Word(rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn junk_is_told_at_its_first_byte() {
        // How many bytes are taken.
        let check = |text: &str, expected: usize| {
            let mut shape = Shape::default();
            let taken = text.bytes().take_while(|byte| shape.step(*byte)).count();
            assert_eq!(taken, expected, "{text}");
        };
        let all = |text: &str| check(text, text.len());
        all(
            " {\"a\": [1, -2.5e+3, {}, [], \"x\\\"\\\\\", true, false, null], \"b\" : {\"c\":0 } }\n",
        );
        all("{\"not\": \"whole yet");
        all("");
        check("<html>", 0);
        check("[1]", 0);
        check("\"text\"", 0);
        check("xxxxxxxx", 0);
        check("{}{", 2);
        check("{\"a\": 1, }", 9);
        check("{\"a\" 1}", 5);
        check("{\"a\": [1 2]}", 9);
        check("{\"a\": [1}", 8);
        check("{\"a\": [,]}", 7);
        check("{\"a\": trve}", 8);
        check("{\"a\": \"\n\"}", 7);
        check(&format!("{{\"a\":{}", "[".repeat(200)), 5 + DEEPEST - 1);
    }

    proptest! {
        #[test]
        fn what_the_parser_takes_is_taken(text in "\\{\"a\":[\\[\\]{}\",:0-9eE.+ \\\\tn-]{0,12}\\}") {
            if serde_json::from_str::<Map<String, Value>>(&text).is_ok() {
                prop_assert!(Shape::default().take(text.as_bytes()), "{}", text);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Shape::default().take(&bytes);
        }
    }
}
