//! What a comparison of sessions tells: tables in Markdown, the same as JSON, and
//! whether the promises are kept. Never measures anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::idle::Idle;
use super::measure::COLD;
use crate::bench::figures::Figures;

/// How one server did in a row; without figures where it has no such thing.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) server: &'static str,
    pub(super) figures: Option<Figures>,
}

/// A row of times. The first line is ours.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) lines: Vec<Line>,
}

/// All that a comparison tells.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Facts by name, in order.
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) rows: Vec<Row>,
    pub(super) idle: Vec<Idle>,
    /// Rows that failed, and why.
    pub(super) failures: Vec<(&'static str, String)>,
}

/// What a promise is about.
#[derive(Debug, Clone, Copy)]
enum Subject {
    /// The median of ours in this row, in milliseconds.
    Median(&'static str),
    /// That median by the one of a run without a session.
    OfCold(&'static str),
    /// Memory of an idle session, in MiB.
    Memory,
    /// Processor time of all idle sessions, in percent of a core.
    Processor,
}

/// What is promised, in words and as the highest number.
const PROMISES: [(&str, Subject, f64); 6] = [
    ("a cell takes 2 ms", Subject::Median("cell"), 2.0),
    ("a fork takes 50 ms", Subject::Median("fork"), 50.0),
    (
        "a first result takes 1.2 times a run (Python)",
        Subject::OfCold("first-python"),
        1.2,
    ),
    (
        "a first result takes 1.2 times a run (JavaScript)",
        Subject::OfCold("first-javascript"),
        1.2,
    ),
    // 2 GiB for 200.
    ("an idle session holds 10.2 MiB", Subject::Memory, 10.24),
    ("idle sessions use 1 % of a core", Subject::Processor, 1.0),
];

/// A promise and what was seen.
#[derive(Debug, PartialEq)]
struct Verdict {
    promise: &'static str,
    seen: Option<f64>,
    is_met: Option<bool>,
}

impl Verdict {
    fn words(&self) -> &'static str {
        match self.is_met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "not measured",
        }
    }
}

