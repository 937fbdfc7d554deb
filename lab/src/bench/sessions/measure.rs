//! The measuring of single cells, of first results and of forks: one question at a
//! time, the servers in turns. Every answer is checked, those that are not counted too.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::cells::{Cell, Picture};
use super::gateway::Kernel;
use super::ours::{self, Session};
use super::table::Line;
use crate::bench::contenders::Contender;
use crate::bench::figures::Figures;
use crate::bench::turns::{Pauses, SINGLE_TIME, SLICE_PAUSE, WARM_UP, order};

/// Of so many cells in a row one is made of first results and of forks, which take
/// longer.
const SELDOM: u32 = 5;

/// First results and forks that are not counted.
const FEW: u32 = 2;

/// Memory of the session that is forked, in MiB.
const FORK_MEMORY: u32 = 2048;

/// Makes a frame of 100 MB.
const FRAME: &str = "\
import numpy as np
import pandas as pd
frame = pd.DataFrame(np.arange(12_500_000, dtype='float64').reshape(1_250_000, 10), columns=list('abcdefghij'))
int(frame.memory_usage(index=False).sum())
";
const FRAME_BYTES: &str = "100000000";

/// The sum of a column that no side writes to.
const COLUMN: &str = "float(frame['j'].sum())";
const COLUMN_SUM: &str = "7812505000000.0";

/// Asks once, checks the answer, and returns how long it took to come.
type Ask<'a> = Box<dyn FnMut() -> Result<Duration> + 'a>;

/// One of those that are asked in turns.
struct Side<'a> {
    name: &'static str,
    ask: Ask<'a>,
}

impl<'a> Side<'a> {
    fn new(name: &'static str, ask: impl FnMut() -> Result<Duration> + 'a) -> Self {
        Self {
            name,
            ask: Box::new(ask),
        }
    }
}

/// How often to ask, and how long to wait before.
#[derive(Debug, Clone, Copy)]
struct Often {
    uncounted: u32,
    counted: u32,
    /// Wait beside the usual pause.
    pause: Duration,
}

impl Often {
    fn of_cells(requests: u32) -> Self {
        Self {
            uncounted: WARM_UP,
            counted: requests,
            pause: Duration::ZERO,
        }
    }

    /// Of what leaves something to put away, which nobody shall be measured beside.
    fn of_more(requests: u32) -> Self {
        Self {
            uncounted: FEW,
            counted: requests.div_ceil(SELDOM),
            pause: SLICE_PAUSE,
        }
    }
}

