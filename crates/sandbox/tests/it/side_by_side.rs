//! Several programs in one box: their ends, channels, signals and stops.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sandbox::{CHANNEL, Command, Event, Exit, How, Isolation, Step, Work};

use crate::support::{
    MIB, Running, command, event, limits, millis, python, ready, report, run_in, secs, wait,
};
use crate::{Here, Test};

pub(crate) const EVERYWHERE: &[Test] = &[
    ("one_of_two_programs_goes_on_after_the_other", apart),
    ("a_channel_reaches_its_program_alone", channel),
    ("a_signal_reaches_a_program_and_its_children", signal),
    ("stopped_programs_do_nothing_until_they_go_on", stop),
    (
        "a_program_that_cannot_start_disturbs_no_other",
        not_launched,
    ),
    ("standard_input_can_be_a_pipe", piped),
    (
        "files_are_written_beside_programs_and_through_no_link",
        write,
    ),
    ("too_much_memory_ends_programs_and_not_the_box", memory),
    ("a_stop_taken_back_at_once_leaves_the_watch_on", taken_back),
    ("what_its_parent_left_becomes_a_program", adopted),
    ("what_leads_no_group_becomes_none", not_adopted),
    ("descriptors_on_their_way_keep_nobody_waiting", in_flight),
    (
        "what_wakes_itself_is_watched_though_it_is_stopped",
        wakes_itself,
    ),
    ("a_child_that_others_stop_becomes_its_program", held_up),
    ("whatever_number_a_box_has_its_socket_at", many_boxes),
];

fn named(name: &str, code: &str) -> Command {
    let mut command = python(code);
    command.argv[2] = name.as_bytes().to_vec();
    command.files[0].path = name.as_bytes().to_vec();
    command
}

/// A program that runs beside others.
struct Launched {
    number: u32,
    stdout: BufReader<std::fs::File>,
}

impl Launched {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }
}

fn launch(running: &Running, number: u32, command: &Command) -> Launched {
    running.sandbox.launch(number, command, None, None).unwrap();
    launched(running, number)
}

fn launched(running: &Running, number: u32) -> Launched {
    match event(&running.sandbox) {
        Ok(Event::Launched {
            program, stdout, ..
        }) => {
            assert_eq!(program, number);
            Launched {
                number,
                stdout: BufReader::new(stdout.into()),
            }
        }
        other => panic!("not launched: {other:?}"),
    }
}

fn ended(running: &Running, number: u32) -> Exit {
    match event(&running.sandbox) {
        Ok(Event::Ended { program, exit }) => {
            assert_eq!(program, number);
            exit
        }
        other => panic!("not ended: {other:?}"),
    }
}

fn apart(here: &Here) {
    let running = ready(&here.launcher, limits());
    let long = "import sys\nopen('shared', 'w').write('of both')\nprint('up')\nsys.stdin.read()";
    let (theirs, mut ours) = std::io::pipe().unwrap();
    let stdin = theirs.as_fd();
    let command = named("long.py", long);
    running
        .sandbox
        .launch(1, &command, Some(stdin), None)
        .unwrap();
    let mut first = launched(&running, 1);
    drop(theirs);
    assert_eq!(first.line(), "up\n");
    let mut second = launch(&running, 2, &named("b.py", "print(open('shared').read())"));
    assert_eq!(second.line(), "of both\n");
    assert_eq!(ended(&running, 2).how, How::Exited(0));
    // A program that ran alone would have ended it.
    ours.write_all(b"x").unwrap();
    drop(ours);
    assert_eq!(ended(&running, 1).how, How::Exited(0));
    // And one can still have the box to itself.
    let done = run_in(&running, &python("print(open('shared').read())"), secs(20));
    assert_eq!(done.stdout, "of both\n");
}

