//! Forks of a session's interpreter on the rung that is tested: both sides go on by
//! themselves, and what can't be copied is a reason to refuse.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use engine::{
    Activity, Draft, Engine, Error, InSession, Isolation, Outcome, Reply, SessionCall, Status,
};

use crate::session::{Here, Test, call, python, said};

/// Every test: its name and what it does.
pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_fork_goes_its_own_way", |e| Box::pin(apart(e))),
    ("what_a_fork_would_break_is_refused", |e| {
        Box::pin(refusals(e))
    }),
    ("what_a_fork_can_keep_is_no_obstacle", |e| Box::pin(kept(e))),
    ("a_fork_leaves_no_context_but_its_own", |e| {
        Box::pin(ended_meanwhile(e))
    }),
    ("a_fork_by_a_hostile_interpreter_ends_it", |e| {
        Box::pin(hostile(e))
    }),
];

impl Here {
    fn in_context(&self, context: &str, code: &str) -> Draft {
        let mut draft = self.draft(code);
        draft.session = Some(InSession {
            session: self.id.clone(),
            context: Some(context.to_owned()),
        });
        draft
    }

    async fn run_in(&self, context: &str, code: &str) -> Outcome {
        self.try_run(self.in_context(context, code)).await.unwrap()
    }

    async fn said_in(&self, context: &str, code: &str) -> String {
        said(&self.run_in(context, code).await)
    }

