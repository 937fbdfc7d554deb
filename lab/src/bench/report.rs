//! What a benchmark tells: facts about the machine and one table, for people in
//! Markdown and for programs as JSON. Never measures anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use super::contenders::PYTHON;
use super::figures::{Outcome, Ratio};
use super::machine::Machine;
use super::whole::Whole;
use xtask::process;

/// Widths of the table's columns, in characters.
const WIDTHS: [usize; 9] = [10, 10, 7, 7, 7, 7, 8, 8, 8];

/// All that a benchmark tells.
#[derive(Debug)]
pub(super) struct Report {
    /// What it was measured on.
    pub(super) machine: Machine,
    /// Facts by name, in order.
    pub(super) facts: Vec<(&'static str, String)>,
    /// The name of the server that ours is compared with.
    pub(super) against: &'static str,
    /// A line for each row.
    pub(super) rows: Vec<Measured>,
    /// What was measured of the servers as a whole.
    pub(super) whole: Vec<Whole>,
}

/// A row with what came of it on all servers.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// The row's name.
    pub(super) name: &'static str,
    /// Whether `--limit` is about it.
    pub(super) is_hello: bool,
    /// Ours first, then the one that it is compared with.
    pub(super) servers: Vec<Line>,
}

/// How one server did in a row.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// The server's name.
    pub(super) server: &'static str,
    /// How it did.
    #[serde(flatten)]
    pub(super) outcome: Outcome,
    /// Ours divided by it, where it is another.
    pub(super) ratio: Option<Ratio>,
}

impl Measured {
    /// Returns a row with the outcomes of servers of these names, ours first.
    pub(super) fn new(
        name: &'static str,
        is_hello: bool,
        outcomes: impl IntoIterator<Item = (&'static str, Outcome)>,
    ) -> Self {
        let mut servers: Vec<Line> = Vec::new();
        for (server, outcome) in outcomes {
            let ratio = servers.first().map(|ours| ours.outcome.ratio(&outcome));
            servers.push(Line {
                server,
                outcome,
                ratio,
            });
        }
        Self {
            name,
            is_hello,
            servers,
        }
    }

    /// Returns ours divided by the server that it is compared with first.
    fn first_ratio(&self) -> Option<Ratio> {
        self.servers.iter().find_map(|line| line.ratio)
    }

    fn markdown(&self) -> String {
        let rate = |digits: usize, rate: Option<f64>| {
            rate.map_or_else(String::new, |rate| format!("{rate:.digits$}"))
        };
        let mut text = String::new();
        for one in &self.servers {
            let Outcome {
                paused,
                looped,
                rates,
            } = one.outcome;
            text.push_str(&line([
                self.name.to_owned(),
                one.server.to_owned(),
                format!("{:.1}", paused.p50),
                format!("{:.1}", paused.p90),
                format!("{:.1}", paused.p99),
                format!("{:.1}", looped.p50),
                paused.requests.to_string(),
                rate(1, rates.map(|rates| rates.of_two)),
                rate(1, rates.map(|rates| rates.of_eight)),
            ]));
            let Some(ratio) = one.ratio else {
                continue;
            };
            text.push_str(&line([
                self.name.to_owned(),
                "ratio".to_owned(),
                format!("{:.2}", ratio.p50),
                format!("{:.2}", ratio.p90),
                format!("{:.2}", ratio.p99),
                format!("{:.2}", ratio.looped_p50),
                String::new(),
                rate(2, ratio.rates.map(|rates| rates.of_two)),
                rate(2, ratio.rates.map(|rates| rates.of_eight)),
            ]));
        }
        text
    }
}

impl Report {
    /// Returns facts and table in Markdown, at most 100 characters wide.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, fact) in &self.facts {
            text.push_str(&format!("- {name}: {fact}\n"));
        }
        if !self.rows.is_empty() {
            text.push('\n');
            text.push_str(&self.rows_table());
        }
        if !self.whole.is_empty() {
            text.push('\n');
            text.push_str(&self.whole_table());
        }
        text
    }

    fn rows_table(&self) -> String {
        let head = [
            "row", "server", "p50 ms", "p90 ms", "p99 ms", "loop ms", "requests", "req/s x2",
            "req/s x8",
        ];
        let mut text = line(head.map(str::to_owned));
        text.push_str("|---|---|---:|---:|---:|---:|---:|---:|---:|\n");
        for row in &self.rows {
            text.push_str(&row.markdown());
        }
        text
    }

    fn whole_table(&self) -> String {
        let (row, what) = ("row", "the server as a whole");
        let (ours, against, ratio) = ("ours", self.against, "ratio");
        let mut text = format!(
            "| {row:<10} | {what:<26} | {ours:>9} | {against:>9} | {ratio:>6} |\n|---|---|---:|---:|---:|\n"
        );
        for one in &self.whole {
            text.push_str(&format!(
                "| {:<10} | {:<26} | {:>9.1} | {:>9.1} | {:>6.2} |\n",
                one.name, one.what, one.ours, one.other, one.ratio
            ));
        }
        text
    }

    /// Writes the same as JSON.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let facts: BTreeMap<&str, &String> = self.facts.iter().map(|(k, v)| (*k, v)).collect();
        let report = json!({
            "machine": self.machine,
            "facts": facts,
            "against": self.against,
            "rows": self.rows,
            "whole": self.whole,
        });
        let mut text = serde_json::to_string_pretty(&report).context("failed to make JSON")?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Returns the rows, as text, whose ratio of medians is above `limit`; only
    /// those that say hello count.
    pub(super) fn above(&self, limit: f64) -> Vec<String> {
        self.rows
            .iter()
            .filter(|row| row.is_hello)
            .filter_map(|row| Some((row.name, row.first_ratio()?.p50)))
            .filter(|(_, ratio)| *ratio > limit)
            .map(|(name, ratio)| format!("{name} {ratio:.2}"))
            .collect()
    }
}

