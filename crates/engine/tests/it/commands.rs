//! Commands of a session that are begun many at once, and whose callers go away.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Call, CommandCall, CommandDraft, CommandState, Engine, Error, Isolation, Reply};

use crate::session::{Here, Test, python};

/// Every test: its name and what it does.
pub(crate) const TESTS: &[(&str, Test)] = &[
    ("commands_of_callers_who_go_away_end", |e| Box::pin(gone(e))),
    ("no_more_commands_begin_at_once_than_may_run", |e| {
        Box::pin(at_once(e))
    }),
    ("who_only_looks_gives_commands_no_processor", |e| {
        Box::pin(yielding(e))
    }),
];

impl Here {
    async fn command(&self, command: &str, background: bool) -> Result<CommandState, Error> {
        let draft = CommandDraft {
            command: command.to_owned(),
            background,
            ..CommandDraft::default()
        };
        let run = CommandCall::Run(Box::new(draft));
        let call = Call::Command(self.owner.clone(), self.id.clone(), run);
        match self.engine.call(call).await? {
            Reply::Command(state) => Ok(*state),
            other => panic!("{other:?}"),
        }
    }

    async fn commands(&self) -> Vec<CommandState> {
        let call = Call::Command(self.owner.clone(), self.id.clone(), CommandCall::List);
        match self.engine.call(call).await.unwrap() {
            Reply::Commands(all) => all,
            other => panic!("{other:?}"),
        }
    }

    async fn kill(&self, id: &str) {
        let kill = CommandCall::Kill(id.to_owned());
        let call = Call::Command(self.owner.clone(), self.id.clone(), kill);
        self.engine.call(call).await.unwrap();
    }

    /// Waits until no process of the session has this word on its command line.
    async fn none_has(&self, word: &str) {
        let look = format!(
            "import glob\ndef line(f):\n  try: return open(f, 'rb').read()\n  except OSError: return b''\n\
             sum(b'{word}' in line(f) for f in glob.glob('/proc/[0-9]*/cmdline'))"
        );
        let begun = Instant::now();
        loop {
            let left = self.said(&look).await;
            if left == "0" {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{left} are left");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A number of seconds that begins with `digit` and that no other process uses: the same
/// test runs beside this one on engines of other rungs.
fn of_this_process(digit: u8) -> String {
    format!("{digit}{:07}", std::process::id())
}

/// Begins a command again and again, all at once; each caller has its own patience.
async fn together(
    here: &Arc<Here>,
    command: &str,
    background: bool,
    patience: impl Fn(u64) -> Duration,
) -> Vec<Result<CommandState, Option<Error>>> {
    let calls = (0..40).map(|number| {
        let (here, patience) = (Arc::clone(here), patience(number));
        let command = command.to_owned();
        tokio::spawn(async move {
            let call = here.command(&command, background);
            match tokio::time::timeout(patience, call).await {
                Ok(answer) => answer.map_err(Some),
                Err(_gone) => Err(None),
            }
        })
    });
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await.unwrap());
    }
    answers
}

async fn gone(engine: Engine) {
    let here = Arc::new(python(&engine).await);
    here.run("1").await;
    let seconds = of_this_process(7);
    for background in [false, true] {
        // A caller may go away at any moment of the beginning.
        let patience = |number| Duration::from_millis(number / 2);
        let answers = together(&here, &format!("sleep {seconds}"), background, patience).await;
        let known = answers.iter().flatten().count();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let running = here.commands().await;
        let running: Vec<_> = running.iter().filter(|one| one.ended.is_none()).collect();
        assert_eq!(running.len(), known, "{running:?}");
        for one in running {
            here.kill(&one.id).await;
        }
        here.none_has(&seconds).await;
    }
}

async fn at_once(engine: Engine) {
    let here = Arc::new(python(&engine).await);
    here.run("1").await;
    let patience = |_| Duration::from_secs(30);
    let answers = together(&here, "sleep 8888", true, patience).await;
    let (begun, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(begun.len(), 8, "{refused:?}");
    let too_many = |one: &Result<_, _>| matches!(one, Err(Some(Error::Invalid(_))));
    assert!(refused.iter().all(too_many), "{refused:?}");
    // A place is free again where a command could not begin, or has ended.
    let first = begun.into_iter().flatten().next().unwrap();
    here.kill(&first.id).await;
    here.command("sleep 8888", true).await.unwrap();
    let ninth = here.command("sleep 8888", true).await;
    assert!(matches!(ninth, Err(Error::Invalid(_))), "{ninth:?}");
}

/// What the kernel gives the process that sleeps for `seconds` of the processors beside
/// others: its cgroup's weight, of either version.
fn weight(seconds: &str) -> Option<u64> {
    let at = |path: PathBuf| Some(fs::read_to_string(path).ok()?.trim().to_owned());
    let all = fs::read_dir("/proc").unwrap().flatten();
    let process = all.map(|entry| entry.path()).find(|process| {
        at(process.join("cmdline"))
            .is_some_and(|line| line.trim_end_matches('\0') == format!("sleep\0{seconds}"))
    })?;
    let groups = at(process.join("cgroup"))?;
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (of, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let root = Path::new("/sys/fs/cgroup");
        let file = match of {
            "" => root.join(path).join("cpu.weight"),
            _ if of.split(',').any(|one| one == "cpu") => {
                root.join(of).join(path).join("cpu.shares")
            }
            _ => return None,
        };
        at(file)?.parse().ok()
    })
}

async fn yielding(engine: Engine) {
    if engine.isolation() != Isolation::Full {
        // Without a cgroup there is no weight.
        return;
    }
    let here = Arc::new(python(&engine).await);
    let seconds = of_this_process(9);
    let sleep = format!("sleep {seconds}");
    let begun = here.command(&sleep, true).await.unwrap();
    here.run("1").await;
    let full = weight(&seconds).unwrap();
    assert!(full >= 100, "{full}");
    // One who waits for its end, looks, feeds and writes files holds no place to run in.
    let show = CommandCall::Show(begun.id.clone(), Duration::from_secs(4));
    let show = Call::Command(here.owner.clone(), here.id.clone(), show);
    let asking = tokio::spawn({
        let here = Arc::clone(&here);
        async move { here.engine.call(show).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!asking.is_finished());
    let low = weight(&seconds).unwrap();
    assert!(low < 10, "{low} while one waits for its end");
    here.commands().await;
    assert_eq!(weight(&seconds).unwrap(), low, "after a look");
    // Whoever runs something has what all have, while it runs and for a moment after it.
    let awaited = tokio::spawn({
        let here = Arc::clone(&here);
        async move { here.command("sleep 3", false).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_eq!(
        weight(&seconds).unwrap(),
        full,
        "while a command is waited for"
    );
    awaited.await.unwrap();
    asking.await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(weight(&seconds).unwrap(), low, "with nobody there");
    here.run("import time; time.sleep(0.5)").await;
    assert_eq!(weight(&seconds).unwrap(), full, "after a cell");
}
