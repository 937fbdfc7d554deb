//! Debian's own Python, which runs the tools that are written in it.

use crate::apt::{Need, Probe};

/// The interpreter: the same one on every machine, never a shim.
pub const PYTHON: &str = "/usr/bin/python3";

/// What making a venv with it takes.
pub const NEEDS: [Need; 2] = [
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