fn line(cells: [String; 9]) -> String {
    let mut text = String::from("|");
    for (column, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        // Words to the left, numbers to the right.
        let padded = if column < 2 {
            format!(" {cell:<width$} |")
        } else {
            format!(" {cell:>width$} |")
        };
        text.push_str(&padded);
    }
    text.push('\n');
    text
}

/// Returns what is to be known of the `machine`, of the servers and of how they were
/// `asked`.
///
/// # Errors
/// When an interpreter does not tell the versions of packages.
pub(super) fn facts(
    machine: &Machine,
    build: String,
    isolation: String,
    packages: Option<&Path>,
    asked: String,
) -> Result<Vec<(&'static str, String)>> {
    let load = fs::read_to_string("/proc/loadavg").context("failed to read /proc/loadavg")?;
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    Ok(vec![
        ("date", machine.date.clone()),
        ("machine", machine.hardware()),
        ("interpreters", machine.interpreters()),
        ("packages", versions(packages)?),
        ("isolation", isolation),
        ("sources", commit()),
        ("build", build),
        ("load before", load.join(" ")),
        ("requests", asked),
    ])
}

/// The packages that programs of both servers see.
fn versions(packages: Option<&Path>) -> Result<String> {
    const PROGRAM: &str = "\
from importlib.metadata import version
print(', '.join(name + ' ' + version(name) for name in ('numpy', 'pandas', 'matplotlib')))
";
    let Some(packages) = packages else {
        return Ok("none".to_owned());
    };
    let mut command = process::command(PYTHON);
    command
        .env("PYTHONUSERBASE", packages)
        .args(["-c", PROGRAM]);
    let told = process::capture("ask for the versions of packages", &mut command)?;
    Ok(told.trim().to_owned())
}

