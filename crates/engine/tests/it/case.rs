//! A case of a language: a program, its input, and what must come of it.
//!
//! `runtimes/<language>/cases/<name>.toml`. What a case does not mention must
//! not happen: no output, no files, exit code 0.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use engine::{Draft, DraftFile, Isolation, Outcome, Output, RichResult};
use regex::bytes::Regex;
use serde::Deserialize;

/// A case and where it is from.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) language: String,
    /// `python/hello`.
    pub(crate) name: String,
    file: CaseFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    /// What the case is for, where its name does not say so.
    #[serde(default, rename = "about")]
    _about: String,
    code: String,
    #[serde(default)]
    stdin: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: Vec<TextFile>,
    /// The weakest isolation that it holds at.
    from: Option<String>,
    /// The name of the file by which the interpreter alone runs the same program,
    /// with the same result.
    plain: Option<String>,
    /// Wall time in seconds.
    timeout: Option<u64>,
    memory_mb: Option<u64>,
    expect: Expect,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextFile {
    path: String,
    content: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    #[serde(default = "success")]
    status: String,
    #[serde(default)]
    exit_code: i32,
    stdout: Option<String>,
    #[serde(default)]
    stdout_contains: Vec<String>,
    /// A pattern for the whole of it.
    stdout_matches: Option<String>,
    stderr: Option<String>,
    #[serde(default)]
    stderr_contains: Vec<String>,
    stderr_matches: Option<String>,
    /// Whether standard output was cut.
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    files: Vec<TextFile>,
    /// A part of each warning, in order.
    #[serde(default)]
    warnings: Vec<String>,
    /// What is shown, in order: the forms of each, with a part of what they hold.
    #[serde(default)]
    results: Vec<BTreeMap<String, String>>,
}

fn success() -> String {
    "success".to_owned()
}

/// All cases of all languages, sorted.
pub(crate) fn all() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes");
    let mut cases = Vec::new();
    for folder in sorted(&root).into_iter().filter(|path| path.is_dir()) {
        let language = stem(&folder);
        for path in sorted(&folder.join("cases")) {
            let text = fs::read_to_string(&path).expect("a case can be read");
            let file =
                toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            cases.push(Case {
                name: format!("{language}/{}", stem(&path)),
                language: language.clone(),
                file,
            });
        }
    }
    cases
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry can be read").path())
        .collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// What a path in a box is called everywhere: at the rungs where a box has no
/// root of its own its directories have longer names.
fn as_with_a_root(found: &str) -> Cow<'_, str> {
    static LONG: LazyLock<regex::Regex> = LazyLock::new(|| {
        regex::Regex::new("/tmp/codex-server-[0-9a-f]+/[0-9]+/(workspace|tmp)\\b")
            .expect("a pattern")
    });
    LONG.replace_all(found, "/$1")
}

impl Case {
    /// Whether it is to hold at this rung.
    pub(crate) fn is_for(&self, rung: Isolation) -> bool {
        let from = self.file.from.as_ref().map(|word| word.parse());
        from.is_none_or(|from: Result<Isolation, String>| rung >= from.expect("a rung"))
    }

    /// The case as a caller would ask for it.
    pub(crate) fn draft(&self) -> Draft {
        let case = &self.file;
        let file = |file: &TextFile| DraftFile {
            path: file.path.clone(),
            content: file.content.clone().into_bytes(),
        };
        Draft {
            code: case.code.clone(),
            language: Some(self.language.clone()),
            stdin: case.stdin.clone().into_bytes(),
            args: case.args.clone(),
            env: case.env.clone().into_iter().collect(),
            files: case.files.iter().map(file).collect(),
            wall_time: case.timeout.map(Duration::from_secs),
            memory: case.memory_mb.map(|mebibytes| mebibytes * 1024 * 1024),
            ..Draft::default()
        }
    }

    /// The name under which the interpreter alone is to run the program, too.
    pub(crate) fn plain(&self) -> Option<&str> {
        self.file.plain.as_deref()
    }

