//! The server's configuration: flags > environment > `codex.toml` > defaults,
//! resolved once in `main`, then immutable. Nothing else reads the environment.
//!
//! [`keys`] lists every setting once; [`resolve()`] is a pure function over the
//! layers; [`load`] reads the file and calls it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use engine::{Bounds, Isolation};
use ipnet::IpNet;

use crate::public_url::Platform;
use crate::{artifact, file_url, tunnel};

pub mod env;
mod file;
mod home;
pub mod keys;
mod nearest;
mod resolve;
pub mod table;
pub mod value;

pub use env::Env;
pub use file::passed_over;
pub use home::home_directory;
pub use resolve::{ConfigError, Flags, Problem, Source, load, resolve};

/// Largest body of a request, in bytes, unless set.
pub(crate) const BODY_LIMIT: usize = 10 * 1024 * 1024;

/// How requests are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A bearer token is needed (the default).
    Token,
    /// `--open`: nobody needs a token.
    Open,
}

/// So many requests in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests that a period refills.
    pub requests: u32,
    /// The period.
    pub period: Duration,
    /// Requests that may come at once.
    pub burst: u32,
}

impl RateLimit {
    /// Of each key, unless configured.
    pub const PER_KEY: Self = Self {
        requests: 120,
        period: Duration::from_secs(60),
        burst: 30,
    };
    /// Of everybody together in open mode, unless configured.
    pub const OPEN: Self = Self {
        requests: 10,
        period: Duration::from_secs(60),
        burst: 10,
    };
    /// No limit at all.
    pub const OFF: Self = Self {
        requests: u32::MAX,
        period: Duration::from_secs(1),
        burst: u32::MAX,
    };

    /// Whether nothing is limited; the headers are left out then.
    #[must_use]
    pub fn is_off(self) -> bool {
        self == Self::OFF
    }
}

/// The log's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The resolved configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data directory (`CODEX_HOME`).
    pub home: PathBuf,
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// The server's address as clients see it, without a trailing slash, when known.
    pub public_url: Option<String>,
    /// Where `public_url` came from (`--public-url`, `Codespaces`, `Railway`, …).
    pub public_url_source: Option<String>,
    /// Peers whose `Forwarded`/`X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Who is let in.
    pub access: Access,
    /// The tunnel that is opened, if one is.
    pub tunnel: tunnel::Wanted,
    /// Rate limit: of each key, or of everybody together in open mode.
    pub rate: RateLimit,
    /// The least isolation that will do.
    pub min_isolation: Isolation,
    /// The most isolation that is tried.
    pub max_isolation: Isolation,
    /// Origins that browsers may call from; empty means CORS is off.
    pub cors_origins: Vec<String>,
    /// Largest request body in bytes.
    pub body_limit: usize,
    /// How long a client may take to send its headers, and again its body.
    pub client_timeout: Duration,
    /// Time from the request of a ChatGPT Action to its answer.
    pub action_timeout: Duration,
    /// Time from an MCP call to its result, queue, files and run together.
    pub mcp_timeout: Duration,
    /// The longest silence of a streamed answer, which a comment then breaks.
    pub stream_keep_alive: Duration,
    /// Bytes of finished answers, together, that wait for slow readers.
    pub unread: u64,
    /// How long running jobs are waited for at shutdown.
    pub drain_grace: Duration,
    /// Connections at once.
    pub connections: usize,
    /// The server ends after so long without use; `None` for never.
    pub idle_shutdown: Option<Duration>,
    /// The log's shape.
    pub log_format: LogFormat,
    /// Lines of a server's log that wait for who reads standard error.
    pub log_queue: usize,
    /// How much is kept for download, and for how long.
    pub artifacts: artifact::Bounds,
    /// What may be fetched for a run.
    pub file_urls: file_url::Bounds,
    /// Hosts of OAuth clients that the operator knows, besides the usual ones.
    pub oauth_hosts: Vec<String>,
    /// Whether OAuth clients may show by their own keys that they are the ones.
    pub oauth_client_keys: bool,
    /// The engine's bounds.
    pub bounds: Bounds,
    /// `PATH`-like list in which interpreters are looked for.
    pub search_path: Vec<PathBuf>,
    /// Home directory below which version switchers' interpreters are looked for.
    pub switchers: Option<PathBuf>,
    /// Interpreters that the operator named: canonical language and file.
    pub interpreters: Vec<(String, PathBuf)>,
    /// Whether `up` leaves the packages out.
    pub minimal: bool,
}

