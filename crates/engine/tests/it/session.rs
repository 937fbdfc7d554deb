//! Sessions on the rung that is tested: cells, contexts, interrupts, pauses, ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::pin::Pin;
use std::time::{Duration, Instant};

use engine::{
    Activity, Call, CommandCall, CommandDraft, Draft, DraftFile, Engine, Error, InSession,
    Isolation, Outcome, Output, Owner, Reply, SessionCall, SessionDraft, SessionEnd, SessionState,
    Status,
};

pub(crate) type Test = fn(Engine) -> Pin<Box<dyn Future<Output = ()>>>;

/// Every test: its name and what it does.
pub(crate) const TESTS: &[(&str, Test)] = &[
    ("state_lives_from_cell_to_cell", |e| Box::pin(state(e))),
    ("cells_show_what_they_say", |e| Box::pin(cells(e))),
    ("an_interrupt_keeps_the_state", |e| Box::pin(interrupt(e))),
    ("a_late_cell_keeps_the_state_or_says_so", |e| {
        Box::pin(late(e))
    }),
    ("a_lost_interpreter_is_told_of", |e| Box::pin(lost(e))),
    ("one_that_ended_between_cells_is_replaced", |e| {
        Box::pin(died_while_idle(e))
    }),
    ("a_hostile_interpreter_ends_alone", |e| Box::pin(hostile(e))),
    ("contexts_are_apart_and_share_files", |e| {
        Box::pin(contexts(e))
    }),
    ("javascript_keeps_its_state_too", |e| {
        Box::pin(javascript(e))
    }),
    ("javascript_takes_input_shows_and_stops", |e| {
        Box::pin(javascript_further(e))
    }),
    ("a_pause_stops_all_until_the_next_call", |e| {
        Box::pin(pause(e))
    }),
    ("others_find_nothing", |e| Box::pin(owners(e))),
    ("ended_sessions_say_why", |e| Box::pin(ends(e))),
    ("commands_run_beside_interpreters", |e| {
        Box::pin(commands(e))
    }),
    ("commands_go_on_in_the_background", |e| {
        Box::pin(background(e))
    }),
    ("output_between_cells_is_late", |e| Box::pin(between(e))),
    ("a_caller_who_goes_away_keeps_the_state", |e| {
        Box::pin(gone(e))
    }),
];

/// A session, and who has it.
pub(crate) struct Here {
    pub(crate) engine: Engine,
    pub(crate) owner: Owner,
    pub(crate) id: String,
}

pub(crate) async fn call(
    engine: &Engine,
    owner: &Owner,
    call: SessionCall,
) -> Result<Reply, Error> {
    engine.call(Call::Session(owner.clone(), call)).await
}

