//! Which form of an answer the client wants, by its `Accept` header.

use axum::http::{HeaderMap, header};

use crate::api::{Code, Problem};

/// The forms in which a run can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON document at the end.
    Json,
    /// Events as they happen.
    Events,
}

impl Form {
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Events => ("text", "event-stream"),
        }
    }
}

/// Media ranges of one header that are looked at.
const RANGES: usize = 64;

/// A media range of the header, in lower case, and its weight in thousandths.
#[derive(Debug)]
struct Range {
    kind: String,
    subtype: String,
    weight: u16,
}

/// How well a form fits: the weight first, then how precisely it was named.
type Fit = (u16, u8);

/// The form that fits best. Equal weights go to the form that was named more
/// precisely, then to JSON, which every client of old expects. A header that
/// cannot be read counts as none.
///
/// # Errors
/// 406 when the client takes neither.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    let lines = headers.get_all(header::ACCEPT).iter();
    let ranges: Vec<Range> = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .take(RANGES)
        .filter_map(range)
        .collect();
    if ranges.is_empty() {
        return Ok(Form::Json);
    }
    let (json, events) = (fit(&ranges, Form::Json), fit(&ranges, Form::Events));
    if json.0.max(events.0) == 0 {
        return Err(Problem::new(
            Code::NotAcceptable,
            "The Accept header takes neither application/json, the whole answer at the end, nor text/event-stream, the output as it comes. Name one of them, or leave the header out.",
        ));
    }
    Ok(if events > json {
        Form::Events
    } else {
        Form::Json
    })
}

/// The weight of the most precise range that a form is in (RFC 9110, 12.5.1).
fn fit(ranges: &[Range], form: Form) -> Fit {
    let (kind, subtype) = form.media_type();
    let matching = ranges.iter().filter_map(|range| {
        let precision = match (range.kind.as_str(), range.subtype.as_str()) {
            ("*", "*") => 0,
            (of, "*") if of == kind => 1,
            (of, exact) if of == kind && exact == subtype => 2,
            _ => return None,
        };
        Some((precision, range.weight))
    });
    let best = matching.max_by_key(|(precision, _)| *precision);
    best.map_or((0, 0), |(precision, weight)| (weight, precision))
}

fn range(text: &str) -> Option<Range> {
    let mut parts = text.split(';');
    let (kind, subtype) = parts.next()?.trim().split_once('/')?;
    let is_token = |text: &str| {
        let mut bytes = text.bytes();
        !text.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&b))
    };
    if !is_token(kind) || !is_token(subtype) {
        return None;
    }
    let mut weight = 1000;
    for part in parts {
        if let Some((name, value)) = part.split_once('=')
            && name.trim().eq_ignore_ascii_case("q")
        {
            weight = thousandths(value.trim())?;
        }
    }
    Some(Range {
        kind: kind.to_ascii_lowercase(),
        subtype: subtype.to_ascii_lowercase(),
        weight,
    })
}

/// `0.5` as 500; `None` for what is no weight.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = part.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || part.len() > 3 || !digits {
        return None;
    }
    let part: u16 = format!("{part:0<3}").parse().ok()?;
    Some((whole.parse::<u16>().ok()? * 1000 + part).min(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_that_fits_best() {
        let (json, events) = (Some(Form::Json), Some(Form::Events));
        for (lines, expected) in [
            (&[][..], json),
            (&["*/*"], json),
            (&["application/json"], json),
            (&["application/*"], json),
            (&["text/event-stream"], events),
            (&["Text/Event-Stream; charset=utf-8"], events),
            (&["text/*"], events),
            (&["application/json, text/event-stream"], json),
            (&["text/event-stream, application/json"], json),
            (&["text/event-stream, */*"], events),
            (&["text/event-stream;q=0.5, */*"], json),
            (&["text/event-stream, application/json;q=0.9"], events),
            (
                &["application/json;q=0.1", "text/event-stream;q=0.2"],
                events,
            ),
            (&["text/event-stream;q=0, */*"], json),
            (&["application/json;q=0, */*"], events),
            (&["text/event-stream;q=0"], None),
            (&["text/html"], None),
            (&["application/xml, text/html;q=0.9"], None),
            (&["*/*;q=0"], None),
            // What cannot be read is as good as nothing.
            (&["json"], json),
            (&[""], json),
            (&["text/event-stream;q=2"], json),
            (&["text/event-stream;q=0.1234, application/json"], json),
            (&["a b/c"], json),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT, line.parse().expect("a value"));
            }
            assert_eq!(form(&headers).ok(), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_refusal_names_both() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "text/html".parse().expect("a value"));
        let problem = form(&headers).expect_err("neither");
        assert_eq!(problem.code.status(), 406);
        for name in ["application/json", "text/event-stream"] {
            assert!(problem.detail.contains(name), "{}", problem.detail);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_borne(line in "[ -~]{0,80}") {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, line.parse().expect("printable"));
            // Whatever it says, it is read or refused.
            form(&headers).map(|_| ()).unwrap_or_default();
        }

        #[test]
        fn weights_are_thousandths(value in 0..=1000_u16) {
            let text = format!("{}.{:03}", value / 1000, value % 1000);
            assert_eq!(thousandths(&text), Some(value));
        }
    }
}
