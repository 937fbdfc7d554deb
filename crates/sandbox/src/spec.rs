//! What a box is: plain data, sent to the warden. Nothing of a user's is in it.

use std::path::PathBuf;
use std::time::Duration;

use crate::limits::Limits;

/// Where user files live inside a box, and the program's working directory.
pub const WORKSPACE: &str = "/workspace";

/// Another name of the workspace in a box with mounts of its own: where ChatGPT's own
/// tool has files, which models have learnt.
pub(crate) const WORKSPACE_ALIAS: &str = "/mnt/data";

/// A host path to be seen in the box, read-only, without set-id bits or devices.
///
/// A source that is itself a symbolic link is made again as a link; a source
/// inside another mount's source is seen already and is left out. On the rungs
/// where a box has no root of its own the source is seen in place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// Absolute path on the host, free of `..`.
    pub source: PathBuf,
    /// Absolute path in the box, free of `..`.
    pub target: PathBuf,
}

impl Mount {
    /// A path seen in the box where it is on the host.
    #[must_use]
    pub fn same(path: impl Into<PathBuf>) -> Self {
        let source = path.into();
        Self {
            target: source.clone(),
            source,
        }
    }
}

/// What a box is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What it sees of the host.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub limits: Limits,
    /// How long after its birth the warden kills the box whatever the server does;
    /// [`Sandbox::live_on`](crate::Sandbox::live_on) changes that. `None` lets it live.
    pub lifetime: Option<Duration>,
    /// Whether its first program may be forked from a [`Zygote`](crate::Zygote). Nothing
    /// comes of it where boxes have no namespaces, or denied calls are told.
    pub adopts: bool,
}
