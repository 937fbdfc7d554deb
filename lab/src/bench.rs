//! The benchmark: a cold start of each run in our server, against the naive server
//! that people write first, or against another build of ours; MCP against the API;
//! and sessions against Jupyter's Kernel Gateway. Every answer is checked; a wrong one fails the run, however fast it came.

mod asking;
mod bare;
mod calibration;
mod contenders;
mod doors;
mod figures;
mod machine;
mod memory;
mod plot;
mod report;
mod rows;
mod sessions;
mod turns;
mod whole;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;

use bare::Bare;
use contenders::Contender;
use machine::Machine;
use report::{Measured, Report};
use rows::{Check, Output};
use xtask::apt::{self, Need, Probe};
use xtask::build;

/// The highest ratio of medians that we promise.
const RATIO_LIMIT: f64 = 1.6;

/// Counted requests by each door, unless told otherwise: a difference of half a
/// millisecond takes more of them.
const DOOR_REQUESTS: &str = "600";

const NODE: Need = Need {
    probe: Probe::File(contenders::NODE),
    packages: &["nodejs"],
    reason: "the interpreter that both servers run",
    required: true,
};

/// What to compare, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Counted requests to each server, for each row, or by each door; two minutes at
    /// most for each row or door.
    #[arg(long, default_value_t = 200, default_value_if("mcp", "true", DOOR_REQUESTS), value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// Seconds in which one client, two and eight ask each server without pauses, each
    /// of them for each row.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rows to measure; all when left out.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(rows::names().into_iter().chain(whole::names()).chain(sessions::names())))]
    rows: Vec<String>,
    /// Binary to measure; built in the release profile when left out.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Another build of ours, to compare with instead of the naive server.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Fail when the ratio of medians of a hello row is above this.
    #[arg(long, default_value_t = RATIO_LIMIT)]
    limit: f64,
    /// Compare MCP with `POST /execute` instead, on one server of ours.
    #[arg(long, conflicts_with_all = ["rows", "against", "limit", "json", "seconds"])]
    mcp: bool,
    /// Measure sessions instead, against Jupyter's Kernel Gateway.
    #[arg(long, conflicts_with_all = ["mcp", "against", "limit", "seconds"])]
    sessions: bool,
    /// Sessions that are idle at once.
    #[arg(long, default_value_t = 50, requires = "sessions", value_parser = clap::value_parser!(u32).range(1..=500))]
    idle: u32,
    /// Fail when a promise about sessions is not kept, too.
    #[arg(long, requires = "sessions")]
    promises: bool,
    /// File to write the figures to, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// File to write a bar chart to, as SVG: medians by those of the other server.
    #[arg(long, conflicts_with_all = ["mcp", "sessions"])]
    svg: Option<PathBuf>,
}

/// Runs the comparison, prints it, and fails above the limit.
pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    expect_rows(arguments)?;
    apt::ensure(&[NODE])?;
    let (binary, build) = match &arguments.binary {
        Some(binary) => (found(binary)?, binary.display().to_string()),
        None => (build::release()?, "release of the sources".to_owned()),
    };
    if arguments.mcp {
        return doors::compare(&binary, build, arguments.requests);
    }
    if arguments.sessions {
        return sessions::compare(&binary, build, arguments);
    }
    compare(&binary, build, arguments)
}

/// Compares ours with the naive server or with another build.
fn compare(binary: &Path, mut build: String, arguments: &Arguments) -> Result<()> {
    let rows = rows::chosen(&arguments.rows);
    let needs_packages = rows.iter().any(|row| !row.imports.is_empty());
    let against = arguments.against.as_deref().map(found).transpose()?;
    let begin = |packages: bool| Contender::ours("ours", binary, packages, &[]);
    let begin_other = |packages: bool| match &against {
        Some(other) => Contender::ours("against", other, packages, &[]),
        None => Contender::naive(contenders::packages_if(packages).as_deref()),
    };
    let (ours, other) = (begin(needs_packages)?, begin_other(needs_packages)?);
    let mut isolation = ours.isolation()?;
    if let Some(path) = &against {
        build = format!("{build}, against {}", path.display());
        isolation = format!("{isolation}, against {}", other.isolation()?);
    }
    let packages = contenders::packages_if(needs_packages);
    let mut bare = match against {
        None if rows.iter().any(|row| row.is_hello) => Bare::all(packages.as_deref())?,
        _ => Vec::new(),
    };
    let asked = format!(
        "{} not counted, then in turns with pauses; then loops of 1, 2 and 8 clients",
        turns::WARM_UP
    );
    let machine = Machine::seen()?;
    let mut report = Report {
        facts: report::facts(&machine, build, isolation, packages.as_deref(), asked)?,
        machine,
        against: other.name,
        rows: Vec::new(),
        whole: Vec::new(),
    };
    if !bare.is_empty() {
        let version = bare::bubblewrap_version();
        report.facts.push(("bubblewrap", version));
    }
    for row in rows {
        println!("measuring {}", row.name);
        let check = match row.output {
            Output::Sum => Check::with_loops(row, calibration::loops(row.code)?),
            _ => Check::new(row),
        };
        let bare = if row.is_hello { &mut bare[..] } else { &mut [] };
        let (requests, seconds) = (arguments.requests, arguments.seconds);
        let outcomes = turns::measure(&check, &[&ours, &other], bare, requests, seconds)?;
        report
            .rows
            .push(Measured::new(row.name, row.is_hello, outcomes));
    }
    for one in whole::chosen(&arguments.rows) {
        println!("measuring {}", one.0);
        let begin: [whole::Begin<'_>; 2] = [&|| begin(false), &|| begin_other(false)];
        let figures = whole::measure(one, [&ours, &other], begin)?;
        report.whole.extend(figures);
    }
    tell(&report, arguments)
}

/// Prints and writes what was measured, and fails above the limit.
fn tell(report: &Report, arguments: &Arguments) -> Result<()> {
    println!("\n{}", report.markdown());
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    if let Some(path) = &arguments.svg {
        plot::write(report, path)?;
    }
    let slow = report.above(arguments.limit);
    ensure!(
        slow.is_empty(),
        "a hello takes more than {} times as long as on the other server: {}",
        arguments.limit,
        slow.join(", ")
    );
    Ok(())
}

/// Fails when a row is asked for that the other kind of comparison has.
fn expect_rows(arguments: &Arguments) -> Result<()> {
    let names = match arguments.sessions {
        true => sessions::names().to_vec(),
        false => [&rows::names()[..], &whole::names()].concat(),
    };
    let asked = arguments.rows.iter().map(String::as_str);
    let strange: Vec<&str> = asked.filter(|name| !names.contains(name)).collect();
    ensure!(
        strange.is_empty(),
        "no rows of this comparison: {}; it has {}",
        strange.join(", "),
        names.join(", ")
    );
    Ok(())
}

fn found(binary: &Path) -> Result<PathBuf> {
    binary
        .canonicalize()
        .with_context(|| format!("there is no binary at {}", binary.display()))
}
