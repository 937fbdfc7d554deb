//! CPython with its own tests, from Debian's packages: unpacked side by side
//! under `target/`, never installed, so that all its parts are of one version.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::Outcomes;
use xtask::apt;
use xtask::build;
use xtask::process;
use xtask::python::PYTHON;

/// What `run.py` puts before its answer.
const MARK: &str = "regress:";

/// The prefix (`…/usr`) of an interpreter that has its tests.
pub(super) fn prefix() -> Result<PathBuf> {
    let version = version()?;
    let directory = build::target_directory().join("xtask/regress");
    let root = directory.join(format!("python{version}"));
    let stamp = directory.join(format!("python{version}.unpacked"));
    let prefix = root.join("usr");
    if stamp.is_file() {
        return Ok(prefix);
    }
    println!(
        "unpacking Python {version} with its tests into {}",
        root.display()
    );
    if root.exists() {
        fs::remove_dir_all(&root).context("failed to remove half an interpreter")?;
    }
    fs::create_dir_all(&root).with_context(|| format!("failed to make {}", root.display()))?;
    for package in [
        format!("python{version}-minimal"),
        format!("libpython{version}-minimal"),
        format!("libpython{version}-stdlib"),
        format!("libpython{version}-testsuite"),
    ] {
        unpack(&package, &root)?;
    }
    let python = prefix.join("bin/python3");
    std::os::unix::fs::symlink(format!("python{version}"), &python)
        .context("failed to name the interpreter")?;
    // It leads out of the root, to what it is for another interpreter.
    drop(fs::remove_file(
        prefix.join(format!("lib/python{version}/sitecustomize.py")),
    ));
    let mut check = process::command(&python);
    check.args(["-c", "import sys, test.test_json; print(sys.prefix)"]);
    let said = process::capture("start the unpacked interpreter", &mut check)?;
    ensure!(
        Path::new(said.trim()) == prefix,
        "the unpacked interpreter takes {} for its own",
        said.trim()
    );
    fs::write(&stamp, "").context("failed to note that it is unpacked")?;
    Ok(prefix)
}

/// `3.11`, as the system's interpreter says.
fn version() -> Result<String> {
    let mut ask = process::command(PYTHON);
    ask.args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]);
    let said = process::capture("ask the interpreter for its version", &mut ask)?;
    let version = said.trim();
    let plain = version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if version.is_empty() || !plain {
        bail!("{PYTHON} says that its version is {version:?}");
    }
    Ok(version.to_owned())
}

fn unpack(package: &str, root: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("failed to make a directory for the package")?;
    apt::download(package, scratch.path())?;
    let mut files = fs::read_dir(scratch.path()).context("failed to look for the package")?;
    let file = files
        .next()
        .context("apt-get downloaded nothing")?
        .context("failed to look for the package")?
        .path();
    let mut unpack = process::command("dpkg-deb");
    unpack.arg("--extract").arg(file).arg(root);
    process::run("unpack a package", &mut unpack)
}

#[derive(Deserialize)]
struct Answer {
    outcomes: BTreeMap<String, String>,
    reasons: BTreeMap<String, String>,
}

/// What `run.py` answered; `None` when it did not get to that.
pub(super) fn outcomes(output: &str) -> Result<Option<Outcomes>> {
    let Some((_, packed)) = output.trim_end().rsplit_once(MARK) else {
        return Ok(None);
    };
    let mut unpack = process::command(PYTHON);
    unpack.args([
        "-c",
        "import base64, sys, zlib; sys.stdout.buffer.write(zlib.decompress(base64.b64decode(sys.stdin.read())))",
    ]);
    let mut child = unpack
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("failed to start Python")?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut text = String::new();
    std::io::Write::write_all(&mut stdin.context("no stdin")?, packed.as_bytes())
        .context("failed to unpack an answer")?;
    stdout
        .context("no stdout")?
        .read_to_string(&mut text)
        .context("failed to unpack an answer")?;
    child.wait().context("failed to unpack an answer")?;
    let Answer {
        outcomes,
        mut reasons,
    } = serde_json::from_str(&text).context("the answer is no JSON")?;
    let whole = outcomes.into_iter().map(|(test, end)| {
        let reason = reasons.remove(&test).unwrap_or_default();
        (test, (end, reason))
    });
    Ok(Some(whole.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_unpacked() {
        let mut pack = process::command(PYTHON);
        pack.args(["-c", "import base64, zlib; print(base64.b64encode(zlib.compress(b'{\"outcomes\": {\"a\": \"ok\"}, \"reasons\": {}}')).decode())"]);
        let packed = process::capture("pack", &mut pack).expect("Python runs");
        let read = outcomes(&format!("noise\n{MARK}{packed}")).expect("it is read");
        let expected = [("a".to_owned(), ("ok".to_owned(), String::new()))].into();
        assert_eq!(read, Some(expected));
        assert_eq!(outcomes("Segmentation fault").expect("none"), None);
    }
}
