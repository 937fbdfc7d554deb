//! The Python tools that tests use, pinned, in a venv under `target/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Need, Probe};
use crate::build;
use crate::process;

/// Debian's own interpreter: the same one on every machine, never a shim.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// What making the venv takes.
pub(crate) const NEEDS: [Need; 2] = [
    Need {
        probe: Probe::File(PYTHON),
        packages: &["python3"],
        reason: "to run Python code and the test tools",
        required: true,
    },
    Need {
        probe: Probe::Ensurepip(PYTHON),
        packages: &["python3-venv"],
        reason: "to install the test tools",
        required: true,
    },
];

/// The venv's `bin`, made or brought up to date first.
pub(crate) fn bin() -> Result<PathBuf> {
    apt::ensure(&NEEDS)?;
    let venv = build::target_directory().join("xtask/venv");
    let requirements = process::root().join("xtask/python/requirements.txt");
    let wanted = fs::read_to_string(&requirements).context("failed to read requirements.txt")?;
    // Written last, so that a venv that was cut off is made again.
    let stamp = venv.join("installed-requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(venv.join("bin"));
    }
    println!("installing the test tools into {}", venv.display());
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
    if process::run("install the test tools", &mut pip).is_err() {
        bail!(
            "pip could not install xtask/python/requirements.txt (see above); check the network, then try again"
        );
    }
    Ok(())
}
