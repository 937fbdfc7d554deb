//! Kills the server with SIGKILL while runs are live: their processes must be
//! gone soon after, and the next start must be clean.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::census::{self, Census};
use crate::live::{Home, Server};
use crate::load;

/// Within this time of the crash no process of a run may be left.
const GONE_TIME: Duration = Duration::from_secs(2);

/// How long so many runs may take to start.
const LIVE_TIME: Duration = Duration::from_secs(20);

/// How long the victims would sleep, in seconds: longer than the check.
const SLEEP_SECONDS: u32 = 30;

/// Runs the check with `live` runs.
pub(crate) fn crash(binary: &Path, live: u16) -> Result<()> {
    let home = Home::new()?;
    let places = live.to_string();
    let mut bounds = load::BOUNDS.to_vec();
    bounds.push(("CODEX_CONCURRENCY", &places));

    let server = Server::start(binary, &home, &bounds)?;
    hello(&server)?;
    let before = load::steady(server.pid(), home.path())?;
    for _ in 0..live {
        let mut client = server.client();
        // The answer never comes: the server dies first.
        thread::spawn(move || drop(client.post("/execute", &sleeper())));
    }
    // An init and a program each; some run in boxes that waited for them.
    let victims = wait_until_live(server.pid(), 2 * usize::from(live))?;
    server.crash()?;

    let started = Instant::now();
    loop {
        let left = census::alive(&victims)?;
        if left.is_empty() {
            break;
        }
        if started.elapsed() > GONE_TIME {
            bail!(
                "{GONE_TIME:?} after the crash {} of {} processes still run: {left:?}",
                left.len(),
                victims.len()
            );
        }
        thread::sleep(Duration::from_millis(10));
    }
    println!(
        "crash: {} processes of {live} runs gone within {} ms",
        victims.len(),
        started.elapsed().as_millis()
    );
    next_start(binary, &home, &bounds, &before)
}

/// The next start sweeps up what the crash left, and works.
fn next_start(binary: &Path, home: &Home, bounds: &[(&str, &str)], before: &Census) -> Result<()> {
    let server = Server::start(binary, home, bounds)?;
    hello(&server)?;
    let after = load::settled(server.pid(), home.path(), before)
        .context("the start after the crash is not clean")?;
    println!("before:  {before}\nafter:   {after}");
    let status = server.stop()?;
    ensure!(
        status.success(),
        "the server ended with {status} after SIGTERM"
    );
    Ok(())
}

fn hello(server: &Server) -> Result<()> {
    for (language, code, expected) in load::HELLO {
        let answer = server.client().execute(language, code)?.json()?;
        ensure!(
            answer["output"] == expected,
            "{language} should print {expected:?} and answered {answer}"
        );
    }
    Ok(())
}

fn sleeper() -> serde_json::Value {
    let code = format!("import time\nprint('asleep', flush=True)\ntime.sleep({SLEEP_SECONDS})\n");
    json!({"code": code, "language": "python", "timeout": SLEEP_SECONDS})
}

/// Waits for at least `wanted` processes, and until their number is steady.
fn wait_until_live(
    server: u32,
    wanted: usize,
) -> Result<std::collections::BTreeSet<census::Process>> {
    let deadline = Instant::now() + LIVE_TIME;
    let mut last = 0;
    loop {
        let family = census::lineage(server)?;
        if family.len() >= wanted && family.len() == last {
            return Ok(family);
        }
        last = family.len();
        if Instant::now() >= deadline {
            bail!(
                "{last} processes after {LIVE_TIME:?}; the runs should make it at least {wanted} (is CODEX_CONCURRENCY heeded?)"
            );
        }
        thread::sleep(Duration::from_millis(500));
    }
}
