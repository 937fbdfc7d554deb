//! Request bodies: read within bounds, and read to the end when refused.
//!
//! A client that is still sending when its connection closes often loses the
//! answer to a reset. So what a handler left unread is read and thrown away
//! for a while before the refusal is sent.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use engine::Owner;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Frame, SizeHint};

use super::byte_shares::{ByteShare, ByteShares};
use crate::api::{Code, Problem};

/// Bytes of a refused body that are read only to be thrown away.
const DISCARD: usize = 128 * 1024 * 1024;

/// Bytes of all requests in hand together, from the first byte of a body to
/// the end of its run; more where the largest body is larger than 64 MiB.
pub(crate) const REQUEST_BYTES: u64 = 256 * 1024 * 1024;

/// Returns the shares of the bytes of requests: room for four bodies at least.
pub(super) fn shares(body_limit: usize) -> ByteShares {
    ByteShares::new(REQUEST_BYTES.max(4 * body_limit as u64))
}

/// Reads a whole body of at most `limit` bytes within `patience`. Its bytes are
/// counted to `owner` as they arrive, until the share is dropped.
///
/// # Errors
/// 413 for one over `limit`, 503 where there is no room, 408 for one that is
/// late.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    (shares, owner): (&ByteShares, &Owner),
    limit: usize,
    patience: Duration,
) -> Result<(Bytes, ByteShare), Problem> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let mut room = shares.take(owner, 0).ok_or_else(no_room)?;
    let reading = read_whole(body, &mut room, limit);
    let bytes = tokio::time::timeout(patience, reading).await;
    let bytes = bytes.map_err(|_late| {
        Problem::new(
            Code::RequestTimeout,
            format!(
                "The request body did not arrive within {} s. Send it faster, or send less.",
                patience.as_secs()
            ),
        )
    })??;
    Ok((bytes, room))
}

fn no_room() -> Problem {
    Problem::new(
        Code::Unavailable,
        "The server holds too many bytes of requests. Wait until some of them are answered, or send less at once.",
    )
    .retry_after(Duration::from_secs(5))
}

async fn read_whole(body: Body, room: &mut ByteShare, limit: usize) -> Result<Bytes, Problem> {
    let mut body = Limited::new(body, limit);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return too_large(limit);
            }
            Problem::new(
                Code::InvalidRequest,
                "The request body could not be read to its end: the connection broke or the chunks are malformed. Send it again.",
            )
        })?;
        if let Ok(data) = frame.into_data() {
            if !room.grow(data.len() as u64) {
                return Err(no_room());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.into())
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        Code::BodyTooLarge,
        format!(
            "The request body is larger than {limit} bytes, the most this server takes. Send less; the operator can raise the limit with the setting max_body (CODEX_MAX_BODY)."
        ),
    )
}

/// A request's body of which one half is given to the handler, while the
/// other can read what the handler left.
#[derive(Debug, Clone)]
pub(super) struct Lent {
    body: Arc<Mutex<Body>>,
    /// The client waits for a `100 Continue`, which the first read sends.
    waits: Arc<AtomicBool>,
}

impl Lent {
    /// Splits a body.
    pub(super) fn new(headers: &HeaderMap, body: Body) -> Self {
        Self {
            body: Arc::new(Mutex::new(body)),
            waits: Arc::new(AtomicBool::new(headers.contains_key(header::EXPECT))),
        }
    }

    /// The handler's half.
    pub(super) fn body(&self) -> Body {
        Body::new(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads and throws away what the handler left, within bounds.
    pub(super) async fn discard(self, patience: Duration) {
        // A client that waits to be asked has sent nothing that could be lost.
        if self.waits.load(Ordering::Relaxed) || self.lock().is_end_stream() {
            return;
        }
        let mut rest = Limited::new(self, DISCARD);
        let end = async { while let Some(Ok(_)) = rest.frame().await {} };
        // Whether it ended or not, the answer goes out now.
        drop(tokio::time::timeout(patience, end).await);
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waits.store(false, Ordering::Relaxed);
        Pin::new(&mut *self.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    async fn outcome(body: Body, declared: Option<&str>) -> Result<usize, Code> {
        let mut headers = HeaderMap::new();
        if let Some(length) = declared {
            headers.insert(header::CONTENT_LENGTH, length.parse().expect("a value"));
        }
        let shares = ByteShares::new(20);
        let owner = (&shares, &Owner::default());
        let received = read(&headers, body, owner, 10, PATIENCE).await;
        let received = received.map(|(bytes, room)| {
            assert_eq!(shares.held(), bytes.len() as u64);
            drop(room);
            bytes.len()
        });
        assert_eq!(shares.held(), 0);
        received.map_err(|problem| problem.code)
    }

    /// A body that never comes.
    struct Silent;

    impl HttpBody for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn bodies_are_read_within_bounds() {
        assert_eq!(outcome(Body::from("1234567890"), None).await, Ok(10));
        assert_eq!(
            outcome(Body::from("12345678901"), None).await,
            Err(Code::BodyTooLarge)
        );
        assert_eq!(
            outcome(Body::empty(), Some("11")).await,
            Err(Code::BodyTooLarge)
        );
        assert_eq!(
            outcome(Body::new(Silent), None).await,
            Err(Code::RequestTimeout)
        );
    }

    #[tokio::test]
    async fn who_holds_most_of_the_bytes_is_refused() {
        let (shares, owner) = (ByteShares::new(20), Owner::default());
        let headers = HeaderMap::new();
        let held = shares.take(&owner, 8).expect("room");
        let three = |owner: Owner| {
            let (shares, headers) = (&shares, &headers);
            async move { read(headers, Body::from("123"), (shares, &owner), 10, PATIENCE).await }
        };
        let refused = three(owner.clone())
            .await
            .expect_err("three more are too many");
        assert_eq!(refused.code, Code::Unavailable);
        let (bytes, _room) = three(Owner::new("other")).await.expect("room for another");
        assert_eq!(bytes, "123");
        drop(held);
        assert!(three(owner).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_left_is_thrown_away() {
        let lent = Lent::new(&HeaderMap::new(), Body::from("unread"));
        drop(lent.body());
        assert!(!HttpBody::is_end_stream(&lent));
        lent.clone().discard(PATIENCE).await;
        assert!(HttpBody::is_end_stream(&lent));
    }
}