fn channel(here: &Here) {
    let running = ready(&here.launcher, limits());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let code = format!(
        "import os\nkept = []\nfor fd in range(1024):\n  try: os.fstat(fd); kept.append(fd)\n  except OSError: pass\nprint(kept)\nos.write({CHANNEL}, os.read({CHANNEL}, 100).upper())"
    );
    let channel = Some(theirs.as_fd());
    running
        .sandbox
        .launch(7, &python(&code), None, channel)
        .unwrap();
    let mut program = launched(&running, 7);
    drop(theirs);
    assert_eq!(program.line(), format!("[0, 1, 2, {CHANNEL}]\n"));
    (&ours).write_all(b"cell").unwrap();
    let mut answer = String::new();
    (&ours).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "CELL");
    assert_eq!(ended(&running, 7).how, How::Exited(0));
    // The next one has none.
    let mut other = launch(&running, 8, &python(&code));
    assert_eq!(other.line(), "[0, 1, 2]\n");
    assert_eq!(ended(&running, 8).how, How::Exited(1));
}

fn signal(here: &Here) {
    let running = ready(&here.launcher, limits());
    let code = "import os, subprocess, time\nchild = subprocess.Popen(['/bin/sleep', '60'])\ntry:\n  print('up')\n  while True: time.sleep(60)\nexcept KeyboardInterrupt:\n  print(child.wait())";
    let mut first = launch(&running, 1, &named("a.py", code));
    let mut second = launch(&running, 2, &named("b.py", code));
    assert_eq!(
        (first.line(), second.line()),
        ("up\n".into(), "up\n".into())
    );
    running.sandbox.signal(1, 2).unwrap();
    assert_eq!(first.line(), "-2\n");
    assert_eq!(ended(&running, 1).how, How::Exited(0));
    // Nobody has that number any more, or ever had.
    for number in [1, 99] {
        running.sandbox.signal(number, 9).unwrap();
    }
    running.sandbox.signal(second.number, 9).unwrap();
    assert_eq!(ended(&running, 2).how, How::Signalled(9));
    assert_eq!(second.line(), "");
}

fn stop(here: &Here) {
    let running = ready(&here.launcher, limits());
    let code = "import os, time\nos.fork()\nwhile True:\n  print('.')\n  time.sleep(0.005)";
    let program = launch(&running, 1, &python(code));
    let mut stdout: OwnedFd = program.stdout.into_inner().into();
    for _ in 0..2 {
        assert!(wait(&stdout, secs(5)), "it prints");
        running.sandbox.stop().unwrap();
        assert!(matches!(event(&running.sandbox), Ok(Event::Stopped)));
        // A slow machine has the signal reach the other processor late.
        let mut looks = 0;
        loop {
            stdout = drained(stdout);
            if !wait(&stdout, millis(200)) {
                break;
            }
            looks += 1;
            assert!(looks < 5, "it goes on though it is stopped");
        }
        running.sandbox.go_on().unwrap();
    }
    assert!(wait(&stdout, secs(5)), "it prints again");
    running.sandbox.stop().unwrap();
    assert!(matches!(event(&running.sandbox), Ok(Event::Stopped)));
    // What is stopped can still be killed.
    running.sandbox.kill().unwrap();
    assert!(matches!(report(&running.sandbox), sandbox::Report::Gone(_)));
}

/// Takes all that is in a pipe now.
fn drained(pipe: OwnedFd) -> OwnedFd {
    let mut pipe = std::fs::File::from(pipe);
    let mut buffer = [0; 65536];
    while wait(&pipe, Duration::ZERO) {
        assert!(pipe.read(&mut buffer).unwrap() > 0, "it ended");
    }
    pipe.into()
}

