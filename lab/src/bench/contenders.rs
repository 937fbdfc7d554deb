//! The servers of a comparison: ours, and the naive one, Jupyter's Kernel Gateway or
//! another build of ours. All get the same interpreters and the same packages, and end
//! when dropped.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::http::Client;
use crate::live::{CLEAN_PATH, Home, Server};
use crate::venv;
use xtask::{build, process};

/// Debian's own interpreters, which both servers run: never a shim.
pub(super) use xtask::python::PYTHON;
pub(super) const NODE: &str = "/usr/bin/node";

/// Variables of ours beside the bounds: exactly these interpreters, no others.
const SETTINGS: [(&str, &str); 4] = [
    (
        "CODEX_INTERPRETER",
        "python=/usr/bin/python3,javascript=/usr/bin/node",
    ),
    ("CODEX_SEARCH_PATH", "/usr/bin"),
    // Room for all clients, each of which may have to wait for a while.
    ("CODEX_QUEUE", "512"),
    ("CODEX_QUEUE_WAIT", "60"),
];

/// The name of the Kernel Gateway's kernel.
pub(super) const KERNEL: &str = "bench";

/// A server that is measured.
#[derive(Debug)]
pub(super) struct Contender {
    /// Its name in the table.
    pub(super) name: &'static str,
    server: Server,
    /// Kept until the server has ended: fields are dropped in this order.
    _home: Home,
}

impl Contender {
    /// Starts a build of ours: with packages for Python, which it installs first
    /// and keeps for the next run, or without any. `more` are further variables.
    pub(super) fn ours(
        name: &'static str,
        binary: &Path,
        packages: bool,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        let home = if packages {
            let home = Home::kept(&directory(name), &["packages"])?;
            install(binary, &home)?;
            home
        } else {
            Home::new()?
        };
        let server = Server::start(binary, &home, &[&SETTINGS[..], more].concat())?;
        Ok(Self {
            name,
            server,
            _home: home,
        })
    }

    /// Starts the naive server, whose programs see these packages.
    pub(super) fn naive(packages: Option<&Path>) -> Result<Self> {
        let home = Home::new()?;
        let mut command = process::command(venv::bin()?.join("python"));
        command
            .env_clear()
            .env("PATH", CLEAN_PATH)
            .env("HOME", home.path())
            .env("TMPDIR", home.tmp())
            .arg("bench/naive.py");
        if let Some(packages) = packages {
            command.env("BENCH_PACKAGES", packages);
        }
        let server = Server::spawn(&mut command, None)?;
        Ok(Self {
            name: "naive",
            server,
            _home: home,
        })
    }

    /// Starts the Kernel Gateway, whose kernels see these packages.
    pub(super) fn gateway(packages: &Path) -> Result<Self> {
        let home = Home::new()?;
        let python = venv::gateway()?.join("python");
        let kernel = home.path().join("jupyter/kernels").join(KERNEL);
        fs::create_dir_all(&kernel).context("failed to make a folder for the kernel")?;
        fs::write(
            kernel.join("kernel.json"),
            json!({
                "argv": [&python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": KERNEL,
                "language": "python",
                // One thread for numpy, as programs of ours are told.
                "env": {
                    "PYTHONPATH": site_packages(packages)?,
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": "1",
                },
            })
            .to_string(),
        )
        .context("failed to write the kernel's specification")?;
        let mut command = process::command(python);
        command
            .env_clear()
            .env("PATH", CLEAN_PATH)
            .env("HOME", home.path())
            .env("TMPDIR", home.tmp())
            .env("JUPYTER_PATH", home.path().join("jupyter"))
            .env("JUPYTER_RUNTIME_DIR", home.path().join("runtime"))
            .arg("bench/gateway.py");
        let server = Server::spawn(&mut command, None)?;
        Ok(Self {
            name: "gateway",
            server,
            _home: home,
        })
    }

    /// Returns where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Returns whether it is a server of ours: no other one asks for a token.
    pub(super) fn is_ours(&self) -> bool {
        self.server.token().is_some()
    }

    /// Returns how long ago its process was started.
    pub(super) fn age(&self) -> Duration {
        self.server.age()
    }

    /// Returns its process id.
    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Returns a client of it, with a connection of its own.
    pub(super) fn client(&self) -> Client {
        self.server.client()
    }

    /// Returns the isolation that it tells.
    ///
    /// # Errors
    /// When it is no server of ours.
    pub(super) fn isolation(&self) -> Result<String> {
        let health: Value = self.client().get("/health")?.json()?;
        let word = health["isolation"].as_str();
        Ok(word.context("/health names no isolation")?.to_owned())
    }
}

/// Returns the directory of the packages that our server's Python programs see,
/// if a benchmark has installed them.
pub(super) fn installed_packages() -> Option<PathBuf> {
    directory("ours")
        .join("data/packages/python/current/tree")
        .canonicalize()
        .ok()
}

/// Returns the same where packages are wanted.
pub(super) fn packages_if(wanted: bool) -> Option<PathBuf> {
    wanted.then(installed_packages).flatten()
}

/// Returns what of an installed tree Python imports from.
fn site_packages(tree: &Path) -> Result<PathBuf> {
    let lib = tree.join("lib");
    let failed = || format!("failed to look for packages in {}", lib.display());
    fs::read_dir(&lib)
        .with_context(failed)?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages"))
        .find(|path| path.is_dir())
        .with_context(failed)
}

/// Where the server of this name keeps its state.
fn directory(name: &str) -> PathBuf {
    build::target_directory().join("xtask/bench").join(name)
}

/// Lets a binary install the pinned packages for Python, with pip as it is set up
/// on this machine.
fn install(binary: &Path, home: &Home) -> Result<()> {
    let mut command = home.command(binary);
    let of_pip = |name: &str| name.starts_with("PIP_") || name.to_lowercase().ends_with("_proxy");
    command.envs(std::env::vars().filter(|(name, _)| of_pip(name)));
    command.envs(SETTINGS);
    command.args(["packages", "install", "--language", "python"]);
    process::run("install the packages for Python", &mut command)
}
