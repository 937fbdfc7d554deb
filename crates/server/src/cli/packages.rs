//! `packages add|remove|list|install`: what programs find installed. Standard
//! output carries lists; how it goes is told on standard error.

use std::io::Read as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use engine::{Engine, InstallLock, PackageKit, PackageState, Provider};
use serde_json::json;

use super::{EngineFlags, Failure, instance, serve, settings};
use crate::api::PackagesOut;
use crate::config::{Env, Settings, Source};
use crate::exit_code::Exit;
use crate::output;
use crate::provision::{self, Change, Display, Done, Intent, Surroundings, specifier};

/// Loading everything for the first time takes longer than a run may.
const CHECK: Duration = Duration::from_secs(300);
/// How far an installation in the background steps aside for everybody else.
const NICENESS: i32 = 10;

#[derive(Debug, Args)]
pub(super) struct PackagesArgs {
    #[command(subcommand)]
    command: PackagesCommand,
}

#[derive(Debug, Subcommand)]
enum PackagesCommand {
    /// Install what is missing: the pinned packages, and what was added
    Install {
        /// Of this language alone
        #[arg(short, long)]
        language: Option<String>,
        /// Step aside for others, and end when standard input does
        #[arg(long, hide = true)]
        background: bool,
        #[command(flatten)]
        flags: EngineFlags,
    },
    /// Add packages; a running server has them from the next run on
    #[command(
        after_help = "Examples:\n  codex-server packages add polars duckdb==1.1.0\n  codex-server packages add ajv@8 --language javascript"
    )]
    Add {
        /// Names, or names and versions such as polars==1.9.0
        #[arg(required = true, value_name = "PACKAGE")]
        packages: Vec<String>,
        /// The language; the default one when left out
        #[arg(short, long)]
        language: Option<String>,
        #[command(flatten)]
        flags: EngineFlags,
    },
    /// Remove packages that were added
    Remove {
        /// Their names
        #[arg(required = true, value_name = "PACKAGE")]
        packages: Vec<String>,
        /// The language; the default one when left out
        #[arg(short, long)]
        language: Option<String>,
        #[command(flatten)]
        flags: EngineFlags,
    },
    /// List what programs find installed
    List {
        /// Of this language alone
        #[arg(short, long)]
        language: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: EngineFlags,
    },
}

pub(super) fn packages(args: PackagesArgs, env: &Env) -> Result<Exit, Failure> {
    match args.command {
        PackagesCommand::Install {
            language,
            background,
            flags,
        } => {
            if background {
                step_aside();
            }
            let (engine, settings) = start(&flags, env)?;
            if background {
                end_with_parent()?;
            }
            let states = chosen(&engine, language.as_deref())?;
            Ok(install(Installer::new(&engine, &settings, env), &states))
        }
        PackagesCommand::Add {
            packages,
            language,
            flags,
        } => {
            for spec in &packages {
                specifier::check(spec).map_err(|why| Failure::text(Exit::Usage, why))?;
            }
            let (engine, settings) = start(&flags, env)?;
            let state = one(&engine, language.as_deref())?;
            for spec in &packages {
                let name = specifier::name(spec);
                if let Some(provider) = engine.provider(&state.language, name) {
                    let why = misnamed(&state, language.is_some(), name, provider);
                    return Err(Failure::text(Exit::Usage, why));
                }
            }
            let add = Change {
                add: packages,
                ..Change::default()
            };
            change(Installer::new(&engine, &settings, env), &state, &add)
        }
        PackagesCommand::Remove {
            packages,
            language,
            flags,
        } => {
            let (engine, settings) = start(&flags, env)?;
            let state = one(&engine, language.as_deref())?;
            removable(&state, &packages)?;
            let remove = Change {
                remove: packages,
                ..Change::default()
            };
            change(Installer::new(&engine, &settings, env), &state, &remove)
        }
        PackagesCommand::List {
            language,
            json,
            flags,
        } => {
            let (engine, settings) = start(&flags, env)?;
            list(
                &chosen(&engine, language.as_deref())?,
                Intent::without_installation(settings.config.minimal),
                json,
            )
        }
    }
}

/// Lowers our priority, and with it that of all we start; the kernel takes it
/// for disk access too.
fn step_aside() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "the installation keeps its priority");
    }
}

