//! `up`: the server, unless it runs already, and the packages beside it. What
//! a newcomer types twice must not end in an error the second time.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};

use engine::{Engine, Language};

use super::instance::{Claim, Instance, Told};
use super::{Failure, serve};
use crate::config::{Env, Settings};
use crate::exit_code::Exit;
use crate::output;
use crate::provision::{self, Underway};

pub(super) fn up(settings: Settings, env: &Env) -> Result<Exit, Failure> {
    crate::store::make_home(&settings.config.home)?;
    match Instance::claim(&settings.config.home)? {
        Claim::Ours(instance) => {
            let installation =
                (!settings.config.minimal).then(|| Installation::new(&settings, env));
            serve::with_instance(settings, instance, installation)
        }
        Claim::Running(running) => {
            let told = Told {
                running: &running,
                settings: &settings,
            };
            output::text(&told.to_string())?;
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
#[derive(Debug, Default)]
pub(super) struct Installing {
    _lifeline: Option<ChildStdin>,
    /// Whether it goes on.
    pub(super) underway: Underway,
}

/// The interpreter of each language that has one: what packages are made for.
pub(super) fn preferred(languages: &[Language]) -> Vec<(String, PathBuf)> {
    let plain = languages
        .iter()
        .filter(|language| language.version_of.is_none());
    plain
        .filter_map(|language| Some((language.name.clone(), language.interpreter.clone()?)))
        .collect()
}

impl Installation {
    fn new(settings: &Settings, env: &Env) -> Self {
        let config = &settings.config;
        let mut words: Vec<OsString> = ["packages", "install", "--background"]
            .map(Into::into)
            .to_vec();
        words.extend(["--home".into(), config.home.clone().into_os_string()]);
        let environment = provision::environment(env);
        // For programs other than interpreters, such as npm.
        if let Ok(path) = std::env::join_paths(&config.search_path)
            && !path.is_empty()
        {
            words.extend(["--search-path".into(), path]);
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
    pub(super) fn start(mut self, engine: &Engine) -> Installing {
        // What a version switcher's variables chose here they would not choose there.
        for (language, file) in preferred(&engine.languages()) {
            let mut word = OsString::from(format!("{language}="));
            word.push(file);
            self.words.extend(["--interpreter".into(), word]);
        }
        provision::forget_failures(&engine.packages());
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
                return Installing::default();
            }
        };
        let lifeline = child.stdin.take();
        // Told by itself how it went; somebody has to take note of its end.
        let underway = Underway::default();
        underway.set(true);
        let until = underway.clone();
        let reaper = std::thread::Builder::new().name("packages".to_owned());
        let waiting = reaper.spawn(move || {
            let ended = child.wait();
            until.set(false);
            ended
        });
        if let Err(error) = waiting {
            underway.set(false);
            tracing::debug!(%error, "nobody waits for the installation");
        }
        Installing {
            _lifeline: lifeline,
            underway,
        }
    }
}
