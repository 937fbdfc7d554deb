//! Where the time of a cold run goes: making a box, starting a program in it,
//! the program itself, and the account. Prints medians in microseconds.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use sandbox::{Command, Event, Isolation, Launcher, Limits, Mount, Report, Spec};

const RUNS: usize = 200;

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
fn main() {
    sandbox::enter();
    // The strongest rung that holds, or the one that is named.
    let rungs = match std::env::var("SANDBOX_TEST_RUNG") {
        Ok(rung) => {
            let rung: Isolation = rung.parse().expect("a rung");
            rung..=rung
        }
        Err(_) => Isolation::Namespaces..=Isolation::Full,
    };
    let (launcher, support) = sandbox::launch(rungs).expect("a sandbox");
    println!("isolation {:?}", support.isolation);
    for argv in [
        vec!["/bin/true"],
        vec!["/usr/bin/python3", "-c", "print(2+2)"],
        vec!["/usr/bin/node", "-e", "console.log(2+2)"],
    ] {
        let command = Command {
            argv: argv.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
            env: vec![b"PATH=/usr/bin:/bin".to_vec()],
            ..Command::default()
        };
        let mut phases: [Vec<Duration>; 6] = Default::default();
        for _ in 0..RUNS {
            for (phase, took) in phases.iter_mut().zip(once(&launcher, &command)) {
                phase.push(took);
            }
            phases[5].push(bare(&argv));
        }
        let [made, started, ran, measured, dropped, bare] = phases.map(median);
        println!(
            "{:<20} make {made:>6} start {started:>6} run {ran:>6} measure {measured:>5} drop {dropped:>5} | bare {bare:>6}",
            argv[0]
        );
    }
}

fn median(mut times: Vec<Duration>) -> u128 {
    times.sort();
    times[times.len() / 2].as_micros()
}

/// The same program without a sandbox.
#[expect(
    clippy::disallowed_methods,
    reason = "what the sandbox is compared with"
)]
fn bare(argv: &[&str]) -> Duration {
    let begun = Instant::now();
    let output = std::process::Command::new(argv[0])
        .args(&argv[1..])
        .env_clear()
        .output()
        .expect("it is installed");
    assert!(output.status.success());
    begun.elapsed()
}

fn once(launcher: &Launcher, command: &Command) -> [Duration; 5] {
    let spec = Spec {
        mounts: ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"]
            .into_iter()
            .filter(|path| Path::new(path).symlink_metadata().is_ok())
            .map(Mount::same)
            .collect(),
        limits: Limits {
            memory: 512 << 20,
            processes: 64,
            cpu_millis: 1000,
            workspace: 64 << 20,
            inodes: 1000,
            shm: 16 << 20,
            open_files: 1024,
        },
        lifetime: Some(Duration::from_secs(30)),
        adopts: false,
    };
    let mut marks = vec![Instant::now()];
    let sandbox = launcher.create(&spec).expect("the warden lives");
    let mut kept = Vec::new();
    for step in 0..3 {
        if step == 1 {
            sandbox.exec(command).expect("init lives");
        }
        let event = loop {
            if let Some(event) = sandbox.event().expect("no step fails") {
                break event;
            }
            wait(sandbox.events());
        };
        kept.push(event);
        marks.push(Instant::now());
    }
    assert!(matches!(kept.last(), Some(Event::Exited(_))));
    sandbox.measure().expect("the warden lives");
    loop {
        if let Some(Report::Usage(_)) = sandbox.report().expect("the box lives") {
            break;
        }
        wait(sandbox.reports());
    }
    marks.push(Instant::now());
    drop((sandbox, kept));
    marks.push(Instant::now());
    std::array::from_fn(|index| marks[index + 1] - marks[index])
}

fn wait(fd: impl AsFd) {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, None).expect("poll");
}
