//! Birth, commands and death of a box, and that nothing outlives it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, Read as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use sandbox::{Event, File, How, Step};

use crate::support::{
    command, event, limits, millis, python, ready, ready_as, report, run, run_in, secs, spec,
};
use crate::{Here, Test};

/// Set in a process that is to be killed with live boxes.
pub(crate) const VICTIM: &str = "SANDBOX_TEST_VICTIM";

pub(crate) const EVERYWHERE: &[Test] = &[
    ("a_program_gets_args_env_stdin_and_files", everything),
    ("exit_codes_and_signals", exits),
    ("several_programs_one_after_the_other", sequence),
    ("a_daemon_does_not_outlive_the_program", daemon),
    ("a_missing_executable_names_the_step", missing),
    ("a_missing_mount_names_the_path", missing_mount),
    ("the_workspace_is_readable_after_death", workspace),
    ("dropping_a_box_leaves_nothing", nothing_left),
    ("killing_the_server_leaves_nothing", killed_server),
    ("a_box_does_not_outlive_its_lifetime", lifetime),
    (
        "a_dead_warden_takes_its_boxes_along_and_is_noticed",
        dead_warden,
    ),
    ("an_ended_launcher_leaves_no_cgroup", ended_launcher),
];

/// What needs namespaces, or tells of them.
pub(crate) const IN_NAMESPACES: &[Test] = &[("output_can_be_reopened", reopen)];

const WALL: Duration = Duration::from_secs(20);

fn everything(here: &Here) {
    let mut command = python(
        "import os, sys\nprint(sys.argv[1:], os.environ['X'], sys.stdin.read(), open('d/e/f').read(), os.path.basename(os.getcwd()))",
    );
    command
        .argv
        .extend([b"a b".to_vec(), "ü".as_bytes().to_vec()]);
    command.env.push(b"X=y=z".to_vec());
    command.stdin = b"typed".to_vec();
    command.files.push(File {
        path: b"d/e/f".to_vec(),
        content: b"inside".to_vec(),
    });
    let done = run(&here.launcher, limits(), &command, WALL);
    assert_eq!(
        done.stdout, "['a b', 'ü'] y=z typed inside workspace\n",
        "{}",
        done.stderr
    );
}

fn exits(here: &Here) {
    let check = |code: &str, how: How| {
        let done = run(&here.launcher, limits(), &python(code), WALL);
        assert_eq!(done.exit.unwrap().how, how, "{code}: {}", done.stderr);
    };
    check("pass", How::Exited(0));
    check("raise SystemExit(3)", How::Exited(3));
    check("1/0", How::Exited(1));
    // User code is not PID 1: there, SIGTERM to itself would do nothing.
    check("import os; os.kill(os.getpid(), 15)", How::Signalled(15));
    check("import os; os.kill(os.getpid(), 9)", How::Signalled(9));
    check("import ctypes; ctypes.string_at(0)", How::Signalled(11));
}

fn sequence(here: &Here) {
    let running = ready(&here.launcher, limits());
    let first = run_in(&running, &python("open('state', 'w').write('kept')"), WALL);
    assert_eq!(first.exit.unwrap().how, How::Exited(0));
    let second = run_in(&running, &python("print(open('state').read())"), WALL);
    assert_eq!(second.stdout, "kept\n");
}

fn daemon(here: &Here) {
    let code = "import os, sys, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    while True: time.sleep(60)\n  os._exit(0)\nprint('main ends')";
    let done = run(&here.launcher, limits(), &python(code), WALL);
    assert_eq!(done.stdout, "main ends\n");
    assert!(
        done.took < secs(3),
        "waited for the daemon: {:?}",
        done.took
    );
}

fn missing(here: &Here) {
    let running = ready(&here.launcher, limits());
    running
        .sandbox
        .exec(&command(&["/usr/bin/no-such-program"]))
        .unwrap();
    let error = event(&running.sandbox).unwrap_err();
    assert_eq!(error.step, Step::Exec);
    assert!(error.detail.contains("no-such-program"), "{error}");
    // The box goes on.
    let done = run_in(&running, &command(&["/bin/echo", "still here"]), WALL);
    assert_eq!(done.stdout, "still here\n");
}

