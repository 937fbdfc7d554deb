//! `cargo xtask up`: from a fresh clone to a running server.
//!
//! Ends by becoming the server, so that Ctrl-C and signals reach it directly.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use xtask::apt::{self, Need, Probe};
use xtask::{build, process};

/// The languages and their packages: without one the server still runs and says so.
const LANGUAGES: [Need; 6] = [
    Need {
        probe: Probe::Program(&["python3"]),
        packages: &["python3"],
        reason: "to run Python code",
        required: false,
    },
    Need {
        probe: Probe::Program(&["node", "nodejs"]),
        packages: &["nodejs"],
        reason: "to run JavaScript code",
        required: false,
    },
    Need {
        probe: Probe::Ensurepip("python3"),
        packages: &["python3-venv"],
        reason: "to install numpy, pandas and others for programs",
        required: false,
    },
    Need {
        probe: Probe::Program(&["npm"]),
        packages: &["npm"],
        reason: "to install lodash, mathjs and others for programs",
        required: false,
    },
    Need {
        probe: Probe::Font(&["cjk", "wqy", "unifont", "sourcehan"]),
        packages: &["fonts-wqy-microhei"],
        reason: "to plot Chinese, Japanese and Korean text",
        required: false,
    },
    Need {
        probe: Probe::Font(&["symbola", "notoemoji"]),
        packages: &["fonts-symbola"],
        reason: "to plot emoji and symbols",
        required: false,
    },
];

/// Installs what is missing, builds, and becomes the server.
pub(crate) fn up(serve: &[String]) -> Result<()> {
    let mut needs = vec![build::COMPILER];
    needs.extend(LANGUAGES);
    apt::ensure(&needs)?;
    let binary = build::release()?;
    let mut server = process::command(&binary);
    server.arg("up").args(serve);
    let error = server.exec();
    Err(error).with_context(|| format!("failed to start {}", binary.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_language_stops_nothing() {
        assert!(LANGUAGES.iter().all(|need| !need.required));
    }
}
