//! The server's pages and its files in a real browser without a window: the
//! documentation is tried out, and hostile files are looked at.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::live::{CLEAN_PATH, Home, Server};
use xtask::apt::{Need, Probe};
use xtask::process;

/// The browsers that will do.
const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// What this check cannot do without.
pub(crate) const BROWSER: Need = Need {
    probe: Probe::Program(NAMES),
    packages: &["chromium"],
    reason: "to look at the server's pages as people do",
    required: true,
};

/// What the browser is told to do, and what must come of it.
const SCRIPT: &str = "lab/browser/docs.mjs";

/// Returns the browser's program.
///
/// # Errors
/// With the cure, when there is none.
pub(crate) fn find() -> Result<PathBuf> {
    let browser = NAMES.iter().find_map(|name| process::find(name));
    browser.context("there is no chromium; `cargo xtask test` installs it")
}

/// Starts a server and lets a browser at it.
pub(crate) fn browser(binary: &Path) -> Result<()> {
    let browser = find()?;
    let home = Home::new()?;
    let server = Server::start(binary, &home, &[])?;
    let mut node = process::command("/usr/bin/node");
    node.arg(process::root().join(SCRIPT))
        .arg(browser)
        .arg(format!("http://{}", server.address))
        .arg(server.token().unwrap_or_default())
        .env("PATH", CLEAN_PATH)
        .env("TMPDIR", home.tmp());
    process::run("pass the checks in a browser", &mut node)
}
