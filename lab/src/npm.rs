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
    /// Where the Node is that came with the MCP clients.
    node: PathBuf,
}

impl Packages {
    /// Returns the MCP clients of `lab/mcp`, with their Node.
    ///
    /// # Errors
    /// With the cure, when npm can't install them.
    pub(crate) fn ready() -> Result<Self> {
        let directory = installed("lab/mcp", "xtask/npm")?;
        let kind = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "x64",
        };
        let node = directory.join(format!("node_modules/node-linux-{kind}/bin/node"));
        Ok(Self { directory, node })
    }

    /// Returns the clients of `lab/clients`, which are large.
    ///
    /// # Errors
    /// With the cure, when npm can't install them.
    pub(crate) fn of_clients() -> Result<Self> {
        let node = Self::ready()?.node;
        let directory = installed("lab/clients", "xtask/npm-clients")?;
        Ok(Self { directory, node })
    }

    /// Returns the clients of `lab/src/stream`, which read events.
    ///
    /// # Errors
    /// With the cure, when npm can't install them.
    pub(crate) fn of_streams() -> Result<Self> {
        let node = Self::ready()?.node;
        let directory = installed("lab/src/stream", "xtask/npm-stream")?;
        Ok(Self { directory, node })
    }

    /// Returns the path of a package's file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join("node_modules").join(name)
    }

    /// Returns a command of the Node in the packages' folder.
    pub(crate) fn node(&self) -> Command {
        let mut node = process::command(&self.node);
        node.current_dir(&self.directory);
        node
    }
}

/// Installs the packages that a folder of the repository names, or brings them up to
/// date, where that is needed; returns where they are.
fn installed(manifests: &str, name: &str) -> Result<PathBuf> {
    let directory = build::target_directory().join(name);
    let manifests = process::root().join(manifests);
    let lock = manifests.join("package-lock.json");
    let wanted = fs::read_to_string(&lock).context("failed to read package-lock.json")?;
    // Written last, so that an installation that was cut off is made again.
    let stamp = directory.join("installed-lock.json");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(directory);
    }
    let shown = directory.display();
    println!("installing clients from npm into {shown}");
    install(&manifests, &directory)?;
    fs::write(&stamp, wanted).with_context(|| format!("failed to write {shown}"))?;
    Ok(directory)
}

fn install(manifests: &Path, directory: &Path) -> Result<()> {
    let failed = || format!("failed to fill {}", directory.display());
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(failed)?;
    }
    fs::create_dir_all(directory).with_context(failed)?;
    for name in MANIFESTS {
        fs::copy(manifests.join(name), directory.join(name)).with_context(failed)?;
    }
    let mut npm = process::command("npm");
    npm.current_dir(directory);
    // Not `ci`, which wants every optional package of other systems to exist.
    npm.args(["install", "--no-save", "--ignore-scripts"]);
    // The system's Node is too old for some; the one that comes with them is not.
    npm.args(["--no-audit", "--no-fund", "--loglevel", "error"]);
    if process::run("install clients from npm", &mut npm).is_err() {
        bail!(
            "npm could not install {}/package-lock.json (see above); check the network, then try again",
            manifests.display()
        );
    }
    Ok(())
}
