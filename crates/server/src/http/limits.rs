//! The rate limit of `/execute`, told in every answer.
//!
//! Both spellings are sent: the older `RateLimit-*` fields that clients know,
//! and the structured `RateLimit` and `RateLimit-Policy`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::state::Shared;
use crate::api::error::whole_seconds;
use crate::api::{Code, Problem};
use crate::auth::Principal;
use crate::config::{Access, RateLimit};
use crate::rate::Verdict;

/// The layer.
pub(super) async fn limit(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let config = &shared.app.config;
    if config.rate.is_off() {
        // Nothing is limited, so there is nothing to count and to tell.
        return next.run(request).await;
    }
    let Some(principal) = request.extensions().get::<Principal>() else {
        tracing::error!("a request reached its rate limit around the gate");
        return Problem::internal().into_response();
    };
    let id = principal.id.clone();
    within(&shared, id.as_str(), next.run(request)).await
}

/// Returns `answer` where the rate of the caller with that key allows it, and
/// else its refusal, and tells the rate.
pub(super) async fn within(
    shared: &Shared,
    key: &str,
    answer: impl Future<Output = Response>,
) -> Response {
    let config = &shared.app.config;
    if config.rate.is_off() {
        return answer.await;
    }
    let verdict = shared.app.rate.check(key);
    let mut response = if verdict.allowed {
        answer.await
    } else {
        refusal(config.access, config.rate, verdict).into_response()
    };
    tell(response.headers_mut(), config.rate, verdict);
    response
}

fn refusal(access: Access, rate: RateLimit, verdict: Verdict) -> Problem {
    let (per, wait) = (period(rate), whole_seconds(verdict.reset));
    let who = match access {
        Access::Open => "Without tokens, all callers together",
        Access::Token => "This key",
    };
    Problem::new(
        Code::RateLimited,
        format!(
            "{who} may send {} requests per {per}, and that is used up. Try again in {wait} s; the operator can raise it with --rate-limit N/minute.",
            rate.requests
        ),
    )
    .retry_after(verdict.reset)
}

fn period(rate: RateLimit) -> String {
    match rate.period.as_secs() {
        1 => "second".to_owned(),
        60 => "minute".to_owned(),
        3600 => "hour".to_owned(),
        seconds => format!("{seconds} s"),
    }
}

fn tell(headers: &mut HeaderMap, rate: RateLimit, verdict: Verdict) {
    // Zero is honest here: a bucket that is full again, or nearly so.
    let reset = verdict.reset.as_secs() + u64::from(verdict.reset.subsec_nanos() > 0);
    headers.insert("ratelimit-limit", verdict.limit.into());
    headers.insert("ratelimit-remaining", verdict.remaining.into());
    headers.insert("ratelimit-reset", reset.into());
    let policy = format!(
        "\"default\";q={};w={}",
        rate.requests,
        rate.period.as_secs().max(1)
    );
    let now = format!("\"default\";r={};t={reset}", verdict.remaining);
    for (name, value) in [("ratelimit-policy", policy), ("ratelimit", now)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: RateLimit = RateLimit {
        requests: 10,
        period: Duration::from_secs(60),
        burst: 5,
    };

    #[test]
    fn the_figures_are_told_in_both_spellings() {
        let mut headers = HeaderMap::new();
        let verdict = Verdict {
            allowed: false,
            limit: 5,
            remaining: 0,
            reset: Duration::from_millis(5_200),
        };
        tell(&mut headers, RATE, verdict);
        for (name, expected) in [
            ("ratelimit-limit", "5"),
            ("ratelimit-remaining", "0"),
            ("ratelimit-reset", "6"),
            ("ratelimit-policy", "\"default\";q=10;w=60"),
            ("ratelimit", "\"default\";r=0;t=6"),
        ] {
            assert_eq!(headers[name], expected, "{name}");
        }
        let problem = refusal(Access::Open, RATE, verdict);
        assert!(problem.detail.contains("10 requests per minute"));
        assert!(problem.detail.contains("--rate-limit"));
        assert_eq!(problem.retry_after, Some(verdict.reset));
    }
}
