//! What MCP costs: the same program by `POST /execute` and by the tool `run_code`
//! in both eras, on one server. One call at a time in turns, then many at once.
//! Every answer is checked; never lets two doors be asked at the same moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::figures::Figures;
use super::machine::Machine;
use super::report;
use super::rows::{Check, ROWS};
use super::turns::{Pauses, SINGLE_TIME, SLICE_PAUSE, WARM_UP};
use crate::http::{Client, Response};
use crate::live::{Home, Server};
use crate::tool::{self, Era, Told, Tool};

/// The most that a call of the tool may take longer than `POST /execute`, by the
/// difference of the medians, in milliseconds.
const MORE_MS: f64 = 0.5;

/// Calls at once by each door.
const AT_ONCE: u32 = 200;

/// The server on which all calls at once find room.
const ROOMY: [(&str, &str); 2] = [("CODEX_QUEUE", "512"), ("CODEX_QUEUE_WAIT", "60")];

/// One that has room for a few, and must refuse the others.
const NARROW: [(&str, &str); 3] = [
    ("CODEX_CONCURRENCY", "4"),
    ("CODEX_QUEUE", "20"),
    ("CODEX_QUEUE_WAIT", "60"),
];

/// How many calls at once get a place on the narrow one.
const NARROW_PLACES: u32 = 24;

/// A program that ends after all calls at once have come.
const LONG: &str = "import time; time.sleep(2); print(2+2)";

/// How the same program is sent.
const DOORS: [(&str, Option<Era>); 3] = [
    ("POST /execute", None),
    ("MCP 2026-07-28", Some(Era::Stateless)),
    ("MCP 2025-11-25", Some(Era::Sessions)),
];

/// A client of one door.
#[derive(Debug)]
enum Visitor {
    Http(Client),
    Mcp(Tool),
}

impl Visitor {
    fn new(server: &Server, era: Option<Era>) -> Result<Self> {
        let client = server.client();
        Ok(match era {
            None => Self::Http(client),
            Some(era) => Self::Mcp(Tool::new(client, era)?),
        })
    }

    /// Returns another of the same door, and of the same session, that is connected.
    fn beside(&self, server: &Server) -> Result<Self> {
        match self {
            Self::Http(_) => {
                let mut client = server.client();
                client.connect()?;
                Ok(Self::Http(client))
            }
            Self::Mcp(tool) => {
                let mut tool = tool.beside(server.client());
                tool.connect()?;
                Ok(Self::Mcp(tool))
            }
        }
    }

    fn ask(&mut self, id: u32, arguments: &Value) -> Result<Response> {
        match self {
            Self::Http(client) => client.post("/execute", arguments),
            Self::Mcp(tool) => tool.call(id, arguments),
        }
    }

    /// Reads an answer; a refusal is told with its status where it has one.
    ///
    /// # Errors
    /// When it is neither a run nor the refusal of a busy server.
    fn read(&self, id: u32, response: &Response) -> Result<Told> {
        match self {
            Self::Mcp(_) => tool::told(id, response),
            Self::Http(_) => match response.status {
                200 => Ok(Told::Ran(response.json()?)),
                status @ (429 | 503) => {
                    let problem = response.json()?;
                    let detail = problem["detail"].as_str().context("a refusal is silent")?;
                    Ok(Told::Refused(format!("{status}: {detail}")))
                }
                status => bail!("status {status}: {}", response.text()),
            },
        }
    }
}

/// What came of many calls at once.
#[derive(Debug, Default)]
struct Crowd {
    ran: u32,
    /// How many were refused in which words, numbers left out.
    refused: BTreeMap<String, u32>,
    time: Duration,
}

