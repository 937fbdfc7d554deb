//! The rules that no compiler knows, checked over the text of the repository.
//!
//! Each check takes the files and gives back findings; none ever changes a
//! file. `cargo xtask tidy` prints them, and the tests below fail on them.

mod data;
mod documents;
mod edges;
mod manifests;
mod rust;
mod source;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use xtask::process;

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 7] = [
    "target",
    "node_modules",
    "dist",
    "__pycache__",
    ".git",
    ".venv",
    // Inputs of fuzzers: whatever they are, they stay as they are.
    "seeds",
];

/// Files larger than this are not text that a person wrote, in bytes.
const TEXT_BYTES: u64 = 4 * 1024 * 1024;

/// A file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    /// Below the root, with `/`.
    path: String,
    text: String,
}

impl File {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Something to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; 0 when the whole file is meant.
    line: usize,
    message: String,
}

impl Finding {
    fn new(file: &File, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: file.path.clone(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.path, self.message);
        }
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

type Check = fn(&[File]) -> Vec<Finding>;

/// Every check with its name.
const CHECKS: [(&str, Check); 21] = [
    ("crate edges", edges::crates),
    ("module edges", edges::modules),
    ("manifest edges", edges::manifests),
    ("file headers", source::headers),
    ("file sizes", source::file_sizes),
    ("function sizes", source::function_sizes),
    ("unsafe code", source::unsafe_code),
    ("forbidden unsafe", source::forbids),
    ("module files", source::module_files),
    ("lint exceptions", source::lint_exceptions),
    ("ignored tests", source::ignored_tests),
    ("names", source::names),
    ("dependency reasons", manifests::dependency_reasons),
    ("policy reasons", manifests::policy_reasons),
    ("runtime cases", manifests::runtime_cases),
    ("white space", text::white_space),
    ("registry hosts", text::registry_hosts),
    ("links", documents::links),
    ("documented codes", documents::codes),
    ("data syntax", data::syntax),
    ("workflows", data::workflows),
];

/// Prints every finding; fails when there is one.
pub(crate) fn tidy() -> Result<()> {
    let files = files(process::root())?;
    let mut count = 0;
    for (name, check) in CHECKS {
        for finding in check(&files) {
            println!("{finding} [{name}]");
            count += 1;
        }
    }
    if count > 0 {
        bail!("{count} findings");
    }
    println!("{} checks over {} files: tidy", CHECKS.len(), files.len());
    Ok(())
}

/// Every text file of the repository, sorted by path.
fn files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    collect(root, root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<File>) -> Result<()> {
    let list = fs::read_dir(directory)
        .with_context(|| format!("failed to list {}", directory.display()))?;
    for entry in list {
        let entry = entry.context("failed to list a folder")?;
        let (path, kind) = (
            entry.path(),
            entry.file_type().context("failed to read a file's type")?,
        );
        if kind.is_dir() {
            if !SKIPPED.iter().any(|name| entry.file_name() == *name) {
                collect(root, &path, files)?;
            }
        } else if kind.is_file() && entry.metadata().is_ok_and(|data| data.len() <= TEXT_BYTES) {
            // What is not UTF-8 is not text.
            if let Ok(text) = fs::read_to_string(&path) {
                let path = path
                    .strip_prefix(root)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                files.push(File { path, text });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository of given files.
    pub(super) fn sample(files: &[(&str, &str)]) -> Vec<File> {
        files
            .iter()
            .map(|(path, text)| File {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            })
            .collect()
    }

    /// The check finds nothing in the first and something in the second.
    pub(super) fn tells_apart(check: Check, good: &[(&str, &str)], bad: &[(&str, &str)]) {
        let findings = check(&sample(good));
        assert!(findings.is_empty(), "a good sample gave {findings:?}");
        let findings = check(&sample(bad));
        assert!(!findings.is_empty(), "a bad sample gave nothing: {bad:?}");
    }

    /// Generates one test for each check over the real repository.
    macro_rules! repository {
        ($($test:ident: $name:literal,)*) => {
            $(
                #[test]
                fn $test() {
                    let (_, check) = CHECKS
                        .iter()
                        .find(|(name, _)| *name == $name)
                        .expect("the check exists");
                    let files = files(process::root()).expect("the repository is readable");
                    let findings: Vec<String> = check(&files).iter().map(Finding::to_string).collect();
                    assert!(findings.is_empty(), "{}", findings.join("\n"));
                }
            )*

            #[test]
            fn every_check_has_a_test() {
                let tested = [$($name),*];
                let known: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
                assert_eq!(known, tested);
            }
        };
    }

    repository! {
        crate_edges_hold: "crate edges",
        module_edges_hold: "module edges",
        manifest_edges_hold: "manifest edges",
        files_have_headers: "file headers",
        files_are_small: "file sizes",
        functions_are_small: "function sizes",
        unsafe_code_is_in_one_folder: "unsafe code",
        unsafe_code_is_forbidden_elsewhere: "forbidden unsafe",
        modules_have_names: "module files",
        lint_exceptions_have_reasons: "lint exceptions",
        no_test_is_ignored: "ignored tests",
        names_are_of_the_field: "names",
        dependencies_have_reasons: "dependency reasons",
        policies_have_reasons: "policy reasons",
        runtimes_have_cases: "runtime cases",
        white_space_is_clean: "white space",
        no_registry_host_is_named: "registry hosts",
        links_lead_somewhere: "links",
        codes_are_documented: "documented codes",
        data_parses: "data syntax",
        workflows_are_tight: "workflows",
    }

    #[test]
    fn the_walk_finds_this_file_and_no_build_output() {
        let files = files(process::root()).expect("the repository is readable");
        assert!(files.iter().any(|file| file.path == "xtask/src/tidy.rs"));
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
    }

    #[test]
    fn findings_name_their_place() {
        let file = &sample(&[("a/b.rs", "")])[0];
        assert_eq!(Finding::new(file, 3, "no").to_string(), "a/b.rs:3: no");
        assert_eq!(Finding::new(file, 0, "no").to_string(), "a/b.rs: no");
        assert_eq!(file.name(), "b.rs");
    }
}
