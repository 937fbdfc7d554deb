//! The rung where boxes have the server's own uid: what the uid would allow,
//! Landlock, the filters and init refuse.

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sandbox::{Event, How};

use crate::in_place::{WALL, check, gone};
use crate::support::{Running, limits, millis, python, ready, run, run_in, secs};
use crate::{Here, Test};

pub(crate) const TESTS: &[Test] = &[
    ("whoever_has_the_same_uid_is_out_of_reach", same_uid),
    ("a_live_neighbour_is_out_of_reach", neighbour),
    (
        "the_kernel_signals_nobody_for_a_program",
        roundabout_signals,
    ),
    (
        "files_of_the_same_uid_keep_their_modes_and_times",
        foreign_files,
    ),
    ("lent_files_keep_theirs_by_descriptor", lent_files),
    ("own_files_take_modes_and_times", own_files),
    ("a_path_that_changes_while_init_looks_leads_nowhere", races),
    ("odd_changes_of_own_files_fail_as_elsewhere", odd_changes),
    (
        "a_process_limit_is_exact_and_the_servers_stay_its_own",
        process_limit,
    ),
    ("a_slow_fork_bomb_is_counted", slow_bomb),
    ("threads_count", threads),
    ("what_the_uid_may_have_is_left_to_the_server", exhaustion),
    ("killed_closers_and_inits_leave_nothing", lost_closers),
    ("what_a_wholly_killed_server_left_is_swept", swept),
    ("each_server_has_a_directory_of_its_own", directories),
];

/// Somebody of the same uid whom nothing confines: a shell of the server's
/// owner, say. It has a secret in its environment and its memory.
#[derive(Debug)]
struct Bystander(Child);

#[expect(clippy::disallowed_methods, reason = "tests start processes")]
fn bystander() -> Bystander {
    let mut child = std::process::Command::new("/usr/bin/python3")
        .args([
            "-c",
            "import time; print('up', flush=True); time.sleep(600)",
        ])
        .env("CANARY_SECRET", "CANARY")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "up\n");
    Bystander(child)
}

