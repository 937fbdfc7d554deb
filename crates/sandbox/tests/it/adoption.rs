//! Programs that a zygote forks into boxes: what they may, what they leave, and what
//! becomes of a box when none comes.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox::{
    Arrival, Command, Event, How, LateInput, Mount, Report, Sandbox, Spec, Word, Zygote,
};

use crate::support::{command, event, limits, report, spec, wait};
use crate::{Here, Test};

pub(crate) const IN_NAMESPACES: &[Test] = &[
    (
        "a_forked_program_has_the_rights_of_an_executed_one",
        has_the_rights,
    ),
    ("a_forked_program_ends_as_any_program", ends_as_any_program),
    (
        "a_forked_program_leaves_nobody_behind",
        leaves_nobody_behind,
    ),
    (
        "where_none_comes_the_program_is_executed",
        is_executed_where_none_comes,
    ),
    ("a_zygote_has_no_rights", has_no_rights_itself),
    (
        "a_zygote_outlives_boxes_that_die_under_it",
        outlives_dying_boxes,
    ),
    ("a_forked_program_meets_nobody_of_its_birth", meets_nobody),
];

/// What a copy of the zygote runs: what its command line says.
const RUNS: &str = "exec(compile(argv[2], 'main.py', 'exec'))";

/// A zygote, and where its files lie.
struct Warm {
    zygote: Zygote,
    place: PathBuf,
}

impl Drop for Warm {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.place).unwrap();
    }
}

impl Warm {
    fn start(here: &Here) -> Self {
        let place = tempfile::tempdir().unwrap().keep();
        let adopter = sandbox::ADOPTER.expect("this processor has one");
        let lent = |name: &str, content: &[u8]| {
            let source = place.join(name);
            fs::write(&source, content).unwrap();
            let target = Path::new("/run").join(name);
            Mount { source, target }
        };
        let mut spec = spec(limits());
        spec.mounts.push(lent("adopt.so", adopter));
        spec.mounts
            .push(lent("zygote.py", include_bytes!("zygote.py")));
        // Its uid is not this one.
        make_public(&place);
        let program = command(&["/usr/bin/python3", "-S", "-B", "/run/zygote.py", RUNS]);
        let zygote = here.launcher.zygote(&spec, &program).unwrap();
        let warm = Self { zygote, place };
        assert!(wait(warm.zygote.words(), Duration::from_secs(20)));
        assert_eq!(warm.zygote.word().unwrap(), Some(Word::Serves));
        warm
    }

    /// Makes a box and asks for a program in it.
    fn enter(&self, here: &Here) -> (Sandbox, Arrival) {
        let (sandbox, entrance) = enterable(here);
        let arrival = self.zygote.fork(entrance, &limits()).unwrap();
        (sandbox, arrival)
    }

    fn run(&self, here: &Here, code: &str) -> Ended {
        let (sandbox, arrival) = self.enter(here);
        run_in(&sandbox, Some(arrival), code)
    }
}

fn make_public(place: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
}

fn enterable(here: &Here) -> (Sandbox, sandbox::Entrance) {
    let spec = Spec {
        adopts: true,
        ..spec(limits())
    };
    let sandbox = here.launcher.create(&spec).unwrap();
    match event(&sandbox) {
        Ok(Event::Ready {
            entrance: Some(entrance),
            ..
        }) => (sandbox, entrance),
        other => panic!("no way in: {other:?} {:?}", sandbox.report()),
    }
}

#[derive(Debug)]
struct Ended {
    how: How,
    stdout: String,
    stderr: String,
}

/// Begins a program in a box: one that comes, or an executed one. The box may be gone.
fn begin(sandbox: &Sandbox, arrival: Option<Arrival>, code: &str) {
    let program = program(code);
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let stdin = LateInput::new().unwrap();
    sandbox
        .exec_waiting(&program, &stdin, theirs.as_fd(), arrival)
        .unwrap();
}

