//! The programs that are compared, as data, and whether an answer is the one that
//! a program must give. Never measures anything.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http::Response;

/// Seconds that a program may take: the most that both servers allow, since with
/// many at once on few cores each takes its time.
const TIMEOUT: u32 = 30;

/// What every PNG file begins with, in Base64.
const PNG: &str = "iVBORw0KGgo";

/// Where a program says how often it goes through its loop.
pub(super) const LOOPS: &str = "LOOPS";

/// How often, where nobody has measured what the machine takes for it.
const FEW_LOOPS: u64 = 1000;

/// Characters of an expected output that a message quotes.
const QUOTED: usize = 100;

/// What a program prints.
#[derive(Debug)]
pub(super) enum Output {
    /// This text.
    Text(&'static str),
    /// So many lines of 64 bytes, each with its number.
    Lines(u64),
    /// The sum of what its loop adds up.
    Sum,
}

impl Output {
    /// Returns it as text, of a program with so many loops.
    fn text(&self, loops: u64) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Lines(count) => (0..*count).map(|line| format!("{line:063}\n")).collect(),
            Self::Sum => format!("{}\n", (0..loops).map(|n| n * n % 7).sum::<u64>()),
        }
    }
}

/// How a server of ours is asked; others have `POST /execute` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// By `POST /execute`.
    Execute,
    /// By the same in a session, which is there before and stays.
    Session,
    /// By the tool `run_code` of MCP, where each message stands for itself.
    Mcp,
}

/// A program and what must come of it, on both sides alike.
#[derive(Debug)]
pub(super) struct Row {
    /// Its name in `--rows` and in the table.
    pub(super) name: &'static str,
    /// The language, as both servers name it.
    pub(super) language: &'static str,
    /// The program text.
    pub(super) code: &'static str,
    /// What it prints.
    pub(super) output: Output,
    /// The PNG file that it leaves, if it leaves one.
    pub(super) picture: Option<&'static str>,
    /// What it imports beside the language's own library.
    pub(super) imports: &'static [&'static str],
    /// How ours is asked.
    pub(super) door: Door,
    /// Whether it measures how long an interpreter takes to start, and little else:
    /// `--limit` is about these.
    pub(super) is_hello: bool,
}

/// Every row, in the table's order.
pub(super) static ROWS: [Row; 8] = [
    Row {
        name: "python",
        language: "python",
        code: "print(2+2)",
        output: Output::Text("4\n"),
        picture: None,
        imports: &[],
        door: Door::Execute,
        is_hello: true,
    },
    Row {
        name: "javascript",
        language: "javascript",
        code: "console.log(2+2)",
        output: Output::Text("4\n"),
        picture: None,
        imports: &[],
        door: Door::Execute,
        is_hello: true,
    },
    Row {
        name: "pandas",
        language: "python",
        code: "\
import numpy as np
import pandas as pd
frame = pd.DataFrame({'group': np.arange(1000) % 4, 'value': np.arange(1000)})
print(frame.groupby('group')['value'].sum().tolist())
",
        output: Output::Text("[124500, 124750, 125000, 125250]\n"),
        picture: None,
        imports: &["numpy", "pandas"],
        door: Door::Execute,
        is_hello: false,
    },
    Row {
        name: "png",
        language: "python",
        code: "\
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
plt.plot([1, 2, 4, 8, 16])
plt.title('Powers of two')
plt.savefig('plot.png')
print('saved')
",
        output: Output::Text("saved\n"),
        picture: Some("plot.png"),
        imports: &["matplotlib"],
        door: Door::Execute,
        is_hello: false,
    },
    Row {
        name: "output",
        language: "python",
        code: "for line in range(15625): print('%063d' % line)",
        output: Output::Lines(15_625),
        picture: None,
        imports: &[],
        door: Door::Execute,
        is_hello: false,
    },
    Row {
        name: "cpu",
        language: "python",
        code: "\
total = 0
for n in range(LOOPS):
    total += n * n % 7
print(total)
",
        output: Output::Sum,
        picture: None,
        imports: &[],
        door: Door::Execute,
        is_hello: false,
    },
    Row {
        name: "session",
        language: "python",
        code: "print(2+2)",
        output: Output::Text("4\n"),
        picture: None,
        imports: &[],
        door: Door::Session,
        is_hello: false,
    },
    Row {
        name: "mcp",
        language: "python",
        code: "print(2+2)",
        output: Output::Text("4\n"),
        picture: None,
        imports: &[],
        door: Door::Mcp,
        is_hello: false,
    },
];

