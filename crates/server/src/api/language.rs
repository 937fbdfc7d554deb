//! The languages as the wire knows them.

use engine::{Language, PackageState};
use serde::Serialize;
use utoipa::ToSchema;

use super::PackagesOut;
use crate::provision::Intent;

/// A language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Language)]
pub struct LanguageOut {
    /// The name to send as `language`.
    #[schema(example = "python")]
    pub name: String,
    /// The name for people.
    #[schema(example = "Python")]
    pub title: String,
    /// Version found on this server; empty when not available.
    #[schema(example = "3.11.2")]
    pub version: String,
    /// Whether code in it can run now.
    pub available: bool,
    /// Other accepted names.
    pub aliases: Vec<String>,
    /// What the operator can do when it is not available.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cure: Option<String>,
    /// What its programs find installed; left out for a language without packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub packages: Option<PackagesOut>,
}

impl From<Language> for LanguageOut {
    fn from(language: Language) -> Self {
        Self {
            name: language.name,
            title: language.title,
            version: language.version,
            available: language.available,
            aliases: language.aliases,
            cure: language.cure,
            packages: None,
        }
    }
}

/// The languages of this server, the default first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Languages {
    /// Each language, available or not.
    pub languages: Vec<LanguageOut>,
}

impl Languages {
    /// The languages with their packages, and what is meant to become of those.
    #[must_use]
    pub fn of(languages: Vec<Language>, packages: &[PackageState], intent: Intent) -> Self {
        let packages_of = |name: &str| packages.iter().find(|state| state.language == name);
        let with_packages = |language: Language| {
            let state = packages_of(&language.name);
            let packages = state.map(|state| PackagesOut::of(state, intent));
            let of_others = language.version_of.as_ref().and_then(|plain| {
                let has_some = packages_of(plain).is_some();
                has_some.then(|| PackagesOut::of_another(plain))
            });
            let packages = packages.or(of_others);
            LanguageOut {
                packages,
                ..LanguageOut::from(language)
            }
        };
        Self {
            languages: languages.into_iter().map(with_packages).collect(),
        }
    }
}
