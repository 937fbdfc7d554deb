//! Layers that a test leaves out, to see that the probe finds each gap and does
//! not claim the rung.
//!
//! Only a build with the feature `omit`, which tests alone ask for, can leave
//! anything out: in every other one [`omitted`] is a constant.

macro_rules! layers {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What can be left out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Omit {
            $($(#[$doc])* $name,)*
        }

        #[cfg(feature = "omit")]
        impl Omit {
            const ALL: &[(Self, &str)] = &[$((Self::$name, $word),)*];
        }
    };
}

layers! {
    /// All Landlock rules.
    Landlock = "landlock",
    /// The system-call filter.
    Seccomp = "seccomp",
    /// The network namespace of a box.
    Network = "network",
    /// The change to the box's user.
    Identity = "identity",
    /// The uid that programs do not share with their init.
    Uid = "uid",
    /// That init cannot be looked into.
    Private = "private",
    /// The memory limit, whoever holds it.
    Memory = "memory",
    /// The process limit, whoever holds it.
    Processes = "processes",
}

#[cfg(not(feature = "omit"))]
pub(crate) const fn omitted(_: Omit) -> bool {
    false
}

#[cfg(feature = "omit")]
pub use chosen::omit;
#[cfg(feature = "omit")]
pub(crate) use chosen::{chosen, omitted};

#[cfg(feature = "omit")]
mod chosen {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Omit;

    const NONE: u8 = u8::MAX;
    static CHOSEN: AtomicU8 = AtomicU8::new(NONE);

    /// Leaves a layer out of everything that this process sets up from now on;
    /// wardens that it starts are told. A word that names no layer leaves all in.
    pub fn omit(word: &str) {
        let found = Omit::ALL.iter().find(|(_, known)| *known == word);
        CHOSEN.store(
            found.map_or(NONE, |(omit, _)| *omit as u8),
            Ordering::Relaxed,
        );
    }

    /// The word for what was chosen; empty for nothing.
    pub(crate) fn chosen() -> &'static str {
        let found = Omit::ALL.iter().find(|(omit, _)| omitted(*omit));
        found.map_or("", |(_, word)| word)
    }

    pub(crate) fn omitted(layer: Omit) -> bool {
        CHOSEN.load(Ordering::Relaxed) == layer as u8
    }
}
