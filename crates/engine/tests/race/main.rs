//! A running box changes its files while they are collected.
//!
//! The engine collects when every process of a box is dead; a live session can
//! not wait for that. So a program swaps files for links, folders for links and
//! files for pipes as fast as it can, in a box of its own, while this process
//! collects from the directory that it was given before the program ran. Nothing
//! of the canary, a file of the host, may ever come along, and what was collected
//! must show that both met: entries that were one thing when they were listed and
//! another when they were opened.
//!
//! This binary owns `main`, because the warden is a re-execution of it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the figures are the proof")]

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use rustix::event::{PollFd, PollFlags};
use sandbox::{Command, Event, File, Isolation, Limits, Mount, Sandbox, Spec};

/// How many swaps there are to be, where not as many as by default.
const SWAPS: &str = "ENGINE_TEST_SWAPS";
const DEFAULT_SWAPS: u64 = 5_000;
/// Entries at least that changed between being listed and being opened.
const MET: u64 = 20;
/// Time for all of it; it takes a hundredth of that.
const PATIENCE: Duration = Duration::from_secs(300);
/// What stands in the canary and nowhere else.
const CANARY: &str = "CANARY-of-the-host";

/// The attacker. The last argument is the canary's directory. What it writes into
/// `count` is how many swaps there have been.
const ATTACKER: &str = r#"
import os, sys
outside = sys.argv[1]
canary = outside + "/canary"
def put(name, text):
    with open(name, "w") as file: file.write(text)
def gone(name):
    try: os.unlink(name)
    except OSError: pass
os.mkdir("real")
put("real/x", "fine")
put("fine", "fine")
swaps = 0
def swap(old, new):
    global swaps
    os.rename(old, new)
    swaps += 1
while True:
    # A file and a symbolic link.
    os.symlink(canary, "next"); swap("next", "file")
    put("next", "fine"); swap("next", "file")
    # A file, a hard link, and a pipe that would block a reader for ever.
    os.link("fine", "next"); swap("next", "file")
    os.mkfifo("next"); swap("next", "file")
    # A magic link of whoever opens it.
    os.symlink("/proc/self/environ", "next"); swap("next", "file")
    # A folder and a symbolic link, and one on the way out.
    swap("real", "sub")
    swap("sub", "real"); os.symlink(outside, "sub"); swaps += 1
    os.unlink("sub"); os.symlink("..", "sub"); swaps += 1
    os.unlink("sub")
    # A link to the canary by another name: refused, or it is ours to find.
    try: os.link(canary, "hard")
    except OSError: pass
    put("next", str(swaps)); os.rename("next", "count")
"#;

