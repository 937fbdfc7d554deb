//! ChatGPT Actions: how their requests are told, and what they can bear.
//!
//! An action is given up after 45 s, and an answer of 100 000 characters or
//! more is dropped whole. The paths are those of every other client, so the
//! requests are told by their headers. Taking somebody else for an action
//! only makes an answer shorter, so the net is cast wide.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};

use crate::runs::{ClientLimits, Deadline};

/// Characters of an answer.
const CHARS: usize = 99_000;

/// Returns the limits of a ChatGPT Action, where the headers show one. Its
/// request had `arrived` then, and is to be answered within `limit`.
pub(super) fn limits(
    headers: &HeaderMap,
    arrived: Instant,
    limit: Duration,
) -> Option<ClientLimits> {
    is_action(headers).then(|| ClientLimits {
        deadline: Some(Deadline {
            at: (arrived + limit).into(),
            limit,
            whose: "a ChatGPT Action",
        }),
        max_chars: Some(CHARS),
        chatgpt_files: true,
    })
}

/// Whether a request comes from a ChatGPT Action.
fn is_action(headers: &HeaderMap) -> bool {
    let named = headers
        .keys()
        .any(|name| name.as_str().starts_with("openai-"));
    let agent = headers.get(header::USER_AGENT);
    let agent = agent
        .is_some_and(|value| String::from_utf8_lossy(value.as_bytes()).contains("ChatGPT-User"));
    named || agent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_told_by_their_headers() {
        for (name, value, expected) in [
            ("openai-conversation-id", "x", true),
            ("openai-ephemeral-user-id", "x", true),
            ("openai-gpt-id", "g-x", true),
            (
                "user-agent",
                "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot",
                true,
            ),
            ("user-agent", "OpenAI/Python 2.0", false),
            ("user-agent", "curl/8.0", false),
            ("x-openai", "x", false),
        ] {
            let mut headers = HeaderMap::new();
            let name: header::HeaderName = name.parse().expect("a name");
            headers.insert(name, value.parse().expect("a value"));
            assert_eq!(is_action(&headers), expected, "{value}");
        }
    }
}
