//! The npm packages that tests use, pinned, in a folder under `target/`, with a
//! Node that is new enough for all of them. Runs no package's install scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use xtask::{build, process};

/// What the folder holds, below the repository's root.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// An installed set of packages.
#[derive(Debug)]
pub(crate) struct Packages {
    directory: PathBuf,
}

impl Packages {
    /// Installs the packages, or brings them up to date, where that is needed.
    ///
    /// # Errors
    /// With the cure, when npm can't.
    pub(crate) fn ready() -> Result<Self> {
        let packages = Self {
            directory: build::target_directory().join("xtask/npm"),
        };
        let lock = process::root().join("lab/mcp/package-lock.json");
        let wanted = fs::read_to_string(&lock).context("failed to read package-lock.json")?;
        // Written last, so that an installation that was cut off is made again.
        let stamp = packages.directory.join("installed-lock.json");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(packages);
        }
        let shown = packages.directory.display();
        println!("installing the MCP clients into {shown}");
        install(&packages.directory)?;
        fs::write(&stamp, wanted).with_context(|| format!("failed to write {shown}"))?;
        Ok(packages)
    }

    /// A command of the packages' own Node in their folder.
    pub(crate) fn node(&self) -> Command {
        let kind = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "x64",
        };
        let program = format!("node_modules/node-linux-{kind}/bin/node");
        let mut node = process::command(self.directory.join(program));
        node.current_dir(&self.directory);
        node
    }
}

fn install(directory: &Path) -> Result<()> {
    let failed = || format!("failed to fill {}", directory.display());
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(failed)?;
    }
    fs::create_dir_all(directory).with_context(failed)?;
    for name in MANIFESTS {
        let from = process::root().join("lab/mcp").join(name);
        fs::copy(from, directory.join(name)).with_context(failed)?;
    }
    let mut npm = process::command("npm");
    npm.current_dir(directory);
    // Not `ci`, which wants every optional package of other systems to exist.
    npm.args(["install", "--no-save", "--ignore-scripts"]);
    // The system's Node is too old for some; the one that comes with them is not.
    npm.args(["--no-audit", "--no-fund", "--loglevel", "error"]);
    if process::run("install the MCP clients", &mut npm).is_err() {
        bail!(
            "npm could not install lab/mcp/package-lock.json (see above); check the network, then try again"
        );
    }
    Ok(())
}
