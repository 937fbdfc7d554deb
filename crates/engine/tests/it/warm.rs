//! What is made ahead: interpreters that programs are forked from, in which nothing of
//! packages that somebody added runs, and the box of the next session.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::{
    Bounds, Call, Draft, Engine, InSession, Owner, Reply, SessionCall, SessionDraft, Stock,
};

use crate::start;

/// Tells by the process in which it runs: a box's programs have small numbers, a zygote
/// has none of these.
const TELLS: &str = "import os, sys; sys.__dict__.setdefault('ran', []).append(os.getpid())\n";

/// Waits until programs can be forked, where that can be.
pub(crate) async fn wait(engine: &Engine) {
    for _ in 0..4000 {
        let stocks = engine.ready();
        let warm = |one: &Stock| one.warm || one.profile.is_empty();
        if !stocks.is_empty() && stocks.iter().all(warm) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no interpreter serves: {:?}", engine.ready());
}

/// A package set that somebody changed: with code that runs at each start, and with a
/// module of a name that is loaded ahead.
fn hostile_set(data: &Path, interpreter: &Path) {
    let set = data.join("packages/python/set-hostile");
    let told = |code: &str| {
        #[expect(clippy::disallowed_methods, reason = "tests start processes")]
        let output = std::process::Command::new(interpreter)
            .args(["-I", "-c", code])
            .output()
            .expect("the interpreter runs");
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    };
    let version = told("import sys; print('python%d.%d' % sys.version_info[:2])");
    let abi = told("import sysconfig; print(sysconfig.get_config_var('SOABI'))");
    let site = set.join("tree/lib").join(version).join("site-packages");
    fs::create_dir_all(site.join("numpy")).expect("a scratch directory can be filled");
    let write = |path: PathBuf, text: &str| fs::write(path, text).expect("as above");
    write(site.join("hostile.pth"), TELLS);
    write(site.join("sitecustomize.py"), TELLS);
    for name in ["one", "two", "three", "four"] {
        fs::create_dir(site.join(name)).expect("as above");
    }
    write(
        site.join("paths-1.pth"),
        "one\nimport sys; sys.seen = [(len(sys.path), sys._getframe(1).f_locals['sitedir'])]\ntwo\n",
    );
    write(
        site.join("paths-2.pth"),
        "import sys; sys.seen.append(len(sys.path)); 1 / 0\nthree\nimport sys; sys.seen.append('never')\n",
    );
    write(
        site.join("paths-3.pth"),
        "four\nimport sys; sys.seen.append((len(sys.path), __name__))\n",
    );
    write(
        site.join("numpy/__init__.py"),
        &format!("{TELLS}pid = os.getpid()\n"),
    );
    write(site.join("json.py"), TELLS);
    let marker = format!(
        "key = \"0123456789abcdef\"\nabi = \"{abi}\"\n\n[[packages]]\nname = \"numpy\"\nversion = \"1\"\n"
    );
    write(set.join("ready.toml"), &marker);
    symlink("set-hostile", data.join("packages/python/current")).expect("as above");
}

async fn output(engine: &Engine, code: &str, env: &[(&str, &str)]) -> String {
    let pairs = env.iter();
    let draft = Draft {
        code: code.to_owned(),
        env: pairs
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        language: Some("python".to_owned()),
        ..Draft::default()
    };
    let job = engine.accept(draft).expect("a job");
    match engine.call(Call::Execute(Box::new(job))).await {
        Ok(Reply::Outcome(outcome)) => {
            let run = outcome.last();
            let bytes = [&run.stdout.bytes[..], &run.stderr.bytes[..]].concat();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        other => panic!("{other:?}"),
    }
}

/// An engine with such a set.
#[derive(Debug)]
pub(crate) struct Hostile {
    engine: Engine,
    data: tempfile::TempDir,
}

impl Hostile {
    /// Starts one, which must be before there is any thread. `cases` knows the
    /// interpreter.
    pub(crate) fn new(cases: &Engine, path: &[PathBuf]) -> Self {
        let languages = cases.languages();
        let python = languages.iter().find(|found| found.name == "python");
        let interpreter = python.and_then(|found| found.interpreter.clone());
        let data = tempfile::tempdir().expect("a scratch directory can be made");
        hostile_set(data.path(), &interpreter.expect("there is a Python here"));
        let engine = start(data.path(), path, Bounds::default());
        Self { engine, data }
    }

    /// Runs programs that find the set, in boxes that were made ahead and in others.
    pub(crate) async fn try_it(&self) {
        self.engine.keep_ready();
        wait(&self.engine).await;
        let profiles = self.engine.ready();
        let python: Vec<&str> = profiles
            .iter()
            .filter(|one| one.language == "python")
            .map(|one| one.profile.as_str())
            .collect();
        assert_eq!(python, ["small"], "nothing of packages is loaded ahead");
        for round in 0..6 {
            let code = format!(
                "import sys, os\nprint(set(sys.ran) == {{os.getpid()}}, len(sys.ran), {round})\n\
                 import json\nprint(len(sys.ran), hasattr(json, 'dumps'))\n\
                 import numpy\nprint(numpy.pid == os.getpid(), len(sys.ran))"
            );
            let found = output(&self.engine, &code, &[]).await;
            // The .pth file and sitecustomize.py; json is the library's; numpy is theirs.
            let (said, error) = found.split_at(found.find("Error").unwrap_or(found.len()));
            assert_eq!(said, format!("True 2 {round}\n2 True\nTrue 3\n"));
            assert!(error.contains("division by zero"), "{error}");
        }
        // What .pth files do and see, as in an interpreter of its own.
        let code = "import sys\nprint(sys.path)\nprint(sys.seen)";
        let forked = output(&self.engine, code, &[]).await;
        let executed = output(&self.engine, code, &[("PYTHONVERBOSE", "")]).await;
        assert!(
            executed.contains("'site')") && executed.contains("/four'"),
            "{executed}"
        );
        assert_eq!(forked, executed);
        assert!(self.data.path().exists());
    }

    /// Makes sessions, of which some find a box that was made ahead.
    pub(crate) async fn sessions(&self) {
        let (usual, other) = (None, Some(300 << 20));
        assert!(
            !was_made_ahead(&self.engine, usual).await,
            "nobody had asked"
        );
        for round in 1.. {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if was_made_ahead(&self.engine, usual).await {
                break;
            }
            assert!(round < 20, "no box waits for a session");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        // The one that waits is another's.
        assert!(!was_made_ahead(&self.engine, other).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!was_made_ahead(&self.engine, usual).await);
    }
}

/// Makes a session, and says whether its box was there before.
async fn was_made_ahead(engine: &Engine, memory: Option<u64>) -> bool {
    let owner = Owner::new("somebody");
    let asked = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is right");
    let draft = SessionDraft {
        language: Some("python".to_owned()),
        memory,
        ..SessionDraft::default()
    };
    let create = Call::Session(owner.clone(), SessionCall::Create(Box::new(draft)));
    let id = match engine.call(create).await {
        Ok(Reply::Session(state)) => state.id,
        other => panic!("{other:?}"),
    };
    let draft = Draft {
        owner: owner.clone(),
        code: "import os\nprint(os.stat(os.getcwd()).st_ctime_ns)".to_owned(),
        session: Some(InSession {
            session: id.clone(),
            context: None,
        }),
        ..Draft::default()
    };
    let job = engine.accept(draft).expect("a job");
    let made = match engine.call(Call::Execute(Box::new(job))).await {
        Ok(Reply::Outcome(outcome)) => {
            let bytes = &outcome.last().stdout.bytes;
            let text = String::from_utf8_lossy(bytes);
            text.trim().parse::<u128>().expect("nanoseconds")
        }
        other => panic!("{other:?}"),
    };
    let end = engine
        .call(Call::Session(owner, SessionCall::End(id)))
        .await;
    end.expect("it was there");
    // The kernel counts such times in steps of some milliseconds.
    made + 20_000_000 < asked.as_nanos()
}
