//! Server-sent events out of the bytes of an answer. The server may be
//! anybody's: whatever it sends, nothing panics and memory is bounded.

/// Longest event, in bytes: the last one carries the whole answer.
const EVENT: usize = super::ANSWER;

/// An event that is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// More came for one event than any server of ours sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it sends an event of more than {} MiB", EVENT >> 20)]
pub(crate) struct TooLong;

/// Reads events from bytes, however these are cut into pieces.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The last line, not whole yet.
    line: Vec<u8>,
    name: String,
    data: Option<String>,
    /// The byte before was a carriage return, which may be half of a line end.
    after_return: bool,
}

impl Reader {
    /// The events that some more bytes complete.
    ///
    /// # Errors
    /// When an event grows too long.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_return) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.grow(rest)?;
                break;
            };
            self.grow(&rest[..end])?;
            self.after_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            events.extend(self.end_line());
        }
        Ok(events)
    }

    fn grow(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
        if held + bytes.len() > EVENT {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes a whole line; an empty one ends an event.
    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| Event { name, data });
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // Comments, ids, and what later versions may add.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = Reader::default();
        let events = pieces.iter().flat_map(|piece| reader.push(piece).unwrap());
        events.map(|event| (event.name, event.data)).collect()
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let check = |sent: &str, expected: &[(&str, &str)]| {
            let found = read(&[sent.as_bytes()]);
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(n, d)| (n.as_str(), d.as_str()))
                .collect();
            assert_eq!(found, expected, "{sent:?}");
        };
        check("id: 1\nevent: start\ndata: {}\n\n", &[("start", "{}")]);
        check("event:a\r\ndata:b\r\n\r\n", &[("a", "b")]);
        check("event: a\rdata: b\r\r", &[("a", "b")]);
        check("data: a\ndata: b\n\n", &[("", "a\nb")]);
        check(": keep-alive\n\n: again\n\ndata: x\n\n", &[("", "x")]);
        check("event: lost\n\ndata: x\n\n", &[("", "x")]);
        check("data\n\n", &[("", "")]);
        check("data:  two\n\n", &[("", " two")]);
        check("event: end\ndata: cut", &[]);
        check("event: end\ndata: cut\n", &[]);
        check("what: is this\ndata: x\n\n", &[("", "x")]);
        check("", &[]);
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(text in "[ab: \r\n]{0,40}|(data: x|event: y|\r\n|\n|:){0,20}", cut in 0..40_usize) {
            let (first, rest) = text.as_bytes().split_at(cut.min(text.len()));
            assert_eq!(read(&[first, rest]), read(&[text.as_bytes()]));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&[&bytes]);
        }
    }
}