/// Ends this process when standard input ends: whoever started us is gone.
fn end_with_parent() -> Result<(), Failure> {
    let watch = std::thread::Builder::new().name("lifeline".to_owned());
    watch.spawn(|| {
        let mut rest = [0; 64];
        while std::io::stdin().read(&mut rest).is_ok_and(|read| read > 0) {}
        #[expect(
            clippy::exit,
            reason = "nobody is left to answer to; what was begun is swept later"
        )]
        std::process::exit(i32::from(Exit::Interrupted.code()));
    })?;
    Ok(())
}

/// Starts an engine for the check, which may take longer than a run.
fn start(flags: &EngineFlags, env: &Env) -> Result<(Engine, Settings), Failure> {
    let mut settings = settings(flags, env)?;
    if !settings.sources.contains_key("log_level") {
        "warn".clone_into(&mut settings.log_level);
    }
    crate::telemetry::start(&settings).map_err(|message| Failure::text(Exit::Config, message))?;
    crate::store::make_home(&settings.config.home)?;
    as_the_running_server(&mut settings);
    settings.config.bounds.wall_time_max = CHECK;
    let engine = serve::start_engine(&settings)?;
    Ok((engine, settings))
}

/// Takes the interpreters of the server that runs with this data directory:
/// those of this shell may be others, and its programs could not load what was
/// made for them. Flags say otherwise.
fn as_the_running_server(settings: &mut Settings) {
    let by_flag = |name: &str| matches!(settings.sources.get(name), Some(Source::Flag(_)));
    if by_flag("interpreter") || by_flag("search_path") {
        return;
    }
    let running = instance::running(&settings.config.home);
    if let Some(running) = running.filter(|running| !running.interpreters.is_empty()) {
        settings.config.interpreters = running.interpreters;
    }
}

/// The languages meant: one, or all that can have packages.
fn chosen(engine: &Engine, language: Option<&str>) -> Result<Vec<PackageState>, Failure> {
    let states = engine.packages();
    let Some(word) = language else {
        return Ok(states);
    };
    let known = engine.languages();
    let named = known.iter().find(|known| {
        known.name.eq_ignore_ascii_case(word)
            || known
                .aliases
                .iter()
                .any(|alias| alias.eq_ignore_ascii_case(word))
    });
    let found: Vec<PackageState> = states
        .iter()
        .filter(|state| named.is_some_and(|named| named.name == state.language))
        .cloned()
        .collect();
    if found.is_empty() {
        let names: Vec<&str> = states.iter().map(|state| state.language.as_str()).collect();
        return Err(Failure::text(
            Exit::Usage,
            format!(
                "there are no packages for {word:?}; there are for: {}",
                names.join(", ")
            ),
        ));
    }
    Ok(found)
}

/// One language: the one meant, or the default one.
fn one(engine: &Engine, language: Option<&str>) -> Result<PackageState, Failure> {
    let first = chosen(engine, language)?.into_iter().next();
    first.ok_or_else(|| Failure::text(Exit::Failed, "no language here can have packages"))
}

/// Returns why a name is not added, which programs import and no package has,
/// with the command to type instead; `flagged` says that a language was given.
fn misnamed(state: &PackageState, flagged: bool, name: &str, provider: Provider) -> String {
    match provider {
        Provider::Package(package) => {
            let flag = match flagged {
                true => format!(" --language {}", state.language),
                false => String::new(),
            };
            format!(
                "{name} is imported by that name, but the package is {package}: codex-server packages add {package}{flag}"
            )
        }
        Provider::Language => format!(
            "{name} comes with {} itself: programs import it, and there is nothing to add",
            state.title
        ),
    }
}

/// Whether these can be removed: only what was added can.
fn removable(state: &PackageState, names: &[String]) -> Result<(), Failure> {
    for name in names {
        let key = specifier::key(specifier::name(name));
        let is = |spec: &String| specifier::key(specifier::name(spec)) == key;
        if state.added.iter().any(is) {
            continue;
        }
        let why = if state.main.iter().any(is) {
            "is one of the pinned packages, which come together or, with --minimal, not at all"
                .to_owned()
        } else if state.added.is_empty() {
            "was not added, nor was any other".to_owned()
        } else {
            format!("was not added; there is: {}", state.added.join(", "))
        };
        return Err(Failure::text(Exit::Failed, format!("{name:?} {why}")));
    }
    Ok(())
}

/// What every installation of this command shares.
struct Installer<'a> {
    engine: &'a Engine,
    around: Surroundings,
    display: Display,
}

