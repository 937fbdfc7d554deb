//! Runs every language's cases through a real engine, in real sandboxes, and
//! the scenarios that a case cannot show.
//!
//! Run as root it runs the cases on the rungs below as well.
//!
//! This binary owns `main`, because the warden is a re-execution of it, and
//! speaks the language of test runners: each case is a test of its own. A
//! language that is not installed fails its cases: nothing is skipped.

mod case;
mod commands;
mod forking;
mod layouts;
mod plain;
mod scenario;
mod session;
mod warm;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::{Bounds, Call, Config, Engine, Reply, Stock};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use case::Case;
use layouts::Layouts;

/// The one test that runs all scenarios, on engines of their own.
const SCENARIOS: &str = "scenarios";
/// Names the check of interpreters in odd places.
const LAYOUTS: &str = "layouts";

/// The engines of the scenarios.
struct Engines {
    /// With a small workspace.
    small: Engine,
    /// Without any interpreter.
    bare: Engine,
    /// To be drained.
    drained: Engine,
    /// As users have it.
    cases: Engine,
}

/// The bounds of [`Engines::small`].
fn small() -> Bounds {
    Bounds {
        workspace: 1 << 20,
        inodes: 100,
        ..Bounds::default()
    }
}

/// Names the rung to test, where it is not to be the strongest that holds.
const RUNG: &str = "ENGINE_TEST_RUNG";

/// The rungs that root can stand on besides the strongest.
const LOWER: [engine::Isolation; 2] = [engine::Isolation::Namespaces, engine::Isolation::Uids];

/// Has each case wait for a box that was made ahead, and nothing else run.
const READY: &str = "ENGINE_TEST_READY";

/// Runs this binary again, at another rung or with boxes that were made ahead.
#[expect(clippy::disallowed_methods, reason = "tests start processes")]
fn again(rung: engine::Isolation, ready: bool) -> Result<(), Failed> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = std::process::Command::new(program);
    command.env(RUNG, rung.as_str());
    if ready {
        // Those that want a box each would wait for each other.
        command.env(READY, "1").arg("--test-threads=2");
    }
    let status = command.status().map_err(|error| error.to_string())?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("the cases at {rung}, ready {ready}: {status}").into()),
    }
}

/// Waits until a box waits for a case, where its language has such.
async fn wait_for_a_box(engine: &Engine, case: &Case) {
    let waiting = || {
        let ready = engine.ready();
        let mut of_language = ready.iter().filter(|one| one.language == case.language);
        let is_there = |one: &Stock| one.boxes > 0 && (one.warm || one.profile.is_empty());
        !ready.is_empty() && of_language.all(is_there)
    };
    for _ in 0..4000 {
        if waiting() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no box was made for {}", case.name);
}

/// More than a hello takes.
const SOON: Duration = Duration::from_secs(1);

/// How many runs began in boxes that were made ahead.
fn begun_ahead(engine: &Engine) -> f64 {
    let registry = prometheus::Registry::new();
    engine.metrics().register(&registry).expect("fresh");
    let families = registry.gather();
    let starts = families
        .iter()
        .filter(|family| family.name() == "codex_run_starts_total");
    let counters = starts.flat_map(|family| family.get_metric());
    let ahead = counters.filter(|one| one.get_label().iter().any(|label| label.value() == "ready"));
    ahead.map(|one| one.get_counter().get_value()).sum()
}

fn rungs() -> RangeInclusive<engine::Isolation> {
    match std::env::var(RUNG) {
        Ok(rung) => {
            let rung = rung.parse().expect("a rung");
            rung..=rung
        }
        Err(_) => engine::Isolation::Namespaces..=engine::Isolation::Full,
    }
}

/// The tests of sessions, with their names.
fn of_sessions() -> impl Iterator<Item = &'static (&'static str, session::Test)> {
    let commands = session::TESTS.iter().chain(commands::TESTS);
    commands.chain(forking::TESTS)
}

/// Starts an engine, which must be before there is any thread.
fn start(data: &Path, search_path: &[PathBuf], bounds: Bounds) -> Engine {
    Engine::start(Config {
        data_dir: data.to_owned(),
        search_path: search_path.to_owned(),
        switchers: None,
        interpreters: Vec::new(),
        isolation: rungs(),
        bounds,
    })
    .expect("an engine starts here")
}

/// The cases once more: at lower rungs, and from boxes that were made ahead at each.
fn other_ways() -> impl Iterator<Item = Trial> {
    let lower = LOWER.map(|rung| (rung, false));
    let ahead = [engine::Isolation::Full, LOWER[0], LOWER[1]].map(|rung| (rung, true));
    lower.into_iter().chain(ahead).map(|(rung, ready)| {
        let how = if ready { "_ready" } else { "" };
        Trial::test(format!("cases_at_{rung}{how}"), move || again(rung, ready))
    })
}

/// Names the tests, which takes no engine.
fn list(arguments: &Arguments, cases: Vec<Case>) -> ! {
    let names = cases.into_iter().map(|case| case.name);
    let sessions = of_sessions();
    let trials = names
        .chain(sessions.map(|(name, _)| format!("session/{name}")))
        .chain([LAYOUTS, SCENARIOS].map(str::to_owned));
    let trials = trials.map(|name| Trial::test(name, || Ok(()))).collect();
    libtest_mimic::run(arguments, trials).exit()
}