/// Returns how the sides did, in their order. Who goes first changes each time.
fn in_turns(often: Often, sides: &mut [Side<'_>]) -> Result<Vec<Line>> {
    let mut times = vec![Vec::new(); sides.len()];
    let mut pauses = Pauses::new();
    let begun = Instant::now();
    for turn in 0..often.uncounted + often.counted {
        for at in order(turn, sides.len()) {
            thread::sleep(often.pause + pauses.next());
            let side = &mut sides[at];
            let time = (side.ask)().with_context(|| format!("{} failed", side.name))?;
            if turn >= often.uncounted {
                times[at].push(time);
            }
        }
        if turn >= often.uncounted && begun.elapsed() >= SINGLE_TIME {
            break;
        }
    }
    let lines = sides.iter().zip(times);
    Ok(lines.map(|(side, times)| line(side.name, times)).collect())
}

fn line(server: &'static str, times: Vec<Duration>) -> Line {
    Line {
        server,
        figures: Some(Figures::of(times)),
    }
}

/// Measures a cell in a live session, and in a live kernel where the gateway has the
/// language.
pub(super) fn cell(
    cell: &Cell,
    server: &Contender,
    gateway: Option<&Contender>,
    requests: u32,
) -> Result<Vec<Line>> {
    let mut session = Session::open(server, &json!({}))?;
    let setup = session.run(cell.language, cell.setup)?;
    ensure!(setup.is_well, "the setup failed: {}", setup.words);
    let mut kernel = gateway.map(Kernel::start).transpose()?;
    if let Some(kernel) = &mut kernel {
        let setup = kernel.run(cell.setup)?;
        ensure!(setup.is_well, "the setup failed there: {}", setup.words);
    }
    let picture = Picture::default();
    let picture = &picture;
    let mut sides = vec![Side::new(server.name, move || {
        let started = Instant::now();
        let answer = session.run(cell.language, cell.code)?;
        let time = started.elapsed();
        cell.pass(&answer)?;
        picture.is_in(&answer)?;
        Ok(time)
    })];
    if let (Some(gateway), Some(mut kernel)) = (gateway, kernel) {
        sides.push(Side::new(gateway.name, move || {
            let started = Instant::now();
            let answer = kernel.run(cell.code)?;
            let time = started.elapsed();
            cell.pass(&answer)?;
            picture.is_in(&answer)?;
            Ok(time)
        }));
    }
    in_turns(Often::of_cells(requests), &mut sides)
}

/// Measures the time from nothing to the answer of a first cell, and beside it the
/// same program as a run of ours without a session.
pub(super) fn first_result(
    cell: &Cell,
    server: &Contender,
    gateway: Option<&Contender>,
    requests: u32,
) -> Result<Vec<Line>> {
    let asked = json!({"language": cell.language});
    let mut cold = server.client();
    let mut sides = vec![
        Side::new(server.name, || {
            let mut client = server.client();
            client.connect()?;
            let started = Instant::now();
            let mut session = Session::open_over(client, &asked)?;
            let answer = session.run(cell.language, cell.code)?;
            let time = started.elapsed();
            cell.pass(&answer)?;
            Ok(time)
        }),
        Side::new(COLD, move || {
            cold.connect()?;
            let started = Instant::now();
            let answer = ours::run_cold(&mut cold, cell)?;
            let time = started.elapsed();
            cell.pass(&answer)?;
            Ok(time)
        }),
    ];
    if let Some(gateway) = gateway {
        sides.push(Side::new(gateway.name, || {
            let mut client = gateway.client();
            client.connect()?;
            let started = Instant::now();
            let mut kernel = Kernel::start_over(client, gateway)?;
            let answer = kernel.run(cell.code)?;
            let time = started.elapsed();
            cell.pass(&answer)?;
            Ok(time)
        }));
    }
    in_turns(Often::of_more(requests), &mut sides)
}

/// The name of a run of ours without a session.
pub(super) const COLD: &str = "cold run";

/// How long forks took, and the first cells in them.
#[derive(Debug)]
pub(super) struct Forks {
    pub(super) forks: Line,
    pub(super) first_cells: Line,
}

/// Measures forks of a context that holds a frame of 100 MB. Both sides must go their
/// own ways afterwards, and keep what neither has changed.
pub(super) fn fork(server: &Contender, requests: u32) -> Result<Forks> {
    let often = Often::of_more(requests);
    let asked = json!({"language": "python", "memory_mb": FORK_MEMORY});
    let mut session = Session::open(server, &asked)?;
    session.run("python", FRAME)?.reads(FRAME_BYTES)?;
    let (mut forks, mut first_cells) = (Vec::new(), Vec::new());
    let mut pauses = Pauses::new();
    let begun = Instant::now();
    for turn in 0..often.uncounted + often.counted {
        thread::sleep(often.pause + pauses.next());
        let [fork, first_cell] = fork_once(&mut session, turn)?;
        if turn >= often.uncounted {
            forks.push(fork);
            first_cells.push(first_cell);
            if begun.elapsed() >= SINGLE_TIME {
                break;
            }
        }
    }
    Ok(Forks {
        forks: line(server.name, forks),
        first_cells: line(server.name, first_cells),
    })
}

/// Forks, lets both sides write to the same place, and ends the fork. Returns how long
/// the fork and its first cell took.
fn fork_once(session: &mut Session, turn: u32) -> Result<[Duration; 2]> {
    const VALUE: &str = "float(frame.iloc[0, 0])";
    let write = |value: &str| format!("frame.iloc[0, 0] = {value}; {VALUE}");
    let (before, here, there) = (
        format!("{turn}.25"),
        format!("{turn}.5"),
        format!("{turn}.75"),
    );
    session.run("python", &write(&before))?.reads(&before)?;
    let started = Instant::now();
    let name = session.fork()?;
    let fork = started.elapsed();
    let started = Instant::now();
    let answer = session.run_in(&name, VALUE)?;
    let first_cell = started.elapsed();
    answer
        .reads(&before)
        .context("the fork is not as its origin was")?;
    session.run_in(&name, &write(&there))?.reads(&there)?;
    let kept = session.run("python", VALUE)?;
    kept.reads(&before)
        .context("a fork wrote to what its origin has")?;
    session.run("python", &write(&here))?.reads(&here)?;
    let kept = session.run_in(&name, VALUE)?;
    kept.reads(&there)
        .context("an origin wrote to what its fork has")?;
    session.run_in(&name, COLUMN)?.reads(COLUMN_SUM)?;
    session.run("python", COLUMN)?.reads(COLUMN_SUM)?;
    session.end_context(&name)?;
    Ok([fork, first_cell])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_counted_is_in_the_figures() {
        let often = Often {
            uncounted: 3,
            counted: 4,
            pause: Duration::ZERO,
        };
        let asked = std::cell::Cell::new(0);
        let mut sides = [Side::new("ours", || {
            asked.set(asked.get() + 1);
            Ok(Duration::from_millis(asked.get()))
        })];
        let lines = in_turns(often, &mut sides).expect("it answers");
        let figures = lines[0].figures.expect("it was measured");
        assert_eq!((figures.requests, figures.p50, figures.p99), (4, 5.0, 7.0));
    }
}
