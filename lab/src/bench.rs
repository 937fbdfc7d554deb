//! The benchmark: a cold start of each run in our server, against the naive server
//! that people write first, or against another build of ours. Every answer is
//! checked; a wrong one fails the run, however fast it came.

mod contenders;
mod figures;
mod report;
mod rows;
mod turns;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;

use contenders::Contender;
use report::{Measured, Report};
use xtask::apt::{self, Need, Probe};
use xtask::build;

/// The highest ratio of medians that we promise.
const RATIO_LIMIT: f64 = 1.6;

const NODE: Need = Need {
    probe: Probe::File(contenders::NODE),
    packages: &["nodejs"],
    reason: "the interpreter that both servers run",
    required: true,
};

/// What to compare, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Counted requests to each server, for each row; two minutes for a row at most.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// Seconds in which eight clients ask each server at once, for each row.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rows to measure; all when left out.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(rows::names()))]
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
    /// File to write the figures to, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs the comparison, prints it, and fails above the limit.
pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    apt::ensure(&[NODE])?;
    let rows = rows::chosen(&arguments.rows);
    let needs_packages = rows.iter().any(|row| !row.imports.is_empty());
    let (binary, mut build) = match &arguments.binary {
        Some(binary) => (found(binary)?, binary.display().to_string()),
        None => (build::release()?, "release of the sources".to_owned()),
    };
    let ours = Contender::ours("ours", &binary, needs_packages)?;
    let packages = needs_packages
        .then(contenders::installed_packages)
        .flatten();
    let mut isolation = ours.isolation()?;
    let other = match &arguments.against {
        Some(other) => {
            build = format!("{build}, against {}", other.display());
            let other = Contender::ours("against", &found(other)?, needs_packages)?;
            isolation = format!("{isolation}, against {}", other.isolation()?);
            other
        }
        None => Contender::naive(packages.as_deref())?,
    };
    let mut report = Report {
        facts: report::facts(build, isolation, packages.as_deref())?,
        rows: Vec::new(),
    };
    for row in rows {
        println!("measuring {}", row.name);
        let servers = [&ours, &other];
        let [figures, others] =
            turns::measure(row, servers, arguments.requests, arguments.seconds)?;
        report.rows.push(Measured {
            name: row.name,
            is_hello: row.is_hello(),
            against: other.name,
            ours: figures,
            other: others,
            ratio: figures.ratio(others),
        });
    }
    println!("\n{}", report.markdown());
    if let Some(path) = &arguments.json {
        report.write(path)?;
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

fn found(binary: &Path) -> Result<PathBuf> {
    binary
        .canonicalize()
        .with_context(|| format!("there is no binary at {}", binary.display()))
}