fn main() {
    sandbox::enter();
    let arguments = Arguments::from_args();
    let cases = case::all();
    if arguments.list {
        list(&arguments, cases);
    }
    let data = tempfile::tempdir().expect("a scratch directory can be made");
    let path: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let patient = Bounds {
        // A runner may ask for all cases at once.
        queue: 10_000,
        queue_wait: Duration::from_secs(600),
        ..Bounds::default()
    };
    let engine = start(data.path(), &path, patient);
    let wanted = arguments.filter.as_deref();
    let first = std::env::var_os(RUNG).is_none();
    let engines =
        (first && wanted.is_none_or(|filter| SCENARIOS.contains(filter))).then(|| Engines {
            small: start(data.path(), &path, small()),
            bare: start(data.path(), &[], Bounds::default()),
            drained: start(data.path(), &path, Bounds::default()),
            cases: engine.clone(),
        });
    let whole = wanted.is_none_or(|filter| LAYOUTS.contains(filter));
    let layouts = whole.then(|| {
        let languages = engine.languages();
        let node = languages.iter().find(|found| found.name == "javascript");
        let node = node.and_then(|found| found.interpreter.clone());
        Layouts::new(&rungs(), &node.expect("there is a Node here"))
    });
    let rung = engine.isolation();
    let ready = std::env::var_os(READY).is_some();
    let hostile =
        (ready && rung != engine::Isolation::Uids).then(|| warm::Hostile::new(&engine, &path));
    let runtime = Arc::new(Runtime::new().expect("a runtime can be built"));
    if ready {
        runtime.block_on(async { engine.keep_ready() });
    }
    let mut trials = of_engine(cases, &engine, &runtime, ready);
    trials.extend(hostile.map(|hostile| {
        let runtime = Arc::clone(&runtime);
        Trial::test("what_somebody_added_never_runs_in_a_zygote", move || {
            runtime.block_on(async {
                hostile.try_it().await;
                // On the same engine: it makes boxes ahead.
                hostile.sessions().await;
            });
            Ok(())
        })
    }));
    trials.extend(layouts.map(|layouts| {
        let runtime = Arc::clone(&runtime);
        Trial::test(LAYOUTS, move || {
            complain(&runtime.block_on(layouts.complaints()))
        })
    }));
    if let Some(engines) = engines {
        let runtime = Arc::clone(&runtime);
        trials.push(Trial::test(SCENARIOS, move || {
            let found = runtime.block_on(scenario::all(&engines));
            assert!(!found.is_empty(), "there are scenarios");
            let failed: Vec<String> = found
                .into_iter()
                .filter_map(|(name, found)| Some(format!("{name}: {}", found.err()?)))
                .collect();
            complain(&failed)
        }));
    }
    if first && rung == engine::Isolation::Full {
        trials.extend(other_ways());
    }
    let count = trials.len();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if ready && wanted.is_none() {
        let ahead = begun_ahead(&engine);
        assert!(ahead > 90.0, "{ahead} of {count} cases began ahead");
    }
    runtime.block_on(engine.drain(Duration::from_secs(5)));
    // Exiting drops nothing: let the warden and the scratch directory go first.
    drop((engine, data));
    conclusion.exit()
}

/// The cases and the tests of sessions.
fn of_engine(cases: Vec<Case>, engine: &Engine, runtime: &Arc<Runtime>, ready: bool) -> Vec<Trial> {
    let rung = engine.isolation();
    let cases = cases
        .into_iter()
        .filter(|case| case.is_for(rung))
        .map(|case| trial(case, engine.clone(), Arc::clone(runtime), ready));
    let sessions = of_sessions().map(|(name, test)| {
        let (engine, runtime) = (engine.clone(), Arc::clone(runtime));
        Trial::test(format!("session/{name}"), move || {
            runtime.block_on(async {
                if ready {
                    warm::wait(&engine).await;
                }
                test(engine.clone()).await;
            });
            Ok(())
        })
    });
    cases.chain(sessions).collect()
}

fn trial(case: Case, engine: Engine, runtime: Arc<Runtime>, ready: bool) -> Trial {
    Trial::test(case.name.clone(), move || {
        complain(&runtime.block_on(async {
            if ready {
                wait_for_a_box(&engine, &case).await;
            }
            let waited = ready && case.name == "python/hello";
            if waited {
                // Longer than any hello takes.
                tokio::time::sleep(3 * SOON).await;
            }
            let (mut complaints, took) = run(&engine, &case).await;
            if waited && took > SOON {
                complaints.push(format!("the time that its box waited is counted: {took:?}"));
            }
            complaints
        }))
    })
}

fn complain(complaints: &[String]) -> Result<(), libtest_mimic::Failed> {
    if complaints.is_empty() {
        return Ok(());
    }
    Err(complaints.join("\n").into())
}

/// Runs a case, and says what is wrong with it and how long it took.
async fn run(engine: &Engine, case: &Case) -> (Vec<String>, Duration) {
    let failed = |why: String| (vec![why], Duration::ZERO);
    let job = match engine.accept(case.draft()) {
        Ok(job) => job,
        Err(invalid) => return failed(invalid.to_string()),
    };
    let outcome = match engine.call(Call::Execute(Box::new(job))).await {
        Ok(Reply::Outcome(outcome)) => outcome,
        Ok(other) => return failed(format!("no outcome: {other:?}")),
        Err(error) => return failed(error.to_string()),
    };
    let mut complaints = case.complaints(&outcome);
    if let Some(name) = case.plain() {
        let languages = engine.languages();
        let language = languages.iter().find(|found| found.name == case.language);
        let interpreter = language.and_then(|found| found.interpreter.as_deref());
        let interpreter = interpreter.expect("a language that ran has an interpreter");
        complaints.extend(plain::differences(
            interpreter,
            name,
            &case.draft(),
            &outcome,
        ));
    }
    (complaints, outcome.usage.wall_time)
}
