//! Wire types and their translation to the engine's.
//!
//! Every front door speaks these. The engine's own types never reach the
//! wire, and nothing here knows of HTTP routing, headers or sockets.

mod command;
pub mod error;
pub mod event;
mod execute;
mod file_ref;
mod fit;
mod health;
mod json;
mod language;
mod packages;
mod response;
mod session;

pub use command::{CommandOut, CommandRequest, CommandsOut};
pub use error::{Code, Problem, ProblemDocument};
pub(crate) use execute::unknown_warning;
pub use execute::{Encoding, ExecuteRequest, FileIn, Order};
pub use file_ref::{FileRef, attachments};
pub use fit::{fit, json_chars};
pub use health::{Health, HealthStatus, LoadOut, whole_seconds};
pub use json::parse_object;
pub use language::{LanguageOut, Languages};
pub use packages::{PackageOut, PackagesOut, PackagesPhase};
pub use response::{
    CellOut, ExceptionOut, ExecuteResponse, FileOut, INLINE_BYTES, Link, ResultOut, ResultRef,
    StageOut, UsageOut,
};
pub use session::{
    ContextOut, ContextRequest, FileEntryOut, FileForm, FileListOut, FileMove, FileWork,
    ForkRequest, SessionOrder, SessionOut, SessionRequest, Sessions, context_named,
};