/// The commit of the sources, and whether they were changed since.
fn commit() -> String {
    let git = |words: &[&str]| {
        let mut command = process::command("git");
        command.args(words);
        process::capture("ask git", &mut command).ok()
    };
    match (
        git(&["rev-parse", "--short=12", "HEAD"]),
        git(&["status", "--porcelain"]),
    ) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit.trim().to_owned(),
        (Some(commit), _) => format!("{} with changes", commit.trim()),
        // A tarball of the sources is no repository.
        (None, _) => "unknown commit".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::figures::{Figures, Rates};

    /// Returns a report with a bit of everything.
    pub(in crate::bench) fn report() -> Report {
        let figures = |p50: f64| Figures {
            p50,
            p90: p50 * 2.0,
            p99: 12_345.678,
            requests: 60,
        };
        let outcome = |p50: f64| Outcome {
            paused: figures(p50),
            looped: figures(p50 / 2.0),
            rates: Some(Rates {
                of_two: 500.0 / p50,
                of_eight: 1000.0 / p50,
            }),
        };
        let row = |name, is_hello, ours: f64, naive: f64| {
            let mut outcomes = vec![("ours", outcome(ours)), ("naive", outcome(naive))];
            if is_hello {
                let rates = None;
                let bare = outcome(naive / 2.0);
                outcomes.push(("subprocess", Outcome { rates, ..bare }));
            }
            Measured::new(name, is_hello, outcomes)
        };
        let machine = Machine {
            cores: 2,
            processor: "Some CPU".to_owned(),
            kernel: "6.1".to_owned(),
            python: "3.11.2".to_owned(),
            node: "20.1.0".to_owned(),
            date: "2026-01-31T12:00:00Z".to_owned(),
        };
        Report {
            machine,
            facts: vec![("machine", "2 cores".to_owned())],
            against: "naive",
            rows: vec![
                row("javascript", true, 50.0, 40.0),
                row("pandas", false, 900.0, 300.0),
            ],
            whole: vec![Whole::new("memory", "idle, PSS MiB", 60.0, 48.0)],
        }
    }

    #[test]
    fn the_table_is_markdown_of_at_most_100_characters() {
        let text = report().markdown();
        let expected = "\
- machine: 2 cores

| row        | server     |  p50 ms |  p90 ms |  p99 ms | loop ms | requests | req/s x2 | req/s x8 |
|---|---|---:|---:|---:|---:|---:|---:|---:|
| javascript | ours       |    50.0 |   100.0 | 12345.7 |    25.0 |       60 |     10.0 |     20.0 |
| javascript | naive      |    40.0 |    80.0 | 12345.7 |    20.0 |       60 |     12.5 |     25.0 |
| javascript | ratio      |    1.25 |    1.25 |    1.00 |    1.25 |          |     0.80 |     0.80 |
| javascript | subprocess |    20.0 |    40.0 | 12345.7 |    10.0 |       60 |          |          |
| javascript | ratio      |    2.50 |    2.50 |    1.00 |    2.50 |          |          |          |
| pandas     | ours       |   900.0 |  1800.0 | 12345.7 |   450.0 |       60 |      0.6 |      1.1 |
| pandas     | naive      |   300.0 |   600.0 | 12345.7 |   150.0 |       60 |      1.7 |      3.3 |
| pandas     | ratio      |    3.00 |    3.00 |    1.00 |    3.00 |          |     0.33 |     0.33 |

| row        | the server as a whole      |      ours |     naive |  ratio |
|---|---|---:|---:|---:|
| memory     | idle, PSS MiB              |      60.0 |      48.0 |   1.25 |
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.len() <= 100));
    }

    #[test]
    fn the_limit_is_about_hello_alone() {
        let check = |limit: f64, expected: &[&str]| assert_eq!(report().above(limit), expected);
        check(1.6, &[]);
        check(1.25, &[]);
        check(1.2, &["javascript 1.25"]);
    }

    #[test]
    fn the_json_has_the_same_figures() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("figures.json");
        report().write(&path).expect("it is written");
        let text = fs::read_to_string(&path).expect("it is there");
        let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let row = &json["rows"][0];
        assert_eq!(row["name"], "javascript");
        assert_eq!(row["servers"][0]["p50"], 50.0);
        assert_eq!(row["servers"][0]["looped"]["p50"], 25.0);
        assert_eq!(row["servers"][1]["server"], "naive");
        assert_eq!(row["servers"][1]["per_second_x8"], 25.0);
        assert_eq!(row["servers"][1]["ratio"]["p50"], 1.25);
        assert_eq!(row["servers"][2]["ratio"]["p50"], 2.5);
        assert!(row["servers"][2].get("per_second_x2").is_none());
        assert_eq!(json["whole"][0]["ratio"], 1.25);
        assert_eq!(json["facts"]["machine"], "2 cores");
        let machine = &json["machine"];
        assert_eq!(
            (&machine["cores"], &machine["kernel"]),
            (&json!(2), &json!("6.1"))
        );
        assert_eq!(machine["date"], "2026-01-31T12:00:00Z");
    }
}
