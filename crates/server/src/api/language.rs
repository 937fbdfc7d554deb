//! The languages as the wire knows them.

use engine::Language;
use serde::Serialize;
use utoipa::ToSchema;

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
        }
    }
}

/// The languages of this server, the default first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Languages {
    /// Each language, available or not.
    pub languages: Vec<LanguageOut>,
}

impl From<Vec<Language>> for Languages {
    fn from(languages: Vec<Language>) -> Self {
        Self {
            languages: languages.into_iter().map(LanguageOut::from).collect(),
        }
    }
}
