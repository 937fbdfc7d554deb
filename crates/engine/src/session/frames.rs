//! The frames between a context's interpreter and the engine, parsed as hostile input.
//!
//! A frame is a length (4 bytes, of what follows), a kind (1 byte), the number of the
//! cell (8 bytes) and a list of fields, each with its length (4 bytes) before it; all
//! little-endian. What a frame says is a program's word: it names results and claims
//! how a cell went, and decides nothing that the kernel knows better. Whatever is
//! malformed ends the context; nothing here tries to find the next frame.

use crate::outcome::{Exception, Form, RichResult};

/// Bytes of a frame's head.
const HEAD: usize = 4 + 1 + 8;
/// The largest frame that is taken, in bytes: a picture of 8 MiB with its text.
const MAX_FRAME: usize = 12 * 1024 * 1024;
/// Sentences of one frame that are told, and letters of each.
const SENTENCES: usize = 8;
const SENTENCE: usize = 500;
/// Forms of one result.
const MAX_FORMS: usize = 16;

/// Media types that results may have, and whether they are text or Base64.
const FORMS: [(&str, bool); 17] = [
    ("text/plain", true),
    ("text/html", true),
    ("text/markdown", true),
    ("text/latex", true),
    ("image/svg+xml", true),
    ("image/png", false),
    ("image/jpeg", false),
    ("image/gif", false),
    ("image/webp", false),
    ("application/pdf", false),
    ("application/json", true),
    ("application/geo+json", true),
    ("application/javascript", true),
    ("application/vnd.plotly.v1+json", true),
    ("application/vnd.vegalite.v5+json", true),
    ("application/vnd.vegalite.v6+json", true),
    ("application/vnd.codex.chart+json", true),
];

/// How a cell went, as its interpreter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    /// It came to its end.
    Done,
    /// It raised an error that nothing caught.
    Raised,
    /// It asked to exit, with this code.
    Exited(u8),
}

/// What an interpreter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// A result of the cell.
    Result(RichResult),
    /// The error that ended the cell.
    Failed(Exception),
    /// The cell is over.
    End(Went),
    /// A second interpreter was forked: its number in the box, as it is claimed, and
    /// what both share.
    Forked(i32, Vec<String>),
    /// No second one could be forked, for these reasons.
    Refused(Vec<String>),
}

/// A frame from an interpreter, and the cell that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) cell: u64,
    pub(crate) said: Said,
}

/// What is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(&'static str);

/// Returns how many bytes the first frame has, where that is known and a frame may
/// have so many.
pub(crate) fn length_of(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk::<4>()?) as usize + 4;
    (length <= MAX_FRAME).then_some(length)
}

/// Takes the first frame off `bytes` and says how many bytes it has; `None` while it
/// is not whole.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>, Malformed> {
    let Some(length) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize + 4;
    if length > MAX_FRAME {
        return Err(Malformed("a frame is too large"));
    }
    if length < HEAD {
        return Err(Malformed("a frame is too small"));
    }
    let Some(frame) = bytes.get(..length) else {
        return Ok(None);
    };
    let (head, body) = frame.split_at(HEAD);
    let cell = head[5..]
        .try_into()
        .map_err(|_| Malformed("a frame has no cell"))?;
    let mut fields = fields(body)?;
    let said = match (head[4], fields.len()) {
        (1, count) if count % 2 == 1 && count <= 1 + 2 * MAX_FORMS => {
            Said::Result(result(&fields)?)
        }
        (2, 3) => {
            let text = |at: usize| String::from_utf8_lossy(fields[at]).into_owned();
            Said::Failed(Exception {
                name: text(0),
                message: text(1),
                traceback: text(2),
            })
        }
        (3, 2) => {
            let code: [u8; 4] = fields
                .swap_remove(1)
                .try_into()
                .map_err(|_| Malformed("an exit code is no number"))?;
            let went = match fields[0] {
                [0] => Went::Done,
                [1] => Went::Raised,
                [2] => Went::Exited(code[0]),
                _ => return Err(Malformed("a cell ended in no known way")),
            };
            Said::End(went)
        }
        (4, 1..) => {
            let pid: [u8; 4] = fields[0]
                .try_into()
                .map_err(|_| Malformed("a process has no number"))?;
            Said::Forked(i32::from_le_bytes(pid), sentences(&fields[1..]))
        }
        (5, 1..) => Said::Refused(sentences(&fields)),
        _ => return Err(Malformed("a frame is of no known kind")),
    };
    let cell = u64::from_le_bytes(cell);
    Ok(Some((Frame { cell, said }, length)))
}

