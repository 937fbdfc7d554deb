//! `doctor`: what holds on this machine, what does not, and the cure. It
//! looks, and changes nothing; it calls nobody but the tunnel's control plane,
//! where a tunnel is wanted, and with `--public` the server the way ChatGPT would.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use engine::data_dir::Hold;
use engine::{Bounds, Engine, Isolation, Language, PackageState, StartError, Support, Warmth};
use serde_json::Value;

use super::port::Holder;
use super::sight::{Obstacle, Sight, TunnelPlan};
use super::{Failure, ServeFlags, instance, port, serve, settings};
use crate::artifact;
use crate::config::{Access, Env, Settings, value};
use crate::exit_code::Exit;
use crate::output;
use crate::provision::{self, Intent, Phase};
use crate::store::Store;

mod diagnose;
mod public;
mod report;

pub(super) use diagnose::Reached;
pub(super) use public::{Known, examine as examine_public, known, sorted};
pub(super) use report::Report;
use report::{Check, Section};

/// Less free space than this is worth a word, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;

#[derive(Debug, Args)]
#[command(after_help = "Exits with the code that `serve` would exit with: 0 when it could serve.")]
pub(super) struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Call the server through its public URL, as ChatGPT would
    #[arg(long)]
    public: bool,
    #[command(flatten)]
    flags: ServeFlags,
}

pub(super) fn doctor(args: &DoctorArgs, env: &Env) -> Result<Exit, Failure> {
    let settings = settings(&args.flags, env)?;
    let report = if args.public {
        public::examine(&public::known(&settings))?
    } else {
        examine(&settings)?
    };
    output::text(&if args.json {
        report.to_json()
    } else {
        report.to_string()
    })?;
    Ok(report.exit())
}

/// The version in an answer to `GET /health`, if one of us gave it.
pub(super) fn our_version(health: &Value) -> Option<String> {
    let ours = health.get("service").and_then(Value::as_str) == Some("codex-server")
        || health.get("isolation").is_some();
    let version = health.get("version").and_then(Value::as_str);
    version.filter(|_| ours).map(str::to_owned)
}

fn examine(settings: &Settings) -> Result<Report, Failure> {
    // Like a server's, our engine comes before any thread.
    let scratch = Scratch::for_home(&settings.config.home)?;
    let mut config = settings.config.engine();
    if let Some(Scratch(path)) = &scratch {
        config.data_dir.clone_from(path);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut packages, mut forked) = (Vec::new(), Vec::new());
    let (support, languages) = match Engine::start(config) {
        Ok(engine) => {
            packages = engine.packages();
            forked = runtime.block_on(engine.try_warm());
            (engine.support().clone(), Ok(engine.languages()))
        }
        // The refusal knows what was found: no need to look twice.
        Err(StartError::Sandbox(refusal)) => {
            (refusal.support.clone(), Err(StartError::Sandbox(refusal)))
        }
        Err(error) => (sandbox::probe(), Err(error)),
    };
    drop(scratch);
    let sections = vec![
        isolation(settings, &support),
        self::languages(
            &languages,
            &packages,
            Intent::without_installation(settings.config.minimal),
            starts(&settings.config.bounds, support.isolation, &forked),
        ),
        Section::new(
            "server",
            vec![
                data_directory(settings),
                disk(settings),
                kept_files(settings),
                runtime.block_on(tokens(settings)),
                listening(settings),
                public_url(settings),
                tunnel(settings),
                Check::good("limits", &limits(settings)),
            ],
        ),
    ];
    Ok(Report { sections })
}

/// A directory for the engine to write to while the data directory is not
/// there: it would make one, and looking must not. Gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn for_home(home: &Path) -> Result<Option<Self>, Failure> {
        if home.exists() {
            return Ok(None);
        }
        let name = format!("codex-server-doctor-{}", uuid::Uuid::new_v4());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Some(Self(path)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "failed to remove a directory");
        }
    }
}

fn isolation(settings: &Settings, support: &Support) -> Section {
    let verdict = level(support.isolation, settings.config.min_isolation);
    let layers = support.layers.iter().map(|layer| {
        if layer.holds {
            Check::good(&layer.name, &layer.detail)
        } else {
            Check::warning(&layer.name, &layer.detail, &layer.cure)
        }
    });
    Section::listing(
        "isolation",
        std::iter::once(verdict).chain(layers).collect(),
    )
}

