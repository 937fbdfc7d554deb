//! How long a well-behaved client waits while somebody attacks beside it,
//! against how long it waits alone: both in one run, turn by turn.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::attack::{Attack, Door, compiled};
use super::corpus;
use crate::http::Client;
use crate::live::{Home, Server};
use xtask::build;

/// Turns, alone and beside the attacker by turns.
const TURNS: u32 = 40;
/// Requests of a turn.
const REQUESTS: u32 = 15;
/// Requests before anything is counted.
const WARM_UP: u32 = 50;
/// What the slowest hundredth may be slower by.
const RATIO: f64 = 3.0;

/// Measures and prints it. An error when the ratio is above the bound.
pub(super) fn latency(binary: Option<PathBuf>) -> Result<()> {
    let binary = binary.map_or_else(build::release, Ok)?;
    let home = Home::new()?;
    let server = Server::start(&binary, &home, &[])?;
    let (attack, stop) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let attacks = Arc::new(AtomicU32::new(0));
    let attacker = {
        let (mut client, attack, stop) = (server.client(), Arc::clone(&attack), Arc::clone(&stop));
        let (attacks, bodies) = (Arc::clone(&attacks), bodies()?);
        thread::spawn(move || -> Result<()> {
            let mut next = bodies.iter().cycle();
            while !stop.load(Ordering::Relaxed) {
                if !attack.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let body = next.next().context("there are attacks")?;
                let response = client.post("/execute", body)?;
                ensure!(response.status == 200, "an attack got {}", response.status);
                attacks.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let mut client = server.client();
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..WARM_UP {
        timed(&mut client)?;
    }
    for turn in 0..TURNS {
        let beside = turn % 2 == 1;
        attack.store(beside, Ordering::Relaxed);
        // The attack that is under way ends, or the next one begins.
        thread::sleep(Duration::from_millis(if beside { 100 } else { 2300 }));
        for _ in 0..REQUESTS {
            times[usize::from(beside)].push(timed(&mut client)?);
        }
    }
    stop.store(true, Ordering::Relaxed);
    attacker.join().ok().context("the attacker panicked")??;
    let [alone, beside] = times.map(Times::of);
    println!("alone:            {alone}");
    println!(
        "beside an attack: {beside}, {} attacks",
        attacks.load(Ordering::Relaxed)
    );
    let ratio = beside.p99 / alone.p99;
    println!(
        "ratio of p99: {ratio:.2}, of medians: {:.2}; at most {RATIO}",
        beside.p50 / alone.p50
    );
    ensure!(
        ratio <= RATIO,
        "p99 beside an attacker is {ratio:.2} times that alone"
    );
    Ok(())
}

/// What uses as much as it is given.
fn bodies() -> Result<Vec<serde_json::Value>> {
    let told = json!({"rung": "full", "long": 0, "file": "/nowhere", "state": "/nowhere", "stream": "/nowhere", "datagrams": "/nowhere",
        "abstract": "nobody", "port": 9, "server": 99_999, "warden": 99_998, "tenant": "/nowhere", "tenant_port": 9, "called_port": 9})
    .to_string();
    let body = |attack: &Attack| -> Result<serde_json::Value> {
        ensure!(attack.c.is_none() || compiled(attack.c.as_deref().unwrap_or_default()).is_ok());
        Ok(
            json!({"code": attack.text(&told), "timeout": attack.bounds(false, "full").wall.unwrap_or(5).min(2), "memory_mb": attack.bounds(false, "full").memory_mb.unwrap_or(256)}),
        )
    };
    let all = corpus()?;
    let hungry = all.iter().filter(|attack| {
        attack.is_for(Door::Http)
            && attack.c.is_none()
            && attack.id.parse::<u32>().is_ok_and(|number| number <= 28)
    });
    hungry.map(body).collect()
}

fn timed(client: &mut Client) -> Result<Duration> {
    let started = Instant::now();
    let response = client.execute("python", "print(2 + 2)")?;
    let took = started.elapsed();
    ensure!(
        response.status == 200,
        "an ordinary run got {}",
        response.status
    );
    ensure!(
        response.json()?["output"] == "4\n",
        "an ordinary run was disturbed"
    );
    Ok(took)
}

/// Milliseconds.
#[derive(Debug, Clone, Copy)]
struct Times {
    p50: f64,
    p90: f64,
    p99: f64,
    count: usize,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |hundredth: usize| {
            let index = (times.len() * hundredth).div_ceil(100).max(1) - 1;
            times
                .get(index)
                .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        Self {
            p50: at(50),
            p90: at(90),
            p99: at(99),
            count: times.len(),
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            p50,
            p90,
            p99,
            count,
        } = self;
        write!(
            f,
            "p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms of {count} requests"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_hundredth_is_found() {
        let times = Times::of((1..=200).map(Duration::from_millis).collect());
        assert_eq!((times.p50, times.p90, times.p99), (100.0, 180.0, 198.0));
        assert!(Times::of(Vec::new()).p99 == 0.0);
    }
}