impl Bystander {
    fn id(&self) -> u32 {
        self.0.id()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A running program, and the first line it says.
fn told(here: &Here, code: &str) -> (Running, String) {
    let running = ready(&here.launcher, limits());
    running.sandbox.exec(&python(code)).unwrap();
    let line = first_line(&running);
    (running, line)
}

fn first_line(running: &Running) -> String {
    let Ok(Event::Started { stdout, .. }) = crate::support::event(&running.sandbox) else {
        panic!("not started")
    };
    let mut line = String::new();
    std::io::BufReader::new(fs::File::from(stdout))
        .read_line(&mut line)
        .unwrap();
    line.trim().to_owned()
}

/// Attacks on the process `pid`, each printing why it failed.
const ON_A_PROCESS: &str = r#"
import ctypes, os, resource, signal
libc = ctypes.CDLL(None, use_errno=True)
def attack(name, call):
    try: print("BREACH", name, call())
    except OSError as e: print(name, e.strerror)
def raw(name, *args):
    r = libc.syscall(*args)
    print("BREACH" if r >= 0 else "refused", name, r, os.strerror(ctypes.get_errno()))
def on(pid):
    for sig in (0, 1, 9, 15, 18, 19, 29, 40):
        attack("kill", lambda: os.kill(pid, sig))
        raw("tkill", 200, pid, sig)
        raw("tgkill", 234, pid, pid, sig)
    info = (ctypes.c_int * 32)(15, 0, -1)
    raw("sigqueue", 129, pid, 15, info)
    raw("tgsigqueue", 297, pid, pid, 15, info)
    fd = libc.syscall(434, pid, 0)
    raw("pidfd signal", 424, fd, 15, 0, 0)
    raw("pidfd_getfd", 438, fd, 0, 0)
    raw("madvise", 440, fd, 0, 0, 21, 0)
    raw("mrelease", 448, fd, 0)
    raw("setns", 308, fd, 0x20000000)
    raw("pidfd ioctl", 16, fd, 0xFF01, 0)
    try: attack("group", lambda: os.killpg(os.getpgid(pid), 0))
    except OSError: pass
    for sig in (16, 0x4206): raw("ptrace", 101, sig, pid, 0, 0)
    local = ctypes.create_string_buffer(64)
    iov = (ctypes.c_ulong * 2)(ctypes.addressof(local), 64)
    raw("vm_readv", 310, pid, iov, 1, iov, 1, 0)
    raw("vm_writev", 311, pid, iov, 1, iov, 1, 0)
    raw("kcmp", 312, pid, os.getpid(), 0, 0, 0)
    raw("perf", 298, (ctypes.c_char * 128)(), pid, -1, -1, 0)
    raw("move_pages", 279, pid, 0, 0, 0, 0, 0)
    raw("migrate_pages", 256, pid, 1, iov, iov)
    raw("robust list", 274, pid, iov, iov)
    for what in range(16):
        raw("prlimit", 302, pid, what, (ctypes.c_ulong * 2)(1, 1), 0)
        raw("prlimit read", 302, pid, what, 0, iov)
    raw("affinity", 203, pid, 8, ctypes.byref(ctypes.c_ulong(1)))
    raw("setparam", 142, pid, ctypes.byref(ctypes.c_int(0)))
    raw("scheduler", 144, pid, 3, ctypes.byref(ctypes.c_int(0)))
    raw("sched_setattr", 314, pid, (ctypes.c_uint * 14)(56, 3), 0)
    raw("priority", 141, 0, pid, 19)
    raw("priority of group", 141, 1, os.getpgid(pid), 19)
    raw("priority of user", 141, 2, 0, 19)
    raw("ioprio", 251, 1, pid, 3 << 13)
    raw("ioprio of user", 251, 3, os.getuid(), 3 << 13)
    raw("setpgid", 109, pid, os.getpid())
    for name in ("environ", "mem", "maps", "smaps", "auxv", "cmdline", "status", "stat", "stack", "syscall", "wchan", "io",
                 "limits", "mountinfo", "pagemap", "personality", "cgroup", "comm", "timers", "net/tcp", "net/unix"):
        attack("read " + name, lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
        attack("read task " + name, lambda: open(f"/proc/{pid}/task/{pid}/{name}", "rb").read(1))
    for name in ("mem", "oom_score_adj", "oom_adj", "clear_refs", "timerslack_ns", "coredump_filter", "comm", "autogroup", "sched",
                 "setgroups", "uid_map", "attr/current", "loginuid", "make-it-fail", "reclaim"):
        attack("write " + name, lambda: open(f"/proc/{pid}/{name}", "wb").write(b"0"))
    for name in ("exe", "cwd", "root", "fd/0", "fd/1", "ns/net", "ns/user"):
        attack("readlink " + name, lambda: os.readlink(f"/proc/{pid}/{name}"))
        attack("open " + name, lambda: os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_NONBLOCK))
        attack("path " + name, lambda: os.open(f"/proc/{pid}/{name}", os.O_PATH))
    for name in ("", "fd", "task", "root", "cwd", "map_files", "fdinfo", "ns"):
        attack("list " + name, lambda: os.listdir(f"/proc/{pid}/{name}"))
    for name in ("root", "cwd"):
        attack("chdir " + name, lambda: os.chdir(f"/proc/{pid}/{name}"))
        attack("through " + name, lambda: os.stat(f"/proc/{pid}/{name}/etc"))
    print("done", pid)
"#;

fn attacked(here: &Here, pids: &[u32]) {
    let calls: String = pids.iter().map(|pid| format!("on({pid})\n")).collect();
    let code = format!("{ON_A_PROCESS}\n{calls}on(os.getppid())\nprint('alive')");
    let done = run(&here.launcher, limits(), &python(&code), WALL);
    let breaches: Vec<&str> = done
        .stdout
        .lines()
        .filter(|line| line.contains("BREACH"))
        .collect();
    assert!(breaches.is_empty(), "{breaches:#?}");
    let told = done.stdout.lines().count();
    assert!(
        told > (pids.len() + 1) * 150 && done.stdout.ends_with("alive\n"),
        "{told} {} {}",
        done.stdout,
        done.stderr
    );
}

fn same_uid(here: &Here) {
    let mut bystander = bystander();
    let (_other, init) = told(
        here,
        "import os, time\nprint(os.getppid(), flush=True)\ntime.sleep(60)",
    );
    let closer = parent_of(init.parse().unwrap());
    assert_eq!(name_of(closer), "closer");
    attacked(
        here,
        &[
            std::process::id(),
            here.launcher.warden_id(),
            bystander.id(),
            closer,
        ],
    );
    // And everybody at once.
    let code = "import os\nfor s in (0, 18, 19, 15, 9):\n  print(os.kill(-1, s))\nprint('alive')";
    // The kernel says nothing of those whom it did not tell.
    check(here, code, &[&["None"; 5][..], &["alive"]].concat());
    assert!(here.launcher.is_alive());
    assert!(bystander.lives());
}

fn status(pid: u32, field: &str) -> String {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    String::from_utf8_lossy(&status)
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn name_of(pid: u32) -> String {
    status(pid, "Name:")
}

fn parent_of(pid: u32) -> u32 {
    status(pid, "PPid:").parse().unwrap_or(0)
}

fn descendants(of: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(|pid| (pid, parent_of(pid)))
        .collect();
    let mut found = vec![of];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(
            all.iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    found.split_off(1)
}

fn neighbour(here: &Here) {
    let code = "import os, time\nopen('secret', 'w').write('CANARY')\nos.chmod('secret', 0o777)\nos.chmod('.', 0o777)\nprint(os.getcwd(), os.getpid(), flush=True)\ntime.sleep(60)";
    let (_first, line) = told(here, code);
    let (directory, pid) = line.split_once(' ').unwrap();
    let pid: u32 = pid.parse().unwrap();
    let closer = parent_of(parent_of(pid));
    assert_eq!(name_of(closer), "closer");
    attacked(here, &[pid, parent_of(pid), closer]);
    let look = format!(
        r#"
import os
for call in (lambda: open({directory:?} + "/secret").read(), lambda: os.listdir({directory:?}), lambda: open({directory:?} + "/x", "w"),
             lambda: os.unlink({directory:?} + "/secret"), lambda: os.rename({directory:?} + "/secret", "mine"), lambda: os.link({directory:?} + "/secret", "mine"),
             lambda: os.chmod({directory:?} + "/secret", 0), lambda: os.chmod({directory:?}, 0), lambda: os.utime({directory:?} + "/secret", (1, 1)),
             lambda: os.chmod(f"/proc/{pid}/cwd", 0), lambda: os.rmdir({directory:?} + "/../tmp"), lambda: os.mkdir({directory:?} + "/../../9999")):
    try: print("BREACH", call())
    except OSError as e: print("refused")
"#
    );
    check(here, &look, &["refused"; 12]);
    assert_eq!(
        fs::read(Path::new(directory).join("secret")).unwrap(),
        b"CANARY"
    );
}

/// Ways to have the kernel send a signal.
fn roundabout_signals(here: &Here) {
    let mut bystander = bystander();
    let code = format!(
        r#"
import ctypes, fcntl, os, socket, struct, termios, time
libc = ctypes.CDLL(None, use_errno=True)
pid = {}
def attack(name, call):
    try: print("BREACH", name, call())
    except OSError as e: print(name, e.strerror)
r, w = os.pipe()
a, b = socket.socketpair()
for end in (r, a.fileno()):
    attack("F_SETOWN", lambda: fcntl.fcntl(end, 8, pid))
    attack("F_SETOWN of group", lambda: fcntl.fcntl(end, 8, -os.getpgid(pid)))
    attack("F_SETOWN_EX", lambda: fcntl.fcntl(end, 15, struct.pack("ii", 1, pid)))
    attack("FIOSETOWN", lambda: fcntl.ioctl(end, 0x8901, struct.pack("i", pid)))
    attack("SIOCSPGRP", lambda: fcntl.ioctl(end, 0x8902, struct.pack("i", pid)))
    fcntl.fcntl(end, 10, 9)
    fcntl.fcntl(end, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
os.write(w, b"x"); b.send(b"x")
attack("lease", lambda: fcntl.fcntl(os.open("main.py", os.O_RDONLY), 1024, 0))
attack("dnotify", lambda: fcntl.fcntl(os.open(".", os.O_RDONLY), 1026, 1))
# timer_create with SIGEV_THREAD_ID.
event = struct.pack("QiiiI", 0, 9, 4, pid, 0) + bytes(40)
timer = ctypes.c_int()
print("timer", "BREACH" if libc.syscall(222, 0, event, ctypes.byref(timer)) == 0 else os.strerror(ctypes.get_errno()))
print("mq_notify", "BREACH" if libc.syscall(244, 0, event) == 0 else os.strerror(ctypes.get_errno()))
# A child whose end is told its parent by SIGKILL, and which is left behind.
if os.fork() == 0:
    libc.syscall(56, 9, 0, 0, 0, 0)
    os._exit(0)
time.sleep(0.3)
print("alive")
"#,
        bystander.id()
    );
    let done = run(&here.launcher, limits(), &python(&code), WALL);
    assert!(!done.stdout.contains("BREACH"), "{}", done.stdout);
    assert_eq!(done.stdout.lines().count(), 15, "{done:?}");
    assert!(done.stdout.ends_with("alive\n"), "{done:?}");
    assert!(here.launcher.is_alive());
    assert!(bystander.lives());
}

/// A file that its owner, whose uid all boxes have, made for everybody.
fn foreign() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"CANARY").unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
    file
}

fn state(path: &Path) -> (u32, i64, i64, u32, i64) {
    let found = fs::metadata(path).unwrap();
    (
        found.mode(),
        found.mtime(),
        found.atime(),
        found.uid(),
        found.ctime_nsec(),
    )
}

fn foreign_files(here: &Here) {
    let file = foreign();
    let before = state(file.path());
    let code = format!(
        r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
path = {:?}
name = path.encode()
times = (ctypes.c_long * 4)(1, 0, 1, 0)
def raw(what, *args):
    r = libc.syscall(*args)
    print("BREACH" if r >= 0 else "refused", what, os.strerror(ctypes.get_errno()))
fd = os.open(path, os.O_PATH)
parent = os.open(os.path.dirname(path), os.O_PATH)
os.symlink(path, "sym")
ways = [(-100, name, 0), (parent, os.path.basename(name), 0), (-100, b"sym", 0), (fd, b"", 0x1000), (-100, b"../../../" + name, 0),
        (-100, b"/proc/self/fd/%d" % fd, 0), (-100, b"/proc/self/root" + name, 0), (-100, b"/proc/%d/root" % os.getppid() + name, 0)]
for at, way, flags in ways:
    raw("fchmodat", 268, at, way, 0)
    raw("fchmodat2", 452, at, way, 0, flags)
    raw("utimensat", 280, at, way, times, flags)
    raw("futimesat", 261, at, way, times)
    raw("fchownat", 260, at, way, os.getuid(), os.getgid(), flags)
    raw("setxattrat", 463, at, way, flags, b"user.x", times, 16)
    raw("file_setattr", 469, at, way, bytes(24), 24, flags)
    if at == -100:
        raw("chmod", 90, way, 0)
        raw("utime", 132, way, times)
        raw("utimes", 235, way, times)
        raw("chown", 92, way, os.getuid(), -1)
        raw("lchown", 94, way, os.getuid(), -1)
        raw("setxattr", 188, way, b"user.x", b"1", 1, 0)
        raw("lsetxattr", 189, way, b"user.x", b"1", 1, 0)
        raw("removexattr", 197, way, b"user.x")
        raw("truncate", 76, way, 0)
        if way != b"sym": raw("mknod", 133, way + b"2", 0o100600, 0)
raw("fchmod", 91, fd, 0)
raw("futimens", 280, fd, 0, times, 0)
raw("swapon", 167, name, 0)
raw("acct", 163, name)
raw("mount", 165, name, b"x", b"bind", 4096, 0)
print("done")
"#,
        file.path().display().to_string()
    );
    let done = run(&here.launcher, limits(), &python(&code), WALL);
    assert!(!done.stdout.contains("BREACH"), "{}", done.stdout);
    assert!(done.stdout.lines().count() > 90, "{done:?}");
    assert!(done.stdout.ends_with("done\n"), "{done:?}");
    assert_eq!(state(file.path()), before);
    assert_eq!(fs::read(file.path()).unwrap(), b"CANARY");
}

/// What is lent may belong to the server: a descriptor that reads it is enough
/// for the kernel to let its owner change it.
fn lent_files(here: &Here) {
    let file = foreign();
    let before = state(file.path());
    let mut spec = sandbox::Spec {
        mounts: crate::support::mounts(),
        limits: limits(),
    };
    spec.mounts.push(sandbox::Mount::same(file.path()));
    let running = crate::support::ready_as(&here.launcher, &spec);
    let code = format!(
        r#"
import ctypes, fcntl, os, struct
path = {:?}
fd = os.open(path, os.O_RDONLY)
print(os.read(fd, 9))
def ioctl(number): return lambda: fcntl.ioctl(fd, number, bytearray(64))
for call in (lambda: os.chmod(fd, 0), lambda: os.chmod(path, 0), lambda: os.utime(fd, (1, 1)), lambda: os.utime(path, (1, 1)), lambda: os.chown(fd, -1, -1),
             lambda: os.setxattr(fd, "user.x", b""), lambda: os.truncate(path, 0), lambda: os.ftruncate(fd, 0), lambda: os.open(path, os.O_WRONLY),
             lambda: os.open(f"/proc/self/fd/{{fd}}", os.O_WRONLY), lambda: os.unlink(path), lambda: os.link(path, "mine"), lambda: os.link(f"/proc/self/fd/{{fd}}", "mine"),
             lambda: os.chmod(f"/proc/self/fd/{{fd}}", 0), lambda: fcntl.fcntl(fd, 1024, 0),
             ioctl(0x40086602), ioctl(0x401c5820), ioctl(0x40806685), ioctl(0x40087602), ioctl(0x800c6613), ioctl(0x40049409), ioctl(0xc028660f)):
    try: print("BREACH", call())
    except OSError as e: print("refused")
"#,
        file.path().display().to_string()
    );
    let done = run_in(&running, &python(&code), WALL);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(
        lines,
        [&["b'CANARY'"][..], &["refused"; 22]].concat(),
        "{}",
        done.stderr
    );
    let after = state(file.path());
    assert_eq!((after.0, after.1, after.3), (before.0, before.1, before.3));
}

/// What programs do with their own files works, by whichever call.
fn own_files(here: &Here) {
    check(
        here,
        r##"
import ctypes, os, shutil, stat, tarfile, tempfile
libc = ctypes.CDLL(None, use_errno=True)
def mode(path): return oct(stat.S_IMODE(os.stat(path).st_mode))
open("a", "w").write("#!/bin/sh\necho ran\n")
os.chmod("a", 0o755); print(mode("a"), os.popen("./a").read().strip())
fd = os.open("a", os.O_RDONLY); os.chmod(fd, 0o640); print(mode("a"))
os.utime("a", (100, 200)); s = os.stat("a"); print(s.st_atime, s.st_mtime)
os.utime(fd, ns=(5_000_000_001, 7)); s = os.stat("a"); print(s.st_atime_ns, s.st_mtime_ns)
os.utime("a"); print(os.stat("a").st_mtime > 1e9)
times = (ctypes.c_long * 4)(11, 500000, 12, 0)
print(libc.syscall(132, b"a", times), os.stat("a").st_mtime, libc.syscall(235, b"a", times), os.stat("a").st_atime, libc.syscall(90, b"a", 0o600), mode("a"))
os.mkdir("d"); os.chmod("d", 0o700); print(mode("d"))
shutil.copy2("a", "d/copy"); print(mode("d/copy"), os.stat("d/copy").st_mtime)
d = os.open("d", os.O_RDONLY); os.chmod("copy", 0o444, dir_fd=d); print(mode("d/copy"))
os.chmod("d/copy", 0o644); open("d/copy", "a").write("more")
os.symlink("a", "l"); os.chmod("l", 0o611); print(mode("a"))
os.utime("l", (1, 2), follow_symlinks=False); print(os.lstat("l").st_mtime, os.stat("a").st_mtime)
with tarfile.open("t.tar", "w") as t: t.add("d")
with tarfile.open("t.tar") as t: t.extractall("out")
print(int(os.stat("out/d/copy").st_mtime) == int(os.stat("d/copy").st_mtime))
with tempfile.TemporaryFile() as f: os.chmod(f.fileno(), 0o611); print(oct(os.fstat(f.fileno()).st_mode & 0o777))
os.unlink("d/copy")
"##,
        &[
            "0o755 ran",
            "0o640",
            "100.0 200.0",
            "5000000001 7",
            "True",
            "0 500000.0 0 11.5 0 0o600",
            "0o700",
            "0o600 12.0",
            "0o444",
            "0o611",
            "2.0 12.0",
            "True",
            "0o611",
        ],
    );
}

/// The path in memory, the link on disk, the working directory and the descriptor
/// all change under init's hands.
fn races(here: &Here) {
    let file = foreign();
    let before = state(file.path());
    let code = format!(
        r#"
import ctypes, os, threading, time
libc = ctypes.CDLL(None, use_errno=True)
path = {:?}.encode()
os.mkdir("d"); name = os.path.basename(path); place = os.path.dirname(path)
for at in ("mine", b"d/" + name, name): open(at, "w").close()
os.symlink("mine", "l")
room = os.getcwd().encode()
own, foreign = b"mine".ljust(200, b"\0"), path.ljust(200, b"\0")
buffer = ctypes.create_string_buffer(own, 201)
fd = os.open("d", os.O_PATH)
over = False
def swap():
    n = 0
    while not over:
        n += 1
        ctypes.memmove(buffer, foreign if n % 2 else own, 200)
        os.symlink(path if n % 2 else "mine", "l2"); os.rename("l2", "l")
        os.chdir(place if n % 2 else room + b"/d"); os.chdir(room)
        there = os.open(place if n % 2 else room + b"/d", os.O_PATH); os.dup2(there, fd); os.close(there)
thread = threading.Thread(target=swap); thread.start()
done = [0, 0]
until = time.time() + 3
while time.time() < until:
    for call in ((90, buffer, 0o611), (90, room + b"/l", 0o611), (268, fd, name, 0o611), (90, name, 0o611), (280, -100, room + b"/l", (ctypes.c_long * 4)(5, 0, 5, 0), 0)):
        done[libc.syscall(*call) == 0] += 1
over = True; thread.join()
os.chdir(room)
print(done[0] > 100, done[1] > 100)
"#,
        file.path().display().to_string()
    );
    let done = run(&here.launcher, limits(), &python(&code), WALL);
    assert_eq!(done.stdout, "True True\n", "{done:?}");
    assert_eq!(state(file.path()), before);
}

fn odd_changes(here: &Here) {
    check(
        here,
        r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def raw(*args):
    r = libc.syscall(*args)
    print(os.strerror(ctypes.get_errno()) if r < 0 else r)
open("a", "w").close()
raw(90, b"missing", 0)
raw(90, b"", 0)
raw(90, b"a/b", 0)
raw(90, b"x" * 300, 0)
raw(90, b"x/" * 4000, 0)
raw(90, 0, 0)
raw(90, ctypes.c_ulong(0xffff800000000000), 0)
raw(91, 99, 0)
raw(91, -1, 0)
raw(91, os.pipe()[0], 0)
raw(268, 99, b"a", 0)
raw(268, os.open("a", os.O_RDONLY), b"b", 0)
raw(280, -100, b"a", ctypes.c_ulong(8), 0)
raw(280, -100, b"a", (ctypes.c_long * 4)(0, -1, 0, 0), 0)
raw(280, -100, b"a", (ctypes.c_long * 4)(0, (1 << 30) - 2, 5, 0), 0)
raw(235, b"a", (ctypes.c_long * 4)(0, 1000000, 0, 0))
raw(452, -100, b"a", 0o600, 0x40000000)
os.symlink("loop", "loop"); raw(90, b"loop", 0)
raw(452, -100, b"loop", 0o600, 0x100)
# Unreadable to init, so not to be had; its own.
libc.prctl(4, 0, 0, 0, 0); raw(90, b"a", 0o600)
libc.prctl(4, 1, 0, 0, 0); raw(90, b"a", 0o600)
"#,
        &[
            "No such file or directory",
            "No such file or directory",
            "Not a directory",
            "File name too long",
            "File name too long",
            "Bad address",
            "Bad address",
            "Bad file descriptor",
            "Bad file descriptor",
            "Operation not permitted",
            "Bad file descriptor",
            "Not a directory",
            "Bad address",
            "Invalid argument",
            "0",
            "Invalid argument",
            "Invalid argument",
            "Too many levels of symbolic links",
            "Operation not supported",
            "Operation not permitted",
            "0",
        ],
    );
}

/// Most processes and threads that a box had while `during` went on.
fn most_tasks(init: u32, during: impl Fn() -> bool) -> usize {
    let tasks = |pid: u32| {
        fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.flatten().count())
    };
    let mut most = 0;
    while during() {
        most = most.max(descendants(init).into_iter().map(tasks).sum());
    }
    most
}

fn process_limit(here: &Here) {
    let code = "import os\nprint(os.getppid(), flush=True)\nwhile True:\n  try: os.fork()\n  except OSError: pass";
    let (running, init) = told(here, code);
    let init = init.parse().unwrap();
    let started = Instant::now();
    let most = most_tasks(init, || started.elapsed() < secs(2));
    assert!((64..=128).contains(&most), "{most} at once");
    // The server, of the same uid, goes on as if nothing was.
    let began = Instant::now();
    for _ in 0..50 {
        std::thread::spawn(|| {}).join().unwrap();
    }
    let beside = run(&here.launcher, limits(), &python("print('beside')"), WALL);
    assert_eq!(beside.stdout, "beside\n", "{beside:?}");
    assert!(began.elapsed() < secs(3), "{:?}", began.elapsed());
    let killed = Instant::now();
    running.sandbox.kill().unwrap();
    let gone = matches!(
        crate::support::report(&running.sandbox),
        sandbox::Report::Gone(_)
    );
    assert!(gone && killed.elapsed() < secs(2), "{:?}", killed.elapsed());
}

/// Each parent ends at once, so that a list of pids is always old.
fn slow_bomb(here: &Here) {
    let code = r#"
import os, time
print(os.getppid(), flush=True)
for _ in range(3):
    if os.fork() == 0:
        while True:
            try:
                if os.fork(): os._exit(0)
            except OSError: pass
time.sleep(60)
"#;
    let (running, init) = told(here, code);
    let started = Instant::now();
    let most = most_tasks(init.parse().unwrap(), || started.elapsed() < secs(1));
    assert!(most <= 128, "{most} at once");
    running.sandbox.kill().unwrap();
    crate::support::report(&running.sandbox);
    let warden = here.launcher.warden_id();
    let left = descendants(warden)
        .into_iter()
        .any(|pid| name_of(pid) == "python3" && parent_of(pid) == warden);
    assert!(!left);
}

fn threads(here: &Here) {
    let code = r#"
import threading, time
made = []
try:
    while True:
        t = threading.Thread(target=time.sleep, args=(3,), daemon=True); t.start(); made.append(t)
except RuntimeError as e: print(len(made), e)
for t in made: t.join()
threading.Thread(target=print, args=("again",)).start()
"#;
    check(here, code, &["63 can't start new thread", "again"]);
}

/// What the kernel counts by uid: pipes, queued signals, descriptors on their
/// way, epoll watches, locked memory, keys, queues, inotify.
fn exhaustion(here: &Here) {
    let running = ready(&here.launcher, limits());
    let code = r#"
import array, ctypes, os, select, signal, socket, time
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(5): os.fork()
first = os.getpid()
def hold(make):
    kept = []
    try:
        while True: kept.append(make())
    except OSError as e: return kept
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
for _ in range(3000):
    try: libc.syscall(129, os.getpid(), 40, (ctypes.c_int * 32)(40, 0, -1))
    except OSError: break
timers = [libc.syscall(222, 0, 0, ctypes.byref(ctypes.c_int())) for _ in range(2000)]
a, b = socket.socketpair()
try: print("BREACH", a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [a.fileno()] * 100))]))
except OSError as e: os.write(1, b"sendmsg %d\n" % e.errno)
polls = [select.epoll() for _ in range(20)]
pipes = hold(os.pipe)
for p in polls:
    for r, w in pipes:
        for end in (r, w):
            try: p.register(end)
            except OSError: pass
