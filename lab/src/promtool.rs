//! `promtool check metrics`: what Prometheus' own tool says of our metrics.
//!
//! The tool comes with a server whose service nobody here wants to start, so
//! the package is unpacked under `target/` and never installed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use xtask::apt;
use xtask::build;
use xtask::process;

/// Debian's package that brings the tool.
const PACKAGE: &str = "prometheus";

/// Where the package puts it.
const PLACE: &str = "usr/bin/promtool";

/// Checks metrics in the text form: it parses, and follows the conventions.
pub(crate) fn check(text: &[u8]) -> Result<()> {
    let tool = find()?;
    let mut command = process::command(&tool);
    let mut child = command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {}", tool.display()))?;
    let mut stdin = child.stdin.take().context("stdin is not a pipe")?;
    // A few KiB, which the tool reads whole before it says a word.
    stdin
        .write_all(text)
        .context("failed to pass the metrics on")?;
    drop(stdin);
    let output = child.wait_with_output().context("failed to run promtool")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // It tells of broken conventions with 3, of broken text with 1.
    ensure!(
        output.status.success() && said.trim().is_empty(),
        "promtool check metrics ended with {} and said:\n{said}",
        output.status
    );
    Ok(())
}

/// The tool of the system, else one that was unpacked before, else a new one.
pub(crate) fn find() -> Result<PathBuf> {
    if let Some(installed) = process::find("promtool") {
        return Ok(installed);
    }
    let directory = build::target_directory().join("xtask/promtool");
    let unpacked = directory.join(PLACE);
    if unpacked.is_file() {
        return Ok(unpacked);
    }
    println!("unpacking promtool into {}", directory.display());
    unpack(&directory)?;
    if !unpacked.is_file() {
        bail!("the package {PACKAGE} has no {PLACE}; install promtool by hand, then try again");
    }
    Ok(unpacked)
}

fn unpack(directory: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("failed to make a directory for the package")?;
    apt::download(PACKAGE, scratch.path())?;
    let mut files = std::fs::read_dir(scratch.path()).context("failed to look for the package")?;
    let package = files
        .next()
        .context("apt-get downloaded nothing")?
        .context("failed to look for the package")?
        .path();
    std::fs::create_dir_all(directory)
        .with_context(|| format!("failed to make {}", directory.display()))?;
    let mut unpack = process::command("dpkg-deb");
    unpack.arg("--extract").arg(package).arg(directory);
    process::run("unpack promtool", &mut unpack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_tells_good_from_bad() {
        check(b"# HELP a_total Number of a.\n# TYPE a_total counter\na_total 1\n").expect("good");
        for bad in [
            &b"a_total{ 1\n"[..],
            b"# HELP a Number of a.\n# TYPE a counter\na 1\n",
            b"a_total 1\n",
        ] {
            let said = check(bad).expect_err("bad").to_string();
            assert!(said.contains("promtool check metrics"), "{said}");
        }
    }
}
