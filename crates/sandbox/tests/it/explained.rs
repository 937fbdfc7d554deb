//! Boxes whose denied calls are told: what is told is true, nobody can flood
//! or forge it, and a program notices nothing but the time it takes.

use std::time::Duration;

use sandbox::{Denials, DeniedCall, Event, Explanation, How, Isolation};

use crate::support::{Finished, Running, event, limits, python, run, run_in, secs};
use crate::{Here, Test};

pub(crate) const EVERYWHERE: &[Test] = &[
    ("explained_calls_are_named_with_their_reasons", named),
    ("explained_errnos_are_the_usual_ones", same_errnos),
    ("explained_box_that_is_killed_still_tells", killed),
    ("explained_calls_cannot_be_forged", forged),
    ("explained_flood_ends_with_its_box", flood),
    ("explained_calls_are_not_interrupted", signals),
    ("explained_are_threads_and_children_too", everybody),
    ("explained_is_nothing_that_nobody_asked_for", not_asked),
    ("explained_box_runs_a_second_program", second),
];

const WALL: Duration = Duration::from_secs(30);

/// What every program here starts with.
const CALL: &str = "
import ctypes, os, sys, signal, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(arg) for arg in args])
    return ctypes.get_errno() if result == -1 else 0
ARM = os.uname().machine == 'aarch64'
BPF, PTRACE, CLONE3, IOCTL = (280, 117, 435, 29) if ARM else (321, 101, 435, 16)
";

/// A box that is explained.
fn explained(here: &Here) -> (Running, Explanation) {
    let spec = crate::support::spec(limits());
    let sandbox = here.launcher.create_explained(&spec).unwrap();
    let explanation = match event(&sandbox) {
        Ok(Event::Explained(explanation)) => explanation,
        other => panic!("not explained: {other:?} {:?}", sandbox.report()),
    };
    match event(&sandbox) {
        Ok(Event::Ready { workspace, .. }) => (Running { sandbox, workspace }, explanation),
        other => panic!("no box: {other:?} {:?}", sandbox.report()),
    }
}

fn explain(here: &Here, code: &str, wall: Duration) -> (Finished, Denials) {
    let (running, explanation) = explained(here);
    let done = run_in(&running, &python(&format!("{CALL}{code}")), wall);
    (done, explanation.denials().unwrap())
}

fn counted(denials: &Denials, name: &str) -> u32 {
    let found = denials.calls.iter().find(|call| call.name == name);
    found.map_or(0, |call| call.count)
}

fn succeeded(done: &Finished) {
    let how = done.exit.expect("it ended").how;
    assert_eq!(how, How::Exited(0), "{} {}", done.stdout, done.stderr);
}

fn named(here: &Here) {
    let code = "
for _ in range(3): call(BPF, 0, 0, 0)
call(PTRACE, 0, 0, 0, 0)
call(CLONE3, 0, 0)
call(IOCTL, 0, 0x5412, 0)
call(2000); call(1999)
call(0x40000000 | 39)
print('marker')
";
    let (done, denials) = explain(here, code, WALL);
    succeeded(&done);
    assert_eq!(done.stdout, "marker\n");
    let check = |name: &str, count: u32, errno: &str, reason: &str| {
        let call = denials.calls.iter().find(|call| call.name == name);
        let Some(DeniedCall {
            count: found,
            errno: failed,
            reason: why,
            ..
        }) = call
        else {
            panic!("{name} is missing: {denials:?}");
        };
        // Python may have made some itself.
        assert!(*found >= count, "{name}: {found}");
        assert_eq!(*failed, errno, "{name}");
        assert!(why.contains(reason), "{name}: {why}");
    };
    check("bpf", 3, "EPERM", "kernel");
    check("ptrace", 1, "EPERM", "other processes");
    check("clone3", 1, "ENOSYS", "clone");
    check("ioctl", 1, "EPERM", "TIOCSTI");
    check("unknown", 3, "ENOSYS", "x32");
    assert_eq!(counted(&denials, "bpf"), 3);
    assert_eq!(counted(&denials, "getpid"), 0);
    // Each once, in the policy's order.
    let names: Vec<&str> = denials.calls.iter().map(|call| call.name).collect();
    let distinct: std::collections::BTreeSet<&&str> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
}

/// All numbers there are, with arguments that do nothing where they are allowed.
fn same_errnos(here: &Here) {
    let code = "
# Those that end, stop, replace or change this process, or make another.
no = set()
if ARM:
    no |= {93, 94, 139, 133, 220, 221, 281, 172, 129, 130, 131, 167, 57, 24, 436, 64, 98, 81, 135, 95, 260, 73, 72, 22, 137, 29, 99, 96, 100, 449, 454, 455, 456, 439}
else:
    no |= {60, 231, 15, 34, 56, 57, 58, 59, 322, 130, 62, 200, 234, 157, 3, 32, 33, 292, 436, 1, 202, 13, 14, 61, 247, 7, 271, 23, 270, 232, 281, 441, 128, 16, 273, 218, 158, 335, 336, 449, 454, 455, 456, 11, 12, 10, 25, 37, 35, 230}
failed = []
for number in [*range(0, 480), 999, 0x40000000, 0x40000001, 0x7fffffff]:
    if number in no:
        continue
    # A pointer and a descriptor that are none.
    failed.append((number, call(number, -1, -1, -1, -1, -1, -1)))
sys.stdout.write(repr(failed))
";
    let usual = run(
        &here.launcher,
        limits(),
        &python(&format!("{CALL}{code}")),
        WALL,
    );
    succeeded(&usual);
    let (done, denials) = explain(here, code, WALL);
    succeeded(&done);
    assert!(usual.stdout.len() > 2000, "{}", usual.stdout);
    assert_eq!(done.stdout, usual.stdout);
    assert!(denials.calls.len() > 40, "{denials:?}");
    assert_eq!(denials.gap, None);
}

