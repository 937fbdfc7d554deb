//! Limits that hold, and the kernel's word on which one did.

use std::time::Duration;

use sandbox::{How, Isolation};

use crate::support::{MIB, limits, millis, python, run, secs};
use crate::{Here, Test};

pub(crate) const EVERYWHERE: &[Test] = &[
    ("a_name_that_is_no_text_hides_nothing", odd_name),
    ("shared_zero_pages_need_a_cgroup", zero_pages),
    ("an_infinite_loop_is_killed_at_its_wall_time", infinite_loop),
    ("a_program_that_ignores_signals_is_killed", stubborn),
    ("a_fork_bomb_meets_its_limit_and_dies_whole", fork_bomb),
    ("a_memory_bomb_is_told_apart", memory_bomb),
    ("two_processes_share_one_memory_limit", shared_memory_limit),
    ("an_output_flood_neither_blocks_nor_breaks", flood),
    ("no_core_is_written", core),
    ("memory_behind_an_ended_thread_counts", headless),
    ("many_orphans_are_reaped_at_once", orphans),
];

/// What needs namespaces, or tells of them.
pub(crate) const IN_NAMESPACES: &[Test] = &[
    ("tmpfs_is_bounded_in_bytes_and_inodes", disk),
    ("pages_shared_by_forks_count_once", shared_pages),
    ("full_sockets_count", full_sockets),
];

/// What only a cgroup gives: at `namespaces` nothing caps CPU, and that rung
/// does not claim to.
pub(crate) const WITH_CGROUP: &[Test] = &[("cpu_time_is_capped_and_counted", cpu)];

fn infinite_loop(here: &Here) {
    let wall = millis(500);
    let done = run(
        &here.launcher,
        limits(),
        &python("print('before')\nwhile True: pass"),
        wall,
    );
    assert!(done.exit.is_none());
    assert_eq!(done.stdout, "before\n");
    assert!(done.took < wall + millis(500), "{:?}", done.took);
}

fn stubborn(here: &Here) {
    let code = "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nprint('deaf')\nwhile True: pass";
    let done = run(&here.launcher, limits(), &python(code), secs(1));
    assert!(done.exit.is_none());
    assert_eq!(done.stdout, "deaf\n");
}

fn fork_bomb(here: &Here) {
    let code = "import os\nprint('bomb')\nwhile True:\n  try: os.fork()\n  except OSError: pass";
    let done = run(&here.launcher, limits(), &python(code), secs(1));
    assert!(done.exit.is_none());
    assert!(done.stdout.starts_with("bomb\n"));
    assert!(done.took < secs(4), "{:?}", done.took);
    if here.isolation == Isolation::Full {
        assert!(done.usage.forks_refused > 0, "{:?}", done.usage);
    }
    // It counts what it may have, and not more.
    let code = "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(60)\n    n += 1\nexcept OSError as e: print(n, e.strerror)";
    let done = run(&here.launcher, limits(), &python(code), secs(5));
    assert_eq!(
        done.stdout, "63 Resource temporarily unavailable\n",
        "{}",
        done.stderr
    );
    assert_eq!(done.exit.unwrap().how, How::Exited(0));
}

fn memory_bomb(here: &Here) {
    let small = sandbox::Limits {
        memory: 64 * MIB,
        ..limits()
    };
    let code = "print('grow')\nb = []\nwhile True: b.append(bytearray(1 << 20))";
    let done = run(&here.launcher, small, &python(code), secs(10));
    assert_eq!(done.stdout, "grow\n");
    let exit = done.exit.expect("it was killed, not timed out");
    if here.isolation == Isolation::Full {
        assert_eq!(exit.how, How::Signalled(libc_sigkill()));
        assert!(done.usage.oom_kills > 0);
        assert!(done.usage.memory_peak > 60 * MIB && done.usage.memory_peak <= 64 * MIB);
    } else {
        // RLIMIT_DATA makes it a MemoryError, or the watcher was first.
        assert!(
            exit.over_memory || done.usage.oom_kills > 0 || done.stderr.contains("MemoryError"),
            "{done:?}"
        );
    }
}

