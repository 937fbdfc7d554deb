//! Rules for data: dependencies and policy entries say why, and every
//! language has cases.

use super::{File, Finding};

/// Every dependency of the workspace says why it is here, beside it or above.
pub(super) fn dependency_reasons(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path == "Cargo.toml") {
        let (mut inside, mut commented) = (false, false);
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('[') {
                inside = line == "[workspace.dependencies]";
            } else if line.is_empty() {
                commented = false;
            } else if line.starts_with('#') {
                commented = line == OURS || commented;
            } else if inside && line.contains('=') && !line.contains(" # ") && !commented {
                findings.push(Finding::new(
                    file,
                    number + 1,
                    "say why this dependency is here (`# …`)",
                ));
            }
        }
    }
    findings
}

/// The heading over our own crates, which need no reason.
const OURS: &str = "# Ours.";

/// Every entry of a seccomp policy has a reason: a string under `reason` in
/// each table that names system calls, directly or in a list of tables.
pub(super) fn policy_reasons(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        if !(file.path.starts_with("crates/sandbox/src/policies/") && file.path.ends_with(".toml"))
        {
            continue;
        }
        match toml::from_str::<toml::Table>(&file.text) {
            Ok(table) => entries(file, "", &table, &mut findings),
            Err(error) => {
                findings.push(Finding::new(file, 0, format!("is not valid TOML: {error}")))
            }
        }
    }
    findings
}

/// Keys that make a table an entry of a policy.
const CALL_KEYS: [&str; 5] = ["names", "name", "syscalls", "syscall", "calls"];

fn entries(file: &File, place: &str, table: &toml::Table, findings: &mut Vec<Finding>) {
    let is_entry = CALL_KEYS.iter().any(|key| table.contains_key(*key));
    let reason = table
        .get("reason")
        .and_then(toml::Value::as_str)
        .unwrap_or_default();
    if is_entry && reason.trim().is_empty() {
        findings.push(Finding::new(
            file,
            0,
            format!("the entry {place}{table} has no reason"),
        ));
    }
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => entries(file, &format!("{key}: "), inner, findings),
            toml::Value::Array(list) => {
                for inner in list.iter().filter_map(toml::Value::as_table) {
                    entries(file, &format!("{key}: "), inner, findings);
                }
            }
            _ => {}
        }
    }
}

/// Every language has a manifest and at least one case.
pub(super) fn runtime_cases(files: &[File]) -> Vec<Finding> {
    let mut languages: Vec<&str> = files
        .iter()
        .filter_map(|file| {
            file.path
                .strip_prefix("runtimes/")?
                .split_once('/')
                .map(|(name, _)| name)
        })
        .collect();
    languages.dedup();
    let mut findings = Vec::new();
    for language in languages {
        let folder = format!("runtimes/{language}");
        let has = |part: &str| {
            files
                .iter()
                .any(|file| file.path.starts_with(&format!("{folder}/{part}")))
        };
        for (part, what) in [
            ("runtime.toml", "no runtime.toml"),
            ("cases/", "no case in cases/"),
        ] {
            if !has(part) {
                findings.push(Finding {
                    path: folder.clone(),
                    line: 0,
                    message: what.to_owned(),
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tests::tells_apart;
    use super::*;

    #[test]
    fn dependencies_without_reason_are_found() {
        let check = |good: &str, bad: &str| {
            let head = "[workspace.dependencies]\n";
            tells_apart(
                dependency_reasons,
                &[("Cargo.toml", &format!("{head}{good}"))],
                &[("Cargo.toml", &format!("{head}{bad}"))],
            );
        };
        check("a = \"1\" # why\n", "a = \"1\"\n");
        check("# Ours.\na = { path = \"a\" }\n", "# Kernel.\na = \"1\"\n");
        check(
            "# Ours.\na = \"1\"\n[lints]\nx = \"warn\"\n",
            "# Ours.\na = \"1\"\n\n# More.\nb = \"1\"\n",
        );
    }

    #[test]
    fn policy_entries_without_reason_are_found() {
        let path = "crates/sandbox/src/policies/default.toml";
        let check =
            |good: &str, bad: &str| tells_apart(policy_reasons, &[(path, good)], &[(path, bad)]);
        check(
            "[[deny]]\nnames = [\"bpf\"]\nreason = \"loads code into the kernel\"\n",
            "[[deny]]\nnames = [\"bpf\"]\n",
        );
        check("", "[deny.bpf]\ncalls = [\"bpf\"]\nreason = \" \"\n");
        check("version = 1\n", "deny = [");
    }

    #[test]
    fn languages_without_cases_are_found() {
        let manifest = ("runtimes/python/runtime.toml", "");
        tells_apart(
            runtime_cases,
            &[manifest, ("runtimes/python/cases/hello.toml", "")],
            &[manifest],
        );
        tells_apart(
            runtime_cases,
            &[],
            &[("runtimes/node/cases/hello.toml", "")],
        );
    }
}
