//! ChatGPT Actions: how their requests are told, and what they can bear.
//!
//! An action is given up after 45 s, and an answer of 100 000 characters or
//! more is dropped whole. The paths are those of every other client, so the
//! requests are told by their headers. Taking somebody else for an action
//! only makes an answer shorter, so the net is cast wide.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use engine::{Bounds, Draft};
use tokio::time::Instant;

/// What is kept of an action's time for making a box, collecting files and
/// writing the answer.
const RESERVE: Duration = Duration::from_secs(2);

/// The shortest wall time that an action's program gets, however late it came.
const LEAST: Duration = Duration::from_secs(1);

/// What is kept of an action's time for its program, however slow the hosts
/// of its files are: this, or half of all where that is less.
const AFTER_FETCH: Duration = Duration::from_secs(12);

/// Characters of an answer.
pub(super) const CHARS: usize = 99_000;

/// Whether a request comes from a ChatGPT Action.
pub(super) fn is_action(headers: &HeaderMap) -> bool {
    let named = headers
        .keys()
        .any(|name| name.as_str().starts_with("openai-"));
    let agent = headers.get(header::USER_AGENT);
    let agent = agent
        .is_some_and(|value| String::from_utf8_lossy(value.as_bytes()).contains("ChatGPT-User"));
    named || agent
}

/// When the files of an action must be there that is to be answered at
/// `deadline`, `limit` after it came.
pub(super) fn last_fetch(deadline: Instant, limit: Duration) -> Instant {
    let after = AFTER_FETCH.min(limit / 2);
    deadline.checked_sub(after).unwrap_or(deadline)
}

/// Fits a draft into what is `left` of an action's time: its program gets no
/// more, and it waits for a place no longer than the rest. A draft that asks
/// for more than the server allows is left to be refused. Gives a warning
/// when the program gets less than was asked for.
pub(super) fn fit_time(
    draft: &mut Draft,
    bounds: &Bounds,
    limit: Duration,
    left: Duration,
) -> Option<String> {
    let asked = draft.wall_time.unwrap_or(bounds.wall_time);
    if asked > bounds.wall_time_max {
        return None;
    }
    let left = left.saturating_sub(RESERVE);
    let given = asked.min(left.max(LEAST));
    draft.wall_time = Some(given);
    draft.queue_wait = Some(left.saturating_sub(given));
    (given < asked).then(|| {
        format!(
            "`timeout` was lowered from {:.1} s to {:.1} s, since a ChatGPT Action must be answered within {} s",
            asked.as_secs_f64(),
            given.as_secs_f64(),
            limit.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_s_time_is_shared_between_queue_and_program() {
        let bounds = Bounds {
            wall_time: Duration::from_secs(10),
            wall_time_max: Duration::from_secs(60),
            ..Bounds::default()
        };
        let check = |asked: Option<u64>, left: u64, given: Option<u64>, wait: Option<u64>| {
            let mut draft = Draft {
                wall_time: asked.map(Duration::from_secs),
                ..Draft::default()
            };
            let limit = Duration::from_secs(40);
            let warning = fit_time(&mut draft, &bounds, limit, Duration::from_secs(left));
            assert_eq!(draft.wall_time, given.map(Duration::from_secs), "{asked:?}");
            assert_eq!(draft.queue_wait, wait.map(Duration::from_secs), "{asked:?}");
            let lowered = given < asked.or(Some(10));
            assert_eq!(warning.is_some(), lowered, "{warning:?}");
        };
        check(None, 40, Some(10), Some(28));
        check(Some(30), 40, Some(30), Some(8));
        check(Some(38), 40, Some(38), Some(0));
        check(Some(60), 40, Some(38), Some(0));
        check(Some(10), 1, Some(1), Some(0));
        // The engine says what is wrong with it.
        check(Some(61), 40, Some(61), None);
    }

    #[test]
    fn a_slow_host_of_files_leaves_time_for_the_program() {
        let now = Instant::now();
        for (limit, left) in [(40, 28), (24, 12), (4, 2)] {
            let limit = Duration::from_secs(limit);
            let last = last_fetch(now + limit, limit);
            assert_eq!(last - now, Duration::from_secs(left), "{limit:?}");
        }
    }

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