fn missing_mount(here: &Here) {
    let spec = sandbox::Spec {
        mounts: vec![sandbox::Mount::same("/no/such/place")],
        ..spec(limits())
    };
    let sandbox = here.launcher.create(&spec).unwrap();
    let error = event(&sandbox).unwrap_err();
    assert_eq!(error.step, Step::Init, "init's socket closes");
    let error = sandbox.report().unwrap_err();
    assert_eq!(error.step, Step::OpenMount);
    assert!(error.detail.contains("/no/such/place"), "{error}");
}

fn workspace(here: &Here) {
    let running = ready(&here.launcher, limits());
    let done = run_in(
        &running,
        &python("open('out.txt', 'w').write('result')\nwhile True: pass"),
        millis(500),
    );
    assert!(done.exit.is_none());
    let fd = rustix::fs::openat(
        running.workspace.as_fd(),
        "out.txt",
        OFlags::RDONLY,
        Mode::empty(),
    )
    .unwrap();
    let mut text = String::new();
    fs::File::from(fd).read_to_string(&mut text).unwrap();
    assert_eq!(text, "result");
}

fn processes_named(name: &str) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            *pid > 1
                && fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|comm| comm.trim() == name)
        })
        .collect()
}

/// The cgroup directories of all servers.
fn roots() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path().display().to_string();
                if path.contains("/codex-server-") && !path.contains("/box-") {
                    found.insert(path);
                }
                left.push(entry.path());
            }
        }
    }
    found
}

/// Waits for the traces to be gone, at most `patience`.
fn settle(patience: Duration, gone: impl Fn() -> bool) -> bool {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if gone() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    gone()
}

fn nothing_left(here: &Here) {
    // Other processes run the same tests.
    let marker = format!("left-behind-{}", std::process::id());
    let marker = marker.as_str();
    for round in 0..5 {
        let running = ready(&here.launcher, limits());
        let mut command = python(
            "import os, time\nos.fork()\nos.fork()\nprint('up', flush=True)\ntime.sleep(60)",
        );
        command.argv.push(marker.as_bytes().to_vec());
        running.sandbox.exec(&command).unwrap();
        let started = event(&running.sandbox).unwrap();
        assert!(matches!(started, Event::Started { .. }));
        let up = || with_argument(marker) == 4;
        assert!(settle(secs(5), up), "{}", with_argument(marker));
        drop((running, started));
        assert!(
            settle(secs(2), || with_argument(marker) == 0),
            "round {round}"
        );
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/workspace"), "{mounts}");
}

fn with_argument(marker: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            fs::read(entry.path().join("cmdline")).is_ok_and(|line| {
                line.windows(marker.len())
                    .any(|part| part == marker.as_bytes())
            })
        })
        .count()
}

/// Runs boxes and waits to be killed.
#[expect(clippy::print_stdout, reason = "tells the test that it is up")]
pub(crate) fn be_a_victim() -> ! {
    let (launcher, _) = crate::launch();
    let marker = std::env::var(VICTIM).unwrap();
    let boxes: Vec<_> = (0..8)
        .map(|_| {
            let running = ready(&launcher, limits());
            let mut command = python(
                "import os, time\nif os.fork() == 0: os.setsid()\nwhile True: time.sleep(0.01)",
            );
            command.argv.push(marker.as_bytes().to_vec());
            running.sandbox.exec(&command).unwrap();
            running
        })
        .collect();
    println!("{} {}", launcher.warden_id(), boxes.len());
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn killed_server(_: &Here) {
    let marker = format!("victim-{}", std::process::id());
    let mut victim = crate::support::victim(VICTIM, &marker);
    let mut line = String::new();
    let heard = std::io::BufReader::new(victim.stdout.take().unwrap()).read_line(&mut line);
    let up = settle(secs(10), || with_argument(&marker) >= 16);
    let boxed = processes_named("init").len();
    // Before any assertion: a victim that lives on would hold this test's output open.
    victim.kill().unwrap();
    victim.wait().unwrap();
    heard.unwrap();
    let warden = line.split(' ').next().and_then(|pid| pid.parse().ok());
    let warden = rustix::process::Pid::from_raw(warden.unwrap()).unwrap();
    assert!(up && boxed >= 8, "{boxed} boxes");
    assert!(
        settle(secs(2), || with_argument(&marker) == 0),
        "left: {}",
        with_argument(&marker)
    );
    assert!(
        settle(secs(2), || own_roots(warden).is_empty()),
        "{:?}",
        own_roots(warden)
    );
}

fn reopen(here: &Here) {
    let code = "open('/dev/stdout', 'w').write('reopened\\n')\nopen('/dev/stderr', 'w').write('too\\n')\nprint(open('/dev/stdin').read())";
    let mut command = python(code);
    command.stdin = b"typed".to_vec();
    let done = run(&here.launcher, limits(), &command, WALL);
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("reopened\ntyped\n", "too\n")
    );
}

