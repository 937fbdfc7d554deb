//! The hostile corpus, at every rung and from both doors: the sandbox itself,
//! and the API of a running server. Prints what came of each case.
//!
//! It must never pass over a case: what cannot be tried is a failure.

#[path = "../../crates/sandbox/tests/escape/attack.rs"]
mod attack;
mod ground;
mod latency;
mod requests;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};

use self::attack::Attack;
use xtask::{build, process};

/// The rungs that are built, strongest first.
const RUNGS: [&str; 3] = ["full", "namespaces", "uids"];

/// Characters of a cell of the table.
const WIDTH: usize = 40;

/// What to attack.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// From the sandbox's own door only.
    #[arg(long, conflicts_with = "http")]
    sandbox: bool,
    /// From the API of a running server only.
    #[arg(long)]
    http: bool,
    /// At these rungs only.
    #[arg(long, value_parser = RUNGS)]
    rung: Vec<String>,
    /// These cases only, by number.
    #[arg(long)]
    case: Vec<String>,
    /// The long versions.
    #[arg(long)]
    full: bool,
    /// Through the API at the strongest and at the weakest rung only.
    #[arg(long, conflicts_with = "full")]
    brief: bool,
    /// Time a client beside an attacker instead, on a release build.
    #[arg(long)]
    latency: bool,
    /// Server to attack; built when left out.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Set by this command when it starts itself in a network of its own.
    #[arg(long, hide = true)]
    inside: bool,
}

impl Arguments {
    fn rungs(&self) -> Vec<&str> {
        let wanted = |rung: &&str| self.rung.is_empty() || self.rung.iter().any(|it| it == rung);
        RUNGS.into_iter().filter(wanted).collect()
    }

    /// Those at which a server is attacked.
    fn api_rungs(&self) -> Vec<&str> {
        let ends = [RUNGS.first(), RUNGS.last()];
        let is_taken = |rung: &&str| !self.brief || ends.contains(&Some(rung));
        self.rungs().into_iter().filter(is_taken).collect()
    }

    fn wants(&self, id: &str) -> bool {
        self.case.is_empty() || self.case.iter().any(|case| case == id)
    }
}

/// What came of one case at one rung, from one door.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    id: String,
    rung: String,
    millis: u64,
    /// What got through, or was otherwise than it should be; empty when it held.
    complaint: String,
}

fn corpus() -> Result<Vec<Attack>> {
    let directory = process::root().join("crates/sandbox/tests/escape/corpus");
    attack::corpus(&directory).map_err(|error| anyhow!(error))
}

/// Runs it all and prints the table.
pub(crate) fn escape(arguments: &Arguments) -> Result<()> {
    ensure!(
        process::is_root(),
        "every rung is attacked, and the strongest need root: run this as root"
    );
    if arguments.inside {
        return server::inside(arguments);
    }
    if arguments.latency {
        return latency::latency(arguments.binary.clone());
    }
    let mut results = Vec::new();
    if arguments.full && arguments.wants("34") {
        let mut cargo = process::cargo();
        cargo.args(["test", "--quiet", "--package", "engine", "--lib"]);
        cargo.args(["a_swapped_file_never_leaks"]);
        cargo.env("ESCAPE_TEST_LONG", "1");
        process::run("swap files while they are collected", &mut cargo)?;
    }
    if !arguments.http {
        results.extend(from_the_sandbox(arguments)?);
    }
    if !arguments.sandbox {
        let binary = build::or_debug(arguments.binary.clone())?;
        results.extend(server::outside(arguments, &binary)?);
    }
    report(arguments, &results)
}

/// The sandbox's own tests, which leave what they found beside the build.
fn from_the_sandbox(arguments: &Arguments) -> Result<Vec<Case>> {
    let place = build::target_directory().join("tmp/escape");
    let mut results = Vec::new();
    for rung in arguments.rungs() {
        let file = place.join(format!("{rung}.tsv"));
        // An older one would pass for this run's.
        if file.exists() {
            fs::remove_file(&file)
                .with_context(|| format!("failed to remove {}", file.display()))?;
        }
        let mut cargo = process::cargo();
        cargo.args([
            "test",
            "--quiet",
            "--package",
            "sandbox",
            "--test",
            "escape",
        ]);
        cargo.env_remove(xtask::lab::ATTACKS_APART);
        cargo.args(["--", "--exact", &format!("the_corpus_at_{rung}")]);
        if !arguments.case.is_empty() {
            cargo.env("ESCAPE_TEST_CASES", arguments.case.join(","));
        }
        if arguments.full {
            cargo.env("ESCAPE_TEST_LONG", "1");
        }
        let (status, _) = process::tee("attack the sandbox", &mut cargo)?;
        let text = fs::read_to_string(&file).with_context(|| {
            format!("the attack at {rung} ended with {status} and told nothing")
        })?;
        let told: Vec<Case> = text.lines().filter_map(|line| parse(rung, line)).collect();
        let open = told.iter().any(|result| !result.complaint.is_empty());
        ensure!(
            status.success() || open,
            "the attack at {rung} ended with {status} before its end"
        );
        results.extend(told);
    }
    Ok(results)
}