libc.mlockall(3)
os.write(1, b"held\n")
time.sleep(60)
"#;
    running.sandbox.exec(&python(code)).unwrap();
    let Ok(Event::Started { stdout, .. }) = crate::support::event(&running.sandbox) else {
        panic!("not started")
    };
    let mut lines = std::io::BufReader::new(fs::File::from(stdout)).lines();
    let mut held = 0;
    while held < 32 {
        match lines.next().unwrap().unwrap().as_str() {
            "held" => held += 1,
            other => assert_eq!(other, "sendmsg 1"),
        }
    }
    // The server makes what it makes, and other boxes run.
    let pipes: Vec<_> = (0..64).map(|_| rustix::pipe::pipe().unwrap()).collect();
    let poll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    for (read, _) in &pipes {
        let data = rustix::event::epoll::EventData::new_u64(1);
        rustix::event::epoll::add(&poll, read, data, rustix::event::epoll::EventFlags::IN).unwrap();
    }
    for _ in 0..3 {
        let code = "import subprocess\nprint(subprocess.run(['/bin/echo', 'x'], capture_output=True).stdout, 'x' * 100000)";
        let done = run(&here.launcher, limits(), &python(code), WALL);
        assert!(
            done.stdout.starts_with("b'x\\n'") && done.stdout.len() > 100_000,
            "{done:?}"
        );
        assert_eq!(done.exit.unwrap().how, How::Exited(0));
    }
}

fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

fn send(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn with_argument(argument: &str) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(argument))
        })
        .collect()
}

fn settles(done: impl Fn() -> bool) -> bool {
    let until = Instant::now() + secs(5);
    while Instant::now() < until {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// A box with a program, its children and a directory to look for.
fn inhabited(launcher: &sandbox::Launcher, marker: &str) -> (Running, PathBuf, u32) {
    let running = ready(launcher, limits());
    let mut command = python(
        "import os, time\nprint(os.getcwd(), os.getppid(), flush=True)\nfor _ in range(3): os.fork()\nos.setsid() if os.getpgrp() != os.getpid() else 0\nwhile True: time.sleep(0.01)",
    );
    command.argv.push(marker.as_bytes().to_vec());
    running.sandbox.exec(&command).unwrap();
    let line = first_line(&running);
    let (directory, init) = line.split_once(' ').unwrap();
    assert!(settles(|| with_argument(marker).len() == 8));
    let room = Path::new(directory).parent().unwrap().to_owned();
    (running, room, init.parse().unwrap())
}

/// By somebody of the same uid, for instance its owner.
fn lost_closers(here: &Here) {
    let check = |name: &str, victims: fn(u32) -> Vec<u32>| {
        let marker = format!("lost-{name}-{}", std::process::id());
        let (running, room, init) = inhabited(&here.launcher, &marker);
        victims(init).into_iter().for_each(kill);
        std::thread::sleep(millis(100));
        running.sandbox.kill().ok();
        drop(running);
        assert!(settles(|| with_argument(&marker).is_empty()), "{name}");
        assert!(gone(&room), "{name}: {}", room.display());
    };
    check("closer", |init| vec![parent_of(init)]);
    check("init", |init| vec![init]);
    check("both", |init| vec![parent_of(init), init]);
    check("both the other way", |init| {
        let closer = parent_of(init);
        vec![init, closer]
    });
    assert!(here.launcher.is_alive());
}

/// Warden, closer and init at once, as by `pkill -9`: the next server ends what
/// is left, and nobody else.
fn swept(_: &Here) {
    let mut bystander = bystander();
    let marker = format!("swept-{}", std::process::id());
    let launcher = crate::launch().0;
    let (running, room, init) = inhabited(&launcher, &marker);
    let (closer, warden) = (parent_of(init), launcher.warden_id());
    // Each would end the box if it outlived the warden for a moment.
    for pid in [closer, init] {
        send(pid, Signal::STOP);
    }
    for pid in [warden, closer, init] {
        kill(pid);
    }
    assert!(settles(|| !launcher.is_alive()));
    assert!(!with_argument(&marker).is_empty() && room.exists());
    drop((running, launcher));
    let next = crate::launch().0;
    assert!(
        with_argument(&marker).is_empty(),
        "{:?}",
        with_argument(&marker)
    );
    assert!(!room.exists());
    drop(next);
    assert!(bystander.lives());
}

fn directories(here: &Here) {
    let own = |launcher: &sandbox::Launcher| {
        let shared = launcher.shared_directory().expect("this rung has one");
        shared.parent().unwrap().to_owned()
    };
    let mut taken = vec![own(&here.launcher)];
    let others: Vec<_> = (0..3).map(|_| crate::launch().0).collect();
    for other in &others {
        let done = run(other, limits(), &python("print('runs')"), WALL);
        assert_eq!(done.stdout, "runs\n", "{done:?}");
        assert!(!taken.contains(&own(other)), "{taken:?}");
        taken.push(own(other));
    }
    for directory in &taken {
        // Nobody else may reach what programs make, set-id files among it.
        assert_eq!(fs::metadata(directory).unwrap().mode() & 0o7777, 0o700);
    }
    drop(others);
    for directory in taken.iter().skip(1) {
        assert!(gone(directory), "{}", directory.display());
    }
}
