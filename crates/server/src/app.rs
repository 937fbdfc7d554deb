//! What every front door shares: the engine, the configuration, the store.

use engine::Engine;
use jiff::Timestamp;

use crate::artifact::Artifacts;
use crate::config::Config;
use crate::file_url::Fetcher;
use crate::http::Activity;
use crate::rate::Rate;
use crate::store::Store;

/// Shared by all requests, behind an `Arc`.
#[derive(Debug)]
pub struct App {
    /// Runs code.
    pub engine: Engine,
    /// The resolved configuration.
    pub config: Config,
    /// Durable state.
    pub store: Store,
    /// Files that runs left.
    pub artifacts: Artifacts,
    /// Fetches the files that requests name by URL.
    pub fetcher: Fetcher,
    /// When the server started.
    pub started: Timestamp,
    /// Rate limits.
    pub rate: Rate,
    /// When it was last used.
    pub activity: Activity,
}