    /// Forks a context; gives the name of the new one, and the warnings.
    async fn fork(
        &self,
        context: Option<&str>,
        name: Option<&str>,
    ) -> Result<(String, Vec<String>), Error> {
        let place = InSession {
            session: self.id.clone(),
            context: context.map(str::to_owned),
        };
        let fork = SessionCall::Fork(place, name.map(str::to_owned));
        match call(&self.engine, &self.owner, fork).await? {
            Reply::Forked(state, name, warnings) => {
                assert!(state.contexts.iter().any(|one| one.name == name));
                Ok((name, warnings))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&self, why: &str) {
        let refused = self.fork(None, None).await.unwrap_err();
        let Error::NotForked { reasons } = &refused else {
            panic!("{refused:?}");
        };
        assert!(reasons.iter().any(|one| one.contains(why)), "{reasons:?}");
        assert_eq!(self.state().await.contexts.len(), 1, "none is left behind");
    }

    async fn end(&self, context: &str) {
        let place = InSession {
            session: self.id.clone(),
            context: Some(context.to_owned()),
        };
        self.ask(SessionCall::EndContext(place)).await;
    }
}

async fn apart(engine: Engine) {
    let here = python(&engine).await;
    here.refused("no interpreter yet").await;
    here.run("import os, random\nheld = bytearray(64 << 20); held[0] = 1\nx = {'n': 1}\nrandom.seed(7)\nasync def five(): return 5\nawait five()").await;
    let begun = std::time::Instant::now();
    let (second, warnings) = here.fork(None, None).await.unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!((second.as_str(), warnings), ("python-2", Vec::new()));
    // The state is the same, and from now on each has its own.
    assert_eq!(
        here.said_in("python-2", "x['n'] += 10; x, held[0], len(held)")
            .await,
        "({'n': 11}, 1, 67108864)"
    );
    assert_eq!(here.said_in("python", "x['n'] += 1; x").await, "{'n': 2}");
    let numbers = "random.random(), await five()";
    assert_eq!(
        here.said_in("python", numbers).await,
        here.said_in("python-2", numbers).await
    );
    // Its cells are counted on, and its output, errors and input are its own.
    let outcome = here.run_in("python-2", "print('to the second')\n1/0").await;
    assert_eq!(outcome.cell.as_ref().unwrap().number, 4, "{outcome:?}");
    let told = said(&outcome);
    assert!(
        told.starts_with("to the second\n") && told.contains("<cell 4>"),
        "{told}"
    );
    let mut draft = here.in_context("python-2", "input()");
    draft.stdin = b"given\n".to_vec();
    assert_eq!(said(&here.try_run(draft).await.unwrap()), "'given'");
    let reopened = here
        .said_in("python-2", "print('x', file=open('/dev/stdout', 'w'))")
        .await;
    assert_eq!(reopened, "x\n");
    // Files are shared; a fork has forks.
    here.run_in("python-2", "open('f', 'w').write('1')").await;
    assert_eq!(here.said_in("python", "open('f').read()").await, "'1'");
    let (third, _) = here.fork(Some("python-2"), Some("third")).await.unwrap();
    assert_eq!(here.said_in(&third, "x").await, "{'n': 11}");
    let several = here.fork(None, None).await.unwrap_err();
    assert!(matches!(several, Error::Invalid(_)), "{several:?}");
    let taken = here.fork(Some("python"), Some("third")).await.unwrap_err();
    assert!(matches!(taken, Error::Invalid(_)), "{taken:?}");
    // It is interrupted, ended and lost by itself.
    let mut late = here.in_context("third", "while True: pass");
    late.wall_time = Some(Duration::from_secs(1));
    let outcome = here.try_run(late).await.unwrap();
    assert_eq!(outcome.status, Status::Timeout, "{outcome:?}");
    assert_eq!(here.said_in("third", "x").await, "{'n': 11}");
    let outcome = here.run_in("third", "os._exit(3)").await;
    assert_eq!(outcome.last().exit_code, 3, "{outcome:?}");
    assert_eq!(here.said_in("python-2", "x").await, "{'n': 11}");
    here.end("python-2").await;
    here.end("third").await;
    assert_eq!(here.said_in("python", "x").await, "{'n': 2}");
    // Nobody is left of those that ended, and no child is left to wait for.
    let alone = "import glob, os\ntry: os.waitpid(-1, 0)\nexcept ChildProcessError: print('alone')";
    assert_eq!(here.said_in("python", alone).await, "alone\n");
    assert_eq!(here.state().await.contexts.len(), 1);
    assert_eq!(here.state().await.contexts[0].activity, Activity::Idle);
}

async fn refusals(engine: Engine) {
    let here = python(&engine).await;
    here.run("import asyncio, multiprocessing.shared_memory, os, signal, socket, sqlite3, subprocess, threading, concurrent.futures, mmap").await;
    for (open, why, close) in [
        (
            "stop = threading.Event(); t = threading.Thread(target=stop.wait, name='reader'); t.start()",
            "threads run (reader)",
            "stop.set(); t.join()",
        ),
        (
            "pool = concurrent.futures.ThreadPoolExecutor(1); pool.submit(int).result()",
            "threads run",
            "pool.shutdown()",
        ),
        (
            "child = subprocess.Popen(['sleep', '60'])",
            "processes that it started",
            "child.kill(); child.wait()",
        ),
        (
            "a, b = socket.socketpair()",
            "socket as",
            "a.close(); b.close()",
        ),
        ("r, w = os.pipe()", "pipe as", "os.close(r); os.close(w)"),
        (
            "signal.alarm(100)",
            "alarm or interval timer",
            "signal.alarm(0)",
        ),
        (
            "async def wait(): await asyncio.sleep(60)\nasync def begin():\n  global task\n  task = asyncio.create_task(wait(), name='waiter')\nawait begin()",
            "tasks wait in its event loop (waiter)",
            "task.cancel()\ntry: await task\nexcept asyncio.CancelledError: pass",
        ),
        (
            "base = sqlite3.connect('base.db'); base.execute('create table t(x)'); base.commit()",
            "the database",
            "base.close()",
        ),
        ("m = mmap.mmap(-1, 4096)", "memory is shared", "m.close()"),
    ] {
        if open.contains("mmap") && engine.isolation() != Isolation::Full {
            // Without a cgroup there is no shared memory.
            continue;
        }
        let opened = here.run(open).await;
        assert_eq!(opened.status, Status::Success, "{open}: {opened:?}");
        here.refused(why).await;
        let closed = here.run(close).await;
        assert_eq!(closed.status, Status::Success, "{close}: {closed:?}");
        let (second, _) = here
            .fork(None, None)
            .await
            .unwrap_or_else(|error| panic!("after {close}: {error}"));
        assert_eq!(here.said_in(&second, "'here'").await, "'here'", "{close}");
        here.end(&second).await;
    }
    let node = Draft {
        language: Some("javascript".to_owned()),
        ..here.draft("x = 1")
    };
    here.try_run(node).await.unwrap();
    let refused = here.fork(Some("javascript"), None).await.unwrap_err();
    assert!(
        matches!(&refused, Error::NotForked { reasons } if reasons[0].contains("Node")),
        "{refused:?}"
    );
}

async fn kept(engine: Engine) {
    let here = python(&engine).await;
    // Buffered text is written once, and its file named.
    here.run("import asyncio, os, sqlite3\nf = open('log.txt', 'w'); n = f.write('once'); m = sqlite3.connect(':memory:'); m.execute('create table t(x)')\nasync def one(): return 1\nawait one()\ninto = open('in.txt', 'w+'); loop = asyncio.get_event_loop_policy().get_event_loop()").await;
    let (second, warnings) = here.fork(None, None).await.unwrap();
    assert!(
        warnings.iter().any(|told| told.contains("both write")),
        "{warnings:?}"
    );
    assert_eq!(
        here.said_in(
            &second,
            "f.write(' second'); f.flush(); m.execute('insert into t values (1)').rowcount"
        )
        .await,
        "1"
    );
    assert_eq!(
        here.said_in(
            "python",
            "f.close(); open('log.txt').read(), m.execute('select * from t').fetchall()"
        )
        .await,
        "('once second', [])"
    );
    // Each has an event loop of its own: a descriptor of one wakes it alone.
    let waits = "import socket\na, b = socket.socketpair(); a.setblocking(False); b.send(b'x')\nprint(await loop.sock_recv(a, 1))";
    assert_eq!(here.said_in(&second, waits).await, "b'x'\n");
    assert_eq!(here.said_in("python", waits).await, "b'x'\n");
    // Modules that a program broke make it no fork, or one; never a lost interpreter.
    let fresh = python(&engine).await;
    fresh.run("import os, random, gc\nos.fork = None; os.listdir = None; random.getstate = None; gc.freeze = None; kept = 1").await;
    drop(fresh.fork(None, None).await);
    assert_eq!(fresh.said_in("python", "kept").await, "1");
}

/// The context of a fork is ended while the interpreter forks, and another takes its name.
async fn ended_meanwhile(engine: Engine) {
    for ending in ["pass", "os._exit(1)"] {
        let here = python(&engine).await;
        let slow = format!("def slow():\n  time.sleep(2)\n  {ending}\n");
        here.run(&format!(
            "import os, time\nx = 1\n{slow}os.register_at_fork(before=slow)"
        ))
        .await;
        let end = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            here.end("python-2").await;
        };
        let again = async {
            tokio::time::sleep(Duration::from_millis(1000)).await;
            let add = SessionCall::AddContext {
                session: here.id.clone(),
                language: "python".to_owned(),
                name: Some("python-2".to_owned()),
            };
            here.ask(add).await;
        };
        let (forked, (), ()) = tokio::join!(here.fork(None, None), end, again);
        let forked = forked.unwrap_err();
        let expected = match ending {
            "pass" => matches!(forked, Error::NoContext { .. }),
            _ => matches!(forked, Error::NotForked { .. }),
        };
        assert!(expected, "{forked:?}");
        // The other one is there, and has nothing of the first.
        let contexts = here.state().await.contexts;
        assert!(
            contexts.iter().any(|one| one.name == "python-2"),
            "{contexts:?}"
        );
        let known = here.said_in("python-2", "'x' in globals()").await;
        assert_eq!(known, "False");
        if engine.isolation() == Isolation::Uids {
            // Boxes have no /proc there.
            continue;
        }
        // That of the fork has ended, and where the fork failed the first one, too.
        let count = "import os\ndef name(pid):\n  try: return open(f'/proc/{pid}/comm').read()\n  except OSError: return None\nsum(name(pid) == name('self') for pid in os.listdir('/proc') if pid.isdigit())";
        let expected = if ending == "pass" { "2" } else { "1" };
        assert_eq!(here.said_in("python-2", count).await, expected, "{ending}");
    }
}

async fn hostile(engine: Engine) {
    // What its at-fork handlers do to the channel is the interpreter's own loss.
    let frame = "import os, struct\ndef say(kind, *fields):\n  body = b''.join(struct.pack('<I', len(f)) + f for f in fields)\n  os.write(62, struct.pack('<IBQ', len(body) + 9, kind, 1) + body)\n";
    for (handler, why) in [
        ("say(4, struct.pack('<i', os.getpid()))", "ended at once"),
        ("say(4, struct.pack('<i', 1))", "ended at once"),
        ("say(4, struct.pack('<i', -1))", "ended at once"),
        ("say(4, b'xx')", "did not say whether"),
        ("os.write(62, b'\\xff' * 40)", "did not say whether"),
        ("os.close(62)", "did not say whether"),
        ("say(5, *[b'no' * 10000] * 20)", "nono"),
        ("os._exit(1)", "did not say whether"),
    ] {
        let here = python(&engine).await;
        let code =
            format!("{frame}def before():\n  {handler}\nos.register_at_fork(before=before)\nx = 1");
        assert_eq!(here.run(&code).await.status, Status::Success);
        here.refused(why).await;
        let alive = here.run("'alive'").await;
        assert!(
            said(&alive) == "'alive'" || !alive.warnings.is_empty(),
            "{handler}: {alive:?}"
        );
        assert_eq!(here.said("'alive'").await, "'alive'", "{handler}");
    }
    // One whose child never begins.
    let here = python(&engine).await;
    here.run("import os, time\nos.register_at_fork(after_in_child=lambda: os._exit(0))\nx = 1")
        .await;
    here.refused("").await;
    assert_eq!(here.said("x").await, "1");
}
