//! What every front door shares: the engine, the configuration, the store.

use engine::Engine;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;
use crate::artifact::Artifacts;
use crate::config::Config;
use crate::file_url::Fetcher;
use crate::provision::{Intent, Underway};
use crate::rate::Rate;
use crate::store::Store;
use crate::tunnel;

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
    /// The tunnel that is open, if one is.
    pub tunnel: Option<tunnel::Status>,
    /// When it was last used.
    pub activity: Activity,
    /// Cancelled when the server drains: whatever would never end by itself ends.
    pub closing: CancellationToken,
    /// Whether packages are being installed beside it.
    pub installing: Underway,
}

impl App {
    /// What is meant to become of packages that are not there.
    #[must_use]
    pub fn intent(&self) -> Intent {
        if self.installing.get() {
            Intent::Install
        } else {
            Intent::without_installation(self.config.minimal)
        }
    }
}