fn not_launched(here: &Here) {
    let running = ready(&here.launcher, limits());
    let mut first = launch(&running, 1, &named("a.py", "print(input())"));
    let missing = command(&["/usr/bin/no-such-program"]);
    running.sandbox.launch(2, &missing, None, None).unwrap();
    let mut seen = (false, false);
    while seen != (true, true) {
        match event(&running.sandbox) {
            Ok(Event::NotLaunched { program, error }) => {
                assert_eq!((program, error.step), (2, Step::Exec));
                assert!(error.detail.contains("no-such-program"), "{error}");
                seen.0 = true;
            }
            // It had nothing to read.
            Ok(Event::Ended { program: 1, exit }) => {
                assert_eq!(exit.how, How::Exited(1));
                seen.1 = true;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(first.line(), "");
}

fn piped(here: &Here) {
    let running = ready(&here.launcher, limits());
    let (theirs, mut ours) = std::io::pipe().unwrap();
    let cat = command(&["/bin/cat"]);
    running
        .sandbox
        .launch(1, &cat, Some(theirs.as_fd()), None)
        .unwrap();
    let mut program = launched(&running, 1);
    drop(theirs);
    for line in ["one\n", "two\n"] {
        ours.write_all(line.as_bytes()).unwrap();
        assert_eq!(program.line(), line);
    }
    drop(ours);
    assert_eq!(ended(&running, 1).how, How::Exited(0));
}

fn write(here: &Here) {
    let running = ready(&here.launcher, limits());
    let code = "import os, sys\nos.symlink('/tmp', 'out')\nos.symlink('/tmp/f', 'f')\nos.mkfifo('pipe')\nprint('ready')\nsys.stdin.readline()\nprint(sorted(os.listdir('.')), os.listdir('/tmp') if os.getcwd() == '/workspace' else [], open('d/g').read())";
    let (theirs, mut ours) = std::io::pipe().unwrap();
    running
        .sandbox
        .launch(1, &python(code), Some(theirs.as_fd()), None)
        .unwrap();
    let mut program = launched(&running, 1);
    assert_eq!(program.line(), "ready\n");
    let mut number = 10;
    let mut check = |path: &str, code: i32| {
        number += 1;
        let (content, mut end) = std::io::pipe().unwrap();
        end.write_all(b"\x07\0\0\0content\0\0\0\0").unwrap();
        let work = Work::Put(path.as_bytes().to_vec());
        running
            .sandbox
            .port(number, work, Some(content.as_fd()))
            .unwrap();
        assert_eq!(ended(&running, number).how, How::Exited(code), "{path}");
    };
    check("d/g", 0);
    for (path, errno) in [
        ("out/x", 40),
        ("../x", 18),
        ("/tmp/x", 22),
        ("d/../../x", 18),
        ("d", 21),
    ] {
        check(path, errno);
    }
    // What is no file gives way to one, and is not followed.
    check("f", 0);
    check("pipe", 0);
    ours.write_all(b"\n").unwrap();
    assert_eq!(
        program.line(),
        "['d', 'f', 'main.py', 'out', 'pipe'] [] content\n"
    );
}

fn memory(here: &Here) {
    let running = ready(
        &here.launcher,
        sandbox::Limits {
            memory: 96 * MIB,
            ..limits()
        },
    );
    let mut program = launch(
        &running,
        1,
        &python("print('up')\nkept = []\nwhile True: kept.append(bytearray(1 << 20))"),
    );
    assert_eq!(program.line(), "up\n");
    let exit = ended(&running, 1);
    running.sandbox.measure().unwrap();
    let (sandbox::Report::Usage(usage) | sandbox::Report::Gone(usage)) = report(&running.sandbox);
    // Where nothing counts, the limit of one process may be met first.
    let told = match here.isolation {
        Isolation::Full => exit.how == How::Signalled(9) && usage.oom_kills > 0,
        _ => exit.over_memory || usage.oom_kills > 0 || exit.how == How::Exited(1),
    };
    assert!(told, "{exit:?} {usage:?}");
    let mut next = launch(&running, 2, &named("next.py", "print('still here')"));
    assert_eq!(next.line(), "still here\n");
    assert_eq!(ended(&running, 2).how, How::Exited(0));
}

/// Limits under which three processes have too much together, and none alone.
fn tight() -> sandbox::Limits {
    sandbox::Limits {
        memory: 128 * MIB,
        ..limits()
    }
}

const HOG: &str = "import os, time\nfor _ in range(3):\n  if os.fork() == 0:\n    kept = bytearray(70 << 20)\n    time.sleep(30)\n    os._exit(0)\ntime.sleep(30)";

/// Waits for a program to be killed for its memory, by whomever.
fn killed_for_memory(here: &Here, running: &Running, within: Duration) {
    assert!(
        here.isolation == Isolation::Full || wait(running.sandbox.events(), within),
        "nobody looked at its memory"
    );
    if here.isolation == Isolation::Full {
        std::thread::sleep(millis(500));
    } else {
        ended(running, 1);
    }
    running.sandbox.measure().unwrap();
    let (sandbox::Report::Usage(usage) | sandbox::Report::Gone(usage)) = report(&running.sandbox);
    assert!(
        usage.oom_kills > 0 || here.isolation == Isolation::Namespaces,
        "{usage:?}"
    );
}

fn taken_back(here: &Here) {
    let running = ready(&here.launcher, tight());
    let code = format!("import time\nprint('up')\ntime.sleep(0.2)\n{HOG}");
    let mut program = launch(&running, 1, &python(&code));
    assert_eq!(program.line(), "up\n");
    running.sandbox.stop().unwrap();
    running.sandbox.go_on().unwrap();
    assert!(matches!(event(&running.sandbox), Ok(Event::Stopped)));
    killed_for_memory(here, &running, secs(5));
}

fn wakes_itself(here: &Here) {
    let running = ready(&here.launcher, tight());
    // A SIGSTOP takes a SIGCONT that is pending, and with it a periodic timer: the
    // kernel starts that again on delivery only. So there are many timers, each of
    // which fires once.
    let timer = "import ctypes, signal, time\nclass Event(ctypes.Structure): _fields_ = [('v', ctypes.c_void_p), ('no', ctypes.c_int), ('how', ctypes.c_int), ('pad', ctypes.c_int * 12)]\ndef waker():\n  signal.signal(signal.SIGCONT, lambda *_: None)\n  libc = ctypes.CDLL(None)\n  for tick in range(1, 121):\n    timer, event = ctypes.c_void_p(), Event(None, signal.SIGCONT, 0)\n    assert libc.timer_create(0, ctypes.byref(event), ctypes.byref(timer)) == 0\n    libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, tick // 20, tick % 20 * 50_000_000 + 1), None)\n";
    // All of them can wake up before they are stopped.
    let hog = "import os\nready, tell = os.pipe()\nfor _ in range(3):\n  if os.fork() == 0:\n    waker(); os.write(tell, b'.'); time.sleep(1.5); kept = bytearray(70 << 20)\n    while True: time.sleep(1)\nfor _ in range(3): os.read(ready, 1)\nwaker(); print('up')\nwhile True: time.sleep(1)";
    let code = format!("{timer}{hog}");
    let mut program = launch(&running, 1, &python(&code));
    assert_eq!(program.line(), "up\n");
    running.sandbox.stop().unwrap();
    assert!(matches!(event(&running.sandbox), Ok(Event::Stopped)));
    if here.isolation == Isolation::Full {
        // The kernel counts, whoever runs.
        std::thread::sleep(secs(2));
    }
    killed_for_memory(here, &running, secs(12));
}

fn adopted(here: &Here) {
    let running = ready(&here.launcher, limits());
    // The child's parent ends, so that it comes to init; the program lives on.
    let code = "import os, sys, time\nr, w = os.pipe()\npid = os.fork()\nif pid == 0:\n  if os.fork() == 0:\n    os.setsid(); os.write(w, str(os.getpid()).encode()); time.sleep(60)\n  os._exit(0)\nos.waitpid(pid, 0)\nprint(os.read(r, 20).decode(), os.getpid())\ntime.sleep(60)";
    let mut program = launch(&running, 1, &python(code));
    let line = program.line();
    let (child, parent) = line.trim().split_once(' ').unwrap();
    let (child, parent): (i32, i32) = (child.parse().unwrap(), parent.parse().unwrap());
    for nobody in [0, -1, -child, i32::MIN, i32::MAX, parent, 1] {
        running.sandbox.adopt(2, nobody).unwrap();
        let answer = event(&running.sandbox);
        let refused = matches!(answer, Ok(Event::NotLaunched { program: 2, .. }));
        assert!(refused, "{nobody}: {answer:?}");
    }
    running.sandbox.adopt(2, child).unwrap();
    let answer = event(&running.sandbox);
    assert!(
        matches!(answer, Ok(Event::Adopted { program: 2 })),
        "{answer:?}"
    );
    // It is somebody's now.
    running.sandbox.adopt(3, child).unwrap();
    assert!(matches!(
        event(&running.sandbox),
        Ok(Event::NotLaunched { program: 3, .. })
    ));
    running.sandbox.signal(2, 15).unwrap();
    assert_eq!(ended(&running, 2).how, How::Signalled(15));
    running.sandbox.adopt(2, child).unwrap();
    assert!(matches!(
        event(&running.sandbox),
        Ok(Event::NotLaunched { .. })
    ));
    running.sandbox.signal(1, 9).unwrap();
    assert_eq!(ended(&running, 1).how, How::Signalled(9));
}

/// The kernel counts descriptors in sockets by user, who may be that of all boxes.
fn in_flight(here: &Here) {
    let code = "import array, os, socket, sys, time\nfd = os.open('/dev/null', os.O_RDONLY)\nkept = []\nfull = ''\nwhile not full and len(kept) < 100:\n  try: a, b = socket.socketpair()\n  except OSError as e: full = str(e); break\n  kept.append((a, b)); a.setblocking(False)\n  while not full:\n    try: a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd] * 100))])\n    except BlockingIOError: break\n    except OSError as e: full = str(e)\nprint(full or 'filled')\nsys.stdout.flush()\ntime.sleep(60)";
    let first = ready(&here.launcher, limits());
    let mut filling = launch(&first, 1, &python(code));
    let told = filling.line();
    assert!(!told.is_empty(), "it fills what it may");
    for _ in 0..3 {
        let next =
            crate::support::run(&here.launcher, limits(), &python("print('runs')"), secs(10));
        assert_eq!(next.stdout, "runs\n", "after {told:?}: {next:?}");
    }
}

/// An orphan without a group of its own is nobody's program: no signal would reach it.
fn not_adopted(here: &Here) {
    let running = ready(&here.launcher, limits());
    let code = "import os, time\nr, w = os.pipe()\npid = os.fork()\nif pid == 0:\n  if os.fork() == 0:\n    os.write(w, str(os.getpid()).encode()); time.sleep(60)\n  os._exit(0)\nos.waitpid(pid, 0)\nprint(os.read(r, 20).decode())\ntime.sleep(60)";
    let mut program = launch(&running, 1, &python(code));
    let child = program.line().trim().parse().unwrap();
    running.sandbox.adopt(2, child).unwrap();
    let answer = event(&running.sandbox);
    let refused = matches!(answer, Ok(Event::NotLaunched { program: 2, .. }));
    assert!(refused, "{answer:?}");
}

fn held_up(here: &Here) {
    let running = ready(&here.launcher, limits());
    let code = "import os, time\nprint('up')\nme = os.getpid()\nuntil = time.time() + 4\nwhile time.time() < until:\n  for pid in range(me + 1, me + 60):\n    try: os.kill(pid, 19)\n    except OSError: pass";
    let mut first = launch(&running, 1, &named("a.py", code));
    assert_eq!(first.line(), "up\n");
    let began = std::time::Instant::now();
    let echo = command(&["/bin/echo", "here"]);
    running.sandbox.launch(2, &echo, None, None).unwrap();
    let answered = event(&running.sandbox);
    let known = matches!(
        answered,
        Ok(Event::Launched { program: 2, .. } | Event::NotLaunched { program: 2, .. })
    );
    assert!(known, "{answered:?}");
    assert!(began.elapsed() < secs(10), "{:?}", began.elapsed());
    // Init still does what it is told.
    running.sandbox.signal(1, 9).unwrap();
    assert!(wait(running.sandbox.events(), secs(2)), "init hangs");
}

/// The launcher's numbers grow with the boxes that live, and an init keeps them.
fn many_boxes(here: &Here) {
    let mut boxes: Vec<_> = (0..40).map(|_| ready(&here.launcher, limits())).collect();
    for round in 0..3 {
        for running in &boxes {
            let echo = command(&["/bin/echo", "here"]);
            running.sandbox.launch(round, &echo, None, None).unwrap();
            assert_eq!(launched(running, round).line(), "here\n");
            ended(running, round);
        }
        for at in (0..30).rev().step_by(3) {
            drop(boxes.remove(at));
        }
        boxes.extend((0..10).map(|_| ready(&here.launcher, limits())));
    }
}
