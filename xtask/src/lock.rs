//! Pins what programs find installed: the newest versions that go together,
//! with the hashes of all files that a server may fetch.
//!
//! Names are taken from `runtimes/python/packages.in` and
//! `runtimes/javascript/package.json`. Where files come from is not written
//! down: that is each machine's own affair.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use xtask::python::{self, PYTHON};
use xtask::{apt, build, process};

/// The oldest Python that the lock is for.
const OLDEST: &str = "3.9";
/// The resolver, which knows how to lock for all Pythons at once.
const RESOLVER: &str = "uv==0.13.9";

/// What the resolver writes, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Lock {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    marker: Option<String>,
    #[serde(default)]
    wheels: Vec<Wheel>,
}

#[derive(Debug, Deserialize)]
struct Wheel {
    url: String,
    hashes: Hashes,
}

#[derive(Debug, Deserialize)]
struct Hashes {
    sha256: String,
}

/// Writes both locks anew.
pub(crate) fn lock() -> Result<()> {
    lock_python(&process::root().join("runtimes/python"))?;
    lock_javascript(&process::root().join("runtimes/javascript"))
}

fn lock_python(folder: &Path) -> Result<()> {
    apt::ensure(&python::NEEDS)?;
    let tool = build::target_directory().join("xtask/uv");
    let make = ["-m", "venv"];
    process::run(
        "make a Python venv",
        process::command(PYTHON).args(make).arg(&tool),
    )?;
    let mut pip = process::command(tool.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", RESOLVER]);
    process::run("install the resolver", &mut pip)?;
    let resolved = tool.join("pylock.toml");
    let mut resolver = process::command(tool.join("bin/uv"));
    resolver.args(["pip", "compile", "--quiet", "--upgrade", "--universal"]);
    resolver.args(["--format", "pylock.toml", "--python-version", OLDEST]);
    resolver
        .arg(folder.join("packages.in"))
        .arg("-o")
        .arg(&resolved);
    process::run("resolve the packages of Python", &mut resolver)?;
    let text = fs::read_to_string(&resolved).context("failed to read what was resolved")?;
    let path = folder.join("packages.lock");
    fs::write(&path, requirements(&text)?).context("failed to write the lock")?;
    println!("wrote {}", path.display());
    Ok(())
}

/// The lock as pip takes it: a package a line, with the hashes of its wheels.
fn requirements(text: &str) -> Result<String> {
    let lock: Lock = toml::from_str(text).context("the resolver wrote something else")?;
    let mut lines = String::new();
    for package in lock.packages {
        let mut hashes: Vec<&str> = package
            .wheels
            .iter()
            .filter(|wheel| fits(&wheel.url))
            .map(|wheel| wheel.hashes.sha256.as_str())
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        let (name, version) = (&package.name, &package.version);
        ensure!(
            !hashes.is_empty(),
            "{name} {version} has no wheel for Linux"
        );
        lines.push_str(&format!("{name}=={version}"));
        // True of all that the lock is for.
        let always = format!("python_full_version >= '{OLDEST}'");
        let marker = package.marker.unwrap_or_default().replace(&always, "");
        let marker = marker.trim().trim_start_matches("and ");
        if !marker.is_empty() {
            lines.push_str(&format!(" ; {marker}"));
        }
        for hash in hashes {
            lines.push_str(&format!(" \\\n    --hash=sha256:{hash}"));
        }
        lines.push('\n');
    }
    Ok(lines)
}

/// Whether a server may want that wheel: for Linux on the two processors, and
/// for a CPython with a lock of its own.
fn fits(url: &str) -> bool {
    let file = url.rsplit('/').next().unwrap_or_default();
    let mut tags = file.trim_end_matches(".whl").rsplit('-');
    let (Some(platform), Some(abi), Some(python)) = (tags.next(), tags.next(), tags.next()) else {
        return false;
    };
    let linux =
        platform.contains("linux") && (platform.contains("x86_64") || platform.contains("aarch64"));
    let cpython = python
        .split('.')
        .any(|tag| tag.starts_with("cp3") || tag.starts_with("py3"));
    let threads_apart = abi.starts_with("cp") && abi.ends_with('t');
    (platform == "any" || linux) && cpython && !threads_apart
}

fn lock_javascript(folder: &Path) -> Result<()> {
    let mut npm = process::command("npm");
    npm.current_dir(folder).args([
        "update",
        "--package-lock-only",
        "--save",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--omit-lockfile-registry-resolved",
    ]);
    process::run("resolve the packages of JavaScript", &mut npm)?;
    println!("wrote {}", folder.join("package-lock.json").display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_for_servers_are_told_from_others() {
        let check = |file: &str, expected| {
            assert_eq!(fits(&format!("https://x/{file}")), expected, "{file}");
        };
        check("six-1.17.0-py2.py3-none-any.whl", true);
        check(
            "numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
            true,
        );
        check("numpy-2.4.6-cp311-cp311-musllinux_1_2_aarch64.whl", true);
        check("lxml-6.1.3-cp39-abi3-manylinux_2_28_aarch64.whl", true);
        check("numpy-2.4.6-cp313-cp313t-manylinux_2_28_x86_64.whl", false);
        check(
            "numpy-2.4.6-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl",
            false,
        );
        check("numpy-2.4.6-cp311-cp311-win_amd64.whl", false);
        check("numpy-2.4.6-cp311-cp311-macosx_14_0_arm64.whl", false);
        check("lxml-6.1.3-cp311-cp311-manylinux_2_28_armv7l.whl", false);
        check("lxml.tar.gz", false);
    }

    #[test]
    fn a_lock_names_versions_markers_and_hashes() {
        let text = r#"
[[packages]]
name = "six"
version = "1.17.0"
marker = "python_full_version >= '3.9' and python_full_version < '3.11'"
wheels = [
  { url = "https://x/six-1.17.0-py3-none-any.whl", size = 1, hashes = { sha256 = "ab" } },
  { url = "https://x/six-1.17.0-cp39-cp39-win32.whl", size = 1, hashes = { sha256 = "cd" } },
]
"#;
        let expected = "six==1.17.0 ; python_full_version < '3.11' \\\n    --hash=sha256:ab\n";
        assert_eq!(requirements(text).expect("a lock"), expected);
        assert!(requirements("[[packages]]\nname = 'x'\nversion = '1'\n").is_err());
    }
}