fn killed(here: &Here) {
    let (running, explanation) = explained(here);
    let code =
        format!("{CALL}\nfor _ in range(5): call(BPF)\nprint('now', flush=True)\ntime.sleep(60)");
    let done = run_in(&running, &python(&code), secs(4));
    assert!(done.exit.is_none(), "{done:?}");
    assert_eq!(done.stdout, "now\n");
    assert_eq!(counted(&explanation.denials().unwrap(), "bpf"), 5);
}

/// The listener and the counts are init's, and out of reach.
fn forged(here: &Here) {
    let code = "
parent = os.getppid()
for path in [f'/proc/{parent}/fd', f'/proc/{parent}/mem', f'/proc/{parent}/map_files']:
    try:
        os.listdir(path) if path.endswith(('fd', 'files')) else open(path, 'r+b')
        print('BREACH', path)
    except OSError:
        print('ok')
PIDFD_GETFD = 438
for fd in range(20):
    pidfd = os.pidfd_open(parent) if hasattr(os, 'pidfd_open') else -1
    if call(PIDFD_GETFD, pidfd, fd, 0) == 0: print('BREACH', fd)
    if pidfd >= 0: os.close(pidfd)
# Nothing of it was inherited.
for fd in range(3, 64):
    try:
        print('BREACH', os.readlink(f'/proc/self/fd/{fd}'))
    except OSError:
        pass
# Answers to nobody: ioctls of a listener on whatever is open.
for fd in range(3):
    for request in [0xc0502100, 0xc0182101, 0x40082102, 0x40182103]:
        print('BREACH' if call(IOCTL, fd, request, 0) == 0 else 'ok')
try:
    os.kill(parent, signal.SIGKILL); print('alive')
except OSError:
    print('alive')
";
    let (done, denials) = explain(here, code, WALL);
    succeeded(&done);
    assert!(!done.stdout.contains("BREACH"), "{}", done.stdout);
    assert_eq!(done.stdout.matches("ok").count(), 15, "{}", done.stdout);
    assert!(done.stdout.ends_with("alive\n"), "{}", done.stdout);
    assert!(counted(&denials, "pidfd_getfd") >= 20, "{denials:?}");
}

/// From many threads at once, to the end of its time; the next box is as quick
/// as any.
fn flood(here: &Here) {
    let (running, explanation) = explained(here);
    let code = format!(
        "{CALL}
def flood():
    while True:
        libc.syscall(BPF)
for _ in range(30): threading.Thread(target=flood, daemon=True).start()
for number in range(100000): libc.syscall(1000 + number)
print('through', flush=True)
time.sleep(60)
"
    );
    let done = run_in(&running, &python(&code), secs(5));
    assert!(done.exit.is_none(), "{done:?}");
    let denials = explanation.denials().unwrap();
    assert!(counted(&denials, "bpf") > 100, "{denials:?}");
    assert!(denials.calls.len() < 40, "{denials:?}");
    let next = run(&here.launcher, limits(), &python("print(1)"), WALL);
    assert_eq!(next.stdout, "1\n");
    assert!(next.took < secs(5), "{:?}", next.took);
}

/// A timer whose handler interrupts calls. Until init has received a question
/// the kernel lets a signal interrupt it, as any call that waits: it is made again
/// after a handler with `SA_RESTART`, and fails with `EINTR` after another.
fn signals(here: &Here) {
    let code = "
def seen(restart):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, not restart)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    seen = {}
    while seen.get(1, 0) < 500:
        errno = call(BPF)
        seen[errno] = seen.get(errno, 0) + 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(seen.pop(1), *seen)
seen(True); seen(False)
";
    let (done, denials) = explain(here, code, WALL);
    succeeded(&done);
    let lines: Vec<&str> = done.stdout.lines().collect();
    let refused: Vec<u32> = lines
        .iter()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect();
    assert!(
        refused.len() == 2 && refused.iter().all(|count| *count == 500),
        "{lines:?}"
    );
    assert!(!lines[0].contains(' '), "{lines:?}");
    assert!(
        !lines[1].contains(' ') || lines[1].ends_with(" 4"),
        "{lines:?}"
    );
    assert!(
        counted(&denials, "bpf") >= refused.iter().sum(),
        "{denials:?}"
    );
}

fn everybody(here: &Here) {
    let code = "
threads = [threading.Thread(target=call, args=(PTRACE,)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for _ in range(3):
    if os.fork() == 0:
        call(BPF)
        os._exit(0)
for _ in range(3): os.wait()
os.execv('/usr/bin/python3', ['python3', '-c', 'import ctypes, os; ctypes.CDLL(None).syscall(%d)' % BPF])
";
    let (done, denials) = explain(here, code, WALL);
    succeeded(&done);
    assert_eq!(counted(&denials, "ptrace"), 4, "{denials:?}");
    assert_eq!(counted(&denials, "bpf"), 4, "{denials:?}");
}

fn not_asked(here: &Here) {
    let running = crate::support::ready(&here.launcher, limits());
    let code = format!("{CALL}\nprint(call(BPF))");
    assert_eq!(run_in(&running, &python(&code), WALL).stdout, "1\n");
}

fn second(here: &Here) {
    let (running, explanation) = explained(here);
    for count in [1, 2] {
        let done = run_in(&running, &python(&format!("{CALL}\ncall(BPF)")), WALL);
        succeeded(&done);
        let denials = explanation.denials().unwrap();
        assert_eq!(counted(&denials, "bpf"), count);
        let sockets = here.isolation < Isolation::Namespaces;
        assert!(!sockets || counted(&denials, "connect") == 0);
    }
}
