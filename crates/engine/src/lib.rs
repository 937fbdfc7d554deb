//! Runs code: `Job → Plan → Command → Exit → Outcome`.
//!
//! The engine knows code (languages, jobs, queues, files); it knows nothing
//! of HTTP, JSON on the wire, or the kernel. All front doors go through
//! [`Engine::call`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod accept;
mod admission;
mod boxes;
mod capture;
mod captures;
mod config;
pub mod data_dir;
mod engine;
mod error;
mod events;
mod executor;
#[cfg(any(test, fuzzing, feature = "hooks"))]
pub mod fuzz;
mod job;
mod metrics;
mod outcome;
mod owner;
mod pace;
mod places;
mod plan;
mod quote;
mod ready;
mod runtime;
mod session;
mod shown;
mod verdict;
mod workspace;
mod zygote;

pub use admission::Load;
pub use config::{Bounds, Config};
pub use engine::{Call, Engine, Language, PackageState, Reply, Warmth};
pub use error::{Error, StartError};
pub use events::{Event, EventBounds, Events, Sink, Started, Stream, Untold, events};
pub use job::{Draft, DraftFile, Invalid, Job};
pub use metrics::{Metrics, SECONDS};
pub use outcome::{
    CellOutcome, DeniedCall, Exception, Form, Isolation, Outcome, Output, OutputFile, RichResult,
    StageOutcome, Status, Usage,
};
pub use owner::Owner;
pub use places::{FairPlace, FairPlaces, NoPlace};
pub use quote::{is_mark, is_visible, quote};
pub use ready::Stock;
pub use runtime::Provider;
pub use runtime::endings;
pub use runtime::kit::{InstallLock, PackageKit, Stage};
pub use runtime::packages::Package;
pub use runtime::registry::language_named;
pub use sandbox::{Layer, Support};
pub use session::{
    Activity, CommandCall, CommandDraft, CommandEnd, CommandState, Content, ContextState, FileCall,
    FileEntry, FileKind, FileList, InSession, SessionCall, SessionDraft, SessionEnd, SessionFile,
    SessionState,
};
