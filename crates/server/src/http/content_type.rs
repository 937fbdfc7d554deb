//! What the Content-Type of a request must say, and must not.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::api::{Code, Problem};

/// Returns whether a body is the form of a page, with its fields in one line.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let first = all.next().filter(|_| all.next().is_none());
    first.is_some_and(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// Refuses a request whose content type does not say JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let (sent, repeated) = (all.next(), all.next().is_some());
    let text = sent.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let essence = text
        .as_deref()
        .and_then(|text| text.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase());
    let sent = match essence {
        Some(_) if repeated => "comes twice".to_owned(),
        Some(essence) if is_json(&essence) => return Ok(()),
        Some(essence) => format!("is \"{}\"", crate::api::error::quote(&essence)),
        None => "is missing".to_owned(),
    };
    Err(Problem::new(
        Code::UnsupportedMediaType,
        format!(
            "The Content-Type header {sent}. Send 'Content-Type: application/json' and a JSON body."
        ),
    ))
}

/// Refuses a body that the plain form of a page can send: of one of three
/// types, or of none.
pub(super) fn require_no_form(headers: &HeaderMap) -> Result<(), Problem> {
    let plain = |value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let essence = text.split(';').next().unwrap_or_default().trim();
        [
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "text/plain",
        ]
        .iter()
        .any(|form| essence.eq_ignore_ascii_case(form))
    };
    let mut all = headers.get_all(header::CONTENT_TYPE).iter().peekable();
    if all.peek().is_some() && !all.any(plain) {
        return Ok(());
    }
    // In the words of those who want JSON, which is what is missing here.
    require_json(headers)
}

fn is_json(essence: &str) -> bool {
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_content_types() {
        for (value, expected) in [
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some("application/vnd.api+json"), true),
            (Some("text/plain"), false),
            (Some("application/x-www-form-urlencoded"), false),
            (Some("text/json+json"), false),
            (Some(""), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::CONTENT_TYPE, value.parse().expect("a value"));
            }
            assert_eq!(require_json(&headers).is_ok(), expected, "{value:?}");
        }
        let mut twice = HeaderMap::new();
        for value in ["application/json", "text/plain"] {
            twice.append(header::CONTENT_TYPE, value.parse().expect("a value"));
        }
        let refused = require_json(&twice).expect_err("which one counts?");
        assert!(refused.detail.contains("comes twice"), "{}", refused.detail);
    }
}
