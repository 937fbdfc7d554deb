//! The rung without namespaces: what a program can name, it cannot touch.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox::How;

use crate::support::{MIB, limits, millis, python, ready, run, run_in, secs};
use crate::{Here, Test};

pub(crate) const TESTS: &[Test] = &[
    ("no_socket_with_an_address", sockets),
    ("home_and_temporary_files_are_the_boxs_own", own_directories),
    ("what_is_written_is_bounded", disk),
    ("nothing_is_left_of_what_a_program_hid", hidden),
    ("a_range_of_uids_has_one_server", one_server),
    ("a_cut_run_can_still_be_read", cut),
    ("the_shared_directory_is_lent_in_place", shared),
    (
        "a_mount_elsewhere_is_linked_beside_the_workspace",
        elsewhere,
    ),
];

const WALL: Duration = Duration::from_secs(20);

fn check(here: &Here, code: &str, expected: &[&str]) {
    let done = run(&here.launcher, limits(), &python(code), WALL);
    let found: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(found, expected, "stderr: {}", done.stderr);
    assert_eq!(done.exit.expect("it ended").how, How::Exited(0));
}

fn sockets(here: &Here) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let place = |name: &str| directory.path().join(name);
    let _tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let _stream = UnixListener::bind(place("stream")).unwrap();
    let datagrams = UnixDatagram::bind(place("datagrams")).unwrap();
    for name in ["stream", "datagrams"] {
        fs::set_permissions(place(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let code = format!(
        r#"
import asyncio, os, socket, subprocess
for name, make in [("tcp", lambda: socket.socket()), ("udp", lambda: socket.socket(2, 2)), ("six", lambda: socket.socket(10)),
                   ("unix", lambda: socket.socket(1)), ("raw", lambda: socket.socket(2, 3, 1)), ("netlink", lambda: socket.socket(16, 3, 0)),
                   ("alg", lambda: socket.socket(38, 5)), ("vsock", lambda: socket.socket(40, 1)),
                   ("datagrams", lambda: socket.socketpair(1, 2)), ("raw pair", lambda: socket.socketpair(1, 3))]:
    try: print("BREACH", name, make())
    except OSError as e: print(name, e.strerror)
for kind in (1, 5):
    a, b = socket.socketpair(1, kind)
    for name, call in [("connect", lambda: a.connect({stream:?})), ("bind", lambda: a.bind("mine")), ("listen", lambda: a.listen())]:
        try: print("BREACH", name, call())
        except OSError as e: print(name, e.strerror)
    try: a.sendto(b"x", {datagrams:?})
    except OSError: pass
    a.send(b"through")
    while (got := b.recv(100)) == b"x": pass
    print(got[-7:])
async def main():
    p = await asyncio.create_subprocess_exec("/bin/echo", "child", stdout=subprocess.PIPE)
    print((await p.communicate())[0])
asyncio.run(main())
"#,
        stream = place("stream").display().to_string(),
        datagrams = place("datagrams").display().to_string(),
    );
    let refused = |name: &str| format!("{name} Operation not permitted");
    let mut expected: Vec<String> = [
        "tcp",
        "udp",
        "six",
        "unix",
        "raw",
        "netlink",
        "alg",
        "vsock",
        "datagrams",
        "raw pair",
    ]
    .map(refused)
    .to_vec();
    for _ in 0..2 {
        expected.extend(["connect", "bind", "listen"].map(refused));
        expected.push("b'through'".to_owned());
    }
    expected.push("b'child\\n'".to_owned());
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(here, &code, &expected);
    datagrams.set_nonblocking(true).unwrap();
    assert!(datagrams.recv(&mut [0; 8]).is_err(), "the host heard a box");
}

fn own_directories(here: &Here) {
    let mut command = python(
        r#"
import os, tempfile
home = os.environ["HOME"]
print(os.environ["HERE"] == os.getcwd(), home == tempfile.gettempdir(), home != "/tmp", os.environ["LIST"])
with tempfile.NamedTemporaryFile() as f: f.write(b"x"); print(f.name.startswith(home))
open(os.path.expanduser("~/settings"), "w").write("x"); print(os.listdir(home))
"#,
    );
    for variable in ["HOME=/tmp", "HERE=/workspace", "LIST=/tmp:/workspace"] {
        command.env.push(variable.as_bytes().to_vec());
    }
    let done = run(&here.launcher, limits(), &command, WALL);
    assert_eq!(
        done.stdout, "True True True /tmp:/workspace\nTrue\n['settings']\n",
        "{}",
        done.stderr
    );
}

fn disk(here: &Here) {
    let check = |code: &str| {
        let done = run(&here.launcher, limits(), &python(code), secs(20));
        assert_eq!(done.stdout, "writing\n", "{done:?}");
        let exit = done.exit.expect("it was killed, not timed out");
        assert!(exit.over_disk && exit.how == How::Signalled(9), "{exit:?}");
    };
    check(
        "import time\nprint('writing')\nfor n in range(100):\n  open(f'{n}', 'wb').write(b'x' * (1 << 20)); time.sleep(0.02)\ntime.sleep(15)\nprint('BREACH')",
    );
    check(
        "import os, time\nprint('writing')\nfor n in range(3000): os.mkdir(f'{n}')\ntime.sleep(15)\nprint('BREACH')",
    );
    // One file is bounded by the kernel, and that is an ordinary error.
    let code = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nn = 0\ntry:\n  with open('one', 'wb') as f:\n    while True: n += f.write(b'x' * (1 << 20))\nexcept OSError as e: print(e.strerror)";
    let small = sandbox::Limits {
        workspace: 4 * MIB,
        ..limits()
    };
    let done = run(&here.launcher, small, &python(code), WALL);
    assert_eq!(done.stdout, "File too large\n", "{done:?}");
}

/// What a server of this rung has below its directory.
fn rooms(here: &Here) -> Vec<PathBuf> {
    let shared = here.launcher.shared_directory().expect("this rung has one");
    let base = shared.parent().unwrap();
    fs::read_dir(base)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != shared)
        .collect()
}

fn gone(path: &Path) -> bool {
    for _ in 0..300 {
        if !path.exists() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn hidden(here: &Here) {
    let code = r#"
import os
print(os.getcwd(), flush=True)
os.mkdir("locked"); open("locked/file", "w").close(); os.mkdir("locked/more"); os.chmod("locked/more", 0); os.chmod("locked", 0)
for n in range(1000):
    os.mkdir("deeper"); os.chdir("deeper")
os.symlink("/", "root"); os.mkfifo("fifo")
if os.fork() == 0:
    os.setsid()
    while True: pass
"#;
    let mut before = Vec::new();
    for _ in 0..3 {
        let done = run(&here.launcher, limits(), &python(code), WALL);
        let directory = PathBuf::from(done.stdout.trim());
        assert!(directory.is_absolute(), "{done:?}");
        assert!(gone(directory.parent().unwrap()), "{}", directory.display());
        before.push(directory);
    }
    assert!(rooms(here).len() < 64, "{:?}", rooms(here));
}

/// Also where servers see neither each other's `/tmp` nor network.
fn one_server(here: &Here) {
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
    let marker = |directory: &Path| {
        let name = directory.file_name().unwrap().to_str().unwrap();
        let base = u32::from_str_radix(name.rsplit('-').next().unwrap(), 16).unwrap();
        with_uid(base + 3)
    };
    assert!(taken.iter().all(|directory| marker(directory) == 1));
    // Whoever comes second looks no further than the first one's lock.
    for directory in &taken {
        let name = directory.file_name().unwrap();
        let places =
            ["/tmp", "/var/tmp", "/run", "/dev/shm"].map(|place| Path::new(place).join(name));
        assert_eq!(
            places.iter().filter(|place| place.exists()).count(),
            1,
            "{places:?}"
        );
    }
    drop(others);
    for directory in taken.iter().skip(1) {
        assert!(
            gone(directory) && marker(directory) == 0,
            "{}",
            directory.display()
        );
    }
}

fn with_uid(uid: u32) -> usize {
    let line = format!("Uid:\t{uid}\t");
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            fs::read(entry.path().join("status"))
                .is_ok_and(|status| String::from_utf8_lossy(&status).contains(&line))
        })
        .count()
}

fn cut(here: &Here) {
    let running = ready(&here.launcher, limits());
    let done = run_in(
        &running,
        &python("open('kept', 'w').write('result')\nprint('up')\nwhile True: pass"),
        millis(500),
    );
    assert!(done.exit.is_none() && done.stdout == "up\n", "{done:?}");
    let flags = rustix::fs::OFlags::RDONLY;
    let file = rustix::fs::openat(&running.workspace, "kept", flags, rustix::fs::Mode::empty());
    assert_eq!(
        std::io::read_to_string(fs::File::from(file.unwrap())).unwrap(),
        "result"
    );
}

fn shared(here: &Here) {
    let directory = here.launcher.shared_directory().unwrap();
    let file = directory.join("lent-in-a-test.txt");
    fs::write(&file, "lent").unwrap();
    let mut spec = crate::support::spec(limits());
    spec.mounts.push(sandbox::Mount::same(&file));
    let running = crate::support::ready_as(&here.launcher, &spec);
    let code = format!(
        "import os\npath = {:?}\nprint(open(path).read())\nfor call in (lambda: open(path, 'w'), lambda: os.listdir(os.path.dirname(path))):\n  try: print('BREACH', call())\n  except OSError as e: print(e.strerror)",
        file.display().to_string()
    );
    let done = run_in(&running, &python(&code), WALL);
    fs::remove_file(file).unwrap();
    assert_eq!(
        done.stdout, "lent\nPermission denied\nPermission denied\n",
        "{}",
        done.stderr
    );
}

fn elsewhere(here: &Here) {
    let mut spec = crate::support::spec(limits());
    for target in ["/lent", "/opt/lent/deeper"] {
        spec.mounts.push(sandbox::Mount {
            source: "/usr/lib".into(),
            target: target.into(),
        });
    }
    let running = crate::support::ready_as(&here.launcher, &spec);
    let code = "import os\nfor path in ('../lent', '../opt/lent/deeper'): print(os.path.realpath(path), len(os.listdir(path)) > 0)\nfor call in (lambda: os.unlink('../lent'), lambda: os.rename('../lent', 'mine'), lambda: os.symlink('x', '../y')):\n  try: print('BREACH', call())\n  except OSError as e: print(e.errno in (1, 13, 18))\nprint(os.getcwd())";
    let done = run_in(&running, &python(code), WALL);
    let lines: Vec<&str> = done.stdout.lines().collect();
    let [lent @ .., directory] = &lines[..] else {
        panic!("{done:?}")
    };
    let found = ["/usr/lib True"; 2];
    assert_eq!(lent, [&found[..], &["True"; 3]].concat(), "{done:?}");
    let room = Path::new(directory).parent().unwrap();
    drop(running);
    assert!(gone(room), "{}", room.display());
}
