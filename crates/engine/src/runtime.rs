//! Languages as data: a runtime is a folder, and nothing in Rust matches on one.
//!
//! [`manifest`] reads what a folder says, [`detect`] finds its interpreter on
//! this machine, [`registry`] holds both and answers by name. [`packages`] are
//! what programs find installed, [`kit`] how such a set is built, [`imports`] which
//! of them brings a module.

pub(crate) mod detect;
pub(crate) mod imports;
pub(crate) mod kit;
pub(crate) mod manifest;
pub(crate) mod packages;
pub(crate) mod registry;

pub(crate) use detect::Interpreter;
pub use imports::Provider;
pub(crate) use manifest::Manifest;
pub(crate) use packages::PackageSet;
pub use registry::endings;
pub(crate) use registry::{Places, Registry, Runtime};