/// The rung that holds, against the least that will do.
fn level(found: Option<Isolation>, least: Isolation) -> Check {
    const NAME: &str = "level";
    match found {
        Some(rung) if rung >= least => Check::good(NAME, rung.as_str()),
        Some(rung) => Check::bad(
            NAME,
            &format!("{rung}, but at least {least} is asked for"),
            &format!(
                "see the layers below; or accept less with --min-isolation {rung}, at your own risk"
            ),
            Exit::Sandbox,
        ),
        // Nothing lower holds either, so asking for less is no cure.
        None => Check::bad(
            NAME,
            "none: no sound sandbox can be set up here, and without one nothing is run",
            "see the layers below",
            Exit::Sandbox,
        ),
    }
}

/// How programs begin: ready boxes, and of whose programs there are forks.
fn starts(bounds: &Bounds, rung: Option<Isolation>, forked: &[Warmth]) -> Option<Check> {
    const NAME: &str = "starts";
    let rung = rung?;
    if bounds.ready == 0 {
        let off = "in boxes of their own, by a start of the interpreter: ready_boxes is 0";
        return Some(Check::good(NAME, off));
    }
    let boxes = format!("{} ready boxes a kind", bounds.ready);
    if rung == Isolation::Uids {
        let executed = format!("{boxes}; interpreters start in them, as nothing is forked at uids");
        return Some(Check::good(NAME, &executed));
    }
    let unfit = forked
        .iter()
        .find_map(|one| Some((one, one.obstacle.as_ref()?)));
    if let Some((one, why)) = unfit {
        let problem = format!(
            "{boxes}; {} ({}) is not forked but started: {why}",
            one.title, one.profile
        );
        let cure = "runs are right and take longer; docs/performance.md says what forks need";
        return Some(Check::warning(NAME, &problem, cure));
    }
    let kinds: Vec<String> = forked
        .iter()
        .map(|one| format!("{} ({})", one.title, one.profile))
        .collect();
    let told = match kinds.is_empty() {
        true => format!("{boxes}; nothing is forked"),
        false => format!("{boxes}; forked: {}", kinds.join(", ")),
    };
    Some(Check::good(NAME, &told))
}

fn languages(
    found: &Result<Vec<Language>, StartError>,
    packages: &[PackageState],
    intent: Intent,
    starts: Option<Check>,
) -> Section {
    let mut checks = match found {
        Err(error) => {
            let cure = match error {
                StartError::Sandbox(_) => "see the isolation above",
                StartError::Manifest { .. } => "this is a bug: please report it",
                StartError::Io { .. } => {
                    "make the data directory writable for this user, or name another with --home DIR"
                }
            };
            let mut problem = match error {
                // Its text is all that the section above has told.
                StartError::Sandbox(_) => "did not start: no sandbox that will do".to_owned(),
                _ => error.to_string(),
            };
            if let Some(source) = std::error::Error::source(error).map(ToString::to_string)
                && !problem.contains(&source)
            {
                problem = format!("{problem}: {source}");
            }
            vec![Check::bad("engine", &problem, cure, serve::exit_of(error))]
        }
        Ok(languages) => languages
            .iter()
            .flat_map(|language| {
                std::iter::once(interpreter(language)).chain(passed_over(language))
            })
            .collect(),
    };
    checks.extend(packages.iter().map(|state| installed(state, intent)));
    checks.extend(starts);
    Section::new("languages", checks)
}

/// The version of a language and the file that runs it.
fn interpreter(language: &Language) -> Check {
    match &language.interpreter {
        Some(file) => Check::good(
            &language.title,
            &format!("{} ({})", language.version, file.display()),
        ),
        None => {
            let cure = language.cure.as_deref().unwrap_or_default();
            Check::warning(&language.title, "not available", cure)
        }
    }
}

/// The interpreters that will not do; without any that does, the cure names them.
fn passed_over(language: &Language) -> impl Iterator<Item = Check> {
    let name = format!("{} passed over", language.title);
    let lines = language.passed_over.iter().filter(|_| language.available);
    lines.map(move |line| Check::good(&name, line))
}