/// A line such as `4<tab>held<tab>1203<tab>`.
fn parse(rung: &str, line: &str) -> Option<Case> {
    let mut fields = line.split('\t');
    let (id, word) = (fields.next()?, fields.next()?);
    let millis = fields.next()?.parse().ok()?;
    let said = fields.next().unwrap_or_default();
    let complaint = match (word, said) {
        ("held", _) => String::new(),
        (word, "") => word.to_owned(),
        (_, said) => said.to_owned(),
    };
    Some(Case {
        id: id.to_owned(),
        rung: rung.to_owned(),
        millis,
        complaint,
    })
}

/// Prints the table; an error when something is open that nothing explains,
/// or was not tried at all.
fn report(arguments: &Arguments, results: &[Case]) -> Result<()> {
    let mut cells: BTreeMap<(&str, &str), Vec<&Case>> = BTreeMap::new();
    for result in results {
        let key = (result.id.as_str(), result.rung.as_str());
        cells.entry(key).or_default().push(result);
    }
    let rungs = arguments.rungs();
    let header: Vec<String> = rungs.iter().map(|rung| format!("{rung:<WIDTH$}")).collect();
    println!("\n{:>4}  {}  case", "", header.join(""));
    let (mut held, mut explained, mut bad) = (0, 0, Vec::new());
    for attack in corpus()?.iter().filter(|it| arguments.wants(&it.id)) {
        let mut line = String::new();
        for rung in &rungs {
            let (open, _) = attack.open(rung);
            let found = cells
                .get(&(attack.id.as_str(), *rung))
                .cloned()
                .unwrap_or_default();
            let wrong = found.iter().find(|result| !result.complaint.is_empty());
            let cell = match wrong {
                _ if found.is_empty() && !tried_here(arguments, attack, rung) => {
                    "(not tried this time)".to_owned()
                }
                None if found.is_empty() => {
                    bad.push(format!("{} at {rung}: was not tried", attack.id));
                    "NOT TRIED".to_owned()
                }
                Some(wrong) => {
                    bad.push(format!("{} at {rung}: {}", attack.id, wrong.complaint));
                    "OPEN".to_owned()
                }
                None if open.is_empty() => {
                    held += 1;
                    format!("held: {}", attack.status(rung).join(" or "))
                }
                None => {
                    explained += 1;
                    let names: Vec<&str> = open.into_iter().collect();
                    let plural = if names.len() == 1 { "" } else { ", …" };
                    format!("open, explained: {}{plural}", names[0])
                }
            };
            line.push_str(&format!("{cell:<WIDTH$}"));
        }
        println!("{:>4}  {line}  {}", attack.id, attack.name);
    }
    let millis: u64 = results.iter().map(|result| result.millis).sum();
    println!(
        "\n{held} held, {explained} open and explained in SECURITY.md, {} open, in {:.0} s",
        bad.len(),
        std::time::Duration::from_millis(millis).as_secs_f64()
    );
    if !bad.is_empty() {
        bail!("open and unexplained:\n{}", bad.join("\n"));
    }
    Ok(())
}

/// Whether a case has a door that is tried now at that rung.
fn tried_here(arguments: &Arguments, attack: &Attack, rung: &str) -> bool {
    (attack.is_for(attack::Door::Box) && !arguments.http)
        || (attack.is_for(attack::Door::Http)
            && !arguments.sandbox
            && arguments.api_rungs().contains(&rung))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tests_are_read() {
        let result = parse("uids", "N4\theld\t12\t").expect("a line");
        assert_eq!((result.id.as_str(), result.millis), ("N4", 12));
        assert!(result.complaint.is_empty());
        let open = parse("uids", "4\topen\t1\tBREACH x").expect("a line");
        assert_eq!(open.complaint, "BREACH x");
        assert_eq!(parse("uids", "thread panicked"), None);
    }

    #[test]
    fn a_brief_run_attacks_servers_at_both_ends() {
        let check = |brief: bool, rung: &[&str], expected: &[&str]| {
            let arguments = Arguments {
                brief,
                rung: rung.iter().map(|rung| (*rung).to_owned()).collect(),
                ..Arguments::default()
            };
            assert_eq!(arguments.api_rungs(), expected);
        };
        check(false, &[], &RUNGS);
        check(true, &[], &["full", "uids"]);
        check(true, &["namespaces"], &[]);
        check(false, &["uids"], &["uids"]);
    }

    #[test]
    fn what_is_open_or_missing_fails() {
        let only = |case: &str| Arguments {
            case: vec![case.to_owned()],
            sandbox: true,
            rung: vec!["full".to_owned()],
            ..Arguments::default()
        };
        let result = |complaint: &str| Case {
            id: "1".to_owned(),
            rung: "full".to_owned(),
            millis: 1,
            complaint: complaint.to_owned(),
        };
        assert!(report(&only("1"), &[result("")]).is_ok());
        assert!(report(&only("1"), &[result("leaked")]).is_err());
        assert!(report(&only("1"), &[]).is_err());
    }
}
