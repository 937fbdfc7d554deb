//! Cuts a response to a number of characters of JSON, visibly.
//!
//! Some clients drop an answer that is too long; a shorter one that says what
//! is missing serves them better. The room is shared fairly: the longest
//! parts are cut first and down to one common length, so a short traceback
//! survives a flood of output. Texts keep head and tail, file contents are
//! whole or absent, since half a picture is of no use.

use serde_json::Value;

use super::response::{ExecuteResponse, FileOut};

/// The least number of characters that [`fit`] can be asked for.
pub(super) const LEAST_CHARS: usize = 4_000;

/// What the warnings together may have of the room: one part in so many.
const WARNINGS_PART: usize = 8;

/// Characters kept of each warning and of the version when room is very short.
const SHORT: usize = 120;

/// Characters kept of a result's text when the whole is too long.
const RESULT: usize = 2_000;

/// Denied calls, and results, kept when room is very short.
const FEW: usize = 8;

/// Room for the warnings that fitting itself adds.
const OWN_WARNINGS: usize = 300;

/// Room for one marker in a cut text, with its escapes.
const MARKER: usize = 80;

/// Cuts `response` until its JSON is at most `max_chars` UTF-16 units long
/// (at least `LEAST_CHARS`), and sets `truncated` if anything was cut.
#[must_use]
pub fn fit(mut response: ExecuteResponse, max_chars: usize) -> ExecuteResponse {
    let max_chars = max_chars.max(LEAST_CHARS);
    if document_chars(&response) <= max_chars {
        return response;
    }
    response.truncated = true;
    cut_warnings(&mut response.warnings, max_chars / WARNINGS_PART);
    let room = max_chars - OWN_WARNINGS;
    drop_results(&mut response);
    let fixed = document_chars(&strip(&response));
    let dropped = drop_contents(&mut response, room.saturating_sub(fixed));
    if dropped > 0 {
        response.warnings.push(format!(
            "files listed without content: {dropped}, since this client takes at most {max_chars} characters; a file's `url` has them"
        ));
    }
    let fixed = document_chars(&strip(&response)) + contents_chars(&response.files);
    let cap = level(&texts_chars(&response), room.saturating_sub(fixed));
    for text in texts(&mut response) {
        cut(text, cap);
    }
    if document_chars(&response) > max_chars {
        shorten_lists(&mut response, max_chars);
    }
    response
}

/// Leaves of each result what a model reads, and little of that: a picture in Base64
/// would leave no room for anything else.
fn drop_results(response: &mut ExecuteResponse) {
    let mut dropped = 0;
    for result in &mut response.results {
        let before = result.data.len();
        result.data.retain(|form, _| form == "text/plain");
        dropped += before - result.data.len();
        for value in result.data.values_mut() {
            if let Value::String(text) = value {
                cut(text, RESULT);
            }
        }
    }
    let surplus = response.results.len().saturating_sub(FEW);
    response.results.truncate(FEW);
    if dropped + surplus > 0 {
        response.warnings.push(format!(
            "left out of the results for want of room: {dropped} forms such as pictures, and {surplus} whole results"
        ));
    }
}

/// Cuts the longest warnings until all together have at most `room` characters
/// of JSON: they may repeat a program's words, and its output is worth more.
fn cut_warnings(warnings: &mut [String], room: usize) {
    let lengths: Vec<usize> = warnings.iter().map(|text| json_chars(text)).collect();
    let cap = level(&lengths, room);
    for warning in warnings.iter_mut().filter(|text| json_chars(text) > cap) {
        let (_, kept) = prefix(warning.chars(), cap.saturating_sub(1));
        warning.truncate(kept);
        warning.push('…');
    }
}

/// UTF-16 units of `text` as a JSON string, without its quotes.
#[must_use]
pub fn json_chars(text: &str) -> usize {
    text.chars().map(char_chars).sum()
}

fn char_chars(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf16(),
    }
}

fn document_chars(response: &ExecuteResponse) -> usize {
    let json =
        serde_json::to_string(response).expect("strings and finite numbers always serialise");
    json.encode_utf16().count()
}

/// The response without the parts that are cut to share the room.
fn strip(response: &ExecuteResponse) -> ExecuteResponse {
    let mut bare = response.clone();
    for text in texts(&mut bare) {
        text.clear();
    }
    for file in &mut bare.files {
        if let Some(content) = &mut file.content {
            content.clear();
        }
    }
    bare
}

fn texts(response: &mut ExecuteResponse) -> Vec<&mut String> {
    let stages = response.stages.iter_mut();
    let mut texts = vec![&mut response.output, &mut response.error];
    texts.extend(stages.flat_map(|stage| [&mut stage.output, &mut stage.error]));
    texts
}

