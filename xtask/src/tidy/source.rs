//! Rules for Rust files: headers, sizes, unsafe code, names.

use super::rust;
use super::{File, Finding};

/// Most lines of a file, its trailing tests left out.
const FILE_LINES: usize = 600;

/// Most lines of a file that holds tests alone.
const TEST_FILE_LINES: usize = 900;

/// Most lines of code in a function.
const FUNCTION_LINES: usize = 80;

/// Most lines of code in a function of tests, which may be a table of cases.
const TEST_FUNCTION_LINES: usize = 160;

/// The one folder with unsafe code.
const UNSAFE_FOLDER: &str = "crates/sandbox/src/sys";

/// Words that say nothing of what a thing is.
const EMPTY_WORDS: [&str; 7] = [
    "manager", "util", "utils", "helper", "helpers", "common", "utility",
];

/// Crates that may not hold unsafe code at all, by their root file.
const SAFE_ROOTS: [&str; 6] = [
    "crates/engine/src/lib.rs",
    "crates/plane/src/lib.rs",
    "crates/server/src/lib.rs",
    "lab/src/main.rs",
    "xtask/src/lib.rs",
    "xtask/src/main.rs",
];

fn rust_files(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.is_rust())
}

/// Every file opens by saying what it is for.
pub(super) fn headers(files: &[File]) -> Vec<Finding> {
    rust_files(files)
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| Finding::new(file, 1, "open with `//! ` and what the file is for"))
        .collect()
}

/// Files can be read in one sitting.
pub(super) fn file_sizes(files: &[File]) -> Vec<Finding> {
    rust_files(files)
        .filter_map(|file| {
            let (lines, most) = if is_test_file(file) {
                (file.text.lines().count(), TEST_FILE_LINES)
            } else {
                (rust::without_tests(&file.text).lines().count(), FILE_LINES)
            };
            (lines > most)
                .then(|| Finding::new(file, 0, format!("{lines} lines; at most {most}: split it")))
        })
        .collect()
}

fn is_test_file(file: &File) -> bool {
    file.path.contains("/tests/") || file.name() == "tests.rs"
}

/// Functions can be seen at once.
pub(super) fn function_sizes(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in rust_files(files) {
        let product_lines = rust::without_tests(&file.text).lines().count();
        for function in rust::functions(&file.text) {
            let of_tests = is_test_file(file) || function.line > product_lines;
            let most = if of_tests {
                TEST_FUNCTION_LINES
            } else {
                FUNCTION_LINES
            };
            if function.length > most {
                let message = format!(
                    "`{}` has {} lines of code; at most {most}",
                    function.name, function.length
                );
                findings.push(Finding::new(file, function.line, message));
            }
        }
    }
    findings
}

/// Unsafe code is in one folder.
pub(super) fn unsafe_code(files: &[File]) -> Vec<Finding> {
    let elsewhere = rust_files(files).filter(|file| !file.path.starts_with(UNSAFE_FOLDER));
    lines_where(
        elsewhere,
        |line| has_word(line, "unsafe"),
        &format!("unsafe code belongs into {UNSAFE_FOLDER}"),
    )
}

/// The crates that need none forbid it.
pub(super) fn forbids(files: &[File]) -> Vec<Finding> {
    rust_files(files)
        .filter(|file| SAFE_ROOTS.contains(&file.path.as_str()))
        .filter(|file| !rust::blank(&file.text).contains("#![forbid(unsafe_code)]"))
        .map(|file| Finding::new(file, 0, "add `#![forbid(unsafe_code)]`"))
        .collect()
}

/// Modules are files of their own name, so that editor tabs tell them apart.
pub(super) fn module_files(files: &[File]) -> Vec<Finding> {
    rust_files(files)
        .filter(|file| file.name() == "mod.rs")
        .map(|file| Finding::new(file, 0, "call it after its folder, beside the folder"))
        .collect()
}

/// Exceptions from lints end by themselves when they are needed no more.
pub(super) fn lint_exceptions(files: &[File]) -> Vec<Finding> {
    lines_where(
        rust_files(files),
        |line| line.contains("#[allow(") || line.contains("#![allow("),
        "use `#[expect(lint, reason = \"…\")]`",
    )
}

/// A test that does not run proves nothing.
pub(super) fn ignored_tests(files: &[File]) -> Vec<Finding> {
    lines_where(
        rust_files(files),
        |line| line.contains("#[ignore"),
        "no test is skipped; a missing ability is a failure with its cure",
    )
}

/// Files and types are called what they are.
pub(super) fn names(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in rust_files(files) {
        let stem = file.name().trim_end_matches(".rs");
        if let Some(word) = empty_word(stem) {
            findings.push(Finding::new(
                file,
                0,
                format!("`{word}` in the name says nothing"),
            ));
        }
        for (number, line) in rust::blank(&file.text).lines().enumerate() {
            if let Some(word) = defined_name(line).and_then(empty_word) {
                findings.push(Finding::new(
                    file,
                    number + 1,
                    format!("`{word}` in the name says nothing"),
                ));
            }
        }
    }
    findings
}