/// Reads sentences for people: a few, and none that is long or more than one line.
fn sentences(fields: &[&[u8]]) -> Vec<String> {
    let sentence = |field: &&[u8]| {
        let text = String::from_utf8_lossy(field);
        let plain = text.chars().take(SENTENCE);
        plain
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect()
    };
    fields.iter().take(SENTENCES).map(sentence).collect()
}

fn fields(mut body: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut found = Vec::new();
    while !body.is_empty() {
        let cut = Malformed("a field is cut");
        let (length, rest) = body.split_first_chunk::<4>().ok_or(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (field, rest) = rest.split_at_checked(length).ok_or(cut)?;
        if found.len() > 2 * MAX_FORMS {
            return Err(Malformed("a frame has too many fields"));
        }
        found.push(field);
        body = rest;
    }
    Ok(found)
}

/// Reads a result: whether it is the cell's value, then each form and its contents.
/// Forms that nobody knows are left out, and so are those that are not what they say.
fn result(fields: &[&[u8]]) -> Result<RichResult, Malformed> {
    let is_value = match fields.first() {
        Some([0]) => false,
        Some([1]) => true,
        _ => return Err(Malformed("a result is of no known kind")),
    };
    let mut forms = Vec::new();
    for pair in fields[1..].chunks_exact(2) {
        let known = FORMS.iter().find(|(name, _)| name.as_bytes() == pair[0]);
        let Some(&(media_type, is_text)) = known else {
            continue;
        };
        if forms
            .iter()
            .any(|form: &Form| form.media_type == media_type)
        {
            continue;
        }
        if !is_text && !is_base64(pair[1]) {
            continue;
        }
        forms.push(Form {
            media_type,
            is_text,
            content: String::from_utf8_lossy(pair[1]).into_owned(),
        });
    }
    Ok(RichResult { is_value, forms })
}

fn is_base64(bytes: &[u8]) -> bool {
    let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
    let letters = &bytes[..bytes.len() - padding];
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    bytes.len().is_multiple_of(4) && padding <= 2 && letters.iter().all(is_letter)
}

/// Returns the frame that has a cell run, with its input and variables.
pub(crate) fn run(cell: u64, code: &str, stdin: &[u8], env: &[(String, String)]) -> Vec<u8> {
    let pairs = env.iter().flat_map(|(name, value)| [name, value]);
    let fields = [code.as_bytes(), stdin]
        .into_iter()
        .chain(pairs.map(|word| word.as_bytes()));
    frame(1, cell, fields)
}

/// Returns the frame that has an interpreter fork itself; its descriptors come after it.
pub(crate) fn fork(cell: u64) -> Vec<u8> {
    frame(2, cell, std::iter::empty())
}

fn frame<'a>(kind: u8, cell: u64, fields: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.push(kind);
    frame.extend(cell.to_le_bytes());
    for field in fields {
        frame.extend(length(field.len()));
        frame.extend(field);
    }
    let whole = length(frame.len() - 4);
    frame[..4].copy_from_slice(&whole);
    frame
}

