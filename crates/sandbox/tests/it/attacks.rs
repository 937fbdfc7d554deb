//! Attacks that must fail. Each prints a marker, so that an empty answer never
//! passes for a failed attack.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use sandbox::{How, Isolation};

use crate::support::{limits, python, run};
use crate::{Here, Test};

pub(crate) const EVERYWHERE: &[Test] = &[
    ("no_descriptor_leaks_in", descriptors),
    (
        "a_symlink_in_the_way_of_an_input_is_not_followed",
        planted_symlink,
    ),
];

/// What needs namespaces, or tells of them.
pub(crate) const IN_NAMESPACES: &[Test] = &[
    ("host_files_are_not_there", host_files),
    ("the_servers_secrets_are_not_there", secrets),
    ("the_hosts_network_is_out_of_reach", network),
    ("nobody_outside_can_be_signalled", signals),
    ("inits_memory_and_limits_are_out_of_reach", init),
    ("system_calls_are_refused_not_fatal", system_calls),
    ("the_next_tenant_sees_nothing_of_the_last", next_tenant),
    ("uid_and_groups_are_nobodys", identity),
    (
        "what_a_box_shares_with_the_host_cannot_be_watched",
        watching,
    ),
    ("socket_buffers_are_bounded", socket_buffers),
    ("no_namespace_is_left_to_take", namespaces_left),
];

const WALL: Duration = Duration::from_secs(20);

/// Runs Python that prints `name ok` for each attack that failed; anything
/// else it prints is a breach.
fn check(here: &Here, code: &str, expected: &[&str]) {
    let done = run(&here.launcher, limits(), &python(code), WALL);
    let found: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(found, expected, "stderr: {}", done.stderr);
    assert_eq!(done.exit.expect("it ended").how, How::Exited(0));
}

fn host_files(here: &Here) {
    let mut canary = tempfile::NamedTempFile::new().unwrap();
    canary.write_all(b"CANARY").unwrap();
    let code = format!(
        r#"
import os
for path in [{:?}, "/etc/shadow", "/root", "/home", "/var", "/sys", "/proc/1/environ",
             "/proc/1/root/etc", "/proc/1/cwd/etc", "/proc/kcore", "/dev/sda", "/dev/kmsg", "/dev/mem", "/dev/tty"]:
    try:
        text = os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(64)
        print("BREACH" if text else "empty", path)
    except OSError as e:
        print("ok", e.strerror if path == "/etc/shadow" else "")
for path in ["/x", "/usr/x", "/etc/x", "/proc/sys/kernel/hostname", "/dev/x", "/bin/x"]:
    try:
        open(path, "w").write("x"); print("BREACH wrote", path)
    except OSError as e:
        print("ok")
"#,
        canary.path().display().to_string(),
    );
    let done = run(&here.launcher, limits(), &python(&code), WALL);
    assert!(!done.stdout.contains("BREACH"), "{}", done.stdout);
    assert!(
        done.stdout.contains("ok No such file or directory"),
        "{}",
        done.stdout
    );
    assert_eq!(
        done.stdout.matches("ok").count() + done.stdout.matches("empty").count(),
        20,
        "{} {}",
        done.stdout,
        done.stderr
    );
}

fn secrets(here: &Here) {
    check(
        here,
        r#"
import os
print("env", sorted(os.environ))
print("seen", sorted(p for p in os.listdir("/proc") if p.isdigit()) == sorted({"1", str(os.getpid())}))
for name in ("environ", "maps", "mem", "fd", "exe", "cwd", "auxv"):
    try:
        path = "/proc/1/" + name
        data = os.listdir(path) if name == "fd" else os.readlink(path) if name in ("exe", "cwd") else open(path, "rb").read(1)
        print("BREACH", name, data)
    except OSError as e:
        print(name, e.strerror)
print(open("/proc/1/comm").read().strip())
"#,
        &[
            "env ['LANG', 'PATH']",
            "seen True",
            "environ Permission denied",
            "maps Permission denied",
            "mem Permission denied",
            "fd Permission denied",
            "exe Permission denied",
            "cwd Permission denied",
            "auxv Permission denied",
            "init",
        ],
    );
}

fn descriptors(here: &Here) {
    check(
        here,
        r#"
import os
fds = {}
for n in range(256):
    try: fds[n] = os.fstat(n).st_mode & 0o170000
    except OSError: pass
print(sorted(fds))
"#,
        &["[0, 1, 2]"],
    );
}