/// Runs a program in a box.
fn run_in(sandbox: &Sandbox, arrival: Option<Arrival>, code: &str) -> Ended {
    begin(sandbox, arrival, code);
    let (stdout, stderr) = match event(sandbox) {
        Ok(Event::Started { stdout, stderr }) => (stdout, stderr),
        other => panic!("not started: {other:?}: {code}"),
    };
    let read = |fd: OwnedFd| {
        let mut text = String::new();
        fs::File::from(fd).read_to_string(&mut text).unwrap();
        text
    };
    let (stdout, stderr) = (read(stdout), read(stderr));
    let Ok(Event::Exited(exit)) = event(sandbox) else {
        panic!("not ended");
    };
    Ended {
        how: exit.how,
        stdout,
        stderr,
    }
}

fn program(code: &str) -> Command {
    command(&["/usr/bin/python3", "-c", code])
}

fn executed(here: &Here, code: &str) -> Ended {
    let (sandbox, _) = enterable(here);
    run_in(&sandbox, None, code)
}

/// What the kernel says of a program's rights is the same both ways.
fn has_the_rights(here: &Here) {
    let shown = "import os\n\
        for line in open('/proc/self/status'):\n\
        \x20   if line.split(':')[0] in ('PPid', 'TracerPid', 'Uid', 'Gid', 'Groups', 'Umask', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters', 'SigBlk', 'Threads', 'NSsid'):\n\
        \x20       print(line, end='')\n\
        print(open('/proc/self/limits').read())\n\
        print(open('/proc/self/cgroup').read() if os.path.exists('/proc/self/cgroup') else '')\n\
        print(sorted((name, os.readlink('/proc/self/ns/' + name)[:4]) for name in os.listdir('/proc/self/ns')))\n\
        print(sorted(set(os.listdir('/proc/self/fd')) - {'3'}), os.getcwd(), os.nice(0), os.getsid(0) == os.getpid(), os.getgroups())\n\
        print(os.readlink('/proc/self/root'), os.readlink('/proc/self/exe'), open('/proc/self/exe', 'rb').read(4))\n\
        print(open('/proc/self/oom_score_adj').read())";
    let warm = Warm::start(here);
    let (adopted, executed) = (warm.run(here, shown), executed(here, shown));
    assert_eq!(adopted.stderr, "");
    assert_eq!(adopted.how, How::Exited(0));
    // A process more has been in the box.
    let alike = |text: &str| text.replace("NSsid:\t3", "NSsid:\t2");
    assert_eq!(alike(&adopted.stdout), alike(&executed.stdout));
    let namespaces = "import os\nprint([os.stat('/proc/self/ns/' + name).st_ino == os.stat('/proc/1/ns/' + name).st_ino if os.access('/proc/1/ns/' + name, os.R_OK) else None for name in ('mnt',)])\nprint(os.listdir('/'))";
    assert!(warm.run(here, namespaces).stdout.contains("workspace"));
}

/// However it ends, its box ends with it, and the zygote lives on.
fn ends_as_any_program(here: &Here) {
    let warm = Warm::start(here);
    for (code, expected) in [
        ("import os; os._exit(7)", How::Exited(7)),
        ("import os; os.kill(os.getpid(), 11)", How::Signalled(11)),
        ("import os; os.abort()", How::Signalled(6)),
        ("print('hello')", How::Exited(0)),
        ("import sys; sys.exit(3)", How::Exited(3)),
        ("import ctypes; ctypes.string_at(0)", How::Signalled(11)),
    ] {
        let ended = warm.run(here, code);
        assert_eq!(ended.how, expected, "{code}: {ended:?}");
    }
    let much = "x = bytearray(4 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1";
    let ended = warm.run(here, much);
    assert_ne!(ended.how, How::Exited(0), "{ended:?}");
    assert_eq!(warm.run(here, "print(1)").stdout, "1\n");
}