/// No field is as large as 4 GiB: code, input and variables have bounds below.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// Returns the frame of a result, as an interpreter sends it.
#[cfg(test)]
pub(crate) fn result_frame(forms: &[(&str, &str)]) -> Vec<u8> {
    let pairs = forms.iter().flat_map(|(name, content)| [*name, *content]);
    let fields = std::iter::once("\0").chain(pairs);
    frame(1, 0, fields.map(str::as_bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn of(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
        frame(kind, 7, fields.iter().copied())
    }

    fn said(kind: u8, fields: &[&[u8]]) -> Result<Said, Malformed> {
        let bytes = of(kind, fields);
        let (frame, length) = parse(&bytes)?.expect("it is whole");
        assert_eq!((frame.cell, length), (7, bytes.len()));
        Ok(frame.said)
    }

    #[test]
    fn ends_are_read() {
        let check = |fields: &[&[u8]], expected: Result<Went, &'static str>| {
            let expected = expected.map(Said::End).map_err(Malformed);
            assert_eq!(said(3, fields), expected, "{fields:?}");
        };
        check(&[b"\0", b"\0\0\0\0"], Ok(Went::Done));
        check(&[b"\x01", b"\x01\0\0\0"], Ok(Went::Raised));
        check(&[b"\x02", b"\x07\0\0\0"], Ok(Went::Exited(7)));
        check(&[b"\x03", b"\0\0\0\0"], Err("a cell ended in no known way"));
        check(&[b"\0", b"\0"], Err("an exit code is no number"));
        check(&[b"\0"], Err("a frame is of no known kind"));
    }

    #[test]
    fn results_have_known_forms_only() {
        let check = |fields: &[&[u8]], expected: &[(&str, &str)]| {
            let Ok(Said::Result(result)) = said(1, fields) else {
                panic!("{fields:?}");
            };
            let forms = result.forms.iter();
            let forms: Vec<(&str, &str)> = forms
                .map(|form| (form.media_type, form.content.as_str()))
                .collect();
            assert_eq!(forms, expected);
        };
        check(&[b"\0"], &[]);
        check(&[b"\x01", b"text/plain", b"2"], &[("text/plain", "2")]);
        check(
            &[b"\0", b"image/png", b"iVBO", b"text/plain", b"a"],
            &[("image/png", "iVBO"), ("text/plain", "a")],
        );
        check(&[b"\0", b"image/png", b"<svg>"], &[]);
        check(&[b"\0", b"image/png", b"iVB="], &[("image/png", "iVB=")]);
        check(&[b"\0", b"image/png", b"i==="], &[]);
        check(&[b"\0", b"text/x-shellscript", b"rm"], &[]);
        check(
            &[b"\0", b"text/plain", b"first", b"text/plain", b"second"],
            &[("text/plain", "first")],
        );
        check(
            &[b"\0", b"text/plain", b"\xff"],
            &[("text/plain", "\u{fffd}")],
        );
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let check = |bytes: &[u8], expected| assert_eq!(parse(bytes), expected, "{bytes:?}");
        check(b"", Ok(None));
        check(b"\x09\0\0", Ok(None));
        check(&of(3, &[b"\0", b"\0\0\0\0"])[..9], Ok(None));
        check(b"\0\0\0\0", Err(Malformed("a frame is too small")));
        check(b"\xff\xff\xff\x7f", Err(Malformed("a frame is too large")));
        check(&of(9, &[]), Err(Malformed("a frame is of no known kind")));
        let mut cut = of(1, &[b"\0"]);
        cut[13] = 200;
        check(&cut, Err(Malformed("a field is cut")));
        let many: Vec<&[u8]> = vec![b"".as_slice(); 100];
        check(&of(1, &many), Err(Malformed("a frame has too many fields")));
        check(
            &of(1, &[b"\x05"]),
            Err(Malformed("a result is of no known kind")),
        );
    }

    #[test]
    fn a_cell_is_written_as_interpreters_read_it() {
        let env = [("A".to_owned(), "b c".to_owned())];
        let bytes = run(3, "1+1", b"in", &env);
        let (head, body) = bytes.split_at(HEAD);
        let expected = [&length(bytes.len() - 4)[..], &[1], &3u64.to_le_bytes()].concat();
        assert_eq!(head, expected);
        assert_eq!(fields(body).unwrap(), [&b"1+1"[..], b"in", b"A", b"b c"]);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&bytes));
        }

        #[test]
        fn a_frame_is_found_before_others(kind in 0..5u8, fields in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..5), more: Vec<u8>) {
            let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
            let whole = of(kind, &fields);
            let alone = parse(&whole);
            let with_more = parse(&[whole.clone(), more].concat());
            assert_eq!(alone, with_more);
            for cut in 0..whole.len() {
                if alone.is_ok() {
                    assert!(matches!(parse(&whole[..cut]), Ok(None)));
                }
            }
        }
    }
}
