//! The endpoints that a tunnel's client calls: the record, the poll and the
//! response. Each hands a command out once, and takes one final answer to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use crate::answer::{Fault, Refusal, empty, json_answer};
use crate::rules::{self, Reply};
use crate::state::{Final, Shared};
use crate::{Door, Poll, Post};

/// Longest time that a poll is held.
const HOLD: Duration = Duration::from_secs(30);

/// Largest body of an answer, in bytes.
const LARGEST_BODY: usize = 8 << 20;

impl Shared {
    /// Returns the answer of a refusal, and keeps it as a violation.
    pub(crate) fn refuse(&self, refusal: Refusal) -> Response {
        self.with(|state| state.violations.push(violation(&refusal)));
        refusal.answer()
    }
}

fn violation(refusal: &Refusal) -> String {
    format!(
        "{} {}: {}",
        refusal.status.as_u16(),
        refusal.code,
        refusal.message
    )
}

/// Answers with the tunnel's record.
pub(crate) async fn record(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    shared.with(|state| state.records += 1);
    if let Err(refusal) =
        enter(&shared, &id, &headers).and_then(|()| rules::own(&shared, &id, StatusCode::FORBIDDEN))
    {
        return shared.refuse(refusal);
    }
    match shared.with(|state| state.fault(Door::Record)) {
        Some(fault) => fault.answer(),
        None => json_answer(StatusCode::OK, &crate::record(&id)),
    }
}

/// What a poll that waits comes upon.
enum Found {
    Fault(Fault),
    Commands(Vec<Value>),
}

/// Waits for commands and hands them out; status 204 where none came.
pub(crate) async fn poll(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let at = Instant::now();
    let query = query.unwrap_or_default();
    let entered = enter(&shared, &id, &headers)
        .and_then(|()| rules::own(&shared, &id, StatusCode::UNAUTHORIZED))
        .and_then(|()| rules::query(&query));
    let poll = Poll { at, query, headers };
    shared.with(|state| state.polls.push(poll));
    let wish = match entered {
        Ok(wish) => wish,
        Err(refusal) => return shared.refuse(refusal),
    };
    let found = shared.wait(at + wish.timeout.min(HOLD), |state| {
        if let Some(fault) = state.fault(Door::Poll) {
            return Some(Found::Fault(fault));
        }
        let commands = state.take(wish.limit, &wish.channels);
        (!commands.is_empty()).then_some(Found::Commands(commands))
    });
    match found.await {
        Some(Found::Fault(fault)) => fault.answer(),
        Some(Found::Commands(commands)) => {
            json_answer(StatusCode::OK, &json!({ "commands": commands }))
        }
        None => empty(StatusCode::NO_CONTENT),
    }
}

/// Takes a notification or the final answer to a command.
pub(crate) async fn response(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let read = to_bytes(body, LARGEST_BODY).await;
    let at = Instant::now();
    let too_large = read.is_err();
    let bytes = read.map(Vec::from).unwrap_or_default();
    let judged = enter(&shared, &id, &headers).and_then(|()| {
        if too_large {
            let message = format!("a body of more than {LARGEST_BODY} bytes, or half of one");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Refusal::new(status, "request_body_too_large", message));
        }
        rules::reply(&headers, &bytes)
    });
    shared.with(|state| {
        let (status, answer) = match judged {
            Err(refusal) => (Some(refusal.status.as_u16()), Err(refusal)),
            Ok(reply) => match state.fault(Door::Response) {
                Some(fault) => (fault.code(), Ok(fault.answer())),
                None => match settle(&shared, state, &id, &reply, &bytes, at) {
                    Ok(()) => {
                        let done = json!({ "status": "ok" });
                        (Some(200), Ok(json_answer(StatusCode::OK, &done)))
                    }
                    Err(refusal) => (Some(refusal.status.as_u16()), Err(refusal)),
                },
            },
        };
        let answer = answer.unwrap_or_else(|refusal| {
            if !is_repetition(state, &refusal, &bytes) {
                state.violations.push(violation(&refusal));
            }
            refusal.answer()
        });
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        state.posts.push(Post {
            at,
            headers,
            bytes,
            body,
            status,
        });
        answer
    })
}

/// Says whether a refused answer is the accepted one once more, as a client may
/// send it that never saw the first 200.
fn is_repetition(state: &crate::state::State, refusal: &Refusal, bytes: &[u8]) -> bool {
    let finished = state
        .pending
        .values()
        .filter_map(|one| one.finished.as_ref());
    refusal.status == StatusCode::NOT_FOUND && finished.into_iter().any(|one| one.bytes == bytes)
}

/// Gives a reply to the command that waits for it.
fn settle(
    shared: &Shared,
    state: &mut crate::state::State,
    tunnel: &str,
    reply: &Reply,
    bytes: &[u8],
    at: Instant,
) -> Result<(), Refusal> {
    let gone = |why: &str| {
        let message = format!("{why}: {}", reply.request_id);
        Refusal::new(StatusCode::NOT_FOUND, "pending_request_not_found", message)
    };
    let pending = state.pending.get_mut(&reply.request_id);
    let pending = pending.ok_or_else(|| gone("an answer to an unknown request"))?;
    if tunnel != shared.id {
        let message = "an answer to another tunnel's request";
        let status = StatusCode::UNAUTHORIZED;
        return Err(Refusal::new(status, "tunnel_request_mismatch", message));
    }
    let handed_out = pending
        .handed_out
        .ok_or_else(|| gone("an answer to a request that no poll got"))?;
    if reply.shard_token != crate::state::text(&pending.command, "shard_token") {
        return Err(gone("the shard token of another request"));
    }
    if pending.finished.is_some() {
        return Err(gone("an answer to a request that has its final answer"));
    }
    if rules::is_late(&pending.command, at.duration_since(handed_out)) {
        return Err(gone("an answer after the deadline"));
    }
    rules::suits(reply, &pending.command)?;
    if reply.is_final() {
        pending.finished = Some(Final {
            bytes: bytes.to_vec(),
            body: reply.body.clone(),
        });
    } else {
        pending.notifications.push(reply.body.clone());
    }
    state.violations.extend(rules::remarks(reply));
    Ok(())
}

/// Checks what every request must have, and remarks on headers that only inform.
fn enter(shared: &Shared, id: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    rules::enter(shared, id, headers)?;
    let remarks = rules::introduction(headers);
    shared.with(|state| state.violations.extend(remarks));
    Ok(())
}
