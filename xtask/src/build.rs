//! Building the server's binary, and saying what to do when that fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::apt::{self, Need, Probe};
use crate::process;

/// Free space that a first release build takes, in bytes, with room to spare.
const FIRST_BUILD_BYTES: u64 = 3 * 1024 * 1024 * 1024;

/// Below this much free space a failed build is put down to a full disk.
const FULL_DISK_BYTES: u64 = 64 * 1024 * 1024;

/// What a build cannot do without.
pub const COMPILER: Need = Need {
    probe: Probe::Program(&["cc", "gcc", "clang"]),
    packages: &["gcc", "libc6-dev"],
    reason: "a C compiler, which the built-in SQLite is compiled with",
    required: true,
};

/// The server alone.
const SERVER: [&str; 4] = ["--package", "codex-server", "--bin", "codex-server"];

/// Cargo's two profiles that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    Debug,
    /// The dev profile again, with the features that the tests were built
    /// with: after a test run there is nothing left to compile.
    Tested,
    Release,
}

/// Builds the release binary and gives back where it is.
pub fn release() -> Result<PathBuf> {
    build(Profile::Release)
}

/// Builds the dev profile's binary and gives back where it is.
pub fn debug() -> Result<PathBuf> {
    build(Profile::Debug)
}

/// The dev profile's binary as the tests have it.
pub fn tested() -> Result<PathBuf> {
    build(Profile::Tested)
}

/// The given binary, else the dev profile's, built now.
pub fn or_debug(binary: Option<PathBuf>) -> Result<PathBuf> {
    match binary {
        Some(binary) => binary
            .canonicalize()
            .with_context(|| format!("there is no binary at {}", binary.display())),
        None => debug(),
    }
}

/// Builds the server for another target with a cargo that was given what that
/// takes, in the release or the dev profile, from the locked dependencies.
pub fn server_for(mut cargo: Command, target: &str, release: bool) -> Result<PathBuf> {
    check_toolchain()?;
    cargo
        .args(["build", "--locked", "--target", target])
        .args(SERVER);
    if release {
        check_disk()?;
        cargo.arg("--release");
    }
    compile(cargo)
}

fn build(profile: Profile) -> Result<PathBuf> {
    check_toolchain()?;
    apt::ensure(&[COMPILER])?;
    let mut cargo = process::cargo();
    cargo.arg("build");
    match profile {
        Profile::Debug => cargo.args(SERVER),
        Profile::Tested => cargo.args(["--workspace", "--lib", "--bins", "--tests"]),
        Profile::Release => {
            check_disk()?;
            cargo.args(SERVER).arg("--release")
        }
    };
    compile(cargo)
}

fn compile(mut cargo: Command) -> Result<PathBuf> {
    let output = cargo
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("failed to start cargo; is the Rust toolchain in PATH?")?;
    if !output.status.success() {
        bail!("cargo could not build the server: {}", diagnose());
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo built the server but did not say where it put it")
}

/// The path of the server's binary in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "codex-server")
        .filter(|message| message["profile"]["test"] != true)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

/// Fails when cargo is older than the workspace asks for.
fn check_toolchain() -> Result<()> {
    let manifest = std::fs::read_to_string(process::root().join("Cargo.toml"))
        .context("failed to read Cargo.toml")?;
    let wanted = wanted_version(&manifest).context("Cargo.toml names no rust-version")?;
    let said = process::capture(
        "ask cargo for its version",
        process::cargo().arg("--version"),
    )?;
    let found = version(&said).with_context(|| format!("cargo calls itself {said:?}"))?;
    if found < wanted {
        bail!(
            "this needs Rust {}.{} or newer and found {}.{}; run `rustup update stable`, then try again",
            wanted.0,
            wanted.1,
            found.0,
            found.1
        );
    }
    Ok(())
}

fn wanted_version(manifest: &str) -> Option<(u32, u32)> {
    let table: toml::Table = toml::from_str(manifest).ok()?;
    version(table["workspace"]["package"]["rust-version"].as_str()?)
}

/// Major and minor of the first word that starts with a digit.
fn version(text: &str) -> Option<(u32, u32)> {
    let word = text
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let mut numbers = word.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn check_disk() -> Result<()> {
    let target = target_directory();
    if target.join("release/codex-server").is_file() {
        return Ok(());
    }
    let free = free_bytes(process::root())?;
    if free < FIRST_BUILD_BYTES {
        bail!(
            "the disk is nearly full: the first build needs {} MiB and {} MiB are free; free some space, or set CARGO_TARGET_DIR to a folder on another disk",
            FIRST_BUILD_BYTES >> 20,
            free >> 20
        );
    }
    Ok(())
}

/// Where cargo builds, as far as the environment says.
pub fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| process::root().join("target"), PathBuf::from)
}

fn free_bytes(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path)
        .with_context(|| format!("failed to measure the free space of {}", path.display()))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Why a build failed, as far as can be told afterwards.
fn diagnose() -> &'static str {
    if free_bytes(process::root()).is_ok_and(|free| free < FULL_DISK_BYTES) {
        return "the disk is full; free some space, or set CARGO_TARGET_DIR to a folder on another disk";
    }
    // Cargo has every source at hand once it got as far as compiling.
    let offline = process::succeeds(process::cargo().args(["fetch", "--offline"]));
    if !offline {
        return "it could not download the crates it needs; check the network (and HTTPS_PROXY), then try again: what is already there is kept";
    }
    if process::find("cc").is_none() {
        return "there is no `cc`; run `apt-get install -y gcc libc6-dev`, then try again";
    }
    "see the lines above; `git status` tells whether a file was changed"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_cargo_says() {
        let check = |text: &str, expected: Option<(u32, u32)>| assert_eq!(version(text), expected);
        check("cargo 1.95.0 (f2d3ce0bd 2026-03-21)", Some((1, 95)));
        check("cargo 1.100.0-nightly (abc 2026-12-01)", Some((1, 100)));
        check("1.95", Some((1, 95)));
        check("cargo", None);
        check("cargo 1", None);
    }

    #[test]
    fn newer_is_told_from_older_by_number() {
        assert!(version("1.100.0") > version("1.95.0"));
        assert!(version("1.85.1") < version("1.95"));
    }

    #[test]
    fn the_workspace_names_its_version() {
        let manifest =
            std::fs::read_to_string(process::root().join("Cargo.toml")).expect("it is there");
        assert!(wanted_version(&manifest) >= Some((1, 85)));
        assert_eq!(
            wanted_version("[workspace.package]\nrust-version = \"1.7\""),
            Some((1, 7))
        );
    }

    #[test]
    fn the_binary_is_found_among_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"engine"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"codex-server"},"executable":"/t/release/codex-server"}
{"reason":"compiler-artifact","target":{"name":"codex-server"},"profile":{"test":true},"executable":"/t/deps/codex_server-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages),
            Some(PathBuf::from("/t/release/codex-server"))
        );
        assert_eq!(executable(""), None);
    }

    #[test]
    fn free_space_is_measured() {
        assert!(free_bytes(Path::new("/")).expect("/ is there") > 0);
        assert!(free_bytes(Path::new("/no/such/folder")).is_err());
    }
}