fn main() {
    sandbox::enter();
    let arguments = Arguments::from_args();
    let root = rustix::process::geteuid().is_root();
    let mut rungs = vec![("with_namespaces", Isolation::Namespaces..=Isolation::Full)];
    if root {
        rungs.push(("in_place", Isolation::Uids..=Isolation::Uids));
    }
    let trials = rungs.into_iter().map(|(name, rungs)| {
        let name = format!("what_is_swapped_while_it_is_collected_never_leaks_{name}");
        Trial::test(name, move || {
            race(rungs);
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn race(rungs: std::ops::RangeInclusive<Isolation>) {
    let (launcher, support) = sandbox::launch(rungs).unwrap_or_else(|refusal| panic!("{refusal}"));
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("canary"), CANARY).unwrap();
    std::fs::write(outside.path().join("x"), CANARY).unwrap();
    open_to_all(outside.path());
    let sandbox = launcher.create(&spec()).unwrap();
    let workspace = match event(&sandbox) {
        Event::Ready { workspace, .. } => workspace,
        other => panic!("no box: {other:?}"),
    };
    sandbox.exec(&attacker(outside.path())).unwrap();
    let (stdout, stderr) = match event(&sandbox) {
        Event::Started { stdout, stderr } => (stdout, stderr),
        other => panic!("not started: {other:?}"),
    };
    let swaps = std::env::var(SWAPS).map_or(DEFAULT_SWAPS, |count| count.parse().unwrap());
    let seen = watch(&sandbox, &workspace, swaps);
    sandbox.kill().unwrap();
    println!(
        "{:?}: {} swaps, {} collections, {} entries changed under a collection, {} files collected",
        support.isolation, seen.swaps, seen.collections, seen.met, seen.files
    );
    drop(stdout);
    let said = std::io::read_to_string(std::fs::File::from(stderr)).unwrap();
    assert_eq!(said, "", "the attacker complained");
}

/// What was seen from outside.
#[derive(Debug, Default)]
struct Seen {
    swaps: u64,
    collections: u64,
    /// Entries that were listed as a file or folder and then could not be opened
    /// as one.
    met: u64,
    files: u64,
}

fn watch(sandbox: &Sandbox, workspace: &OwnedFd, swaps: u64) -> Seen {
    let mut seen = Seen::default();
    let begun = Instant::now();
    let mut idle = 0;
    while seen.swaps < swaps || seen.met < MET {
        let before = seen.swaps;
        let (files, warnings) = engine::fuzz::collected(workspace.as_fd());
        for file in &files {
            let text = String::from_utf8_lossy(&file.content);
            assert!(!text.contains(CANARY), "{} leaks", file.path);
            // No magic link was followed to what this process is.
            assert!(!text.contains("PATH="), "{} leaks", file.path);
            assert!(
                [
                    "count", "file", "fine", "hard", "main.py", "next", "real/x", "sub/x"
                ]
                .contains(&file.path.as_str()),
                "{} is none of its files",
                file.path
            );
            if file.path == "count" {
                seen.swaps = seen.swaps.max(text.parse().unwrap_or_default());
            }
        }
        for warning in &warnings {
            assert!(!warning.contains(CANARY), "{warning} leaks");
            let refused = ["No such file", "Too many levels", "Not a directory"];
            seen.met += u64::from(refused.iter().any(|words| warning.contains(words)));
        }
        seen.collections += 1;
        seen.files += files.len() as u64;
        idle = if seen.swaps == before { idle + 1 } else { 0 };
        if idle > 20 {
            // Without a cgroup it is more polite than this process, and has to
            // get its turn.
            std::thread::sleep(Duration::from_millis(1));
            idle = 0;
        }
        if let Some(ended) = sandbox.event().unwrap() {
            panic!("the attacker ended: {ended:?} after {seen:?}");
        }
        assert!(begun.elapsed() < PATIENCE, "they hardly met: {seen:?}");
    }
    seen
}

/// The system's interpreter and nothing else.
fn spec() -> Spec {
    let paths = [
        "/usr",
        "/bin",
        "/lib",
        "/lib64",
        "/etc/alternatives",
        "/etc/ld.so.cache",
    ];
    let there = paths
        .into_iter()
        .filter(|path| Path::new(path).symlink_metadata().is_ok());
    Spec {
        mounts: there.map(Mount::same).collect(),
        limits: Limits {
            memory: 256 << 20,
            processes: 16,
            cpu_millis: 1000,
            workspace: 32 << 20,
            inodes: 2000,
            shm: 16 << 20,
            open_files: 256,
        },
        lifetime: Some(PATIENCE),
        adopts: false,
    }
}

fn attacker(outside: &Path) -> Command {
    let argv = ["/usr/bin/python3", "-u", "main.py"].map(|word| word.as_bytes().to_vec());
    let mut argv = argv.to_vec();
    argv.push(outside.as_os_str().as_encoded_bytes().to_vec());
    Command {
        argv,
        env: vec![b"LANG=C.UTF-8".to_vec()],
        files: vec![File {
            path: b"main.py".to_vec(),
            content: ATTACKER.as_bytes().to_vec(),
        }],
        stdin: Vec::new(),
    }
}

/// Nothing but the sandbox is to stand between a box and the canary.
fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for (path, mode) in [
        (directory.to_owned(), 0o755),
        (directory.join("canary"), 0o644),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn event(sandbox: &Sandbox) -> Event {
    loop {
        if let Some(event) = sandbox.event().unwrap() {
            return event;
        }
        let fd = sandbox.events();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
    }
}