impl Report {
    /// Returns facts, tables, promises and failures in Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, fact) in &self.facts {
            text.push_str(&format!("- {name}: {fact}\n"));
        }
        if !self.rows.is_empty() {
            text.push('\n');
            text.push_str(&self.times());
        }
        if !self.idle.is_empty() {
            text.push('\n');
            text.push_str(&self.idle_table());
        }
        text.push('\n');
        for verdict in self.verdicts() {
            let seen = verdict
                .seen
                .map_or(String::new(), |seen| format!("{seen:.2}, "));
            text.push_str(&format!(
                "- at most: {}: {seen}{}\n",
                verdict.promise,
                verdict.words()
            ));
        }
        for (name, why) in &self.failures {
            text.push_str(&format!("- FAILED: {name}: {why}\n"));
        }
        text
    }

    fn times(&self) -> String {
        let mut text = String::from(
            "| row              | server   |  p50 ms |  p90 ms |  p99 ms | requests | ours / it |\n|---|---|---:|---:|---:|---:|---:|\n",
        );
        for row in &self.rows {
            for line in &row.lines {
                let (name, server) = (row.name, line.server);
                let Some(one) = line.figures else {
                    text.push_str(&format!(
                        "| {name:<16} | {server:<8} | not possible | | | | |\n"
                    ));
                    continue;
                };
                let ratio = match row.median() {
                    Some(ours) if server != OURS => format!("{:.2}", ours / one.p50),
                    _ => String::new(),
                };
                text.push_str(&format!(
                    "| {name:<16} | {server:<8} | {:>7.2} | {:>7.2} | {:>7.2} | {:>8} | {ratio:>9} |\n",
                    one.p50, one.p90, one.p99, one.requests,
                ));
            }
        }
        text
    }

    fn idle_table(&self) -> String {
        let mut text = String::from(
            "| idle     | count |  MiB each | PSS MiB each | all: % of a core |\n|---|---:|---:|---:|---:|\n",
        );
        for one in &self.idle {
            let pss = one
                .pss_mib
                .map_or("-".to_owned(), |mib| format!("{mib:.1}"));
            let memory = match one.is_disturbed {
                true => "disturbed".to_owned(),
                false => format!("{:.1}", one.memory_mib),
            };
            text.push_str(&format!(
                "| {:<8} | {:>5} | {memory:>9} | {pss:>12} | {:>16.2} |\n",
                one.server, one.count, one.cpu_percent,
            ));
        }
        text
    }

    fn seen(&self, subject: Subject) -> Option<f64> {
        let row = |name: &str| self.rows.iter().find(|row| row.name == name);
        let idle = || self.idle.iter().find(|one| one.server == OURS);
        match subject {
            Subject::Median(name) => row(name)?.median(),
            Subject::OfCold(name) => Some(row(name)?.median()? / row(name)?.median_of(COLD)?),
            Subject::Memory => {
                let one = idle()?;
                (!one.is_disturbed).then_some(one.memory_mib)
            }
            Subject::Processor => Some(idle()?.cpu_percent),
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |(promise, subject, most)| {
            let seen = self.seen(subject);
            Verdict {
                promise,
                seen,
                is_met: seen.map(|seen| seen <= most),
            }
        };
        PROMISES.into_iter().map(verdict).collect()
    }

    /// Returns the promises that are not kept, as text.
    pub(super) fn broken(&self) -> Vec<String> {
        let verdicts = self.verdicts().into_iter();
        let broken = verdicts.filter(|one| one.is_met == Some(false));
        broken.map(|one| one.promise.to_owned()).collect()
    }

    /// Writes the same as JSON.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let facts: BTreeMap<&str, &String> = self.facts.iter().map(|(k, v)| (*k, v)).collect();
        let promises: Vec<Value> = self
            .verdicts()
            .iter()
            .map(|one| json!({"at_most": one.promise, "seen": one.seen, "is_met": one.is_met}))
            .collect();
        let failures: BTreeMap<&str, &String> =
            self.failures.iter().map(|(k, v)| (*k, v)).collect();
        let report = json!({
            "facts": facts,
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "idle": self.idle,
            "promises": promises,
            "failures": failures,
        });
        let mut text = serde_json::to_string_pretty(&report).context("failed to make JSON")?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// The name of ours.
pub(super) const OURS: &str = "ours";

impl Row {
    fn median_of(&self, server: &str) -> Option<f64> {
        let line = self.lines.iter().find(|line| line.server == server)?;
        line.figures.map(|figures| figures.p50)
    }

    fn median(&self) -> Option<f64> {
        self.median_of(OURS)
    }

    fn json(&self) -> Value {
        let lines = self.lines.iter().map(|line| match line.figures {
            Some(one) => json!({
                "server": line.server, "p50": one.p50, "p90": one.p90, "p99": one.p99,
                "requests": one.requests,
            }),
            None => json!({"server": line.server, "is_possible": false}),
        });
        json!({"name": self.name, "lines": lines.collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn line(server: &'static str, millis: u64) -> Line {
        let times = vec![Duration::from_millis(millis)];
        Line {
            server,
            figures: (millis > 0).then(|| Figures::of(times)),
        }
    }

    fn report() -> Report {
        let row = |name, lines| Row { name, lines };
        Report {
            facts: vec![("machine", "2 cores".to_owned())],
            rows: vec![
                row("cell", vec![line(OURS, 2), line("gateway", 8)]),
                row("first-python", vec![line(OURS, 25), line(COLD, 20)]),
                row("fork", vec![line(OURS, 40), line("gateway", 0)]),
            ],
            idle: vec![Idle {
                server: OURS,
                count: 50,
                memory_mib: 8.04,
                is_disturbed: false,
                pss_mib: None,
                cpu_percent: 0.5,
            }],
            failures: vec![("cell-plot", "no picture".to_owned())],
        }
    }

    #[test]
    fn the_tables_are_markdown_of_at_most_100_characters() {
        let text = report().markdown();
        let expected = "\
- machine: 2 cores

| row              | server   |  p50 ms |  p90 ms |  p99 ms | requests | ours / it |
|---|---|---:|---:|---:|---:|---:|
| cell             | ours     |    2.00 |    2.00 |    2.00 |        1 |           |
| cell             | gateway  |    8.00 |    8.00 |    8.00 |        1 |      0.25 |
| first-python     | ours     |   25.00 |   25.00 |   25.00 |        1 |           |
| first-python     | cold run |   20.00 |   20.00 |   20.00 |        1 |      1.25 |
| fork             | ours     |   40.00 |   40.00 |   40.00 |        1 |           |
| fork             | gateway  | not possible | | | | |

| idle     | count |  MiB each | PSS MiB each | all: % of a core |
|---|---:|---:|---:|---:|
| ours     |    50 |       8.0 |            - |             0.50 |

- at most: a cell takes 2 ms: 2.00, met
- at most: a fork takes 50 ms: 40.00, met
- at most: a first result takes 1.2 times a run (Python): 1.25, not met
- at most: a first result takes 1.2 times a run (JavaScript): not measured
- at most: an idle session holds 10.2 MiB: 8.04, met
- at most: idle sessions use 1 % of a core: 0.50, met
- FAILED: cell-plot: no picture
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.len() <= 100));
    }

    #[test]
    fn disturbed_memory_is_not_judged() {
        let mut report = report();
        report.idle[0].is_disturbed = true;
        let text = report.markdown();
        assert!(text.contains("| disturbed |"), "{text}");
        assert!(text.contains("holds 10.2 MiB: not measured"), "{text}");
    }

    #[test]
    fn only_what_was_measured_can_break_a_promise() {
        assert_eq!(
            report().broken(),
            ["a first result takes 1.2 times a run (Python)"]
        );
        assert!(Report::default().broken().is_empty());
    }

    #[test]
    fn the_json_has_the_same_figures() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("figures.json");
        report().write(&path).expect("it is written");
        let text = fs::read_to_string(&path).expect("it is there");
        let json: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(json["rows"][0]["lines"][1]["p50"], 8.0);
        assert_eq!(json["rows"][2]["lines"][1]["is_possible"], false);
        assert_eq!(json["idle"][0]["count"], 50);
        assert_eq!(json["promises"][2]["is_met"], false);
        assert_eq!(json["promises"][3]["seen"], Value::Null);
        assert_eq!(json["failures"]["cell-plot"], "no picture");
    }
}