impl<'a> Installer<'a> {
    fn new(engine: &'a Engine, settings: &Settings, env: &Env) -> Self {
        Self {
            engine,
            around: Surroundings::new(&settings.config.search_path, env),
            display: Display::new(),
        }
    }

    fn claim(&mut self, state: &PackageState) -> Result<(PackageKit, InstallLock), String> {
        let kit = self.engine.package_kit(&state.language)?;
        let lock = provision::claim(&kit, &mut self.display).map_err(|refused| refused.to_string());
        Ok((kit, lock?))
    }

    /// Builds a set and says what came of it.
    fn build(
        &mut self,
        (kit, lock): (PackageKit, InstallLock),
        change: &Change,
    ) -> Result<String, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let (around, display) = (&self.around, &mut self.display);
        let done = provision::install(self.engine, &kit, lock, change, around, display);
        let done = runtime.block_on(done);
        self.display.clear();
        match done {
            Ok(Done::Already) => Ok("installed already".to_owned()),
            Ok(Done::Installed { packages }) => Ok(format!("ready, {packages} packages")),
            Err(refused) => Err(refused.to_string()),
        }
    }
}

fn install(mut installer: Installer<'_>, states: &[PackageState]) -> Exit {
    // All at once, so that everybody sees that those after the first are coming.
    let claims: Vec<_> = states.iter().map(|state| installer.claim(state)).collect();
    let mut exit = Exit::Success;
    for (state, claim) in states.iter().zip(claims) {
        let done = claim.and_then(|claim| installer.build(claim, &Change::default()));
        let told = done.unwrap_or_else(|why| {
            // The other languages can do without this one.
            exit = Exit::Failed;
            format!("not installed: {why}")
        });
        output::note(&format!("packages: {}: {told}", state.title));
    }
    exit
}

fn change(
    mut installer: Installer<'_>,
    state: &PackageState,
    change: &Change,
) -> Result<Exit, Failure> {
    let claim = installer.claim(state);
    let told = claim.and_then(|claim| installer.build(claim, change));
    let told =
        told.map_err(|why| Failure::text(Exit::Failed, format!("{why} Nothing was changed.")))?;
    output::note(&format!("packages: {}: {told}", state.title));
    Ok(Exit::Success)
}

fn list(states: &[PackageState], intent: Intent, json: bool) -> Result<Exit, Failure> {
    if json {
        let all: serde_json::Map<_, _> = states
            .iter()
            .map(|state| {
                let mut shown = json!(PackagesOut::of(state, intent));
                shown["added"] = json!(state.added);
                let all = state.installed.iter().flatten();
                shown["installed"] = all
                    .map(|package| json!({ "name": package.name, "version": package.version }))
                    .collect();
                (state.language.clone(), shown)
            })
            .collect();
        let text = serde_json::to_string_pretty(&all)
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        output::text(&text)?;
        return Ok(Exit::Success);
    }
    for state in states {
        let standing = provision::standing(state, intent);
        let phase = standing.phase.as_str();
        let message = standing.message;
        output::note(format!("{}: {phase}. {message}", state.title).trim());
        let added = |name: &str| {
            let key = specifier::key(name);
            state
                .added
                .iter()
                .any(|spec| specifier::key(specifier::name(spec)) == key)
        };
        let lines = state.installed.iter().flatten().map(|package| {
            let mark = if added(&package.name) {
                "  (added)"
            } else {
                ""
            };
            format!("{} {}{mark}", package.name, package.version)
        });
        let lines: Vec<String> = lines.collect();
        if !lines.is_empty() {
            output::text(&lines.join("\n"))?;
        }
    }
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn only_what_was_added_can_be_removed() {
        let state = PackageState {
            language: "python".to_owned(),
            title: "Python".to_owned(),
            directory: "/nowhere".into(),
            main: words(&["numpy"]),
            added: words(&["polars==1", "rich"]),
            installed: None,
            current: false,
            installing: false,
            obstacle: None,
        };
        removable(&state, &words(&["Polars", "rich"])).unwrap();
        let refused = |name: &str| {
            removable(&state, &words(&[name]))
                .unwrap_err()
                .error
                .to_string()
        };
        assert!(refused("numpy").contains("one of the pinned packages"));
        assert!(refused("flask").contains("there is: polars==1, rich"));
    }
}
