//! The Python tools that tests use, pinned, and the Jupyter Kernel Gateway that the
//! benchmark asks: a venv for each under `target/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use xtask::python::{self, PYTHON};
use xtask::{apt, build, process};

/// The `bin` of the tools' venv, made or brought up to date first.
pub(crate) fn bin() -> Result<PathBuf> {
    made("venv", "requirements.txt")
}

/// The same of the Kernel Gateway's.
pub(crate) fn gateway() -> Result<PathBuf> {
    made("gateway-venv", "gateway.txt")
}

fn made(name: &str, pinned: &str) -> Result<PathBuf> {
    apt::ensure(&python::NEEDS)?;
    let venv = build::target_directory().join("xtask").join(name);
    let requirements = process::root().join("lab/python").join(pinned);
    let wanted =
        fs::read_to_string(&requirements).with_context(|| format!("failed to read {pinned}"))?;
    // Written last, so that a venv that was cut off is made again.
    let stamp = venv.join("installed-requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(venv.join("bin"));
    }
    println!("installing {pinned} into {}", venv.display());
    make(&venv, &requirements)?;
    fs::write(&stamp, wanted).with_context(|| format!("failed to write {}", stamp.display()))?;
    Ok(venv.join("bin"))
}

fn make(venv: &Path, requirements: &Path) -> Result<()> {
    process::run(
        "make a Python venv",
        process::command(PYTHON)
            .args(["-m", "venv", "--clear"])
            .arg(venv),
    )?;
    let mut pip = process::command(venv.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]);
    pip.arg("--requirement").arg(requirements);
    if process::run("install pinned Python packages", &mut pip).is_err() {
        bail!(
            "pip could not install {} (see above); check the network, then try again",
            requirements.display()
        );
    }
    Ok(())
}
