//! Reads a request body into a JSON object, within bounds.
//!
//! A small body can hold millions of empty arrays, each of which costs a
//! `Value`; so the values are counted while they are read, and their depth
//! with them. Errors are in our own words, never in the parser's.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::{Code, Problem, quote};

/// Values (members and elements, at any depth) that a body may hold.
const VALUES: usize = 50_000;

/// How deep arrays and objects may nest.
const DEPTH: usize = 32;

/// Why reading stopped, when it was not the JSON itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    TooMany,
    TooDeep,
    NotFinite,
}

/// Reads `body` as one JSON object.
///
/// # Errors
/// A [`Problem`] with the line and column where the JSON is wrong, or the
/// bound that it breaks.
pub fn parse_object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        invalid(&format!(
            "The body is not UTF-8 text at byte {at}. Send JSON in UTF-8."
        ))
    })?;
    // Some clients begin their files with a byte order mark; it means nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(invalid(
            "The body is empty. Send a JSON object such as {\"code\": \"print(2+2)\"}.",
        ));
    }
    match parse_value(text)? {
        Value::Object(object) => Ok(object),
        other => Err(invalid(&format!(
            "The body is {}, but must be a JSON object such as {{\"code\": \"print(2+2)\"}}.",
            kind(&other)
        ))),
    }
}

fn parse_value(text: &str) -> Result<Value, Problem> {
    let left = Cell::new(VALUES);
    let stop = Cell::new(None);
    let seed = Bounded {
        left: &left,
        stop: &stop,
        depth: 0,
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = seed
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| explain(text, &error, stop.get()))
}

/// The problem of a field that holds `value`, which is not of the type that
/// `cure` asks for.
pub(super) fn wrong_type(field: &str, value: &Value, cure: &str) -> Problem {
    let sent = match value {
        Value::String(text) => format!("is the string \"{}\"", quote(text)),
        Value::Number(number) => format!("is the number {}", quote(&number.to_string())),
        Value::Bool(_) => format!("is the boolean {value}"),
        other => format!("is {}", kind(other)),
    };
    Problem::field(field, &sent, cure)
}

/// What a value is, with its article, for error messages.
#[must_use]
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
}

/// The parser's error in our words, with its place.
fn explain(text: &str, error: &serde_json::Error, stop: Option<Stop>) -> Problem {
    let (line, column) = (error.line(), error.column());
    let place = format!("at line {line}, column {column}");
    let said = error.to_string();
    let reason = match stop {
        Some(Stop::TooMany) => {
            return invalid(&format!(
                "The JSON holds more than {VALUES} values ({place}). Send fewer; put bulk data into one string."
            ));
        }
        Some(Stop::TooDeep) => {
            return invalid(&format!(
                "The JSON nests deeper than {DEPTH} levels ({place}). No field of this API needs that."
            ));
        }
        Some(Stop::NotFinite) => "a number is too large",
        None if error.is_eof() => "it ends too early",
        None if said.contains("surrogate") || said.contains("hex escape") => {
            "a \\u escape is half of a surrogate pair; send both halves, or the character itself"
        }
        None if said.contains("number out of range") => "a number is too large",
        None if said.contains("control character") => {
            "a string holds a raw control character; write it as \\n, \\t or \\u00XX"
        }
        None if said.contains("trailing characters") => "something follows the end of the object",
        None if said.contains("trailing comma") => "a comma stands before a closing bracket",
        None if names_not_a_number(text, line) => "NaN and Infinity are not JSON numbers",
        None => "the syntax is wrong; names and strings need double quotes",
    };
    invalid(&format!("The body is not valid JSON {place}: {reason}."))
}

fn names_not_a_number(text: &str, line: usize) -> bool {
    text.lines()
        .nth(line.saturating_sub(1))
        .is_some_and(|line| line.contains("NaN") || line.contains("Infinity"))
}

/// Builds a `Value` while counting.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    left: &'a Cell<usize>,
    stop: &'a Cell<Option<Stop>>,
    depth: usize,
}

impl Bounded<'_> {
    fn stopped<E: serde::de::Error>(&self, why: Stop) -> E {
        self.stop.set(Some(why));
        E::custom("bound")
    }

    fn deeper<E: serde::de::Error>(mut self) -> Result<Self, E> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.stopped(Stop::TooDeep));
        }
        Ok(self)
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(self.stopped(Stop::TooMany));
        };
        self.left.set(left);
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| self.stopped(Stop::NotFinite))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            // A name that comes twice: the last one counts, as in most parsers.
            object.insert(name, members.next_value_seed(inner)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn objects_are_read_whole() {
        let object = parse_object(br#"{"a": [1, -2, 2.5, true, null], "b": {"c": "\u00e9"}}"#)
            .expect("valid");
        let expected = serde_json::json!({"a": [1, -2, 2.5, true, null], "b": {"c": "é"}});
        assert_eq!(Value::Object(object), expected);
        assert!(parse_object("\u{feff}{}".as_bytes()).is_ok());
    }

    #[test]
    fn errors_are_in_our_words() {
        let deep = "[".repeat(10_000);
        let deep_in_field = format!("{{\"code\": {deep}");
        let many = format!("{{\"args\": [{}0]}}", "0,".repeat(VALUES));
        for (body, expected) in [
            ("", "body is empty"),
            (" \n", "body is empty"),
            ("[1]", "body is an array, but must be a JSON object"),
            ("null", "body is null"),
            ("\"x\"", "body is a string"),
            ("{", "not valid JSON at line 1, column 1: it ends too early"),
            (
                "{\"a\":\n 1,}",
                "at line 2, column 4: a comma stands before",
            ),
            ("{\"code\": \"\\ud800\"}", "half of a surrogate pair"),
            ("{\"code\": \"\\udc00\"}", "half of a surrogate pair"),
            ("{\"timeout\": NaN}", "NaN and Infinity are not JSON"),
            ("{\"timeout\": -Infinity}", "NaN and Infinity are not JSON"),
            ("{\"timeout\": 1e999}", "a number is too large"),
            ("{\"a\": \"x\ny\"}", "raw control character"),
            ("{} {}", "something follows the end"),
            ("{'a': 1}", "need double quotes"),
            (deep.as_str(), "nests deeper than 32 levels"),
            (deep_in_field.as_str(), "nests deeper than 32 levels"),
            (many.as_str(), "more than 50000 values"),
        ] {
            let problem = parse_object(body.as_bytes()).expect_err(expected);
            assert_eq!(problem.code, Code::InvalidRequest);
            assert!(
                problem.detail.contains(expected),
                "{body:.40}: {}",
                problem.detail
            );
        }
        let problem = parse_object(b"{\"a\": \"\xff\"}").expect_err("not UTF-8");
        assert!(problem.detail.contains("not UTF-8 text at byte 7"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Err(problem) = parse_object(&body) {
                prop_assert_eq!(problem.code, Code::InvalidRequest);
            }
        }

        #[test]
        fn what_serde_reads_we_read(text in "[\\[\\]{}\",:0-9a-c\\\\ .eE+-]{0,60}") {
            let ours = parse_object(text.as_bytes()).ok();
            if let Some(object) = ours {
                let theirs: Value = serde_json::from_str(&text).expect("we read it");
                prop_assert_eq!(Value::Object(object), theirs);
            }
        }
    }
}
