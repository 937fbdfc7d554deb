//! Which crates a change touches: those that a changed file belongs to or is
//! read by, and those that depend on one of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;
use xtask::process;

/// What a change is compared with: where its branch left this one.
const MAIN: [&str; 2] = ["main", "origin/main"];

/// Crates that read files of other folders; the beginnings of the files' paths.
const READERS: [(&str, &[&str]); 9] = [
    ("runtimes/", &["engine"]),
    ("fuzz/seeds/", &["sandbox", "engine", "codex-server"]),
    ("docs/", &["codex-server"]),
    ("openapi", &["codex-server"]),
    ("SECURITY.md", &["sandbox"]),
    ("crates/sandbox/tests/escape/", &["lab"]),
    ("crates/sandbox/src/policies/", &["lab"]),
    ("packaging/", &["lab"]),
    ("Dockerfile", &["lab"]),
];

/// Files that all crates are built by.
const COMMON: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "clippy.toml",
    "rustfmt.toml",
    ".cargo/",
    ".config/",
];

/// A crate of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    /// Below the root, with `/` at its end.
    folder: String,
    /// Names of all that it depends on, for its tests too.
    depends: Vec<String>,
}

/// Returns the names of the crates that the work tree and the commits since
/// `main` touch, sorted.
pub(crate) fn crates() -> Result<BTreeSet<String>> {
    Ok(touched(&members(&metadata()?)?, &files()?))
}

/// Every file that differs from where the branch left `main`.
fn files() -> Result<Vec<String>> {
    let bases = MAIN.iter().filter_map(|main| {
        let mut git = process::command("git");
        process::capture("ask git", git.args(["merge-base", "HEAD", main])).ok()
    });
    // A clone of one commit has no base: its work tree alone counts.
    let base = bases.map(|base| base.trim().to_owned()).next();
    let base = base.unwrap_or_else(|| "HEAD".to_owned());
    let list = |arguments: &[&str]| {
        process::capture(
            "ask git what changed",
            process::command("git").args(arguments),
        )
    };
    let changed = list(&["diff", "--name-only", "-z", "--no-renames", &base])?;
    let new = list(&["ls-files", "--others", "--exclude-standard", "-z"])?;
    let names = changed.split('\0').chain(new.split('\0'));
    Ok(names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

fn metadata() -> Result<Value> {
    let mut cargo = process::cargo();
    cargo.args([
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ]);
    let printed = process::capture("ask cargo for the crates", &mut cargo)?;
    serde_json::from_str(&printed).context("cargo metadata is not JSON")
}

fn members(metadata: &Value) -> Result<Vec<Member>> {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]).into_iter().map(|package| {
        let manifest = text(&package["manifest_path"]);
        let folder = manifest.strip_prefix(root)?.strip_suffix("Cargo.toml")?;
        Some(Member {
            name: text(&package["name"]),
            folder: folder.trim_start_matches('/').to_owned(),
            depends: list(&package["dependencies"])
                .iter()
                .map(|one| text(&one["name"]))
                .collect(),
        })
    });
    packages
        .collect::<Option<Vec<Member>>>()
        .context("cargo metadata names a crate outside the workspace")
}

fn touched(members: &[Member], files: &[String]) -> BTreeSet<String> {
    let mut touched = BTreeSet::new();
    for file in files {
        let is_common = COMMON.iter().any(|start| file.starts_with(start));
        let owners = members
            .iter()
            .filter(|member| is_common || file.starts_with(&member.folder))
            .map(|member| member.name.clone());
        touched.extend(owners);
        for (start, readers) in READERS {
            if file.starts_with(start) {
                touched.extend(readers.iter().map(|name| (*name).to_owned()));
            }
        }
    }
    loop {
        let before = touched.len();
        for member in members {
            if member.depends.iter().any(|name| touched.contains(name)) {
                touched.insert(member.name.clone());
            }
        }
        if touched.len() == before {
            return touched;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real() -> Vec<Member> {
        members(&metadata().expect("cargo tells")).expect("ours")
    }

    #[test]
    fn a_change_touches_owners_readers_and_dependents() {
        let members = real();
        let all = "codex-server engine fuzz lab plane sandbox xtask";
        let check = |file: &str, expected: &str| {
            let found = touched(&members, &[file.to_owned()]);
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            assert_eq!(found.join(" "), expected, "{file}");
        };
        check("crates/server/src/main.rs", "codex-server fuzz");
        check("crates/engine/src/plan.rs", "codex-server engine fuzz");
        check(
            "crates/sandbox/src/confine.rs",
            "codex-server engine fuzz sandbox",
        );
        check(
            "crates/sandbox/tests/escape/attack.rs",
            "codex-server engine fuzz lab sandbox",
        );
        check("crates/plane/src/lib.rs", "codex-server fuzz lab plane");
        check("lab/src/main.rs", "lab");
        check("xtask/src/lib.rs", "lab xtask");
        check("runtimes/python/runtime.toml", "codex-server engine fuzz");
        check("docs/cli.md", "codex-server fuzz");
        check("README.md", "");
        check("Cargo.lock", all);
        check(".config/nextest.toml", all);
    }

    #[test]
    fn what_is_read_is_there() {
        let members = real();
        let starts = READERS.iter().map(|(start, _)| *start);
        for start in starts.chain(COMMON).filter(|start| *start != "openapi") {
            assert!(process::root().join(start).exists(), "{start}");
        }
        for (start, readers) in READERS {
            for reader in readers {
                let known = members.iter().any(|member| member.name == *reader);
                assert!(known, "{reader}, of {start}");
            }
        }
    }
}
