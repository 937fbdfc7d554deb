//! The licences of everything that is linked into the binary, which ask to be
//! passed on with it. From the sources that cargo compiled, so that nothing is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// Beginnings of the names of files that hold a licence.
const NAMES: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];

/// All texts, each once, under the crates that it is for.
pub(super) fn collect(target: &str) -> Result<String> {
    let mut cargo = process::cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1"]);
    cargo.args(["--filter-platform", target]);
    let said = process::capture("ask cargo for the dependencies", &mut cargo)?;
    let metadata = serde_json::from_str(&said).context("cargo metadata is not JSON")?;
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut out = String::from(
        "The server is linked with these crates, with musl (MIT) and with Rust's\n\
         standard library (MIT OR Apache-2.0); SQLite, which libsqlite3-sys brings,\n\
         is in the public domain.\n\n",
    );
    for package in linked(&metadata) {
        let text = |name: &str| package[name].as_str().unwrap_or_default();
        let title = format!("{} {}", text("name"), text("version"));
        let licence = package["license"].as_str().unwrap_or("see its text below");
        writeln!(out, "{title}: {licence}").context("failed to write to memory")?;
        for found in files(Path::new(text("manifest_path")))? {
            texts.entry(found).or_default().push(title.clone());
        }
    }
    for (text, titles) in texts {
        let line = "=".repeat(78);
        write!(
            out,
            "\n{line}\n{}\n{line}\n{}\n",
            titles.join(", "),
            text.trim_end()
        )
        .context("failed to write to memory")?;
    }
    Ok(out)
}

/// Packages of others that the server is linked with, sorted.
fn linked(metadata: &Value) -> Vec<&Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let nodes: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let used = list(&node["deps"]);
            let used = used.iter().filter(|used| {
                // A kind of null is a normal dependency; build and dev are named.
                list(&used["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            });
            let used = used.filter_map(|used| used["pkg"].as_str().map(str::to_owned));
            (
                node["id"].as_str().unwrap_or_default().to_owned(),
                used.collect(),
            )
        })
        .collect();
    let packages = metadata["packages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let id = |package: &Value| package["id"].as_str().unwrap_or_default().to_owned();
    let mut open: Vec<String> = packages
        .iter()
        .filter(|package| package["name"] == "codex-server")
        .map(id)
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(next) = open.pop() {
        if seen.insert(next.clone()) {
            open.extend(nodes.get(&next).into_iter().flatten().cloned());
        }
    }
    let mut found: Vec<&Value> = packages
        .iter()
        .filter(|package| seen.contains(&id(package)) && !package["source"].is_null())
        .collect();
    found.sort_by_key(|package| package["name"].as_str().unwrap_or_default().to_owned());
    found
}

fn files(manifest: &Path) -> Result<Vec<String>> {
    let directory = manifest.parent().context("a manifest is in a folder")?;
    let told = || format!("failed to read the licences in {}", directory.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(told)? {
        let entry = entry.with_context(told)?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|start| name.starts_with(start)) && entry.path().is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| Ok(String::from_utf8_lossy(&fs::read(path).with_context(told)?).into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_told_from_what_only_builds() {
        let metadata = serde_json::json!({
            "packages": [
                {"id": "s", "name": "codex-server", "source": null},
                {"id": "e", "name": "engine", "source": null},
                {"id": "b", "name": "bytes", "source": "registry"},
                {"id": "c", "name": "cc", "source": "registry"},
                {"id": "t", "name": "insta", "source": "registry"},
                {"id": "a", "name": "anyhow", "source": "registry"},
            ],
            "resolve": {"nodes": [
                {"id": "s", "deps": [
                    {"pkg": "e", "dep_kinds": [{"kind": null}]},
                    {"pkg": "c", "dep_kinds": [{"kind": "build"}]},
                    {"pkg": "t", "dep_kinds": [{"kind": "dev"}]},
                    {"pkg": "a", "dep_kinds": [{"kind": "dev"}, {"kind": null}]},
                ]},
                {"id": "e", "deps": [{"pkg": "b", "dep_kinds": [{"kind": null}]}]},
            ]},
        });
        let names: Vec<_> = linked(&metadata)
            .iter()
            .map(|p| p["name"].clone())
            .collect();
        assert_eq!(names, ["anyhow", "bytes"]);
    }

    #[test]
    fn licence_files_are_found_by_name() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            ("LICENSE-MIT", "mit"),
            ("COPYING", "copy"),
            ("main.rs", "no"),
        ] {
            fs::write(directory.path().join(name), text).expect("written");
        }
        let found = files(&directory.path().join("Cargo.toml")).expect("readable");
        assert_eq!(found, ["copy", "mit"]);
    }
}
