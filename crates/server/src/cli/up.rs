//! `up`: the server, unless it runs already, and the packages beside it. What
//! a newcomer types twice must not end in an error the second time.

use std::ffi::OsString;
use std::process::{ChildStdin, Command, Stdio};

use super::instance::{Claim, Instance};
use super::{Failure, serve};
use crate::config::{Env, Settings};
use crate::exit_code::Exit;
use crate::{output, provision};

pub(super) fn up(settings: Settings, env: &Env) -> Result<Exit, Failure> {
    crate::store::make_home(&settings.config.home)?;
    match Instance::claim(&settings.config.home)? {
        Claim::Ours(instance) => {
            let installation =
                (!settings.config.minimal).then(|| Installation::new(&settings, env));
            serve::with_instance(settings, instance, installation)
        }
        Claim::Running(running) => {
            output::text(&running.to_string())?;
            Ok(Exit::Success)
        }
    }
}

/// The installation of packages beside a server: what to start, once the
/// server answers.
#[derive(Debug)]
pub(super) struct Installation {
    words: Vec<OsString>,
    environment: Vec<(String, OsString)>,
}

/// An installation under way. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Installing {
    _lifeline: Option<ChildStdin>,
}

impl Installation {
    fn new(settings: &Settings, env: &Env) -> Self {
        let config = &settings.config;
        let mut words: Vec<OsString> = ["packages", "install", "--background"]
            .map(Into::into)
            .to_vec();
        words.extend(["--home".into(), config.home.clone().into_os_string()]);
        let mut environment = provision::environment(env);
        if let Ok(path) = std::env::join_paths(&config.search_path) {
            // What it finds must be what this server found: naming a search path
            // leaves out the places of version switchers.
            match config.switchers {
                Some(_) => environment.push(("PATH".to_owned(), path)),
                None => words.extend(["--search-path".into(), path]),
            }
        }
        for (language, file) in &config.interpreters {
            let mut word = OsString::from(format!("{language}="));
            word.push(file);
            words.extend(["--interpreter".into(), word]);
        }
        words.extend(["--min-isolation", config.min_isolation.as_str()].map(Into::into));
        Self { words, environment }
    }

    /// Starts our own program again, with none of our environment but what
    /// installers need. The server goes on without packages when it fails.
    #[expect(
        clippy::disallowed_methods,
        reason = "our own program, which makes its own sandbox; it gets no request and no secret"
    )]
    pub(super) fn start(self) -> Installing {
        let child = std::env::current_exe().and_then(|program| {
            Command::new(program)
                .args(&self.words)
                .env_clear()
                .envs(self.environment)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
        });
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(%error, cure = "codex-server packages install", "the packages are not being installed");
                return Installing { _lifeline: None };
            }
        };
        let lifeline = child.stdin.take();
        // Told by itself how it went; somebody has to take note of its end.
        let reaper = std::thread::Builder::new().name("packages".to_owned());
        if let Err(error) = reaper.spawn(move || child.wait()) {
            tracing::debug!(%error, "nobody waits for the installation");
        }
        Installing {
            _lifeline: lifeline,
        }
    }
}