/// The type, trait or module that a line defines.
fn defined_name(line: &str) -> Option<&str> {
    let mut words = line
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty());
    let keyword = words.find(|word| !matches!(*word, "pub" | "crate" | "super" | "in"))?;
    matches!(
        keyword,
        "struct" | "enum" | "trait" | "type" | "mod" | "union"
    )
    .then(|| words.next())?
}

/// The first empty word in a name in either case style.
fn empty_word(name: &str) -> Option<&'static str> {
    let mut spaced = String::new();
    for character in name.chars() {
        if character.is_uppercase() || character == '_' || character == '-' {
            spaced.push(' ');
        }
        spaced.extend(character.to_lowercase());
    }
    let words: Vec<&str> = spaced.split([' ', '_', '-']).collect();
    EMPTY_WORDS.into_iter().find(|empty| words.contains(empty))
}

fn lines_where<'a>(
    files: impl Iterator<Item = &'a File>,
    is_bad: impl Fn(&str) -> bool,
    message: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in rust::blank(&file.text).lines().enumerate() {
            if is_bad(line) {
                findings.push(Finding::new(file, number + 1, message));
            }
        }
    }
    findings
}

/// Whether `word` stands alone, not within a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tells_apart;
    use super::*;

    #[test]
    fn missing_headers_are_found() {
        tells_apart(headers, &[("a.rs", "//! What.\n")], &[("a.rs", "use x;\n")]);
        tells_apart(headers, &[("a.md", "x")], &[("a.rs", "// What.\n")]);
    }

    #[test]
    fn long_files_are_found_and_their_tests_not_counted() {
        let (most, more) = ("x;\n".repeat(FILE_LINES), "x;\n".repeat(FILE_LINES + 1));
        let tested = format!("{most}#[cfg(test)]\nmod tests {{\n{most}}}\n");
        tells_apart(file_sizes, &[("a.rs", &tested)], &[("a.rs", &more)]);
        tells_apart(
            file_sizes,
            &[("a/tests/it/b.rs", &more)],
            &[("a/tests/b.rs", &more.repeat(2))],
        );
    }

    #[test]
    fn long_functions_are_found() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "x();\n// y\n\n".repeat(lines));
        tells_apart(
            function_sizes,
            &[("a.rs", &function(FUNCTION_LINES))],
            &[("a.rs", &function(FUNCTION_LINES + 1))],
        );
        let in_tests = |lines| format!("x;\n#[cfg(test)]\nmod tests {{\n{}}}\n", function(lines));
        tells_apart(
            function_sizes,
            &[("a.rs", &in_tests(TEST_FUNCTION_LINES))],
            &[("a.rs", &in_tests(TEST_FUNCTION_LINES + 1))],
        );
    }

    #[test]
    fn unsafe_code_elsewhere_is_found() {
        let code = "fn f() { unsafe { g() } }";
        tells_apart(
            unsafe_code,
            &[("crates/sandbox/src/sys/a.rs", code)],
            &[("crates/sandbox/src/a.rs", code)],
        );
        tells_apart(
            unsafe_code,
            &[("a.rs", "#![forbid(unsafe_code)] // unsafe")],
            &[("a.rs", "unsafe impl X {}")],
        );
    }

    #[test]
    fn a_missing_forbid_is_found() {
        let root = SAFE_ROOTS[0];
        tells_apart(
            forbids,
            &[(root, "#![forbid(unsafe_code)]")],
            &[(root, "// #![forbid(unsafe_code)]")],
        );
    }

    #[test]
    fn nameless_modules_are_found() {
        tells_apart(module_files, &[("a/model.rs", "")], &[("a/mod.rs", "")]);
    }

    #[test]
    fn lint_exceptions_without_end_are_found() {
        tells_apart(
            lint_exceptions,
            &[("a.rs", "#[expect(x, reason = \"y\")] \"#[allow(\"")],
            &[("a.rs", "#[allow(dead_code)]")],
        );
    }

    #[test]
    fn ignored_tests_are_found() {
        tells_apart(
            ignored_tests,
            &[("a.rs", "#[test]\nfn f() {}")],
            &[("a.rs", "#[ignore = \"slow\"]")],
        );
    }

    #[test]
    fn empty_names_are_found() {
        let good = [
            ("command.rs", "pub struct Uncommon; struct Community;"),
            ("utilize.rs", "use x::util::Y;"),
        ];
        for bad in [
            ("common.rs", ""),
            ("test_utils.rs", ""),
            ("a.rs", "pub(crate) struct PoolManager;"),
            ("a.rs", "mod helper;"),
            ("a.rs", "    pub type UtilMap = u8;"),
        ] {
            tells_apart(names, &good, &[bad]);
        }
    }
}