fn texts_chars(response: &ExecuteResponse) -> Vec<usize> {
    let stages = response.stages.iter();
    let stages = stages.flat_map(|stage| [&stage.output, &stage.error]);
    [&response.output, &response.error]
        .into_iter()
        .chain(stages)
        .map(|text| json_chars(text))
        .collect()
}

fn contents_chars(files: &[FileOut]) -> usize {
    let contents = files.iter().filter_map(|file| file.content.as_deref());
    contents.map(json_chars).sum()
}

/// Drops the contents that are longer than a fair share of `room`, the
/// longest first, and says how many.
fn drop_contents(response: &mut ExecuteResponse, room: usize) -> usize {
    let mut dropped = 0;
    loop {
        let mut lengths = texts_chars(response);
        let contents = response.files.iter().enumerate();
        let longest = contents
            .filter_map(|(at, file)| Some((json_chars(file.content.as_deref()?), at)))
            .inspect(|(length, _)| lengths.push(*length))
            .max();
        match longest {
            Some((length, at)) if length > level(&lengths, room) => {
                let file = &mut response.files[at];
                (file.content, file.encoding) = (None, None);
                dropped += 1;
            }
            _ => return dropped,
        }
    }
}

/// The greatest length to which everything longer must be cut so that all
/// together fit into `room`.
fn level(lengths: &[usize], room: usize) -> usize {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    let mut left = room;
    for (at, length) in sorted.iter().enumerate() {
        let share = left / (sorted.len() - at);
        if *length > share {
            return share;
        }
        left -= length;
    }
    usize::MAX
}

/// Cuts `text` to `cap` characters of JSON: three quarters head, one quarter tail.
fn cut(text: &mut String, cap: usize) {
    let total = json_chars(text);
    if total <= cap {
        return;
    }
    let Some(keep) = cap.checked_sub(MARKER) else {
        // No room for a marker: `truncated` has to do.
        text.clear();
        return;
    };
    let head = prefix(text.chars(), keep - keep / 4);
    let tail = prefix(text.chars().rev(), keep / 4);
    let missing = text.chars().count() - head.0 - tail.0;
    let marker = format!("\n[… {missing} characters left out for this client …]\n");
    let tail_at = text.len() - tail.1;
    *text = format!("{}{marker}{}", &text[..head.1], &text[tail_at..]);
}

/// How many characters, and how many bytes, fit into `room` characters of JSON.
fn prefix(chars: impl Iterator<Item = char>, mut room: usize) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    for c in chars {
        let Some(left) = room.checked_sub(char_chars(c)) else {
            break;
        };
        room = left;
        count += 1;
        bytes += c.len_utf8();
    }
    (count, bytes)
}

/// Last resort, for names and warnings of absurd length.
fn shorten_lists(response: &mut ExecuteResponse, max_chars: usize) {
    // The warning at the end must fit too, even where no text is left to pay for it.
    let room = max_chars - OWN_WARNINGS;
    // These links stand in `files` again.
    response.markdown = None;
    response.openai_files.clear();
    let before = response.files.len();
    while document_chars(response) > room && !response.files.is_empty() {
        let half = response.files.len() / 2;
        response.files.truncate(half);
    }
    let gone = before - response.files.len();
    if document_chars(response) > room {
        response.warnings.truncate(4);
        for warning in &mut response.warnings {
            *warning = warning.chars().take(SHORT).collect();
        }
        response.version = response.version.chars().take(SHORT).collect();
        response.stages.clear();
        response.results.clear();
        if let Some(cell) = &mut response.cell {
            (cell.exception, cell.late_output, cell.late_error) = Default::default();
        }
        if let Some(calls) = &mut response.denied_calls {
            let left_out = calls.len().saturating_sub(FEW);
            calls.truncate(FEW);
            for call in calls {
                call.reason = call.reason.chars().take(SHORT).collect();
            }
            if left_out > 0 {
                response.warnings.push(format!(
                    "denied calls not listed for want of room: {left_out}"
                ));
            }
        }
    }
    if gone > 0 {
        response
            .warnings
            .push(format!("files not listed for want of room: {gone}"));
    }
    // What is still too much is paid for by the texts, which are worth less than knowing of it.
    let over = document_chars(response).saturating_sub(max_chars);
    if over > 0 {
        let cap = json_chars(&response.output).saturating_sub(over);
        cut(&mut response.output, cap);
    }
    if document_chars(response) > max_chars {
        response.error.clear();
    }
}

#[cfg(test)]
#[path = "fit/tests.rs"]
mod tests;
