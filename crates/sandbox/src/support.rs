//! What this machine's sandbox holds: found out by a real run, never by a
//! version string.

use std::fmt;
use std::str::FromStr;

/// The rungs of the ladder, weakest first, so that `a >= b` reads "at least".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isolation {
    /// A uid of its own per run, Landlock, seccomp without sockets; no namespaces.
    Uids,
    /// Namespaces, Landlock and seccomp, but no cgroup.
    Namespaces,
    /// Everything.
    Full,
}

impl Isolation {
    /// The rungs, strongest first.
    pub const LADDER: [Self; 3] = [Self::Full, Self::Namespaces, Self::Uids];

    /// The word used in flags, responses and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Namespaces => "namespaces",
            Self::Uids => "uids",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Isolation {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::LADDER
            .into_iter()
            .find(|rung| rung.as_str() == word)
            .ok_or_else(|| format!("unknown isolation {word:?}; use full, namespaces or uids"))
    }
}

/// One layer of the sandbox as the probe found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Short name (`user namespace`, `memory cgroup`, `seccomp`).
    pub name: String,
    /// Whether it held when attacked.
    pub holds: bool,
    /// What was found: how it is done here, or why it does not hold.
    pub detail: String,
    /// What to do on this host to get it; empty when it holds.
    pub cure: String,
}

/// What the sandbox holds on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Support {
    /// The rung in use; `None` when no sound sandbox can be set up.
    pub isolation: Option<Isolation>,
    /// Each layer that was tried.
    pub layers: Vec<Layer>,
}
