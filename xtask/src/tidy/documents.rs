//! Rules for documents: links lead somewhere, and what clients and scripts
//! see as a code is explained.

use super::rust;
use super::{File, Finding};

/// Where exit codes are defined and explained.
const EXIT_CODES: (&str, &str) = ("crates/server/src/exit_code.rs", "docs/cli.md");

/// Where problem codes are defined and explained.
const PROBLEM_CODES: (&str, &str) = ("crates/server/src/api/error.rs", "docs/errors.md");

/// Links between our own documents, and headings they point to, exist.
pub(super) fn links(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in targets(&file.text) {
            if let Some(message) = broken(file, target, files) {
                findings.push(Finding::new(file, line, message));
            }
        }
    }
    findings
}

/// Lines and targets of `[text](target)`, outside of code blocks.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut in_code) = (Vec::new(), false);
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split(')').next().unwrap_or_default();
            found.push((number + 1, target));
        }
    }
    found
}

fn broken(file: &File, target: &str, files: &[File]) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = resolve(&file.path, path);
    let exists = |path: &str| {
        files
            .iter()
            .any(|other| other.path == path || other.path.starts_with(&format!("{path}/")))
    };
    if !exists(&path) {
        return Some(format!("links to {path}, which does not exist"));
    }
    let page = files.iter().find(|other| other.path == path)?;
    let is_missing = !anchor.is_empty()
        && path.ends_with(".md")
        && !headings(&page.text).any(|heading| heading == anchor);
    is_missing.then(|| format!("links to #{anchor}, which is no heading of {path}"))
}

/// The path of a link, below the root.
fn resolve(from: &str, link: &str) -> String {
    if link.is_empty() {
        return from.to_owned();
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if link.starts_with('/') {
        parts.clear();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Headings as the anchors that they get.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
}

/// Every exit code and every problem code is explained.
pub(super) fn codes(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let find = |path: &str| files.iter().find(|file| file.path == path);
    if let Some(source) = find(EXIT_CODES.0) {
        let page = find(EXIT_CODES.1).map_or("", |file| &file.text);
        for (line, code) in exit_codes(&source.text) {
            if !explains_number(page, code) {
                findings.push(Finding::new(
                    source,
                    line,
                    format!("exit code {code} is not in a table of {}", EXIT_CODES.1),
                ));
            }
        }
    }
    if let Some(source) = find(PROBLEM_CODES.0) {
        let page = find(PROBLEM_CODES.1).map_or("", |file| &file.text);
        let explained: Vec<String> = headings(page).collect();
        for (line, slug) in problem_codes(&source.text) {
            if !explained.contains(&slug) {
                findings.push(Finding::new(
                    source,
                    line,
                    format!("problem {slug} is no heading of {}", PROBLEM_CODES.1),
                ));
            }
        }
    }
    findings
}

/// Numbers that stand after `=` or `=>` at the end of a line or before a comma.
fn exit_codes(source: &str) -> Vec<(usize, u8)> {
    let code = rust::blank(rust::without_tests(source));
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let value = line.rsplit(['=', '>']).next().unwrap_or_default();
        let is_value = line.contains('=') && !line.contains("==");
        if let Some(value) = value
            .trim()
            .trim_end_matches([',', ';'])
            .parse()
            .ok()
            .filter(|_| is_value)
        {
            found.push((number + 1, value));
        }
    }
    found
}

/// A table row that starts with the number.
fn explains_number(page: &str, code: u8) -> bool {
    page.lines().any(|line| {
        let first = line.strip_prefix('|').and_then(|row| row.split('|').next());
        first.is_some_and(|cell| cell.trim().trim_matches('`') == code.to_string())
    })
}

/// Strings that stand after a status in the table of problems, such as
/// `(400, "invalid-request", …)`, on one line or several.
fn problem_codes(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut after_status = false;
    for (number, line) in rust::without_tests(source).lines().enumerate() {
        for part in line.split(',') {
            let part = part
                .trim()
                .trim_start_matches(|c: char| c != '"' && !c.is_ascii_digit());
            if after_status {
                if let Some(slug) = part
                    .strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'))
                {
                    found.push((number + 1, slug.to_owned()));
                }
            }
            if !part.is_empty() {
                after_status = part
                    .parse()
                    .is_ok_and(|status: u16| (400..600).contains(&status));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::tells_apart;
    use super::*;

    #[test]
    fn broken_links_are_found() {
        let page = ("docs/b.md", "# The end, at last!\n");
        for (good, bad) in [
            ("[x](b.md)", "[x](c.md)"),
            (
                "[x](./b.md#the-end-at-last) [y](https://example.org/x.md)",
                "[x](b.md#the-start)",
            ),
            ("[x](../docs) [y](/docs/b.md)", "[x](../b.md)"),
            ("```\n[x](c.md)\n```", "[x](#nowhere)"),
        ] {
            tells_apart(
                links,
                &[("docs/a.md", good), page],
                &[("docs/a.md", bad), page],
            );
        }
    }

    #[test]
    fn unexplained_exit_codes_are_found() {
        let source = (
            EXIT_CODES.0,
            "pub const USAGE: u8 = 2;\nSelf::Port => 3,\nif a == 9 {}\nlet x = y;\n",
        );
        tells_apart(
            codes,
            &[source, (EXIT_CODES.1, "| 2 | usage |\n| `3` | port |\n")],
            &[source, (EXIT_CODES.1, "exit code 2, 3\n| 2 | usage |\n")],
        );
    }

    #[test]
    fn unexplained_problems_are_found() {
        let source = (
            PROBLEM_CODES.0,
            "Self::A => (\n    400,\n    \"invalid-request\",\n    \"Invalid\",\n),\nSelf::B => (404, \"not-found\", \"x\"),\n",
        );
        tells_apart(
            codes,
            &[
                source,
                (PROBLEM_CODES.1, "## invalid-request\n## not-found\n"),
            ],
            &[source, (PROBLEM_CODES.1, "## invalid-request\nnot-found\n")],
        );
    }
}
