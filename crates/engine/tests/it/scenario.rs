//! What a single case cannot show: calls that are dropped, engines that
//! drain, inputs at their bounds, machines without interpreters.

use std::fs;
use std::time::{Duration, Instant};

use engine::{Bounds, Call, Draft, DraftFile, Engine, Error, Job, Outcome, Reply, Status};

use crate::Engines;

/// What a scenario found wrong, if anything.
type Found = Result<(), String>;

/// Runs every scenario: its name and what it found.
pub(crate) async fn all(engines: &Engines) -> Vec<(&'static str, Found)> {
    vec![
        ("dropped call", dropped_call(&engines.cases).await),
        ("deep inputs", deep_inputs(&engines.cases).await),
        ("longest argument", longest_argument(&engines.cases).await),
        (
            "inputs over memory",
            inputs_over_memory(&engines.cases).await,
        ),
        ("large inputs", large_inputs(&engines.cases).await),
        ("full workspace", full_workspace(&engines.small).await),
        ("bounds", bounds(&engines.small)),
        (
            "missing interpreter",
            missing_interpreter(&engines.bare).await,
        ),
        ("drain", drain(&engines.drained).await),
    ]
}

fn ensure(holds: bool, otherwise: impl Into<String>) -> Found {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn python(code: &str) -> Draft {
    Draft {
        code: code.to_owned(),
        language: Some("python".to_owned()),
        ..Draft::default()
    }
}

fn accepted(engine: &Engine, draft: Draft) -> Result<Job, String> {
    engine.accept(draft).map_err(|invalid| invalid.to_string())
}

async fn execute(engine: &Engine, job: Job) -> Result<Outcome, Error> {
    match engine.call(Call::Execute(Box::new(job))).await? {
        Reply::Outcome(outcome) => Ok(*outcome),
        other => panic!("no outcome: {other:?}"),
    }
}

async fn outcome(engine: &Engine, draft: Draft) -> Result<Outcome, String> {
    let job = accepted(engine, draft)?;
    execute(engine, job)
        .await
        .map_err(|error| format!("{error}: {error:?}"))
}

fn success(outcome: &Outcome, stdout: &str) -> Found {
    let printed = String::from_utf8_lossy(&outcome.last().stdout.bytes).into_owned();
    ensure(
        outcome.status == Status::Success && printed == stdout,
        format!("{outcome:?}"),
    )
}

/// Processes of this machine that were given `marker` as an argument.
fn processes(marker: &str) -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| {
            line.split(|byte| *byte == 0)
                .any(|arg| arg == marker.as_bytes())
        })
        .count()
}

async fn within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    true
}

/// A program that prints, hides a child, and stays.
fn lasting(marker: &str) -> Draft {
    Draft {
        args: vec![marker.to_owned()],
        wall_time: Some(Duration::from_secs(25)),
        ..python(
            "import os, time\nopen('left.txt', 'w').write('left')\nprint('so far', flush=True)\n\
             if os.fork() == 0:\n    os.setsid()\ntime.sleep(20)",
        )
    }
}

async fn dropped_call(engine: &Engine) -> Found {
    let marker = format!("dropped-{}", std::process::id());
    let job = accepted(engine, lasting(&marker))?;
    let call = {
        let engine = engine.clone();
        tokio::spawn(async move { execute(&engine, job).await.is_ok() })
    };
    let patience = Duration::from_secs(10);
    ensure(
        within(patience, || processes(&marker) == 2).await,
        "it never ran",
    )?;
    call.abort();
    // Its place is taken for as long as anything of it lives.
    let mut early = false;
    let free = within(patience, || {
        let free = engine.load().running == 0;
        early |= free && processes(&marker) > 0;
        free
    });
    ensure(free.await, "its place was never free again")?;
    ensure(!early, "its place was free while its processes lived")
}

async fn deep_inputs(engine: &Engine) -> Found {
    let folder = |number: usize| format!("{number}/{}", "d/".repeat(Bounds::PATH_DEPTH - 1));
    let file = |number: usize| DraftFile {
        path: format!("{}x", folder(number)),
        content: b"x".to_vec(),
    };
    let mut draft = python("import os\nprint(sum(len(f) for _, _, f in os.walk('.')))");
    draft.files = (0..100).map(file).collect();
    success(&outcome(engine, draft).await?, "101\n")
}