/// Returns the names of all rows.
pub(super) fn names() -> [&'static str; 8] {
    ROWS.each_ref().map(|row| row.name)
}

/// Returns the rows of these names in the table's order, or all when none is named.
pub(super) fn chosen(names: &[String]) -> Vec<&'static Row> {
    ROWS.iter()
        .filter(|row| names.is_empty() || names.iter().any(|name| name == row.name))
        .collect()
}

impl Row {
    /// Returns the pause before each single request, in which a server works ahead: one
    /// that makes boxes ahead has had the time to, in either language.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis(if self.is_javascript() { 150 } else { 50 })
    }

    /// Returns the body of its request.
    pub(super) fn request(&self) -> Value {
        self.request_for(self.code)
    }

    /// Returns a source that no other number has.
    fn numbered(&self, number: u64, code: &str) -> String {
        let comment = if self.is_javascript() { "//" } else { "#" };
        format!("{comment} {number}\n{code}")
    }

    fn request_for(&self, code: &str) -> Value {
        json!({"code": code, "language": self.language, "timeout": TIMEOUT})
    }

    fn is_javascript(&self) -> bool {
        self.language == "javascript"
    }
}

/// The requests of a row, and the check of all answers to it. A picture has to be the same file, byte for
/// byte, in each of them, whichever server gave it.
#[derive(Debug)]
pub(super) struct Check {
    /// The row.
    pub(super) row: &'static Row,
    code: String,
    output: String,
    /// Requests so far.
    requests: AtomicU64,
    /// The picture of the first answer, in Base64.
    first: OnceLock<String>,
}

impl Check {
    /// Returns the check of a row that nobody has answered yet.
    pub(super) fn new(row: &'static Row) -> Self {
        Self::with_loops(row, FEW_LOOPS)
    }

    /// Returns the same of a program that goes through its loop so often, if it has one.
    pub(super) fn with_loops(row: &'static Row, loops: u64) -> Self {
        Self {
            row,
            code: row.code.replace(LOOPS, &loops.to_string()),
            output: row.output.text(loops),
            requests: AtomicU64::new(0),
            first: OnceLock::new(),
        }
    }

    /// Returns the body of a request whose source no other has, so that a server can
    /// keep nothing of one for the next.
    pub(super) fn next_request(&self) -> Value {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        self.row.request_for(&self.row.numbered(number, &self.code))
    }

    /// Fails when an answer is not the one that the row must get.
    pub(super) fn pass(&self, response: &Response) -> Result<()> {
        ensure!(
            response.status == 200,
            "the row {} got status {}: {}",
            self.row.name,
            response.status,
            response.text()
        );
        self.pass_answer(&response.json()?)
            .with_context(|| format!("the row {} got {}", self.row.name, response.text()))
    }