fn libc_sigkill() -> i32 {
    rustix::process::Signal::KILL.as_raw()
}

fn shared_memory_limit(here: &Here) {
    let small = sandbox::Limits {
        memory: 96 * MIB,
        ..limits()
    };
    let code = "import os, time\nprint('two')\nfor _ in range(3): os.fork()\nb = bytearray(20 << 20)\nb[::4096] = b'x' * len(b[::4096])\ntime.sleep(5)\nprint('BREACH')";
    let done = run(&here.launcher, small, &python(code), secs(3));
    assert!(done.stdout.starts_with("two\n"));
    let killed = done.usage.oom_kills > 0 || done.exit.is_some_and(|exit| exit.over_memory);
    assert!(killed, "{done:?}");
}

fn disk(here: &Here) {
    let code = r#"
import errno
def fill(path):
    n = 0
    try:
        with open(path, "wb") as f:
            while True: n += f.write(b"x" * (1 << 20))
    except OSError as e:
        return n >> 20, errno.errorcode[e.errno]
print(fill("a"), fill("/tmp/b")[1], fill("/dev/shm/c"))
import os
os.remove("a"); os.remove("/tmp/b")
try:
    for i in range(10000): open(str(i), "w").close()
except OSError as e: print(1900 < i < 2000, errno.errorcode[e.errno])
try: os.truncate("/tmp", 1 << 50)
except OSError: print("ok")
"#;
    let done = run(&here.launcher, limits(), &python(code), secs(20));
    let lines: Vec<_> = done.stdout.lines().collect();
    // The whole file system, less what Python wrote; RLIMIT_FSIZE is as large.
    let full = [
        "(31, 'ENOSPC') ENOSPC (16, 'ENOSPC')",
        "(32, 'ENOSPC') ENOSPC (16, 'ENOSPC')",
    ];
    assert!(full.contains(&lines[0]), "{done:?}");
    assert_eq!(lines[1..], ["True ENOSPC", "ok"], "{done:?}");
}

fn flood(here: &Here) {
    let code = "import sys\nfor _ in range(200): sys.stdout.write('x' * (1 << 20))\nsys.stderr.write('done')";
    let done = run(&here.launcher, limits(), &python(code), secs(20));
    assert_eq!(done.stderr, "done");
    assert_eq!(done.stdout.len(), 1 << 20);
}

fn cpu(here: &Here) {
    let half = sandbox::Limits {
        cpu_millis: 250,
        ..limits()
    };
    let code = "import time\np = time.process_time()\nt = time.monotonic()\nwhile time.monotonic() - t < 1: pass\nprint(time.process_time() - p < 0.6)";
    let done = run(&here.launcher, half, &python(code), secs(20));
    assert_eq!(done.stdout, "True\n");
    let counted = done.usage.cpu_time;
    assert!(
        counted > Duration::from_millis(100) && counted < millis(900),
        "{counted:?}"
    );
}

fn core(here: &Here) {
    let code = "import os\nprint('abort', flush=True)\nos.abort()";
    let done = run(&here.launcher, limits(), &python(code), secs(10));
    assert_eq!(done.stdout, "abort\n");
    assert_eq!(done.exit.unwrap().how, How::Signalled(6));
}

