//! A server in its namespace, with a home and a log of its own: one that was told
//! its public address, one that learns it from its proxy, and one whose clients may
//! sign.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::world::{PROXY_INSIDE, Running, World};
use crate::live::{Home, address_in, send, wait};

/// How long a server may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// Where a server is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Site {
    /// Its name at the proxy.
    pub(super) host: &'static str,
    /// Its port in its namespace.
    pub(super) port: u16,
    /// Whether it was told its public address.
    told: bool,
    /// Whether clients may sign with keys of their own.
    takes_keys: bool,
}

impl Site {
    /// With `public_url`.
    pub(super) const NAMED: Self = Self {
        host: "code.example.com",
        port: 8000,
        told: true,
        takes_keys: false,
    };
    /// Without.
    pub(super) const BARE: Self = Self {
        host: "bare.example.com",
        port: 8001,
        told: false,
        takes_keys: false,
    };
    /// With `public_url` and `oauth_client_keys`.
    pub(super) const KEYED: Self = Self {
        host: "keyed.example.com",
        port: 8002,
        told: true,
        takes_keys: true,
    };
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::NAMED, Self::BARE, Self::KEYED];
}

/// A running server.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) site: Site,
    home: Home,
    token: String,
    log: PathBuf,
    running: Running,
}

/// What a server left.
#[derive(Debug)]
pub(super) struct Place {
    /// Its data directory.
    pub(super) data: PathBuf,
    /// What it printed.
    pub(super) log: PathBuf,
    /// Keeps both.
    _home: Home,
}

impl Serving {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// With what it said, when it does not.
    pub(super) fn start(binary: &Path, world: &World, site: &Site) -> Result<Self> {
        let home = Home::new()?;
        let token = home.token(binary)?;
        let log = home.path().join("log");
        let mut command = home.command(binary);
        command.args([
            "serve",
            "--host",
            "0.0.0.0",
            "--port",
            &site.port.to_string(),
        ]);
        command.args(["--rate-limit", "1000000/minute", "--log-level", "debug"]);
        command.args(["--trusted-proxy", &PROXY_INSIDE.to_string()]);
        if site.told {
            command.args(["--public-url", &format!("https://{}", site.host)]);
        }
        command.env("SSL_CERT_FILE", world.authority());
        command.env("CODEX_OAUTH_CLIENT_KEYS", site.takes_keys.to_string());
        let mut command = world.beside_server(&command);
        let file = File::create(&log).context("failed to make the server's log")?;
        let again = file
            .try_clone()
            .context("failed to share the server's log")?;
        command.stdout(file).stderr(again);
        let mut running = Running::start(&mut command)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&log).context("failed to read the server's log")?;
            if said.lines().any(|line| address_in(line).is_some()) {
                break;
            }
            let ended = running.child().try_wait();
            let ended = ended.context("failed to ask for the server's end")?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "the server did not listen; it said:\n{said}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            site: *site,
            home,
            token,
            log,
            running,
        })
    }

    /// Returns what scripts are told of it.
    pub(super) fn told(&self) -> Value {
        json!({
            "url": format!("https://{}", self.site.host),
            "port": self.site.port,
            "token": self.token,
        })
    }

    /// Ends it, and returns what it left.
    ///
    /// # Errors
    /// When it outlasts the patience, or ends badly.
    pub(super) fn stop(mut self) -> Result<Place> {
        let child = self.running.child();
        send(child, Signal::TERM)?;
        let status = wait(child, PATIENCE)?.context("the server still runs long after SIGTERM")?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(Place {
            data: self.home.data(),
            log: self.log,
            _home: self.home,
        })
    }
}