    /// Fails when the answer of a run is not the one that the row must get.
    pub(super) fn pass_answer(&self, answer: &Value) -> Result<()> {
        ensure!(
            answer["exit_code"] == 0 && answer["output"] == self.output.as_str(),
            "it should have printed {:?}",
            self.output.chars().take(QUOTED).collect::<String>()
        );
        let files = answer["files"].as_array().map_or(&[][..], Vec::as_slice);
        match (self.row.picture, files) {
            (None, []) => Ok(()),
            (Some(name), [file]) if file["path"] == name => {
                let content = file["content"].as_str().unwrap_or_default();
                ensure!(content.starts_with(PNG), "{name} is no PNG file");
                let first = self.first.get_or_init(|| content.to_owned());
                ensure!(
                    first == content,
                    "{name} is not the picture that the first answer had"
                );
                Ok(())
            }
            (wanted, _) => bail!("it should have left {}", wanted.unwrap_or("no file")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contenders;
    use xtask::process;

    #[test]
    fn rows_are_chosen_by_name() {
        let check = |names: &[&str], expected: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let rows: Vec<&str> = chosen(&names).iter().map(|row| row.name).collect();
            assert_eq!(rows, expected);
        };
        check(
            &[],
            &[
                "python",
                "javascript",
                "pandas",
                "png",
                "output",
                "cpu",
                "session",
                "mcp",
            ],
        );
        check(&["png", "python"], &["python", "png"]);
        check(&["pandas"], &["pandas"]);
    }

    #[test]
    fn only_the_expected_answer_passes() {
        let [hello, _, _, png, output, cpu, ..] = &ROWS;
        let passes = |row: &'static Row, answers: &[Value]| {
            let check = Check::new(row);
            answers
                .iter()
                .all(|answer| check.pass_answer(answer).is_ok())
        };
        let check = |row, answers: &[Value], expected: bool| {
            assert_eq!(passes(row, answers), expected, "{answers:?}");
        };
        let printed = |text: &str, exit_code: i32| json!({"output": text, "exit_code": exit_code});
        check(hello, &[printed("4\n", 0)], true);
        check(hello, &[printed("4\n", 1)], false);
        check(hello, &[printed("5\n", 0)], false);
        check(hello, &[json!({})], false);
        let saved = |path: &str, content: &str| json!({"output": "saved\n", "exit_code": 0, "files": [{"path": path, "content": content}]});
        check(hello, &[saved("plot.png", "")], false);
        check(png, &[printed("saved\n", 0)], false);
        check(png, &[saved("plot.png", "iVBORw0KGgoA")], true);
        check(png, &[saved("other.png", "iVBORw0KGgoA")], false);
        check(png, &[saved("plot.png", "R0lGODlh")], false);
        let (one, two) = (
            saved("plot.png", "iVBORw0KGgoA"),
            saved("plot.png", "iVBORw0KGgoB"),
        );
        check(png, &[one.clone(), one.clone()], true);
        check(png, &[one, two], false);
        let lines = |count| Output::Lines(count).text(0);
        assert_eq!(lines(15_625).len(), 1_000_000);
        check(output, &[printed(&lines(15_625), 0)], true);
        check(output, &[printed(&lines(15_624), 0)], false);
        // As if a server had kept the beginning and the end.
        check(
            output,
            &[printed(&lines(15_625).replace("7\n", "8\n"), 0)],
            false,
        );
        check(cpu, &[printed("2001\n", 0)], true);
        check(cpu, &[printed("2002\n", 0)], false);
    }

    #[test]
    fn no_source_is_sent_twice() {
        let check = |row: &'static Row, first: &str| {
            let check = Check::new(row);
            let sources = [check.next_request(), check.next_request()];
            let sources = sources.map(|body| body["code"].as_str().map(str::to_owned));
            assert_eq!(sources[0].as_deref(), Some(first));
            assert_ne!(sources[0], sources[1]);
        };
        check(&ROWS[0], "# 0\nprint(2+2)");
        check(&ROWS[1], "// 0\nconsole.log(2+2)");
    }

    /// Where no benchmark has installed the packages yet, programs that import
    /// some cannot be tried here; the benchmark itself checks every answer.
    #[test]
    fn programs_print_what_they_promise_and_without_packages_hello_does() {
        let packages = contenders::installed_packages();
        for row in &ROWS {
            if !row.imports.is_empty() && packages.is_none() {
                continue;
            }
            let directory = tempfile::tempdir().expect("a directory");
            let (interpreter, flag) = match row.language {
                "python" => (contenders::PYTHON, "-c"),
                _ => (contenders::NODE, "-e"),
            };
            let mut command = process::command(interpreter);
            let check = Check::new(row);
            command.current_dir(directory.path());
            command.args([flag, check.code.as_str()]);
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command.env("MPLCONFIGDIR", directory.path().join("matplotlib"));
            if let Some(packages) = &packages {
                command.env("PYTHONUSERBASE", packages);
            }
            let printed = process::capture("run a row's program", &mut command)
                .expect("the program succeeds");
            assert!(printed == check.output, "{}", row.name);
            let left = row.picture.map(|name| directory.path().join(name));
            assert!(left.is_none_or(|path| path.is_file()), "{}", row.name);
        }
    }
}
