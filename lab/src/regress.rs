//! `cargo xtask regress`: ordinary programs inside a box and outside, side by
//! side: CPython's own regression tests, and what Node's common modules do.
//!
//! Both sides run the same interpreter on the same files. A test that ends
//! otherwise inside has to be explained in `lab/regress/modules.toml`, with the
//! layer that makes it so; one that is not, or an explanation of nothing, is a
//! failure.

mod compare;
mod node;
mod python;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::live::{Home, Server};
use compare::{Difference, Explained};
use xtask::build;
use xtask::process;
use xtask::tally::Counts;

/// Seconds that one module may take, on either side.
const TIME: u64 = 240;
/// Memory of the inside: what is compared is behaviour, not the default's size.
const MEMORY_MB: u64 = 2048;
/// As many as a test of the standard library starts, and more.
const PROCESSES: &str = "1024";
/// Room for their sparse files.
const WORKSPACE: &str = "8GiB";

/// Prints the environment that programs of a language find.
const ENVIRONMENTS: [(&str, &str); 2] = [
    (
        "python",
        "import json, os; print(json.dumps(dict(os.environ)))",
    ),
    ("javascript", "console.log(JSON.stringify(process.env))"),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Modules of CPython's tests, or `node`; the short selection when none is named.
    modules: Vec<String>,
    /// The whole list.
    #[arg(long, conflicts_with = "modules")]
    full: bool,
    /// The strongest rung to run at: full, namespaces or uids.
    #[arg(long, default_value = "full")]
    rung: String,
    /// Binary to check; built in the dev profile when left out.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// `modules.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    short: Vec<String>,
    long: Vec<String>,
    #[serde(default)]
    difference: Vec<Explained>,
}

/// A side's answer: what became of each test, and the reason where it gave one.
type Outcomes = BTreeMap<String, (String, String)>;

/// Runs a selection and returns how many modules ended as they should; a module
/// counts as a check.
///
/// # Errors
/// When there is nothing to compare: no server, no interpreter, no data.
pub(crate) fn regress(arguments: &Arguments) -> Result<Counts> {
    let binary = build::or_debug(arguments.binary.clone())?;
    run(&binary, &arguments.modules, arguments.full, &arguments.rung)
}

fn run(binary: &Path, modules: &[String], full: bool, rung: &str) -> Result<Counts> {
    let data = data()?;
    let prefix = python::prefix()?;
    let home = Home::new()?;
    let interpreter = format!("python={}", prefix.join("bin/python3").display());
    let server = Server::start(
        binary,
        &home,
        &[
            ("CODEX_INTERPRETER", &interpreter),
            ("CODEX_MAX_ISOLATION", rung),
            ("CODEX_MAX_TIMEOUT", &format!("{TIME}s")),
            ("CODEX_PROCESSES", PROCESSES),
            ("CODEX_WORKSPACE", WORKSPACE),
        ],
    )?;
    let health = server.client().get("/health")?.json()?;
    let isolation = health["isolation"].as_str().unwrap_or_default().to_owned();
    ensure!(
        isolation == rung,
        "the rung here is {isolation}, not {rung}"
    );
    println!("inside at {isolation}, outside as an ordinary user; ok/failed/skipped/other");
    let environments = environments(&server)?;
    let mut counts = Counts::default();
    let mut used = vec![false; data.difference.len()];
    for module in chosen(&data, modules, full) {
        let bench = Bench {
            server: &server,
            prefix: &prefix,
            module: &module,
            environments: &environments,
        };
        match bench.module(&data.difference, &isolation, &mut used)? {
            true => counts.passed += 1,
            false => counts.failed += 1,
        }
    }
    if full {
        counts.failed += stale(&data.difference, &used, &isolation);
    }
    server.stop()?;
    Ok(counts)
}

/// By language.
type Environments = BTreeMap<&'static str, BTreeMap<String, String>>;

fn environments(server: &Server) -> Result<Environments> {
    let ask = |(language, code): (&'static str, &str)| {
        let body = server.client().execute(language, code)?.json()?;
        let output = body["output"].as_str().unwrap_or_default();
        let found = serde_json::from_str(output)
            .with_context(|| format!("the environment of {language} is not told: {body}"))?;
        Ok((language, found))
    };
    ENVIRONMENTS.into_iter().map(ask).collect()
}

fn data() -> Result<Data> {
    let file = process::root().join("lab/regress/modules.toml");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("failed to read {}", file.display()))?;
    let data: Data = toml::from_str(&text).context("modules.toml is wrong")?;
    for explained in &data.difference {
        explained.check()?;
    }
    Ok(data)
}

fn chosen(data: &Data, modules: &[String], full: bool) -> Vec<String> {
    if !modules.is_empty() {
        return modules.to_vec();
    }
    let mut chosen = data.short.clone();
    if full {
        chosen.extend(
            data.long
                .iter()
                .filter(|name| !data.short.contains(name))
                .cloned(),
        );
    }
    chosen.push(node::NAME.to_owned());
    chosen
}