fn network(here: &Here) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix_path = tempfile::tempdir().unwrap();
    let _unix = UnixListener::bind(unix_path.path().join("s")).unwrap();
    let code = format!(
        r#"
import socket, time
start = time.time()
def attack(name, family, kind, address):
    s = socket.socket(family, kind)
    s.settimeout(3)
    try:
        s.connect(address)
        if kind == socket.SOCK_DGRAM: s.send(b"x"); s.recv(1)
        print("BREACH", name)
    except OSError as e:
        print(name, "ok")
attack("server", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", {port}))
attack("any", socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", {port}))
attack("six", socket.AF_INET6, socket.SOCK_STREAM, ("::1", {port}))
attack("world", socket.AF_INET, socket.SOCK_STREAM, ("1.1.1.1", 53))
attack("metadata", socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80))
attack("udp", socket.AF_INET, socket.SOCK_DGRAM, ("8.8.8.8", 53))
attack("unix", socket.AF_UNIX, socket.SOCK_STREAM, {unix:?})
attack("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\0/tmp/.X11-unix/X0")
for name, family, kind, proto in [("raw", 2, 3, 1), ("packet", 17, 3, 0), ("alg", 38, 5, 0), ("vsock", 40, 1, 0), ("netlink", 16, 3, 12)]:
    try:
        socket.socket(family, kind, proto); print("BREACH", name)
    except OSError as e:
        print(name, "ok")
try: socket.getaddrinfo("example.com", 80)
except OSError: print("dns ok")
print("fast", time.time() - start < 3)
a = socket.create_server(("127.0.0.1", 0))
b = socket.create_connection(a.getsockname())
print("loopback", b.getpeername() == a.getsockname())
"#,
        port = tcp.local_addr().unwrap().port(),
        unix = unix_path.path().join("s").display().to_string(),
    );
    check(
        here,
        &code,
        &[
            "server ok",
            "any ok",
            "six ok",
            "world ok",
            "metadata ok",
            "udp ok",
            "unix ok",
            "abstract ok",
            "raw ok",
            "packet ok",
            "alg ok",
            "vsock ok",
            "netlink ok",
            "dns ok",
            "fast True",
            "loopback True",
        ],
    );
    tcp.set_nonblocking(true).unwrap();
    assert!(
        tcp.accept().is_err(),
        "somebody reached the host's listener"
    );
}

fn signals(here: &Here) {
    let code = format!(
        r#"
import os, signal
def attack(name, pid, sig):
    try: os.kill(pid, sig); print(name, "sent")
    except OSError as e: print(name, e.strerror)
attack("server", {}, signal.SIGTERM)
attack("init", 1, signal.SIGKILL)
attack("init", 1, signal.SIGSTOP)
attack("init", 1, signal.SIGUSR1)
attack("all", -1, signal.SIGKILL)
attack("group", -1, 0)
print("alive")
"#,
        std::process::id(),
    );
    check(
        here,
        &code,
        &[
            "server No such process",
            "init sent",
            "init sent",
            "init sent",
            // Everybody else the program could signal: there is nobody.
            "all No such process",
            "group No such process",
            "alive",
        ],
    );
}

fn init(here: &Here) {
    check(
        here,
        r#"
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    r = libc.syscall(*args)
    print(name, "BREACH" if r >= 0 else os.strerror(ctypes.get_errno()))
call("ptrace", 101, 16, 1, 0, 0)
call("vm_readv", 310, 1, 0, 0, 0, 0, 0)
call("prlimit", 302, 1, 7, 0, 0)
call("affinity", 203, 1, 8, ctypes.byref(ctypes.c_ulong(1)))
call("scheduler", 144, 1, 5, 0)
call("priority", 141, 0, 1, 19)
call("priority of all", 141, 2, 0, 19)
call("pidfd_getfd", 438, libc.syscall(434, 1, 0), 3, 0)
call("kcmp", 312, 1, os.getpid(), 0, 0, 0)
"#,
        &[
            "ptrace Operation not permitted",
            "vm_readv Operation not permitted",
            "prlimit Operation not permitted",
            "affinity Operation not permitted",
            "scheduler Operation not permitted",
            "priority Operation not permitted",
            "priority of all Operation not permitted",
            "pidfd_getfd Operation not permitted",
            "kcmp Operation not permitted",
        ],
    );
}

