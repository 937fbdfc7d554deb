//! The owner of a run: the id that places, files and rates are counted by.
//! Plain data: what an owner may do is said elsewhere.

use std::fmt;
use std::sync::Arc;

/// An id that runs, files and places in queues are counted by. Never used
/// again, unlike a name. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// Makes the owner with that id.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// Returns the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Owner {
    /// Returns the operator of this machine, whose runs come by no door.
    fn default() -> Self {
        Self::new("local")
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