/// The first thread ends, another goes on with all the memory: part of it in a
/// file, where the workspace is memory too.
fn headless(here: &Here) {
    let small = sandbox::Limits {
        memory: 64 * MIB,
        ..limits()
    };
    let blocks = if here.isolation < Isolation::Namespaces {
        9
    } else {
        5
    };
    let code = r#"
import ctypes, mmap, threading, time
def hold():
    time.sleep(0.2)
    kept = [bytearray(8 << 20) for _ in range(BLOCKS)]
    for b in kept: b[::4096] = b"x" * len(b[::4096])
    shared = open("shared", "w+b"); shared.truncate(30 << 20)
    m = mmap.mmap(shared.fileno(), 0); m[::4096] = b"x" * len(m[::4096])
    time.sleep(5)
    print("BREACH", flush=True)
threading.Thread(target=hold).start()
print("headless", flush=True)
ctypes.CDLL(None).syscall(60, 0)
"#;
    let code = code.replace("BLOCKS", &blocks.to_string());
    let done = run(&here.launcher, small, &python(&code), secs(3));
    assert_eq!(done.stdout, "headless\n", "{done:?}");
    let killed = done.usage.oom_kills > 0 || done.exit.is_some_and(|exit| exit.over_memory);
    assert!(killed, "{done:?}");
}

/// 40 MiB in five processes that only read it are 40 MiB.
fn shared_pages(here: &Here) {
    let small = sandbox::Limits {
        memory: 128 * MIB,
        ..limits()
    };
    let code = r#"
import os, time
kept = b"x" * (40 << 20)
pids = []
for _ in range(5):
    pid = os.fork()
    if pid == 0: time.sleep(0.5); os._exit(0)
    pids.append(pid)
for pid in pids: os.waitpid(pid, 0)
print("fair")
"#;
    let done = run(&here.launcher, small, &python(code), secs(10));
    assert_eq!(done.stdout, "fair\n", "{done:?}");
}

/// `/proc` shows the name that a process gave itself, whatever bytes it is.
fn odd_name(here: &Here) {
    let small = sandbox::Limits {
        memory: 64 * MIB,
        ..limits()
    };
    let code = r#"
import ctypes, time
print("named", ctypes.CDLL(None).prctl(15, b"\xff\xfe\n", 0, 0, 0), flush=True)
b = bytearray(100 << 20); b[::4096] = b"x" * len(b[::4096])
time.sleep(5)
print("BREACH", flush=True)
"#;
    let done = run(&here.launcher, small, &python(code), secs(4));
    assert_eq!(done.stdout, "named 0\n", "{done:?}");
    let killed = done.usage.oom_kills > 0 || done.exit.is_some_and(|exit| exit.over_memory);
    assert!(killed, "{done:?}");
}

/// A shared mapping of `/dev/zero` keeps pages that no process has.
fn zero_pages(here: &Here) {
    let code = "import mmap, os\ntry:\n  m = mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096); m[0] = 1; print('mapped', m[0])\nexcept OSError as e: print(e.strerror)";
    let done = run(&here.launcher, limits(), &python(code), secs(10));
    let expected = match here.isolation {
        Isolation::Full => "mapped 1\n",
        _ => "Permission denied\n",
    };
    assert_eq!(done.stdout, expected, "{done:?}");
}

fn orphans(here: &Here) {
    let code = r#"
import os
for _ in range(200):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
print("reaped")
"#;
    let done = run(&here.launcher, limits(), &python(code), secs(20));
    assert_eq!(done.stdout, "reaped\n", "{done:?}");
}

/// Memory that is in no process: full buffers of unix sockets.
fn full_sockets(here: &Here) {
    let small = sandbox::Limits {
        memory: 64 * MIB,
        ..limits()
    };
    let code = r#"
import os, socket, time
print("filling", flush=True)
for _ in range(5): os.fork()
kept = []
try:
    while True:
        pair = socket.socketpair(); kept.append(pair)
        for s in pair:
            s.setblocking(False)
            try:
                while True: s.send(b"x" * 4096)
            except BlockingIOError: pass
except OSError: pass
time.sleep(5)
print("BREACH", flush=True)
"#;
    let done = run(&here.launcher, small, &python(code), secs(3));
    assert_eq!(done.stdout.lines().next(), Some("filling"), "{done:?}");
    assert!(!done.stdout.contains("BREACH"), "{done:?}");
    let killed = done.usage.oom_kills > 0 || done.exit.is_some_and(|exit| exit.over_memory);
    assert!(killed, "{done:?}");
}
