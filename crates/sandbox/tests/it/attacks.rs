//! What a box is, seen from inside; what it must not get is in `tests/escape`.

use std::time::Duration;

use sandbox::{How, Isolation};

use crate::support::{limits, python, run};
use crate::{Here, Test};

/// What needs namespaces, or tells of them.
pub(crate) const IN_NAMESPACES: &[Test] = &[
    ("uid_and_groups_are_nobodys", identity),
    ("socket_buffers_are_bounded", socket_buffers),
    ("the_workspace_has_another_name", alias),
];

const WALL: Duration = Duration::from_secs(20);

fn check(here: &Here, code: &str, expected: &[&str]) {
    let done = run(&here.launcher, limits(), &python(code), WALL);
    let found: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(found, expected, "stderr: {}", done.stderr);
    assert_eq!(done.exit.expect("it ended").how, How::Exited(0));
}

fn identity(here: &Here) {
    // Root alone has uids to give; one to whom a cgroup was delegated has not.
    let own = here.isolation == Isolation::Full && rustix::process::geteuid().is_root();
    let code = r#"
import os
print(os.getuid(), os.getgid(), os.geteuid())
uid_map = open("/proc/self/uid_map").read().split()
print(uid_map[0], uid_map[2], int(uid_map[1]) >= 65536)
status = dict(l.rstrip("\n").split(":\t", 1) for l in open("/proc/self/status") if ":\t" in l)
print(status["CapEff"], status["CapBnd"], status["NoNewPrivs"], status["Seccomp"])
for f in (os.setuid, os.setgid):
    try: f(0); print("BREACH")
    except OSError as e: print(e.strerror)
"#;
    check(
        here,
        code,
        &[
            "1000 1000 1000",
            if own { "1000 1 True" } else { "1000 1 False" },
            "0000000000000000 0000000000000000 1 2",
            "Invalid argument",
            "Invalid argument",
        ],
    );
}

fn alias(here: &Here) {
    let code = r#"
import os
os.makedirs("/mnt/data/deep", exist_ok=True)
open("/mnt/data/deep/a.txt", "w").write("a")
print(open("deep/a.txt").read(), os.path.realpath("/mnt/data"), os.getcwd())
for act in (lambda: os.mkdir("/mnt/more"), lambda: os.unlink("/mnt/data"), lambda: os.symlink("/", "/mnt/x")):
    try: act(); print("BREACH")
    except OSError as error: print(error.strerror)
"#;
    let fixed = "Read-only file system";
    check(
        here,
        code,
        &["a /workspace /workspace", fixed, fixed, fixed],
    );
}

fn socket_buffers(here: &Here) {
    let code = r#"
import socket
held, kept = 0, []
try:
    a = socket.create_server(("127.0.0.1", 0), backlog=64)
    while held < 1 << 30:
        b = socket.create_connection(a.getsockname()); c, _ = a.accept()
        kept += [b, c]
        for s in (b, c):
            s.setblocking(False)
            try:
                while True: held += s.send(b"x" * 65536)
            except BlockingIOError: pass
except OSError: pass
print(held > 1 << 16, held < 200 << 20)
"#;
    check(here, code, &["True True"]);
}