impl Config {
    /// The defaults with a data directory, without looking at any environment.
    #[must_use]
    pub fn defaults(home: PathBuf) -> Self {
        Self {
            home,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8000,
            public_url: None,
            public_url_source: None,
            trusted_proxies: Vec::new(),
            access: Access::Token,
            tunnel: tunnel::Wanted::default(),
            rate: RateLimit::PER_KEY,
            min_isolation: Isolation::Uids,
            max_isolation: Isolation::Full,
            cors_origins: Vec::new(),
            body_limit: BODY_LIMIT,
            client_timeout: Duration::from_secs(30),
            action_timeout: Duration::from_secs(40),
            mcp_timeout: Duration::from_secs(50),
            stream_keep_alive: Duration::from_secs(15),
            unread: 128 * 1024 * 1024,
            drain_grace: Duration::from_secs(8),
            connections: 1024,
            idle_shutdown: None,
            log_format: LogFormat::Text,
            log_queue: 4096,
            artifacts: artifact::Bounds::default(),
            file_urls: file_url::Bounds::default(),
            oauth_hosts: Vec::new(),
            oauth_client_keys: false,
            bounds: Bounds::default(),
            search_path: ["/usr/local/bin", "/usr/bin", "/bin"]
                .map(PathBuf::from)
                .to_vec(),
            switchers: None,
            interpreters: Vec::new(),
            minimal: false,
        }
    }

    /// Whether `peer` is a proxy whose forwarded headers are believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let mut proxies = self.trusted_proxies.iter();
        proxies.any(|proxy| proxy.contains(&peer))
    }

    /// What the engine needs to know of it.
    #[must_use]
    pub fn engine(&self) -> engine::Config {
        engine::Config {
            data_dir: self.home.clone(),
            search_path: self.search_path.clone(),
            switchers: self.switchers.clone(),
            interpreters: self.interpreters.clone(),
            isolation: self.min_isolation..=self.max_isolation,
            bounds: self.bounds,
        }
    }
}

/// The configuration together with where it came from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configuration itself.
    pub config: Config,
    /// Where each setting that was given came from.
    pub sources: BTreeMap<&'static str, Source>,
    /// The hosting service, when this is one we know.
    pub platform: Option<Platform>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// How much is logged.
    pub log_level: String,
    /// Filter directives that override `log_level` (`RUST_LOG`).
    pub log_filter: Option<String>,
    /// Requests at once, when given apart from the rate.
    pub rate_burst: Option<u32>,
    /// Whether a failed `::` may be replaced by `0.0.0.0`: the host was not chosen by anybody.
    pub host_is_default: bool,
    /// What the operator should hear about: misspelt variables and the like.
    pub warnings: Vec<String>,
    /// How this program is called in the operator's shell.
    pub program: String,
}

impl Settings {
    /// The defaults, before any layer.
    #[must_use]
    pub fn defaults(home: PathBuf) -> Self {
        Self {
            config: Config::defaults(home),
            sources: BTreeMap::new(),
            platform: None,
            file: None,
            log_level: "info".to_owned(),
            log_filter: None,
            rate_burst: None,
            host_is_default: true,
            warnings: Vec::new(),
            program: "codex-server".to_owned(),
        }
    }

    /// A command line of ours that works as it is printed, in another shell
    /// too, and is about the same data directory.
    #[must_use]
    pub fn command(&self, words: &str) -> String {
        let program = value::quoted(&self.program);
        match self.sources.get("home") {
            Some(Source::Flag(_) | Source::Env(_)) => {
                let home = self.config.home.to_string_lossy();
                format!("{program} {words} --home {}", value::quoted(&home))
            }
            _ => format!("{program} {words}"),
        }
    }

    /// Takes note of the port that was really bound (the configured one may
    /// be 0), and of the public URL that follows from it.
    pub fn bound_to(&mut self, port: u16) {
        self.config.port = port;
        if self.sources.contains_key("public_url") {
            return;
        }
        if let Some(platform) = &self.platform {
            self.config.public_url = platform.public_url(port);
            self.config.public_url_source = self
                .config
                .public_url
                .as_ref()
                .map(|_| platform.name().to_owned());
        }
    }
}
