//! The state that handlers and layers share. Only data; it does nothing itself.

use std::sync::Arc;

use super::byte_shares::ByteShares;
use super::failures::Failures;
use super::metrics::Metrics;
use super::oauth::OAuth;
use super::openapi::Description;
use super::unread::Unread;
use crate::app::App;
use crate::mcp::Endpoint;

/// What handlers and layers share.
#[derive(Debug)]
pub(super) struct Shared {
    /// What every front door shares.
    pub(super) app: Arc<App>,
    /// The description of this API.
    pub(super) description: Description,
    /// The Model Context Protocol.
    pub(super) mcp: Endpoint,
    /// OAuth's clients, and what they did too often.
    pub(super) oauth: OAuth,
    /// Wrong tokens by address.
    pub(super) failures: Failures,
    /// What is counted.
    pub(super) metrics: Metrics,
    /// Bytes of the requests in hand.
    pub(super) requests: ByteShares,
    /// Answers that wait for their readers.
    pub(super) unread: Unread,
}