/// Compares the doors, prints the figures, and fails when MCP takes more than
/// [`MORE_MS`] longer, or when many calls at once fare otherwise by one door than by
/// another.
pub(super) fn compare(binary: &Path, build: String, requests: u32) -> Result<()> {
    let home = Home::new()?;
    let server = Server::start(binary, &home, &ROOMY)?;
    let health: Value = server.client().get("/health")?.json()?;
    let isolation = health["isolation"].as_str();
    let isolation = isolation.context("/health names no isolation")?.to_owned();
    let asked = format!("{WARM_UP} not counted, then in turns with pauses");
    for (name, fact) in report::facts(&Machine::seen()?, build, isolation, None, asked)? {
        println!("- {name}: {fact}");
    }
    let figures = in_turns(&server, requests)?;
    println!("\n{}", table(&figures));

    let code = ROWS[0].code;
    same("room for all", &at_once(&server, code)?, AT_ONCE)?;
    stop(server)?;
    let home = Home::new()?;
    let server = Server::start(binary, &home, &NARROW)?;
    same("room for few", &at_once(&server, LONG)?, NARROW_PLACES)?;
    stop(server)?;

    let [base, others @ ..] = figures;
    for ((name, _), figures) in DOORS[1..].iter().zip(others) {
        let more = figures.p50 - base.p50;
        ensure!(
            more <= MORE_MS,
            "the median of {name} is {more:.2} ms above that of POST /execute; {MORE_MS} ms at most"
        );
    }
    Ok(())
}

fn stop(server: Server) -> Result<()> {
    let status = server.stop()?;
    ensure!(status.success(), "the server ended with {status}");
    Ok(())
}

/// Returns the order of the doors in a turn: each comes after each of the others
/// equally often.
fn order(turn: u32) -> [usize; 3] {
    let mut order = [0, 1, 2];
    order.rotate_left(turn as usize % 3);
    if turn / 3 % 2 == 1 {
        order.reverse();
    }
    order
}

/// Returns how long single calls took by each door.
fn in_turns(server: &Server, requests: u32) -> Result<[Figures; 3]> {
    let [execute, stateless, sessions] = DOORS.map(|(_, era)| Visitor::new(server, era));
    let mut visitors = [execute?, stateless?, sessions?];
    let check = Check::new(&ROWS[0]);
    let arguments = ROWS[0].request();
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut pauses = Pauses::new();
    let begun = Instant::now();
    for turn in 0..WARM_UP + requests {
        for door in order(turn) {
            thread::sleep(pauses.next());
            let started = Instant::now();
            let response = visitors[door].ask(turn, &arguments)?;
            let time = started.elapsed();
            match visitors[door].read(turn, &response)? {
                Told::Ran(answer) => check.pass_answer(&answer)?,
                Told::Refused(words) => bail!("a single call was refused: {words}"),
            }
            if turn >= WARM_UP {
                times[door].push(time);
            }
        }
        if begun.elapsed() >= 3 * SINGLE_TIME {
            break;
        }
    }
    Ok(times.map(Figures::of))
}

fn table(figures: &[Figures; 3]) -> String {
    let mut text = String::from(
        "| door           |  p50 ms |  p90 ms |  p99 ms | requests | more at p50 |\n|---|---:|---:|---:|---:|---:|\n",
    );
    for ((name, _), one) in DOORS.iter().zip(figures) {
        text.push_str(&format!(
            "| {name:<14} | {:>7.2} | {:>7.2} | {:>7.2} | {:>8} | {:>11.2} |\n",
            one.p50,
            one.p90,
            one.p99,
            one.requests,
            one.p50 - figures[0].p50,
        ));
    }
    text
}

/// Sends the same program many times at one moment by each door in turn, each over
/// an open connection of its own. A session is shared by all of its calls.
fn at_once(server: &Server, code: &str) -> Result<[Crowd; 3]> {
    let mut crowds = [Crowd::default(), Crowd::default(), Crowd::default()];
    for ((name, era), crowd) in DOORS.into_iter().zip(&mut crowds) {
        let first = Visitor::new(server, era)?;
        *crowd = crowded(server, &first, code).with_context(|| format!("by {name}"))?;
        well(server, &first).with_context(|| format!("after {AT_ONCE} calls by {name}"))?;
    }
    Ok(crowds)
}