fn system_calls(here: &Here) {
    // io_uring_setup, io_setup, clone3: absent. bpf, mount, unshare, setns, keyctl,
    // perf_event_open, userfaultfd, open_by_handle_at, inotify_init1,
    // mq_open, seccomp, syncfs: refused. 9999: unknown.
    check(
        here,
        r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for n in (425, 206, 435, 9999, 0x40000000 + 39, 321, 165, 272, 308, 250, 298, 323, 304, 294, 240, 317, 306):
    libc.syscall(n, 0, 0, 0, 0, 0, 0)
    print(n, os.strerror(ctypes.get_errno()))
"#,
        &[
            "425 Function not implemented",
            "206 Function not implemented",
            "435 Function not implemented",
            "9999 Function not implemented",
            "1073741863 Function not implemented",
            "321 Operation not permitted",
            "165 Operation not permitted",
            "272 Operation not permitted",
            "308 Operation not permitted",
            "250 Operation not permitted",
            "298 Operation not permitted",
            "323 Operation not permitted",
            "304 Operation not permitted",
            "294 Operation not permitted",
            "240 Operation not permitted",
            "317 Operation not permitted",
            "306 Operation not permitted",
        ],
    );
}

/// CVE-2024-28185: a link where the next stage's file will be written.
fn planted_symlink(here: &Here) {
    use crate::support::{event, ready, run_in};
    let running = ready(&here.launcher, limits());
    let plant = "import os\nos.symlink('/usr/bin/python3', 'next.py')\nos.symlink('/tmp', 'dir')\nprint('planted')";
    let done = run_in(&running, &python(plant), WALL);
    assert_eq!(done.stdout, "planted\n", "{}", done.stderr);
    for path in [&b"next.py"[..], b"dir/file", b"../escape", b"/tmp/absolute"] {
        let mut next = python("print('ran')");
        next.files[0].path = path.to_vec();
        running.sandbox.exec(&next).unwrap();
        let error = event(&running.sandbox).expect_err("a link or a way out was followed");
        assert_eq!(error.step, sandbox::Step::CopyIn, "{error:?}");
    }
}

fn next_tenant(here: &Here) {
    let leave = r#"
import os, socket, sys
for d in ("/workspace", "/tmp", "/dev/shm"):
    open(d + "/left", "w").write("CANARY")
a = socket.create_server(("127.0.0.1", 4567)); b = socket.create_connection(("127.0.0.1", 4567)); a.accept()[0].send(b"x" * 1000)
u = socket.socket(socket.AF_UNIX); u.bind("\0left")
if os.fork() == 0:
    os.setsid()
    while True: pass
print("left")
"#;
    let look = r#"
import os
print(sum(os.path.exists(d + "/left") for d in ("/workspace", "/tmp", "/dev/shm")))
print(len([p for p in os.listdir("/proc") if p.isdigit()]))
rx = [l.split()[1] for l in open("/proc/net/dev") if "lo:" in l]
print(rx, len(open("/proc/net/tcp").readlines()), "left" in open("/proc/net/unix").read())
"#;
    for _ in 0..4 {
        check(here, leave, &["left"]);
        check(here, look, &["0", "2", "['0'] 1 False"]);
    }
}

fn identity(here: &Here) {
    let own = here.isolation == Isolation::Full;
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

/// The lent files are the host's own: events on them tell of other tenants.
fn watching(here: &Here) {
    check(
        here,
        r#"
import ctypes, fcntl, os
for name, call in [("dnotify", lambda: fcntl.fcntl(os.open("/usr/bin", os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_ACCESS)),
                   ("lease", lambda: fcntl.fcntl(os.open("/workspace/main.py", os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)),
                   ("oom", lambda: open("/proc/self/oom_score_adj", "w").write("0"))]:
    try: call(); print("BREACH", name)
    except OSError as e: print(name, e.strerror)
print(int(open("/proc/self/oom_score_adj").read()) >= 500)
"#,
        &[
            "dnotify Operation not permitted",
            "lease Operation not permitted",
            "oom Permission denied",
            "True",
        ],
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

fn namespaces_left(here: &Here) {
    check(
        here,
        r#"
import os
for name in ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup"):
    print(open(f"/proc/sys/user/max_{name}_namespaces").read().strip(), end=" ")
print(open("/proc/sys/user/max_inotify_instances").read().strip())
"#,
        &["0 0 0 0 0 0 0 0"],
    );
}
