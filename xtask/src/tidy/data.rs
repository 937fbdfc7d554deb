//! Rules for data files: they parse, and what runs in the cloud says what it
//! may do and exactly which code of others it runs.

use super::{File, Finding};

/// A file that may have comments although its name ends in `.json`.
const COMMENTED: &str = ".devcontainer/";

/// JSON, TOML and YAML that no build reads fails here, not on its host.
pub(super) fn syntax(files: &[File]) -> Vec<Finding> {
    files
        .iter()
        // Cases of a language may be wrong on purpose.
        .filter(|file| !file.path.contains("/cases/"))
        .filter_map(|file| {
            let error = error_in(file)?;
            Some(Finding::new(file, 0, format!("does not parse: {error}")))
        })
        .collect()
}

fn error_in(file: &File) -> Option<String> {
    let (_, ending) = file.path.rsplit_once('.')?;
    match ending {
        "json" => {
            let plain = if file.path.starts_with(COMMENTED) {
                without_comments(&file.text)
            } else {
                file.text.clone()
            };
            let parsed = serde_json::from_str::<serde_json::Value>(&plain);
            parsed.err().map(|error| error.to_string())
        }
        "toml" => {
            let parsed = toml::from_str::<toml::Table>(&file.text);
            parsed.err().map(|error| error.to_string())
        }
        "yml" | "yaml" => parsed(file).err(),
        _ => None,
    }
}

fn parsed(file: &File) -> Result<serde_json::Value, String> {
    yaml_serde::from_str(&file.text).map_err(|error| error.to_string())
}

/// Lines that are comments, made empty; the place of an error stays right.
fn without_comments(text: &str) -> String {
    let blank = |line: &str| {
        if line.trim_start().starts_with("//") {
            String::new()
        } else {
            line.to_owned()
        }
    };
    text.lines().map(|line| blank(line) + "\n").collect()
}

/// Workflows say what they may do, end by themselves, and run others' actions
/// by commit: a tag can be moved to other code.
pub(super) fn workflows(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_workflow = |file: &&File| file.path.starts_with(".github/workflows/");
    for file in files.iter().filter(is_workflow) {
        let Ok(workflow) = parsed(file) else {
            continue; // The check of syntax tells.
        };
        if !workflow["permissions"].is_object() {
            findings.push(Finding::new(file, 0, "say `permissions:` for all jobs"));
        }
        for (name, job) in workflow["jobs"].as_object().into_iter().flatten() {
            if !job["timeout-minutes"].is_number() {
                let message = format!("job {name} has no `timeout-minutes:`");
                findings.push(Finding::new(file, 0, message));
            }
        }
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim_start().trim_start_matches("- ");
            if let Some(action) = line.strip_prefix("uses:")
                && !is_pinned(action.trim())
            {
                let message = "name the action's commit, and its version: `@<40 digits> # v1.2.3`";
                findings.push(Finding::new(file, number + 1, message));
            }
        }
    }
    findings
}

fn is_pinned(action: &str) -> bool {
    let Some((_, version)) = action.split_once('@') else {
        return false;
    };
    let Some((commit, name)) = version.split_once(" # v") else {
        return false;
    };
    let is_hash = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash && name.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::tests::tells_apart;
    use super::*;

    #[test]
    fn broken_data_is_found() {
        let good = [
            ("a.json", "{\"a\": 1}\n"),
            (".devcontainer/a.json", "// Why.\n{\"a\": \"//\"}\n"),
            ("a.toml", "a = 1\n"),
            ("a.yml", "a: [1]\n"),
            ("runtimes/x/cases/a.json", "{"),
            ("LICENSE", "{"),
        ];
        for bad in [
            ("a.json", "// Why.\n{}\n"),
            (".devcontainer/a.json", "{\"a\": 1,}\n"),
            ("a.toml", "a =\n"),
            ("a.yaml", "a: [1\n"),
        ] {
            tells_apart(syntax, &good, &[bad]);
        }
    }

    #[test]
    fn loose_workflows_are_found() {
        let path = ".github/workflows/a.yml";
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let text = |permissions: &str, timeout: &str, action: &str| {
            format!(
                "{permissions}\njobs:\n  a:\n    {timeout}\n    steps:\n      - uses: {action}\n"
            )
        };
        let (permissions, timeout) = ("permissions: {contents: read}", "timeout-minutes: 5");
        let pinned = format!("a/b@{hash} # v1.2");
        let good = text(permissions, timeout, &pinned);
        for bad in [
            text("", timeout, &pinned),
            text(permissions, "", &pinned),
            text(permissions, timeout, "a/b@v1"),
            text(permissions, timeout, &format!("a/b@{hash}")),
            text(permissions, timeout, "a/b"),
        ] {
            tells_apart(workflows, &[(path, &good)], &[(path, &bad)]);
        }
    }
}
