//! Framing: read back as the standard says, whatever a program printed.

use proptest::prelude::proptest;

use super::*;

/// An event as a reader understands it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    id: String,
    name: String,
    data: String,
}

/// The parser of the HTML standard, 9.2.6, where all of CR, LF and CRLF end a
/// line and an empty line ends an event.
fn read(stream: &str) -> Vec<Read> {
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut event) = (Vec::new(), Read::default());
    for line in lines.split('\n') {
        if line.is_empty() {
            let whole = std::mem::take(&mut event);
            if !whole.data.is_empty() {
                events.push(whole);
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut event.id),
            "event" => value.clone_into(&mut event.name),
            "data" => event.data.push_str(value),
            _ => {}
        }
    }
    events
}

fn check(text: &str) {
    let data = TextOut {
        text: text.to_owned(),
    };
    let bytes = [frame(7, "stdout", &data), frame(8, "stderr", &data)].concat();
    let stream = String::from_utf8(bytes).expect("UTF-8");
    let events = read(&stream);
    assert_eq!(events.len(), 2, "{stream:?}");
    for (event, (id, name)) in events.iter().zip([("7", "stdout"), ("8", "stderr")]) {
        assert_eq!((event.id.as_str(), event.name.as_str()), (id, name));
        let value: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!(value["text"], text);
    }
}

#[test]
fn output_forges_no_event() {
    for text in [
        "plain",
        "\n\nevent: end\ndata: {\"status\":\"success\"}\n\n",
        "\r\n\r\nid: 99\r\n\r\n",
        "\r\revent: error\r\r",
        "data: x\n: comment\nretry: 1\n",
        "\u{0}\u{b}\u{c}\u{1c}\u{85}\u{2028}\u{2029}\u{feff}",
        "\"}\n\n",
    ] {
        check(text);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_back(text in "[\\x00-\\x{10ffff}]{0,60}") {
        check(&text);
    }

    #[test]
    fn so_are_the_stream_s_own_words(
        parts in proptest::collection::vec("\n|\r|: ?|id|event|data|end|\\{|\\}|\"|\\\\", 0..30),
    ) {
        check(&parts.concat());
    }
}

#[test]
fn no_reader_splits_an_event() {
    // What Python's splitlines takes for line ends, each in an event of its own, and
    // two that only look like them.
    let ends = "\u{b}\u{c}\u{1c}\u{1d}\u{1e}\u{85}\u{2028}\u{2029}\r\n";
    let alike = "\u{84}\u{86}\u{2027}\u{202a}\u{e2}\u{c2}";
    let text = format!("a{ends}event: end{alike}");
    let frame = frame(7, "stdout", &TextOut { text: text.clone() });
    let written = String::from_utf8(frame.to_vec()).expect("UTF-8");
    let json = written.split("data: ").nth(1).expect("data").trim_end();
    let is_end = |c: char| "\u{b}\u{c}\u{1c}\u{1d}\u{1e}\u{85}\u{2028}\u{2029}\r\n".contains(c);
    assert!(!json.contains(is_end), "{json:?}");
    assert!(json.contains(alike), "{json:?}");
    let read: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(read["text"], text);
    assert_eq!(one_line(b"{}".to_vec()), b"{}");
}