    /// What is wrong with an outcome, a line each.
    pub(crate) fn complaints(&self, outcome: &Outcome) -> Vec<String> {
        let expect = &self.file.expect;
        let run = outcome.last();
        let mut complaints = Vec::new();
        let mut check = |what: &str, found: String, expected: String| {
            if found != expected {
                complaints.push(format!("{what} is {found}, not {expected}"));
            }
        };
        check(
            "status",
            outcome.status.as_str().to_owned(),
            expect.status.clone(),
        );
        check(
            "the run's status",
            run.status.as_str().to_owned(),
            expect.status.clone(),
        );
        check(
            "exit code",
            run.exit_code.to_string(),
            expect.exit_code.to_string(),
        );
        check("language", outcome.language.clone(), self.language.clone());
        check(
            "truncation",
            run.stdout.truncated.to_string(),
            expect.truncated.to_string(),
        );
        let files: Vec<TextFile> = outcome
            .files
            .iter()
            .map(|file| TextFile {
                path: file.path.clone(),
                content: String::from_utf8_lossy(&file.content).into_owned(),
            })
            .collect();
        check("files", format!("{files:?}"), format!("{:?}", expect.files));
        let warned = &outcome.warnings;
        let as_expected = warned.len() == expect.warnings.len()
            && std::iter::zip(warned, &expect.warnings).all(|(found, part)| found.contains(part));
        if !as_expected {
            complaints.push(format!(
                "warnings are {warned:?}, not {:?}",
                expect.warnings
            ));
        }
        complaints.extend(expect.shown(&outcome.results));
        let stdout = (
            &expect.stdout,
            &expect.stdout_contains,
            &expect.stdout_matches,
        );
        let stderr = (
            &expect.stderr,
            &expect.stderr_contains,
            &expect.stderr_matches,
        );
        complaints.extend(stream("stdout", &run.stdout, stdout));
        complaints.extend(stream("stderr", &run.stderr, stderr));
        complaints
    }
}

impl Expect {
    /// What was shown against what is wanted of it.
    fn shown(&self, results: &[RichResult]) -> Option<String> {
        let found: Vec<BTreeMap<&str, &str>> = results
            .iter()
            .map(|result| {
                let forms = result.forms.iter();
                forms
                    .map(|form| (form.media_type, form.content.as_str()))
                    .collect()
            })
            .collect();
        let met = found.len() == self.results.len()
            && std::iter::zip(&found, &self.results).all(|(found, wanted)| {
                found.len() == wanted.len()
                    && wanted.iter().all(|(form, part)| {
                        found
                            .get(form.as_str())
                            .is_some_and(|content| content.contains(part.as_str()))
                    })
            });
        (!met).then(|| format!("results are {found:?}, not {:?}", self.results))
    }
}

type Wanted<'a> = (&'a Option<String>, &'a Vec<String>, &'a Option<String>);

/// One stream against what is wanted of it; silence, where nothing is.
fn stream(name: &str, output: &Output, (exact, contains, matches): Wanted<'_>) -> Option<String> {
    let found = String::from_utf8_lossy(&output.bytes);
    let found = as_with_a_root(&found);
    let good = match (exact, matches) {
        (Some(exact), _) => found == exact.as_str(),
        (None, Some(pattern)) => {
            let whole = format!(r"\A(?:{pattern})\z");
            let pattern =
                Regex::new(&whole).unwrap_or_else(|error| panic!("{name}_matches: {error}"));
            pattern.is_match(found.as_bytes()) || pattern.is_match(&output.bytes)
        }
        (None, None) => contains.is_empty() == found.is_empty(),
    };
    let missing = contains.iter().find(|part| !found.contains(part.as_str()));
    if good && missing.is_none() {
        return None;
    }
    let wanted = missing.map_or_else(
        || format!("{exact:?} {matches:?}"),
        |part| format!("{part:?} in it"),
    );
    let start: String = found.chars().take(2000).collect();
    Some(format!("{name} is {start:?}, not {wanted}"))
}