/// Init's kill reaches those whose Landlock domain is not its own.
fn leaves_nobody_behind(here: &Here) {
    let warm = Warm::start(here);
    // A daemon that holds standard output: reading ends when it is dead.
    let daemon = "import os, time\n\
        if os.fork() == 0:\n\
        \x20   os.setsid()\n\
        \x20   if os.fork() == 0:\n\
        \x20       time.sleep(60)\n\
        \x20   os._exit(0)\n\
        os.wait()\n\
        print('left')";
    let (sandbox, arrival) = warm.enter(here);
    let began = std::time::Instant::now();
    let ended = run_in(&sandbox, Some(arrival), daemon);
    assert_eq!(
        (ended.how, ended.stdout.as_str()),
        (How::Exited(0), "left\n")
    );
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// Where none comes the program is executed in the same box.
fn is_executed_where_none_comes(here: &Here) {
    let warm = Warm::start(here);
    let (sandbox, entrance) = enterable(here);
    let Warm { zygote, .. } = &warm;
    // An order that it takes, for a box whose init has gone.
    let (other, elsewhere) = enterable(here);
    other.kill().unwrap();
    while !matches!(report(&other), Report::Gone(_)) {}
    let gone = zygote.fork(elsewhere, &limits()).unwrap();
    let ended = run_in(&sandbox, Some(gone), "print('executed')");
    assert_eq!(ended.stdout, "executed\n");
    // The zygote is as before.
    let (next, _) = enterable(here);
    drop(next);
    let arrival = zygote.fork(entrance, &limits());
    drop(arrival);
    assert_eq!(warm.run(here, "print('forked')").stdout, "forked\n");
}

/// The zygote has nothing that it does not need, as the host sees it.
fn has_no_rights_itself(here: &Here) {
    let _warm = Warm::start(here);
    let is_zygote = |path: &PathBuf| {
        fs::read(path.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("/run/zygote.py"))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found: Vec<PathBuf> = processes
        .map(|entry| entry.path())
        .filter(is_zygote)
        .collect();
    assert!(!found.is_empty());
    for path in found {
        // Another test's may end meanwhile.
        let Ok(status) = fs::read_to_string(path.join("status")) else {
            continue;
        };
        for line in [
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Threads:\t1",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
    }
}

/// Boxes that are killed at any moment of an adoption: the zygote serves on, and nothing
/// of them is left.
fn outlives_dying_boxes(here: &Here) {
    let warm = Warm::start(here);
    for round in 0..60u64 {
        let (sandbox, arrival) = warm.enter(here);
        // From before the order is read to after the program has begun.
        std::thread::sleep(Duration::from_micros(round * 60));
        if round % 3 == 0 {
            drop(arrival);
        } else {
            begin(&sandbox, Some(arrival), "import time; time.sleep(60)");
        }
        sandbox.kill().unwrap();
        while !matches!(report(&sandbox), Report::Gone(_)) {}
    }
    assert_eq!(warm.run(here, "print('alive')").stdout, "alive\n");
}

/// A program finds its init and itself, nothing to signal, trace or read on the way by
/// which it came, and no descriptor of it.
fn meets_nobody(here: &Here) {
    let warm = Warm::start(here);
    let code = "import ctypes, os, signal, sys\n\
        print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()) == [1, os.getpid()])\n\
        def refused(what, *args):\n\
        \x20   try: what(*args)\n\
        \x20   except OSError as error: return True\n\
        \x20   return False\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        print([pid for pid in range(2, 400) if pid != os.getpid() and not refused(os.kill, pid, 0)])\n\
        print(refused(os.kill, 1, signal.SIGKILL) or os.path.exists('/proc/1/status'))\n\
        print([libc.ptrace(16, pid, 0, 0) for pid in (1, 2)])\n\
        print([refused(os.readlink, f'/proc/1/{name}') for name in ('exe', 'root', 'cwd', 'ns/mnt')])\n\
        print(refused(open, '/proc/1/mem', 'rb'), refused(open, '/proc/2/mem', 'rb'))\n\
        print(sorted(set(os.listdir('/proc/self/fd')) - {'0', '1', '2', '62'}))\n\
        print([libc.setns(fd, 0) for fd in range(0, 64)] == [-1] * 64)\n\
        print(os.getppid())";
    let ended = warm.run(here, code);
    assert_eq!(ended.stderr, "");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [
        alone,
        named,
        init,
        traced,
        links,
        memory,
        descriptors,
        entered,
        parent,
    ] = lines[..]
    else {
        panic!("{ended:?}");
    };
    assert_eq!((alone, named, init), ("True", "[]", "True"), "{ended:?}");
    assert_eq!(traced, "[-1, -1]", "{ended:?}");
    assert_eq!(links, "[True, True, True, True]", "{ended:?}");
    assert_eq!(memory, "True True", "{ended:?}");
    // The directory itself, while it is listed.
    assert_eq!(descriptors, "['3']", "{ended:?}");
    assert_eq!((entered, parent), ("True", "1"), "{ended:?}");
}
