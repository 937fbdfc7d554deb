//! What sessions cost: cells, first results, forks and idle ones, on a server of ours
//! and, where it has the like, on Jupyter's Kernel Gateway in the same run. Never lets
//! the two be asked at the same moment.

mod cells;
mod gateway;
mod idle;
mod measure;
mod ours;
mod table;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Arguments;
use super::contenders::{self, Contender};
use super::machine::Machine;
use super::{report, turns};
use crate::venv;
use cells::Cell;
pub(super) use ours::Session;
use table::{Line, OURS, Report, Row};
use xtask::process;

/// Room for all sessions that may be asked for.
const ROOMY: [(&str, &str); 2] = [("CODEX_SESSIONS", "500"), ("CODEX_SESSIONS_EACH", "500")];

/// What a row measures.
#[derive(Debug)]
enum Kind {
    /// A cell in a live session; the gateway is asked where it has the language.
    Cell(&'static Cell),
    /// The first cell of a session that is made for it.
    First(&'static Cell),
    /// A copy of a context with much in it.
    Fork,
    /// Sessions that nobody uses.
    Idle,
}

/// Every row, in order: those that are idle last, when no other session is there.
static ROWS: [(&str, Kind); 8] = [
    ("cell", Kind::Cell(&cells::SUM)),
    ("cell-javascript", Kind::Cell(&cells::SUM_JAVASCRIPT)),
    ("cell-pandas", Kind::Cell(&cells::PANDAS)),
    ("cell-plot", Kind::Cell(&cells::PLOT)),
    ("first-python", Kind::First(&cells::FIRST)),
    ("first-javascript", Kind::First(&cells::FIRST_JAVASCRIPT)),
    ("fork", Kind::Fork),
    ("idle", Kind::Idle),
];

/// The row of the first cells in forks, measured with them.
const IN_FORK: &str = "fork-first-cell";

/// Returns the names of all rows.
pub(super) fn names() -> [&'static str; 8] {
    ROWS.each_ref().map(|(name, _)| *name)
}

/// Runs the comparison, prints it, and fails when a row failed or, if that is asked
/// for, when a promise is not kept.
pub(super) fn compare(binary: &Path, build: String, arguments: &Arguments) -> Result<()> {
    let ours = Contender::ours(OURS, binary, true, &ROOMY)?;
    let packages = contenders::installed_packages().context("there are no packages")?;
    let gateway = Contender::gateway(&packages)?;
    let asked = format!(
        "cells: {} not counted, then in turns with pauses; one at a time",
        turns::WARM_UP
    );
    let mut report = Report {
        facts: report::facts(
            &Machine::seen()?,
            build,
            ours.isolation()?,
            Some(&packages),
            asked,
        )?,
        ..Report::default()
    };
    report.facts.push(("gateway", version()?));
    for (name, kind) in &ROWS {
        if !arguments.rows.is_empty() && !arguments.rows.iter().any(|one| one == name) {
            continue;
        }
        println!("measuring {name}");
        if let Err(error) = measure(name, kind, [&ours, &gateway], arguments, &mut report) {
            report.failures.push((name, format!("{error:#}")));
        }
    }
    println!("\n{}", report.markdown());
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    let failed: Vec<&str> = report.failures.iter().map(|(name, _)| *name).collect();
    ensure!(failed.is_empty(), "rows failed: {}", failed.join(", "));
    let broken = report.broken();
    ensure!(
        !arguments.promises || broken.is_empty(),
        "promises are not kept: {}",
        broken.join("; ")
    );
    Ok(())
}

/// Measures a row, and adds what came of it to the report.
fn measure(
    name: &'static str,
    kind: &Kind,
    [ours, gateway]: [&Contender; 2],
    arguments: &Arguments,
    report: &mut Report,
) -> Result<()> {
    // The gateway has a kernel for Python alone.
    let has_kernel = |cell: &Cell| (cell.language == "python").then_some(gateway);
    let requests = arguments.requests;
    match kind {
        Kind::Cell(cell) => {
            let lines = measure::cell(cell, ours, has_kernel(cell), requests)?;
            report.rows.push(Row { name, lines });
        }
        Kind::First(cell) => {
            let lines = measure::first_result(cell, ours, has_kernel(cell), requests)?;
            report.rows.push(Row { name, lines });
        }
        Kind::Fork => {
            let measure::Forks { forks, first_cells } = measure::fork(ours, requests)?;
            let none = Line {
                server: gateway.name,
                figures: None,
            };
            let lines = vec![forks, none];
            report.rows.push(Row { name, lines });
            let lines = vec![first_cells];
            report.rows.push(Row {
                name: IN_FORK,
                lines,
            });
        }
        Kind::Idle => {
            report.idle.push(idle::sessions(ours, arguments.idle)?);
            report.idle.push(idle::kernels(gateway)?);
        }
    }
    Ok(())
}

/// The versions of the gateway and of its kernel.
fn version() -> Result<String> {
    const PROGRAM: &str = "\
from importlib.metadata import version
names = ('jupyter-kernel-gateway', 'jupyter-client', 'ipykernel', 'ipython', 'tornado')
print(', '.join(name + ' ' + version(name) for name in names))
";
    let mut command = process::command(venv::gateway()?.join("python"));
    let told = process::capture(
        "ask for the gateway's version",
        command.args(["-c", PROGRAM]),
    )?;
    Ok(told.trim().to_owned())
}