/// The packages that programs of a language find.
fn installed(state: &PackageState, intent: Intent) -> Check {
    let name = format!("{} packages", state.title);
    let standing = provision::standing(state, intent);
    let count = state.installed.as_ref().map_or(0, Vec::len);
    match standing.phase {
        Phase::Ready if standing.message.is_empty() => {
            Check::good(&name, &format!("{count} installed"))
        }
        Phase::Ready => Check::warning(&name, &format!("{count} installed"), &standing.message),
        Phase::Installing => Check::good(
            &name,
            &format!(
                "being installed: {} of {} steps ({})",
                standing.done, standing.total, standing.message
            ),
        ),
        Phase::Minimal => Check::good(&name, "left out, as --minimal says"),
        Phase::Absent => Check::warning(&name, "not installed", &standing.message),
        Phase::Failed => Check::warning(&name, "the installation failed", &standing.message),
    }
}

fn data_directory(settings: &Settings) -> Check {
    use std::os::unix::fs::PermissionsExt as _;
    const NAME: &str = "data directory";
    let home = &settings.config.home;
    let shown = home.display().to_string();
    match home.metadata() {
        Ok(found) if !found.is_dir() => Check::bad(
            NAME,
            &format!("{shown} is no directory"),
            "name another with --home DIR",
            Exit::State,
        ),
        Ok(found) => match Hold::of(&found) {
            Some(hold @ Hold::Writable) => {
                Check::bad(NAME, &hold.problem(home), &hold.cure(home), Exit::State)
            }
            Some(hold) => Check::warning(NAME, &hold.problem(home), &hold.cure(home)),
            None if found.permissions().mode() & 0o077 != 0 => Check::warning(
                NAME,
                &format!("{shown} can be read by other users"),
                &format!("chmod 700 {shown}"),
            ),
            None => Check::good(NAME, &shown),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::good(NAME, &format!("{shown}, made at the first start"))
        }
        Err(error) => Check::bad(
            NAME,
            &format!("{shown}: {error}"),
            "make it readable for this user, or name another with --home DIR",
            Exit::State,
        ),
    }
}

