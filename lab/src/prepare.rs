//! Installs what the lab's checks need, so that a test run ends early, with the
//! cure, where something can't be had.

use anyhow::Result;
use xtask::apt::{self, Need, Probe};
use xtask::python;

use crate::npm::Packages;
use crate::{browser, fuzz, oauth, promtool, venv};

/// Besides what single checks name.
const NEEDS: [Need; 3] = [
    Need {
        probe: Probe::File("/usr/bin/node"),
        packages: &["nodejs"],
        reason: "to run JavaScript code",
        required: true,
    },
    Need {
        probe: Probe::Program(&["npm"]),
        packages: &["npm"],
        reason: "to install packages for JavaScript and the MCP clients",
        required: true,
    },
    Need {
        probe: Probe::Program(&["runc"]),
        packages: &["runc"],
        reason: "to start the server in a plain container",
        required: true,
    },
];

/// Installs as root, or fails with the line to paste.
pub(crate) fn prepare() -> Result<()> {
    let mut needs = NEEDS.to_vec();
    needs.extend([browser::BROWSER, fuzz::COMPILER]);
    needs.extend(oauth::NEEDS);
    needs.extend(python::NEEDS);
    apt::ensure(&needs)?;
    promtool::find()?;
    Packages::ready()?;
    Packages::of_streams()?;
    venv::bin().map(drop)
}
