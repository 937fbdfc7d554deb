//! `[detect.versions]`: how several versions of an interpreter are found side by
//! side and named.

use std::path::{Component, Path};

use serde::Deserialize;

use super::{Version, check_placeholders};

/// What stands for the parts of a version in a pattern.
const PARTS: [&str; 2] = ["{major}", "{minor}"];
/// What stands for any one name in a place.
pub(crate) const ANY: &str = "*";
/// What a place below the home directory begins with.
pub(crate) const HOME: &str = "~";

/// How versions beside the preferred one become languages of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versions {
    /// Canonical name of such a language.
    pub(crate) name: Pattern,
    /// Other accepted names.
    pub(crate) aliases: Vec<Pattern>,
    /// Human name.
    pub(crate) title: Pattern,
    /// File names of interpreters of one version, looked for in the search path.
    pub(crate) files: Vec<Pattern>,
    /// Directories where version switchers keep interpreters, absolute or from
    /// `~`; a component `*` is any one.
    pub(crate) places: Vec<String>,
}

impl Versions {
    /// The version that a language name of this pattern asks for.
    pub(crate) fn asked_for(&self, word: &str) -> Option<Version> {
        let word = word.to_ascii_lowercase();
        std::iter::once(&self.name)
            .chain(&self.aliases)
            .find_map(|pattern| pattern.parse(&word))
    }
}

/// Text with `{major}` and `{minor}` of a version in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// The text for a version; a part that it lacks is 0.
    pub(crate) fn fill(&self, version: &Version) -> String {
        let parts = PARTS.iter().enumerate();
        parts.fold(self.0.clone(), |text, (index, part)| {
            text.replace(part, &version.part(index).to_string())
        })
    }

    /// The version for which this is the text, in as many parts as it tells.
    pub(crate) fn parse(&self, text: &str) -> Option<Version> {
        let mut numbers = Vec::new();
        let (mut pattern, mut text) = (self.0.as_str(), text);
        for part in PARTS {
            let Some((before, after)) = pattern.split_once(part) else {
                break;
            };
            text = text.strip_prefix(before)?;
            let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            // `python3.07` is no interpreter's name.
            let plain = digits == 1 || !text.starts_with('0');
            numbers.push(text[..digits].parse().ok().filter(|_| plain)?);
            (pattern, text) = (after, &text[digits..]);
        }
        (pattern == text).then_some(Version(numbers))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionsFile {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    title: String,
    files: Vec<String>,
    #[serde(default)]
    places: Vec<String>,
}

impl VersionsFile {
    pub(super) fn checked(self) -> Result<Versions, String> {
        let word = |field: &str, text: &String| {
            let plain =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "{}+#-_.".contains(c);
            if !text.chars().all(plain) {
                return Err(format!(
                    "detect.versions.{field}: {text:?} is not a lower-case word"
                ));
            }
            pattern(field, text)
        };
        for place in &self.places {
            let rooted = place.starts_with('/') || Path::new(place).starts_with(HOME);
            let upwards = Path::new(place)
                .components()
                .any(|c| c == Component::ParentDir);
            if !rooted || upwards {
                return Err(format!(
                    "detect.versions.places: {place:?} begins neither with / nor with ~/, or goes upwards"
                ));
            }
        }
        let all = |field: &str, texts: &[String]| {
            let patterns = texts.iter().map(|text| word(field, text));
            patterns.collect::<Result<Vec<Pattern>, String>>()
        };
        Ok(Versions {
            name: word("name", &self.name)?,
            aliases: all("aliases", &self.aliases)?,
            title: pattern("title", &self.title)?,
            files: all("files", &self.files)?,
            places: self.places,
        })
    }
}

/// `{major}` must be there, once and before a `{minor}`, or two versions had one name.
fn pattern(field: &str, text: &str) -> Result<Pattern, String> {
    let field = format!("detect.versions.{field}");
    check_placeholders(&field, text, &["major", "minor"])?;
    let at = |part: &str| text.find(part);
    let once = PARTS.iter().all(|part| text.matches(part).count() < 2);
    let ordered =
        at(PARTS[0]).is_some() && at(PARTS[1]).is_none_or(|minor| Some(minor) > at(PARTS[0]));
    if !once || !ordered {
        return Err(format!(
            "{field}: {text:?} must hold {{major}} once, and {{minor}} at most once and after it"
        ));
    }
    Ok(Pattern(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{Version, pattern};

    #[test]
    fn a_pattern_reads_what_it_writes() {
        let check = |text: &str, word: &str, expected: Option<&str>| {
            let pattern = pattern("name", text).unwrap();
            let found = pattern.parse(word);
            assert_eq!(found, expected.and_then(Version::parse), "{text} {word}");
            if let Some(version) = found {
                assert_eq!(pattern.fill(&version), word);
            }
        };
        check("python{major}.{minor}", "python3.12", Some("3.12"));
        check("python{major}.{minor}", "python3", None);
        check("python{major}.{minor}", "python3.12t", None);
        check("python{major}.{minor}", "python3.12-config", None);
        check("python{major}.{minor}", "python3.", None);
        check("python{major}.{minor}", "python3.07", None);
        check("python{major}.{minor}", "python3.0", Some("3.0"));
        check("python{major}.{minor}", "python.12", None);
        check("python{major}.{minor}", "python99999999999.1", None);
        check("node{major}", "node22", Some("22"));
        check("node{major}", "node", None);
        check("node{major}", "node22.1", None);
        check("node-{major}", "node-8", Some("8"));
        check("v{major}x", "v8x", Some("8"));
    }

    #[test]
    fn a_pattern_tells_versions_apart() {
        let check = |text: &str, good: bool| {
            assert_eq!(pattern("name", text).is_ok(), good, "{text:?}");
        };
        check("x{major}", true);
        check("x{major}.{minor}", true);
        check("x", false);
        check("x{minor}", false);
        check("{minor}.{major}", false);
        check("x{major}{major}", false);
        check("x{major}.{minor}.{minor}", false);
        check("x{patch}{major}", false);
        check("x{major", false);
    }

    proptest::proptest! {
        #[test]
        fn any_word_is_read_or_refused(text in "[0-9a-z.{}-]{0,8}", word in "\\PC{0,12}") {
            if let Ok(pattern) = pattern("name", &text)
                && let Some(version) = pattern.parse(&word)
            {
                proptest::prop_assert_eq!(pattern.fill(&version), word);
            }
        }
    }
}