async fn longest_argument(engine: &Engine) -> Found {
    let mut draft = python("import os, sys\nprint(len(sys.argv[1]), len(os.environ['A']))");
    draft.args = vec!["x".repeat(Bounds::ARG_BYTES)];
    draft.env = vec![("A".to_owned(), "x".repeat(Bounds::ARG_BYTES - 2))];
    success(&outcome(engine, draft).await?, "131071 131069\n")
}

async fn inputs_over_memory(engine: &Engine) -> Found {
    let mut draft = python("print(1)");
    draft.memory = Some(16 << 20);
    draft.files = vec![DraftFile {
        path: "big".to_owned(),
        content: vec![b'x'; 8 << 20],
    }];
    let outcome = outcome(engine, draft).await?;
    ensure(
        outcome.status == Status::MemoryLimit && outcome.last().exit_code == 137,
        format!("{outcome:?}"),
    )
}

async fn large_inputs(engine: &Engine) -> Found {
    let mut draft = python("import sys\nprint(len(open('big').read()), len(sys.stdin.read()))");
    draft.files = vec![DraftFile {
        path: "big".to_owned(),
        content: vec![b'x'; 8 << 20],
    }];
    draft.stdin = vec![b'y'; 8 << 20];
    success(&outcome(engine, draft).await?, "8388608 8388608\n")
}

/// What is accepted fits, to the last page and inode.
async fn full_workspace(engine: &Engine) -> Found {
    let sized = |count: usize, bytes: usize| {
        let mut draft = python("print('fits')");
        draft.files = (0..count)
            .map(|number| DraftFile {
                path: format!("{number}/x"),
                content: vec![b'x'; bytes],
            })
            .collect();
        draft
    };
    let too_much = [sized(1, 1 << 20), sized(47, 1)];
    for draft in too_much {
        ensure(engine.accept(draft).is_err(), "too much was accepted")?;
    }
    let page = 4096;
    for draft in [sized(1, (1 << 20) - page), sized(46, 1)] {
        success(&outcome(engine, draft).await?, "fits\n")?;
    }
    Ok(())
}

fn bounds(engine: &Engine) -> Found {
    ensure(
        *engine.bounds() == crate::small(),
        "they are not those of the configuration",
    )?;
    let support = engine.support().isolation;
    ensure(support == Some(engine.isolation()), "two rungs are told")
}

async fn missing_interpreter(engine: &Engine) -> Found {
    let languages = engine.languages();
    ensure(
        languages[0].name == "python" && languages.len() >= 2,
        format!("{languages:?}"),
    )?;
    for language in languages {
        let mut draft = python("1");
        draft.language = Some(language.name.clone());
        let job = accepted(engine, draft)?;
        let told = match execute(engine, job).await {
            Err(Error::Unavailable {
                language: name,
                cure,
            }) => name == language.name && cure.contains("Install"),
            _ => false,
        };
        ensure(told && !language.available, language.name)?;
    }
    Ok(())
}

async fn drain(engine: &Engine) -> Found {
    let marker = format!("drained-{}", std::process::id());
    let job = accepted(engine, lasting(&marker))?;
    let late = accepted(engine, python("print(1)"))?;
    let call = {
        let engine = engine.clone();
        tokio::spawn(async move { execute(&engine, job).await })
    };
    let patience = Duration::from_secs(10);
    ensure(
        within(patience, || processes(&marker) == 2).await,
        "it never ran",
    )?;
    engine.drain(Duration::from_millis(100)).await;
    ensure(processes(&marker) == 0, "processes outlived the drain")?;
    ensure(
        matches!(execute(engine, late).await, Err(Error::Draining)),
        "a call was taken after the drain",
    )?;
    let ended = call.await.map_err(|error| error.to_string())?;
    let outcome = ended.map_err(|error| error.to_string())?;
    let run = outcome.last();
    let left = outcome.files.first().map(|file| file.content.as_slice());
    ensure(
        (outcome.status, run.exit_code) == (Status::Cancelled, 137)
            && run.name == "run"
            && run.stdout.bytes == b"so far\n"
            && left == Some(b"left"),
        format!("{outcome:?}"),
    )
}