/// Explanations of what is as outside now.
fn stale(explained: &[Explained], used: &[bool], isolation: &str) -> u32 {
    let mut count = 0;
    for (explained, used) in explained.iter().zip(used) {
        if !used && explained.holds_at(isolation) {
            println!(
                "EXPLAINED IN VAIN  {}: nothing differs any more",
                explained.test
            );
            count += 1;
        }
    }
    count
}

/// One module on both sides.
struct Bench<'a> {
    server: &'a Server,
    prefix: &'a Path,
    module: &'a str,
    environments: &'a Environments,
}

impl Bench<'_> {
    /// Runs it, prints its line and what differs. Whether all of that is explained.
    fn module(&self, explained: &[Explained], rung: &str, used: &mut [bool]) -> Result<bool> {
        let started = Instant::now();
        let (mut inside, mut outside) = self.both()?;
        let differ = |inside: &Outcomes, outside: &Outcomes| {
            let all = compare::differences(inside, outside).into_iter();
            all.map(|difference| {
                let why = explained.iter().position(|e| e.explains(&difference, rung));
                (difference, why)
            })
            .collect::<Vec<(Difference, Option<usize>)>>()
        };
        let mut found = differ(&inside, &outside);
        if found.iter().any(|(_, why)| why.is_none()) {
            // Some tests depend on the hour and the load: what differs twice does.
            let again = self.both()?;
            let twice = differ(&again.0, &again.1);
            found.retain(|(difference, why)| {
                let same = |(other, _): &(Difference, _)| other.test == difference.test;
                why.is_some() || twice.iter().any(same)
            });
            (inside, outside) = again;
        }
        println!(
            "{:<36} inside {:<16} outside {:<16} {:>5.1} s",
            self.module,
            compare::summary(&inside),
            compare::summary(&outside),
            started.elapsed().as_secs_f64()
        );
        let mut good = true;
        for (difference, why) in &found {
            match why {
                Some(at) => {
                    used[*at] = true;
                    println!("    {difference} [{}]", explained[*at].layer);
                }
                None => {
                    good = false;
                    println!("    UNEXPLAINED {difference}");
                    println!("        {}", difference.reason.replace('\n', "\n        "));
                }
            }
        }
        if inside.is_empty() || outside.is_empty() {
            println!("    NOTHING RAN");
            good = false;
        }
        Ok(good)
    }

    /// Both sides at once: each has a processor of its own.
    fn both(&self) -> Result<(Outcomes, Outcomes)> {
        std::thread::scope(|scope| {
            let outside = scope.spawn(|| self.outside());
            let inside = self.inside();
            let outside = outside
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the thread of the outside ended early")));
            Ok((inside?, outside?))
        })
    }

    fn inside(&self) -> Result<Outcomes> {
        let (language, code) = self.program()?;
        let patience = std::time::Duration::from_secs(TIME + 60);
        let response = self.server.client().patient(patience).post(
            "/execute",
            &json!({
                "code": code,
                "language": language,
                "args": [self.module],
                "timeout": TIME,
                "memory_mb": MEMORY_MB,
            }),
        )?;
        let body: Value = response.json()?;
        ensure!(response.status == 200, "the server answered {body}");
        let output = body["output"].as_str().unwrap_or_default();
        let end = format!(
            "{} {} {}",
            body["status"],
            body["exit_code"],
            body["error"].as_str().unwrap_or_default()
        );
        self.read(output, &end)
    }

    fn outside(&self) -> Result<Outcomes> {
        let (language, code) = self.program()?;
        let program = match language {
            "python" => self.prefix.join("bin/python3"),
            _ => node::PROGRAM.into(),
        };
        let (output, end) = compare::outside(&compare::Program {
            interpreter: &program,
            code: &code,
            argument: self.module,
            environment: &self.environments[language],
            seconds: TIME,
        })?;
        self.read(&output, &end)
    }

    fn program(&self) -> Result<(&'static str, String)> {
        let (language, file) = match self.module {
            node::NAME => ("javascript", "node.js"),
            _ => ("python", "run.py"),
        };
        let file = process::root().join("lab/regress").join(file);
        let code = std::fs::read_to_string(&file)
            .with_context(|| format!("failed to read {}", file.display()))?;
        Ok((language, code))
    }

    fn read(&self, output: &str, end: &str) -> Result<Outcomes> {
        let found = match self.module {
            node::NAME => node::outcomes(output),
            _ => python::outcomes(output)?,
        };
        // A module that did not get to its end is one thing that became of it.
        Ok(found.unwrap_or_else(|| {
            let end = end.chars().take(600).collect();
            [(self.module.to_owned(), ("failed".to_owned(), end))].into()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_sound() {
        let data = data().expect("it is read");
        assert!(data.short.len() >= 10 && data.long.len() >= 100);
        let full = chosen(&data, &[], true);
        let unique: std::collections::BTreeSet<&String> = full.iter().collect();
        assert_eq!(unique.len(), full.len(), "each module once");
        assert_eq!(full.last().map(String::as_str), Some(node::NAME));
        assert_eq!(
            chosen(&data, &["test_json".to_owned()], false),
            ["test_json"]
        );
    }
}
