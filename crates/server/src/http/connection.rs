//! What is known of a connection below its requests. Plain data.

use std::net::SocketAddr;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Who called.
    pub peer: SocketAddr,
    /// The address that was called.
    pub local: SocketAddr,
}

/// The client closed its side before its answer was ready.
#[derive(Debug, thiserror::Error)]
#[error("the client went away")]
pub(super) struct ClientGone;
