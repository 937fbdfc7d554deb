//! The packages of a language as the wire knows them.

use engine::PackageState;
use serde::Serialize;
use utoipa::ToSchema;

use crate::provision::{self, Intent, Phase};

/// Where the packages of a language stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PackagesPhase {
    /// Programs can use them.
    Ready,
    /// They are being installed; programs use the old ones meanwhile, if there are any.
    Installing,
    /// The last attempt failed.
    Failed,
    /// Nobody has installed them.
    Absent,
    /// The operator left them out.
    Minimal,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Package)]
pub struct PackageOut {
    /// Its name.
    #[schema(example = "numpy")]
    pub name: String,
    /// Its version.
    #[schema(example = "2.4.6")]
    pub version: String,
}

/// The packages that programs of a language find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Packages)]
pub struct PackagesOut {
    /// Where they stand.
    pub state: PackagesPhase,
    /// Steps of the installation that are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub done: Option<u32>,
    /// Steps of the installation in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub total: Option<u32>,
    /// What is being done, why it failed, or what the operator can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message: Option<String>,
    /// What programs can use now, without what those packages need themselves.
    pub installed: Vec<PackageOut>,
}

impl PackagesOut {
    /// Out of what the engine knows, and what is meant to become of it.
    #[must_use]
    pub fn of(state: &PackageState, intent: Intent) -> Self {
        let standing = provision::standing(state, intent);
        let counted = standing.total > 0;
        let named = provision::named(state).into_iter();
        Self {
            state: standing.phase.into(),
            done: counted.then_some(standing.done),
            total: counted.then_some(standing.total),
            message: (!standing.message.is_empty()).then_some(standing.message),
            installed: named
                .map(|package| PackageOut {
                    name: package.name,
                    version: package.version,
                })
                .collect(),
        }
    }
}

impl PackagesOut {
    /// Of a version of an interpreter for which none are ever installed.
    #[must_use]
    pub fn of_another(language: &str) -> Self {
        Self {
            state: PackagesPhase::Absent,
            done: None,
            total: None,
            message: Some(format!(
                "Packages are installed for one version alone: send the language `{language}` to use them."
            )),
            installed: Vec::new(),
        }
    }
}

impl From<Phase> for PackagesPhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Ready => Self::Ready,
            Phase::Installing => Self::Installing,
            Phase::Failed => Self::Failed,
            Phase::Absent => Self::Absent,
            Phase::Minimal => Self::Minimal,
        }
    }
}
