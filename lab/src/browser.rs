//! The server's pages and its files in a real browser without a window: the
//! documentation is tried out, hostile files are looked at, and chats show runs.

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

/// What the browser does with the documentation and files, and what must come of it.
const DOCS: &str = "lab/browser/docs.mjs";

/// What it does with the view of a run as chats show it.
const WIDGET: &str = "lab/browser/widget.mjs";

/// Where the pictures of that view are put, for people to look at.
const PICTURES: &str = "target/xtask/widget";

/// The address by which the second server knows itself, so that its files have links.
const PUBLIC_URL: (&str, &str) = ("CODEX_PUBLIC_URL", "https://code.example.com");

/// Returns the browser's program.
///
/// # Errors
/// With the cure, when there is none.
pub(crate) fn find() -> Result<PathBuf> {
    let browser = NAMES.iter().find_map(|name| process::find(name));
    browser.context("there is no chromium; `cargo xtask test` installs it")
}

/// Starts servers and lets a browser at them.
pub(crate) fn browser(binary: &Path) -> Result<()> {
    let browser = find()?;
    let home = Home::new()?;
    let server = Server::start(binary, &home, &[])?;
    script(DOCS, &browser, &server, &home, None)?;
    drop(server);
    let server = Server::start(binary, &home, &[PUBLIC_URL])?;
    let pictures = process::root().join(PICTURES);
    script(WIDGET, &browser, &server, &home, Some(&pictures))
}

/// Runs a script with the browser, the server's address and token, and `last`.
fn script(
    name: &str,
    browser: &Path,
    server: &Server,
    home: &Home,
    last: Option<&Path>,
) -> Result<()> {
    let mut node = process::command("/usr/bin/node");
    node.arg(process::root().join(name))
        .arg(browser)
        .arg(format!("http://{}", server.address))
        .arg(server.token().unwrap_or_default())
        .args(last)
        .env("PATH", CLEAN_PATH)
        .env("TMPDIR", home.tmp());
    process::run(&format!("pass the checks of {name}"), &mut node)
}
