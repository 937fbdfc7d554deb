//! Request bodies: read and unpacked within bounds, and read to the end when
//! refused.
//!
//! A client that is still sending when its connection closes often loses the
//! answer to a reset. So what a handler left unread is read and thrown away
//! for a while before the refusal is sent.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use engine::{Owner, quote};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
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
    let coding = coding(headers)?;
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
    match coding {
        None => Ok((bytes, room)),
        Some(coding) => unpack(bytes, coding, limit, room).await,
    }
}

/// Counts bytes that are here already to `owner`.
///
/// # Errors
/// 503 where there is no room.
pub(super) fn share(
    shares: &ByteShares,
    owner: &Owner,
    bytes: &Bytes,
) -> Result<ByteShare, Problem> {
    shares.take(owner, bytes.len() as u64).ok_or_else(no_room)
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    /// By name zlib's format; some send the bare stream.
    Deflate,
}

/// The codings that bodies may have, for `Accept-Encoding`.
pub(super) const CODINGS: &str = "gzip, deflate";

/// Packed bytes that are unpacked where they arrive: deflate makes at most a
/// thousand bytes of one, in a few milliseconds.
const SMALL: usize = 4 * 1024;

/// Bytes that are unpacked at once.
const PIECE: usize = 64 * 1024;

/// Reads how a body is packed.
fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Problem> {
    let mut found = None;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        for name in text.split(',').map(str::trim) {
            let coding = match name {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                other => return Err(unknown_coding(other)),
            };
            if found.replace(coding).is_some() {
                return Err(unknown_coding(&text));
            }
        }
    }
    Ok(found)
}

fn unknown_coding(name: &str) -> Problem {
    Problem::new(
        Code::UnsupportedMediaType,
        format!(
            "The Content-Encoding \"{}\" is not taken. Send the body as it is, or packed once by gzip or deflate.",
            quote(name)
        ),
    )
}

/// Unpacks a body, which has the same limit as one that comes unpacked, and is
/// counted as it grows.
async fn unpack(
    packed: Bytes,
    coding: Coding,
    limit: usize,
    room: ByteShare,
) -> Result<(Bytes, ByteShare), Problem> {
    if packed.len() <= SMALL {
        return unpacked(&packed, coding, limit, room);
    }
    let unpacking = tokio::task::spawn_blocking(move || unpacked(&packed, coding, limit, room));
    unpacking.await.map_err(|error| {
        tracing::error!(%error, "unpacking a body panicked");
        Problem::internal()
    })?
}

fn unpacked(
    packed: &[u8],
    coding: Coding,
    limit: usize,
    mut room: ByteShare,
) -> Result<(Bytes, ByteShare), Problem> {
    let mut reader: Box<dyn Read + '_> = match coding {
        Coding::Gzip => Box::new(MultiGzDecoder::new(packed)),
        // Zlib's first two bytes are a multiple of 31 (RFC 1950, 2.2).
        Coding::Deflate => match packed {
            [first, second, ..]
                if first & 0xf == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0 =>
            {
                Box::new(ZlibDecoder::new(packed))
            }
            _ => Box::new(DeflateDecoder::new(packed)),
        },
    };
    let mut bytes = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let read = match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(badly_packed(coding, &error)),
        };
        if bytes.len() + read > limit {
            return Err(too_large(limit));
        }
        if !room.grow(read as u64) {
            return Err(no_room());
        }
        bytes.extend_from_slice(&piece[..read]);
    }
    Ok((bytes.into(), room))
}

fn badly_packed(coding: Coding, error: &io::Error) -> Problem {
    let name = match coding {
        Coding::Gzip => "gzip",
        Coding::Deflate => "deflate",
    };
    Problem::new(
        Code::InvalidRequest,
        format!(
            "The body is not what its Content-Encoding \"{name}\" says: {error}. Pack it again, or send it as it is, without that header."
        ),
    )
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

    fn packed(bytes: &[u8], coding: &str) -> Vec<u8> {
        use flate2::Compression;
        use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
        let level = Compression::best();
        let mut out = Vec::new();
        let read = match coding {
            "gzip" => GzEncoder::new(bytes, level).read_to_end(&mut out),
            "zlib" => ZlibEncoder::new(bytes, level).read_to_end(&mut out),
            _ => DeflateEncoder::new(bytes, level).read_to_end(&mut out),
        };
        read.expect("packed");
        out
    }

    #[tokio::test]
    async fn packed_bodies_have_the_same_limit() {
        const LIMIT: usize = 1 << 20;
        let check = async |coding: &str, body: Vec<u8>, expected: Result<&[u8], Code>| {
            let mut headers = HeaderMap::new();
            let value = header::HeaderValue::from_str(coding).expect("a value");
            headers.insert(header::CONTENT_ENCODING, value);
            let shares = ByteShares::new(4 * LIMIT as u64);
            let owner = (&shares, &Owner::default());
            let body = Body::from(body);
            let received = read(&headers, body, owner, LIMIT, Duration::from_secs(9)).await;
            let received = received.as_ref().map(|(bytes, _)| bytes.as_ref());
            let received = received.map_err(|problem| problem.code);
            assert!(
                received == expected,
                "{coding}: {:?}",
                received.map(<[u8]>::len)
            );
        };
        let text = b"{\"code\": \"print(1)\"}".as_slice();
        check("gzip", packed(text, "gzip"), Ok(text)).await;
        check("x-gzip", packed(text, "gzip"), Ok(text)).await;
        check("GZIP, identity", packed(text, "gzip"), Ok(text)).await;
        check("deflate", packed(text, "zlib"), Ok(text)).await;
        check("deflate", packed(text, "raw"), Ok(text)).await;
        check("identity", text.to_vec(), Ok(text)).await;
        let large = vec![b'a'; LIMIT];
        check("gzip", packed(&large, "gzip"), Ok(&large)).await;
        // Much of nothing, in less than a KiB and in more than is unpacked in place.
        for coding in ["gzip", "zlib", "raw"] {
            let name = if coding == "gzip" { "gzip" } else { "deflate" };
            for size in [LIMIT + 1, 64 * LIMIT] {
                let bomb = packed(&vec![0; size], coding);
                check(name, bomb, Err(Code::BodyTooLarge)).await;
            }
        }
        check("gzip", text.to_vec(), Err(Code::InvalidRequest)).await;
        let mut cut = packed(text, "gzip");
        cut.truncate(cut.len() - 3);
        check("gzip", cut, Err(Code::InvalidRequest)).await;
        for coding in ["br", "zstd", "gzip, gzip", "compress", "x"] {
            check(coding, text.to_vec(), Err(Code::UnsupportedMediaType)).await;
        }
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