fn disk(settings: &Settings) -> Check {
    const NAME: &str = "disk";
    // The directory may not be there yet; its parent has the same disk.
    let place = settings
        .config
        .home
        .ancestors()
        .find(|place| place.exists());
    let Some(found) = place.and_then(|place| rustix::fs::statvfs(place).ok()) else {
        return Check::warning(NAME, "free space cannot be told", "");
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let shown = format!("{:.1} GiB free", lossy_gib(free));
    if free < LITTLE_SPACE {
        Check::warning(
            NAME,
            &shown,
            "make room: state and kept artifacts need some",
        )
    } else {
        Check::good(NAME, &shown)
    }
}

/// Where the files of runs are kept, how full that is, and whether the disk
/// has room for as many as are allowed.
fn kept_files(settings: &Settings) -> Check {
    const NAME: &str = "files kept";
    let home = &settings.config.home;
    let bounds = settings.config.artifacts;
    if bounds.bytes == 0 || bounds.count == 0 {
        return Check::good(NAME, "none: switched off");
    }
    let (count, bytes) = match artifact::on_disk(home) {
        Ok(found) => found,
        Err(error) => {
            let problem = format!("cannot be counted: {error}");
            let cure = "make the data directory readable for this user";
            return Check::warning(NAME, &problem, cure);
        }
    };
    let shown = format!(
        "{count} in {}, {:.1} GiB of at most {}, each for {}",
        home.join(artifact::FOLDER).display(),
        lossy_gib(bytes),
        value::show_bytes(bounds.bytes),
        value::show_duration(bounds.lifetime),
    );
    let free = rustix::fs::statvfs(home).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    match free {
        Ok(free) if free.saturating_sub(artifact::RESERVE) < bounds.bytes.saturating_sub(bytes) => {
            Check::warning(
                NAME,
                &format!("{shown}; the disk has less room than that"),
                "make room, or lower max_artifacts_bytes: a file that finds no room is not offered",
            )
        }
        _ => Check::good(NAME, &shown),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn lossy_gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

async fn tokens(settings: &Settings) -> Check {
    const NAME: &str = "tokens";
    let home = &settings.config.home;
    if !home.join("state.db").exists() {
        return Check::good(NAME, "none yet; the first start makes one");
    }
    let keys = match Store::open(home).await {
        Ok(store) => {
            let keys = store.keys().await;
            store.close().await;
            keys
        }
        Err(error) => return Check::bad("database", &error.to_string(), "", Exit::State),
    };
    match keys {
        Err(error) => Check::bad(
            "database",
            &format!("{:#}", anyhow::Error::new(error)),
            "",
            Exit::State,
        ),
        Ok(keys) => {
            let live = keys.iter().filter(|key| key.revoked_at.is_none()).count();
            if live == 0 && !keys.is_empty() && settings.config.access == Access::Token {
                return Check::warning(
                    NAME,
                    "all are revoked",
                    &settings.command("token create NAME"),
                );
            }
            Check::good(
                NAME,
                &format!("{live} in use, {} revoked", keys.len() - live),
            )
        }
    }
}

fn listening(settings: &Settings) -> Check {
    const NAME: &str = "port";
    if let Some(running) = instance::running(&settings.config.home) {
        return Check::good(
            NAME,
            &format!(
                "the server runs at {} (process {})",
                running.url, running.pid
            ),
        );
    }
    let wanted = settings.config.port;
    match port::listen(&mut settings.clone()) {
        Ok(_) => Check::good(NAME, &format!("{wanted} is free")),
        Err(failure) => {
            let cure = match port::holder(wanted) {
                Holder::Unknown => "",
                _ => "stop it, or choose another port",
            };
            Check::bad(NAME, &failure.error.to_string(), cure, failure.exit)
        }
    }
}

fn public_url(settings: &Settings) -> Check {
    const NAME: &str = "public URL";
    let config = &settings.config;
    match (&config.public_url, &config.public_url_source) {
        (Some(url), Some(source)) => {
            let shown = format!("{url} (from {source}); try it: codex-server doctor --public");
            Check::good(NAME, &shown)
        }
        _ => Check::warning(
            NAME,
            "not known, so documents name the address of each request",
            "start with --public-url https://… where clients come from outside; ChatGPT needs none with a tunnel",
        ),
    }
}

/// The tunnel by which ChatGPT comes. Its control plane is asked, with the key
/// that is found here; what is wrong with it stops no server, but for a key that
/// cannot be read.
fn tunnel(settings: &Settings) -> Check {
    const NAME: &str = "tunnel";
    let plan = TunnelPlan::of(settings);
    let Some(id) = &plan.id else {
        return Check::good(NAME, &format!("none; {}", plan.command("connect chatgpt")));
    };
    let sight = Sight::of(plan.home());
    if let Sight::Tunnel { .. } = sight {
        return match plan.obstacle(&sight) {
            None => Check::good(NAME, &format!("{id} is open")),
            Some(Obstacle { what, cure }) => Check::warning(NAME, &what, &cure),
        };
    }
    match plan.bounds() {
        Err(why) => Check::bad(NAME, &why, &plan.command("connect chatgpt"), Exit::Config),
        Ok(_) => match plan.ask() {
            Ok(name) => Check::good(NAME, &format!("{id} \"{name}\": its key opens it")),
            Err(why) => Check::warning(NAME, &why.to_string(), &plan.command("connect chatgpt")),
        },
    }
}

/// What a request may use.
fn limits(settings: &Settings) -> String {
    let bounds = &settings.config.bounds;
    format!(
        "{} (at most {}), {} of memory, {} runs at once",
        value::show_duration(bounds.wall_time),
        value::show_duration(bounds.wall_time_max),
        value::show_bytes(bounds.memory),
        bounds.concurrency
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_offered_only_where_something_less_holds() {
        let check = |found, least, exit: Exit, offered: bool| {
            let section = Section::new("isolation", vec![level(found, least)]);
            let report = Report {
                sections: vec![section],
            };
            assert_eq!(report.exit(), exit, "{found:?} {least}");
            let shown = report.to_string();
            assert_eq!(shown.contains("--min-isolation"), offered, "{shown}");
        };
        let (full, namespaces, uids) = (Isolation::Full, Isolation::Namespaces, Isolation::Uids);
        check(Some(full), uids, Exit::Success, false);
        check(Some(namespaces), namespaces, Exit::Success, false);
        check(Some(namespaces), full, Exit::Sandbox, true);
        check(None, uids, Exit::Sandbox, false);
    }
}