fn lifetime(here: &Here) {
    let short = |lifetime| sandbox::Spec {
        lifetime,
        ..spec(limits())
    };
    let endless = python("while True: pass");
    // Set at birth, and set later.
    for (born_with, then) in [(Some(700), None), (None, Some(700)), (Some(100), Some(700))] {
        let of = |millis: Option<u64>| millis.map(Duration::from_millis);
        let started = Instant::now();
        let running = ready_as(&here.launcher, &short(of(born_with)));
        if then.is_some() {
            running.sandbox.live_on(of(then)).unwrap();
        }
        running.sandbox.exec(&endless).unwrap();
        assert!(matches!(report(&running.sandbox), sandbox::Report::Gone(_)));
        let lived = started.elapsed();
        // A slow machine lets it live no shorter.
        let shortest = Duration::from_millis(500);
        assert!(lived > shortest && lived < secs(3), "{lived:?}");
    }
    // Taken back.
    let running = ready_as(&here.launcher, &short(Some(Duration::from_millis(400))));
    running.sandbox.live_on(None).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    let done = run_in(&running, &command(&["/bin/echo", "still here"]), WALL);
    assert_eq!(done.stdout, "still here\n");
}

/// Another launcher than the one that all tests share. Started while other
/// threads run, which only a test may do.
fn launcher() -> sandbox::Launcher {
    crate::launch().0
}

fn dead_warden(_: &Here) {
    let launcher = launcher();
    let marker = format!("orphan-{}", std::process::id());
    let running = ready(&launcher, limits());
    let mut command = python("import time\nwhile True: time.sleep(0.01)");
    command.argv.push(marker.clone().into_bytes());
    running.sandbox.exec(&command).unwrap();
    assert!(settle(secs(5), || with_argument(&marker) == 1));
    assert!(launcher.is_alive());
    let warden = i32::try_from(launcher.warden_id()).unwrap();
    let warden = rustix::process::Pid::from_raw(warden).unwrap();
    rustix::process::kill_process(warden, rustix::process::Signal::KILL).unwrap();
    assert!(settle(secs(2), || with_argument(&marker) == 0));
    assert!(settle(secs(2), || !launcher.is_alive()));
    let spec = sandbox::Spec {
        mounts: Vec::new(),
        ..spec(limits())
    };
    assert_eq!(launcher.create(&spec).unwrap_err().step, Step::Warden);
    // What it left is swept by the next one.
    drop(self::launcher());
    assert!(own_roots(warden).is_empty(), "{:?}", own_roots(warden));
}

fn ended_launcher(_: &Here) {
    let launcher = launcher();
    let warden = i32::try_from(launcher.warden_id()).unwrap();
    let warden = rustix::process::Pid::from_raw(warden).unwrap();
    let done = run(&launcher, limits(), &command(&["/bin/true"]), WALL);
    assert_eq!(done.exit.unwrap().how, How::Exited(0));
    drop(launcher);
    assert!(own_roots(warden).is_empty(), "{:?}", own_roots(warden));
}

/// The cgroup directories of one warden.
fn own_roots(warden: rustix::process::Pid) -> BTreeSet<String> {
    let name = format!("/codex-server-{}-", warden.as_raw_nonzero());
    roots()
        .into_iter()
        .filter(|path| path.contains(&name))
        .collect()
}