fn crowded(server: &Server, first: &Visitor, code: &str) -> Result<Crowd> {
    let arguments = json!({"code": code, "timeout": 30});
    let visitors: Vec<Visitor> = (0..AT_ONCE)
        .map(|_| first.beside(server))
        .collect::<Result<_>>()?;
    // A run keeps its place until its box is dead, which no answer waits for.
    thread::sleep(SLICE_PAUSE);
    let barrier = Barrier::new(visitors.len() + 1);
    let check = Check::new(&ROWS[0]);
    let mut crowd = Crowd::default();
    thread::scope(|scope| -> Result<()> {
        let (barrier, arguments) = (&barrier, &arguments);
        let calls: Vec<_> = (1..=AT_ONCE)
            .zip(visitors)
            .map(|(id, mut visitor)| {
                scope.spawn(move || -> Result<Told> {
                    barrier.wait();
                    let response = visitor.ask(id, arguments)?;
                    visitor.read(id, &response)
                })
            })
            .collect();
        barrier.wait();
        let started = Instant::now();
        for call in calls {
            match call.join().ok().context("a client's thread panicked")?? {
                Told::Ran(answer) => {
                    check.pass_answer(&answer)?;
                    crowd.ran += 1;
                }
                Told::Refused(words) => *crowd.refused.entry(numberless(&words)).or_default() += 1,
            }
        }
        crowd.time = started.elapsed();
        Ok(())
    })?;
    Ok(crowd)
}

/// Words in which all numbers but a status are the same.
fn numberless(words: &str) -> String {
    let (status, rest) = match words.split_once(": ") {
        Some((status, rest)) if status.parse::<u16>().is_ok() => (format!("{status}: "), rest),
        _ => (String::new(), words),
    };
    let mut kept = status;
    let mut in_number = false;
    for one in rest.chars() {
        let is_digit = one.is_ascii_digit();
        match (is_digit, in_number) {
            (true, false) => kept.push('N'),
            (true, true) => {}
            (false, _) => kept.push(one),
        }
        in_number = is_digit;
    }
    kept
}

/// Fails unless the same door still runs a program.
fn well(server: &Server, first: &Visitor) -> Result<()> {
    let mut visitor = first.beside(server)?;
    let response = visitor.ask(0, &ROWS[0].request())?;
    match visitor.read(0, &response)? {
        Told::Ran(answer) => Check::new(&ROWS[0]).pass_answer(&answer),
        Told::Refused(words) => bail!("an ordinary call was refused: {words}"),
    }
}

/// Prints what came of each crowd, and fails unless exactly `places` ran of each.
fn same(what: &str, crowds: &[Crowd; 3], places: u32) -> Result<()> {
    println!("{AT_ONCE} calls at once, {what}:");
    for ((name, _), crowd) in DOORS.iter().zip(crowds) {
        let seconds = crowd.time.as_secs_f64();
        println!("  {name:<14}  {} ran in {seconds:.1} s", crowd.ran);
        for (words, count) in &crowd.refused {
            println!("  {name:<14}  {count} refused: {words}");
        }
    }
    for ((name, _), crowd) in DOORS.iter().zip(crowds) {
        ensure!(
            crowd.ran == places,
            "with {what}, {} of {AT_ONCE} calls by {name} ran instead of {places}",
            crowd.ran
        );
        let refused: u32 = crowd.refused.values().sum();
        ensure!(
            crowd.ran + refused == AT_ONCE,
            "of {AT_ONCE} calls by {name} only {} were answered",
            crowd.ran + refused
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_door_follows_each_other_equally_often() {
        let mut orders: Vec<[usize; 3]> = (0..6).map(order).collect();
        orders.sort_unstable();
        orders.dedup();
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn refusals_are_counted_by_their_words() {
        let check = |words, expected: &str| assert_eq!(numberless(words), expected);
        check("503: 12 runs, 3 s", "503: N runs, N s");
        check("12 runs wait: 3", "N runs wait: N");
        check("none", "none");
    }
}