async fn made(engine: &Engine, draft: SessionDraft) -> Here {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let owner = Owner::new(&format!("owner-{number}"));
    let create = SessionCall::Create(Box::new(draft));
    match call(engine, &owner, create).await.unwrap() {
        Reply::Session(state) => Here {
            engine: engine.clone(),
            owner,
            id: state.id,
        },
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn python(engine: &Engine) -> Here {
    let draft = SessionDraft {
        language: Some("python".to_owned()),
        ..SessionDraft::default()
    };
    made(engine, draft).await
}

impl Here {
    pub(crate) fn draft(&self, code: &str) -> Draft {
        Draft {
            owner: self.owner.clone(),
            code: code.to_owned(),
            session: Some(InSession {
                session: self.id.clone(),
                context: None,
            }),
            ..Draft::default()
        }
    }

    pub(crate) async fn try_run(&self, draft: Draft) -> Result<Outcome, Error> {
        let job = self.engine.accept(draft)?;
        match self.engine.call(Call::Execute(Box::new(job))).await? {
            Reply::Outcome(outcome) => Ok(*outcome),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn run(&self, code: &str) -> Outcome {
        self.try_run(self.draft(code)).await.unwrap()
    }

    /// Runs a cell for what it prints and the text of its results.
    pub(crate) async fn said(&self, code: &str) -> String {
        said(&self.run(code).await)
    }

    pub(crate) async fn ask(&self, what: SessionCall) -> SessionState {
        match call(&self.engine, &self.owner, what).await.unwrap() {
            Reply::Session(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn state(&self) -> SessionState {
        self.ask(SessionCall::Show(self.id.clone())).await
    }

    fn place(&self) -> InSession {
        InSession {
            session: self.id.clone(),
            context: None,
        }
    }
}

pub(crate) fn said(outcome: &Outcome) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let results = outcome.results.iter().flat_map(|result| &result.forms);
    let plain = results.filter(|form| form.media_type == "text/plain");
    let shown: Vec<&str> = plain.map(|form| form.content.as_str()).collect();
    text(&outcome.last().stdout.bytes) + &shown.join("|") + &text(&outcome.last().stderr.bytes)
}

async fn state(engine: Engine) {
    let here = python(&engine).await;
    assert_eq!(here.said("x = 20").await, "");
    assert_eq!(here.said("x + 1").await, "21");
    assert_eq!(here.said("def f(): return x * 2").await, "");
    assert_eq!(here.said("print('so'); f()").await, "so\n40");
    let state = here.state().await;
    assert_eq!((state.contexts.len(), state.contexts[0].cells), (1, 4));
    assert_eq!(state.contexts[0].activity, Activity::Idle);
    // Files: put in, left, changed.
    let mut draft = here.draft("open('in.txt').read()");
    draft.files.push(DraftFile {
        path: "in.txt".to_owned(),
        content: b"given".to_vec(),
    });
    let read = here.try_run(draft).await.unwrap();
    assert_eq!((said(&read).as_str(), read.files.len()), ("'given'", 0));
    let left = here.run("open('out.txt', 'w').write('1')").await;
    assert_eq!(left.files[0].path, "out.txt");
    assert_eq!(here.run("1").await.files, []);
    let again = here.run("open('in.txt', 'a').write('!')").await;
    assert_eq!(again.files[0].content, b"given!");
}

async fn cells(engine: Engine) {
    let here = python(&engine).await;
    let check = async |code: &str, status: Status, code_is: i32, expected: &str| {
        let outcome = here.run(code).await;
        let told = said(&outcome);
        assert_eq!(outcome.status, status, "{code}: {told}");
        assert_eq!(outcome.last().exit_code, code_is, "{code}: {told}");
        assert!(told.contains(expected), "{code}: {told}");
    };
    use Status::{Error, Success};
    check("1 / 0", Error, 1, "ZeroDivisionError: division by zero").await;
    check("import sys; sys.exit(3)", Error, 3, "").await;
    check("import sys; sys.exit()", Success, 0, "").await;
    check("1 +", Error, 1, "SyntaxError").await;
    check(
        "import asyncio; await asyncio.sleep(0.01, 'done')",
        Success,
        0,
        "'done'",
    )
    .await;
    check("import sys; print('e', file=sys.stderr)", Success, 0, "e\n").await;
    check("'a';", Success, 0, "").await;
    check(
        "class A:\n  def __repr__(self): return 1 / 0\nA()",
        Error,
        1,
        "ZeroDivision",
    )
    .await;
    check("import sys; sys.stdout.close()", Success, 0, "").await;
    check("print('back')", Success, 0, "back\n").await;
    check("import os; os.close(1)", Success, 0, "").await;
    check("print('again')", Success, 0, "again\n").await;
    check(
        "import os\nif os.fork() == 0: print('child')\nelse: os.wait(); print('parent')",
        Success,
        0,
        "",
    )
    .await;
    let failed = here.run("def g():\n  raise ValueError('why')\ng()").await;
    let exception = failed.cell.as_ref().unwrap().exception.clone().unwrap();
    assert_eq!(
        (exception.name.as_str(), exception.message.as_str()),
        ("ValueError", "why")
    );
    assert!(
        exception
            .traceback
            .contains("line 2, in g\n    raise ValueError('why')"),
        "{exception:?}"
    );
    assert!(!exception.traceback.contains("kernel.py"), "{exception:?}");
    let mut draft = here.draft("import os; [input(), os.environ['A']]");
    draft.stdin = b"typed\nmore".to_vec();
    draft.env = vec![("A".to_owned(), "b".to_owned())];
    assert_eq!(said(&here.try_run(draft).await.unwrap()), "['typed', 'b']");
    assert!(
        here.said("os.environ.get('A', 'none'), input()")
            .await
            .contains("EOFError")
    );
    // An interpreter that is taken apart still answers.
    check(
        "import builtins; builtins.repr = builtins.len = builtins.print = None",
        Success,
        0,
        "",
    )
    .await;
    check("6 * 7", Success, 0, "42").await;
}

async fn interrupt(engine: Engine) {
    let here = python(&engine).await;
    here.run("x = 1").await;
    for code in [
        "print('up')\nwhile True: pass",
        "import time; print('up'); time.sleep(20)",
        "import asyncio; print('up'); await asyncio.sleep(20)",
        "import os; print('up'); os.system('sleep 20'); 1/0",
    ] {
        let begun = Instant::now();
        let cell = here.run(code);
        let asked = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            here.ask(SessionCall::Interrupt(here.place())).await;
        };
        let (outcome, ()) = tokio::join!(cell, asked);
        assert_eq!(
            (outcome.status, outcome.last().exit_code),
            (Status::Interrupted, 130),
            "{code}: {}",
            said(&outcome)
        );
        assert!(said(&outcome).starts_with("up\n"), "{code}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{code}");
        assert_eq!(here.said("x").await, "1", "{code}");
    }
    // There is nothing to interrupt.
    here.ask(SessionCall::Interrupt(here.place())).await;
    assert_eq!(here.said("x").await, "1");
}

async fn late(engine: Engine) {
    let here = python(&engine).await;
    let run = async |code: &str| {
        let mut draft = here.draft(code);
        draft.wall_time = Some(Duration::from_secs(1));
        here.try_run(draft).await.unwrap()
    };
    here.run("x = 1").await;
    let outcome = run("print('up')\nwhile True: pass").await;
    assert_eq!(
        (outcome.status, outcome.last().exit_code),
        (Status::Timeout, 124)
    );
    assert_eq!(here.said("x").await, "1");
    let stubborn =
        "import signal\nsignal.signal(2, signal.SIG_IGN)\nprint('deaf')\nwhile True: pass";
    let outcome = run(stubborn).await;
    assert_eq!(outcome.status, Status::Timeout);
    assert!(said(&outcome).starts_with("deaf\n"));
    assert!(
        outcome
            .warnings
            .iter()
            .any(|said| said.contains("state of its cells is lost")),
        "{outcome:?}"
    );
    assert_eq!(here.state().await.contexts[0].activity, Activity::Lost);
    let next = here.run("x").await;
    assert!(said(&next).contains("NameError"));
    assert!(
        next.warnings.iter().any(|said| said.contains("afresh")),
        "{next:?}"
    );
    assert!(here.run("1").await.warnings.is_empty());
}

async fn lost(engine: Engine) {
    let here = python(&engine).await;
    here.run("open('kept', 'w').write('file')").await;
    let check = async |code: &str, status: Status| {
        let outcome = here.run(code).await;
        assert_eq!(outcome.status, status, "{code}: {}", said(&outcome));
        assert!(!outcome.warnings.is_empty(), "{code}: {outcome:?}");
        assert_eq!(here.said("open('kept').read()").await, "'file'", "{code}");
    };
    check("import os; os._exit(0)", Status::Error).await;
    check("import os; os._exit(7)", Status::Error).await;
    check("import os; os.kill(os.getpid(), 9)", Status::Signalled).await;
    check("import ctypes; ctypes.string_at(0)", Status::Signalled).await;
    let memory = if engine.isolation() == Isolation::Full {
        Status::MemoryLimit
    } else {
        // The limit of one process comes first, as an error of the program's.
        Status::Error
    };
    let outcome = here
        .run("kept = []\nwhile True: kept.append(bytearray(1 << 24))")
        .await;
    assert!(
        outcome.status == memory || outcome.status == Status::MemoryLimit,
        "{outcome:?}"
    );
    assert_eq!(here.said("open('kept').read()").await, "'file'");
}

async fn died_while_idle(engine: Engine) {
    let here = python(&engine).await;
    here.run("x = 1; import os, threading; threading.Timer(0.3, lambda: os._exit(3)).start()")
        .await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    let next = here.run("'x' in globals()").await;
    assert_eq!(
        (said(&next).as_str(), next.status),
        ("False", Status::Success),
        "{next:?}"
    );
    assert!(
        next.warnings.iter().any(|said| said.contains("afresh")),
        "{next:?}"
    );
    // Cells that wait for a context that is ended are told so.
    let slow = here.run("import time; time.sleep(2)");
    let waiting = here.try_run(here.draft("1"));
    let end = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let context = InSession {
            context: Some("python".to_owned()),
            ..here.place()
        };
        here.ask(SessionCall::EndContext(context)).await
    };
    let begun = Instant::now();
    let (_, waited, state) = tokio::join!(slow, waiting, end);
    assert!(matches!(waited, Err(Error::NoContext { .. })), "{waited:?}");
    assert_eq!(state.contexts, []);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

async fn hostile(engine: Engine) {
    let here = python(&engine).await;
    for (code, told) in [
        // A frame of another cell, nonsense, an endless frame, and no more channel.
        (
            "import os, struct; os.write(62, struct.pack('<IBQI', 22, 3, 70, 1) + bytes(1) + struct.pack('<I', 4) + bytes(4))",
            "another cell",
        ),
        ("import os; os.write(62, b'\\xff' * 64)", "nonsense"),
        ("import os; os.write(62, bytes([0, 0, 0, 0]))", "nonsense"),
        ("import os; os.close(62)", "ended"),
    ] {
        let outcome = here.run(code).await;
        assert_ne!(outcome.status, Status::Success, "{code}: {outcome:?}");
        assert!(
            outcome.warnings.iter().any(|said| said.contains(told)),
            "{code}: {outcome:?}"
        );
        assert_eq!(here.said("'alive'").await, "'alive'", "{code}");
    }
    // A flood of frames meets the clock, though nothing else stops it.
    let mut draft = here.draft("import os, signal, struct\nsignal.signal(2, signal.SIG_IGN)\nframe = struct.pack('<IBQI', 14, 1, 9, 1) + bytes(1)\nwhile True: os.write(62, frame * 200)");
    draft.wall_time = Some(Duration::from_secs(1));
    let begun = Instant::now();
    let outcome = here.try_run(draft).await.unwrap();
    assert_ne!(outcome.status, Status::Success, "{outcome:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(here.said("'alive'").await, "'alive'");
    // A flood of results is bounded, and no reason to end anything.
    let flood = here.run("for i in range(5000): display(i)\n'end'").await;
    assert_eq!((flood.status, flood.results.len()), (Status::Success, 100));
    assert!(
        flood.warnings.iter().any(|said| said.contains("left out")),
        "{:?}",
        flood.warnings
    );
}

async fn contexts(engine: Engine) {
    let here = python(&engine).await;
    here.run("x = 'first'; open('shared', 'w').write('both')")
        .await;
    let state = here
        .ask(SessionCall::AddContext {
            session: here.id.clone(),
            language: "py".to_owned(),
            name: Some("other".to_owned()),
        })
        .await;
    assert_eq!(state.contexts.len(), 2);
    let other = |code: &str| {
        let mut draft = here.draft(code);
        draft.session = Some(InSession {
            context: Some("other".to_owned()),
            ..here.place()
        });
        draft
    };
    let outcome = here
        .try_run(other("'x' in globals(), open('shared').read()"))
        .await
        .unwrap();
    assert_eq!(said(&outcome), "(False, 'both')");
    // Side by side, and one after the other in each.
    let slow = |tag: &str| format!("import time; time.sleep(0.4); '{tag}'");
    let begun = Instant::now();
    let (first, second) = (here.draft(&slow("a")), other(&slow("b")));
    let (first, second) = tokio::join!(here.try_run(first), here.try_run(second));
    assert_eq!(
        (said(&first.unwrap()), said(&second.unwrap())),
        ("'a'".into(), "'b'".into())
    );
    assert!(
        begun.elapsed() < Duration::from_millis(750),
        "{:?}",
        begun.elapsed()
    );
    let (first, second) = tokio::join!(
        here.run("y = [1]\nimport time; time.sleep(0.2)"),
        here.run("y")
    );
    assert_eq!((said(&first), said(&second)), (String::new(), "[1]".into()));
    // A fresh interpreter in place of the old one.
    here.ask(SessionCall::Restart(InSession {
        context: Some("other".to_owned()),
        ..here.place()
    }))
    .await;
    let outcome = here.try_run(other("'time' in globals()")).await.unwrap();
    assert_eq!(
        (said(&outcome).as_str(), outcome.warnings.len()),
        ("False", 0)
    );
    let missing = here.try_run(Draft {
        session: Some(InSession {
            context: Some("none".to_owned()),
            ..here.place()
        }),
        ..here.draft("1")
    });
    assert!(matches!(missing.await, Err(Error::NoContext { .. })));
}

async fn javascript(engine: Engine) {
    let here = python(&engine).await;
    let js = |code: &str| Draft {
        language: Some("js".to_owned()),
        ..here.draft(code)
    };
    let run = async |code: &str| here.try_run(js(code)).await.unwrap();
    let check = async |code: &str, status: Status, expected: &str| {
        let outcome = run(code).await;
        let told = said(&outcome);
        assert_eq!(outcome.status, status, "{code}: {told}");
        assert!(told.contains(expected), "{code}: {told}");
    };
    use Status::{Error, Success};
    here.run("open('shared.txt', 'w').write('of python')").await;
    check("const x = 40", Success, "").await;
    check("const x = 41; let y = 1; x + y", Success, "42").await;
    check(
        "console.log('out'); console.error('err')",
        Success,
        "out\nerr",
    )
    .await;
    check(
        "await new Promise(go => setTimeout(go, 20)); 'late'",
        Success,
        "'late'",
    )
    .await;
    check("Promise.resolve([1])", Success, "[ 1 ]").await;
    check("import fs, { readFileSync as read } from 'node:fs'\nread('shared.txt', 'utf8') + typeof fs.statSync", Success, "'of pythonfunction'").await;
    check("(await import('node:path')).sep", Success, "'/'").await;
    check("require('node:os').EOL", Success, "'\\n'").await;
    check(
        "\"import('x')\" + `${1 + 1} import('y')` + /import('z')/.source",
        Success,
        "import",
    )
    .await;
    check(
        "null.x",
        Error,
        "TypeError: Cannot read properties of null (reading 'x')\n    at cell-",
    )
    .await;
    check("let = ;", Error, "SyntaxError: Unexpected token").await;
    check("throw 7", Error, "Uncaught 7").await;
    check("Promise.reject(new Error('no'))", Error, "Error: no").await;
    check(
        "setTimeout(() => { throw new Error('later') }, 60); 1",
        Success,
        "1",
    )
    .await;
    // It is late output of the next cell.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let late = run("2").await.cell.unwrap().late;
    assert!(String::from_utf8_lossy(&late[1].bytes).starts_with("Error: later"));
    // Python's state is its own.
    assert_eq!(here.said("open('shared.txt').read()").await, "'of python'");
}

async fn javascript_further(engine: Engine) {
    let here = python(&engine).await;
    let js = |code: &str| Draft {
        language: Some("js".to_owned()),
        ..here.draft(code)
    };
    let run = async |code: &str| here.try_run(js(code)).await.unwrap();
    let check = async |code: &str, status: Status, expected: &str| {
        let outcome = run(code).await;
        let told = said(&outcome);
        assert_eq!(outcome.status, status, "{code}: {told}");
        assert!(told.contains(expected), "{code}: {told}");
    };
    use Status::{Error, Success};
    check("var x = 41", Success, "").await;
    let mut typed = js("require('fs').readFileSync(0, 'utf8') + process.env.A");
    typed.stdin = b"typed ".to_vec();
    typed.env = vec![("A".to_owned(), "b".to_owned())];
    assert_eq!(said(&here.try_run(typed).await.unwrap()), "'typed b'");
    check("process.env.A", Success, "").await;
    let shown = run("display([1, 2]); display.html('<b>x</b>'); [{ a: 1 }, { a: 2 }]").await;
    let results = shown.results;
    let forms = |at: usize| {
        results[at]
            .forms
            .iter()
            .map(|form| form.media_type)
            .collect::<Vec<_>>()
    };
    assert_eq!(forms(0), ["text/plain"]);
    assert_eq!(forms(1), ["text/html"]);
    assert_eq!(forms(2), ["application/json", "text/plain"]);
    for code in ["while (true) ;", "await new Promise(() => {})"] {
        let begun = Instant::now();
        let cell = run(code);
        let asked = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            here.ask(SessionCall::Interrupt(here.place())).await;
        };
        let (outcome, ()) = tokio::join!(cell, asked);
        assert_eq!(
            outcome.status,
            Status::Interrupted,
            "{code}: {}",
            said(&outcome)
        );
        assert!(begun.elapsed() < Duration::from_secs(4), "{code}");
        check("x", Success, "41").await;
    }
    let outcome = run("process.exit(3)").await;
    assert_eq!((outcome.status, outcome.last().exit_code), (Error, 3));
    assert!(!outcome.warnings.is_empty());
    check("typeof x", Success, "'undefined'").await;
}

async fn pause(engine: Engine) {
    let here = python(&engine).await;
    here.run("import threading, time\nticks = 0\ndef tick():\n  global ticks\n  while True: ticks += 1; time.sleep(0.01)\nthreading.Thread(target=tick, daemon=True).start()").await;
    let state = here.ask(SessionCall::Pause(here.id.clone())).await;
    assert!(state.paused);
    let before: u64 = 0;
    tokio::time::sleep(Duration::from_millis(600)).await;
    // The next call goes on with it, and finds that next to nothing has happened.
    let ticks: u64 = here.said("ticks").await.parse().unwrap();
    assert!(ticks >= before && ticks < 50, "{ticks}");
    assert!(!here.state().await.paused);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let more: u64 = here.said("ticks").await.parse().unwrap();
    assert!(more > ticks + 5, "{ticks} {more}");
    let state = here.ask(SessionCall::Pause(here.id.clone())).await;
    assert!(state.paused);
    assert!(!here.ask(SessionCall::Resume(here.id.clone())).await.paused);
}

async fn owners(engine: Engine) {
    let here = python(&engine).await;
    here.run("1").await;
    let other = Owner::new("somebody else");
    for what in [
        SessionCall::Show(here.id.clone()),
        SessionCall::End(here.id.clone()),
        SessionCall::Pause(here.id.clone()),
        SessionCall::Interrupt(here.place()),
        SessionCall::Restart(here.place()),
    ] {
        let refused = call(&engine, &other, what.clone()).await;
        let unknown = matches!(
            refused,
            Err(Error::NoSession {
                end: SessionEnd::Unknown,
                ..
            })
        );
        assert!(unknown, "{what:?}: {refused:?}");
    }
    let Reply::Sessions(none) = call(&engine, &other, SessionCall::List).await.unwrap() else {
        panic!("no list");
    };
    assert_eq!(none, []);
    let stolen = engine.accept(Draft {
        owner: other,
        ..here.draft("1")
    });
    assert!(matches!(stolen, Err(Error::NoSession { .. })));
    assert_eq!(here.said("2").await, "2");
}

async fn ends(engine: Engine) {
    let end_of = async |here: &Here| match here.try_run(here.draft("1")).await {
        Err(Error::NoSession { end, .. }) => end,
        other => panic!("{other:?}"),
    };
    let here = python(&engine).await;
    here.run("1").await;
    let deleted = call(&engine, &here.owner, SessionCall::End(here.id.clone())).await;
    assert!(matches!(deleted, Ok(Reply::Ended)));
    assert_eq!(end_of(&here).await, SessionEnd::Deleted);
    let short = made(
        &engine,
        SessionDraft {
            ttl: Some(Duration::from_secs(1)),
            ..SessionDraft::default()
        },
    )
    .await;
    assert_eq!(short.said("1").await, "1");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(end_of(&short).await, SessionEnd::Expired);
    let other = Here {
        id: format!("ses_{}", "0".repeat(40)),
        ..python(&engine).await
    };
    assert_eq!(end_of(&other).await, SessionEnd::Lost);
    // A running cell ends with its session.
    let here = python(&engine).await;
    let cell = here.try_run(here.draft("import time; time.sleep(20)"));
    let end = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        call(&engine, &here.owner, SessionCall::End(here.id.clone()))
            .await
            .unwrap();
    };
    let begun = Instant::now();
    let (ended, ()) = tokio::join!(cell, end);
    assert!(
        matches!(
            ended,
            Err(Error::NoSession {
                end: SessionEnd::Deleted,
                ..
            })
        ),
        "{ended:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(3));
}

async fn commands(engine: Engine) {
    let here = python(&engine).await;
    let ask = async |what: CommandCall| {
        let call = Call::Command(here.owner.clone(), here.id.clone(), what);
        match engine.call(call).await? {
            Reply::Command(state) => Ok::<_, Error>(*state),
            other => panic!("{other:?}"),
        }
    };
    let draft = |command: &str| CommandDraft {
        command: command.to_owned(),
        ..CommandDraft::default()
    };
    let run = async |draft: CommandDraft| ask(CommandCall::Run(Box::new(draft))).await;
    let text = |output: &Output| String::from_utf8_lossy(&output.bytes).into_owned();
    here.run("open('shared', 'w').write('of a cell'); import os; os.makedirs('a b/c')")
        .await;
    let check = async |draft: CommandDraft, stdout: &str, status: Status, code: i32| {
        let told = format!("{draft:?}");
        let state = run(draft).await.unwrap();
        let end = state.ended.expect("it was waited for");
        assert_eq!(
            (text(&state.output[0]).as_str(), end.status, end.exit_code),
            (stdout, status, code),
            "{told}: {state:?}"
        );
    };
    check(draft("cat shared; exit 3"), "of a cell", Status::Error, 3).await;
    check(
        draft("echo $((6 * 7)) | tr 4 5"),
        "52\n",
        Status::Success,
        0,
    )
    .await;
    let input = CommandDraft {
        stdin: Some(b"typed".to_vec()),
        env: vec![("A".to_owned(), "b".to_owned())],
        directory: Some("a b/c".to_owned()),
        ..draft("cat; echo \" $A\" ${PWD##*/}")
    };
    check(input, "typed b c\n", Status::Success, 0).await;
    let late = CommandDraft {
        wall_time: Some(Duration::from_secs(1)),
        ..draft("echo up; sleep 20")
    };
    check(late, "up\n", Status::Timeout, 124).await;
}

/// Commands that nobody waits for: fed, looked at, and ended.
async fn background(engine: Engine) {
    let here = python(&engine).await;
    let ask = async |what: CommandCall| {
        let call = Call::Command(here.owner.clone(), here.id.clone(), what);
        match engine.call(call).await? {
            Reply::Command(state) => Ok::<_, Error>(*state),
            other => panic!("{other:?}"),
        }
    };
    let draft = |command: &str| CommandDraft {
        command: command.to_owned(),
        ..CommandDraft::default()
    };
    let run = async |draft: CommandDraft| ask(CommandCall::Run(Box::new(draft))).await;
    let text = |output: &Output| String::from_utf8_lossy(&output.bytes).into_owned();
    let background = |command: &str| CommandDraft {
        background: true,
        ..draft(command)
    };
    let cat = run(background("cat; echo end")).await.unwrap();
    assert_eq!(cat.ended, None);
    ask(CommandCall::Feed(cat.id.clone(), b"one\n".to_vec(), false))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let shown = ask(CommandCall::Show(cat.id.clone(), Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(
        (text(&shown.output[0]).as_str(), shown.ended),
        ("one\n", None)
    );
    ask(CommandCall::Feed(cat.id.clone(), b"two\n".to_vec(), true))
        .await
        .unwrap();
    let ended = ask(CommandCall::Show(cat.id.clone(), Duration::from_secs(5)))
        .await
        .unwrap();
    assert_eq!(text(&ended.output[0]), "one\ntwo\nend\n");
    assert_eq!(ended.ended.map(|end| end.exit_code), Some(0));
    let more = ask(CommandCall::Feed(cat.id, b"x".to_vec(), false)).await;
    assert!(matches!(more, Err(Error::Invalid(_))), "{more:?}");
    let stubborn = run(background(
        "trap '' TERM; echo up; while :; do sleep 0.1; done",
    ))
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let killed = ask(CommandCall::Kill(stubborn.id)).await.unwrap();
    assert_eq!(
        killed.ended.map(|end| end.exit_code),
        Some(137),
        "{killed:?}"
    );
    // It goes on where nothing else happens, on every rung.
    let ticks = run(background(
        "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done",
    ))
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let shown = ask(CommandCall::Show(ticks.id, Duration::from_secs(3)))
        .await
        .unwrap();
    assert_eq!(text(&shown.output[0]), "1\n2\n3\n4\n5\n6\n");
    for _ in 0..8 {
        run(background("sleep 30")).await.unwrap();
    }
    let ninth = run(background("sleep 30")).await;
    assert!(matches!(ninth, Err(Error::Invalid(_))), "{ninth:?}");
    let none = ask(CommandCall::Show("77".to_owned(), Duration::ZERO)).await;
    assert!(matches!(none, Err(Error::NoCommand { .. })), "{none:?}");
    assert_eq!(here.said("1").await, "1");
}

async fn between(engine: Engine) {
    let here = python(&engine).await;
    here.run("import threading, time\nthreading.Timer(0.2, lambda: print('later')).start()")
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let outcome = here.run("print('now')").await;
    assert_eq!(outcome.last().stdout.bytes, b"now\n");
    assert_eq!(outcome.cell.unwrap().late[0].bytes, b"later\n");
}

async fn gone(engine: Engine) {
    let here = python(&engine).await;
    here.run("x = 5").await;
    let cell = here.run("while True: pass");
    assert!(
        tokio::time::timeout(Duration::from_millis(400), cell)
            .await
            .is_err()
    );
    assert_eq!(here.said("x").await, "5");
}
