//! The hostile corpus, at every rung and by every door: the sandbox itself, and of
//! a running server the API and the tool of MCP. Prints what came of each case.
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

use self::attack::{Attack, Door};
use xtask::{build, process};

/// The rungs that are built, strongest first.
const RUNGS: [&str; 3] = ["full", "namespaces", "uids"];

/// Characters of a cell of the table.
const WIDTH: usize = 40;

/// What to attack.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// By these doors only.
    #[arg(long)]
    door: Vec<Way>,
    /// At these rungs only.
    #[arg(long, value_parser = RUNGS)]
    rung: Vec<String>,
    /// These cases only, by number.
    #[arg(long)]
    case: Vec<String>,
    /// The long versions.
    #[arg(long)]
    full: bool,
    /// Attack servers at the strongest and at the weakest rung only, where each case
    /// goes by HTTP at the one and over MCP at the other.
    #[arg(long, conflicts_with = "full")]
    brief: bool,
    /// By HTTP, have each case run as a cell of a session of its own.
    #[arg(long, conflicts_with = "brief")]
    sessions: bool,
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

/// A way to start a program of the corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// By the sandbox's own interface, in its tests.
    Sandbox,
    /// By `POST /execute` of a running server.
    Http,
    /// By the tool `run_code` of a running server.
    Mcp,
}

impl Way {
    const ALL: [Self; 3] = [Self::Sandbox, Self::Http, Self::Mcp];

    /// Returns its name in `--door`.
    const fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Http => "http",
            Self::Mcp => "mcp",
        }
    }

    /// Returns the door that a case of the corpus names.
    const fn door(self) -> Door {
        match self {
            Self::Sandbox => Door::Box,
            Self::Http | Self::Mcp => Door::Http,
        }
    }
}

impl Arguments {
    /// Whether anything is tried this way.
    fn takes(&self, way: Way) -> bool {
        self.door.is_empty() || self.door.contains(&way)
    }

    /// The ways in which a case, the `number`th of the corpus, is tried at a rung.
    fn ways(&self, number: usize, attack: &Attack, rung: &str) -> Vec<Way> {
        let is_attacked = self.api_rungs().contains(&rung);
        // Over both rungs of a brief run each case goes once by either door.
        let turn = number.is_multiple_of(2) == (rung == RUNGS[0]);
        let alternates = self.brief && self.takes(Way::Http) && self.takes(Way::Mcp);
        let is_wanted = |way: &Way| {
            let is_tried = match way {
                Way::Sandbox => true,
                Way::Http => is_attacked && (turn || !alternates),
                Way::Mcp => is_attacked && (!turn || !alternates),
            };
            is_tried && self.takes(*way) && attack.is_for(way.door())
        };
        Way::ALL.into_iter().filter(is_wanted).collect()
    }

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

/// What came of one case at one rung, by one door.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    id: String,
    rung: String,
    way: Way,
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
    if arguments.takes(Way::Sandbox) {
        results.extend(from_the_sandbox(arguments)?);
    }
    if arguments.takes(Way::Http) || arguments.takes(Way::Mcp) {
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

/// A line such as `4<tab>held<tab>1203<tab><tab>http`. Without a door at its end it is
/// the sandbox's.
fn parse(rung: &str, line: &str) -> Option<Case> {
    let mut fields = line.split('\t');
    let (id, word) = (fields.next()?, fields.next()?);
    let millis = fields.next()?.parse().ok()?;
    let said = fields.next().unwrap_or_default();
    let way = match fields.next() {
        Some(name) => Way::ALL.into_iter().find(|way| way.name() == name)?,
        None => Way::Sandbox,
    };
    let complaint = match (word, said) {
        ("held", _) => String::new(),
        (word, "") => word.to_owned(),
        (_, said) => said.to_owned(),
    };
    Some(Case {
        id: id.to_owned(),
        rung: rung.to_owned(),
        way,
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
    for (number, attack) in corpus()?.iter().enumerate() {
        if !arguments.wants(&attack.id) {
            continue;
        }
        let mut line = String::new();
        for rung in &rungs {
            let (open, _) = attack.open(rung);
            let found = cells
                .get(&(attack.id.as_str(), *rung))
                .cloned()
                .unwrap_or_default();
            let ways = arguments.ways(number, attack, rung);
            let is_missing = |way: &&Way| found.iter().all(|result| result.way != **way);
            let missing: Vec<_> = ways.iter().filter(is_missing).collect();
            let wrong = found.iter().find(|result| !result.complaint.is_empty());
            let cell = match wrong {
                Some(wrong) => {
                    let (id, way, said) = (&attack.id, wrong.way.name(), &wrong.complaint);
                    bad.push(format!("{id} at {rung} by {way}: {said}"));
                    "OPEN".to_owned()
                }
                None if let Some(way) = missing.first() => {
                    let (id, way) = (&attack.id, way.name());
                    bad.push(format!("{id} at {rung} by {way}: was not tried"));
                    "NOT TRIED".to_owned()
                }
                None if ways.is_empty() => "(not tried this time)".to_owned(),
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
    println!(
        "\n{held} held, {explained} open and explained in SECURITY.md, {} open; {}",
        bad.len(),
        times(results)
    );
    if !bad.is_empty() {
        bail!("open and unexplained:\n{}", bad.join("\n"));
    }
    Ok(())
}

/// Returns how many cases were tried by each door and how long that took.
fn times(results: &[Case]) -> String {
    let told = Way::ALL.map(|way| {
        let of_it = || results.iter().filter(|result| result.way == way);
        let millis = of_it().map(|result| result.millis).sum();
        let seconds = std::time::Duration::from_millis(millis).as_secs_f64();
        format!("{} by {} in {seconds:.0} s", of_it().count(), way.name())
    });
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tests_are_read() {
        let result = parse("uids", "N4\theld\t12\t").expect("a line");
        assert_eq!((result.id.as_str(), result.millis), ("N4", 12));
        assert_eq!(result.way, Way::Sandbox);
        assert!(result.complaint.is_empty());
        let open = parse("uids", "4\topen\t1\tBREACH x").expect("a line");
        assert_eq!(open.complaint, "BREACH x");
        let told = parse("full", "4\theld\t1\t\tmcp").expect("a line");
        assert_eq!((told.way, told.complaint.as_str()), (Way::Mcp, ""));
        assert_eq!(parse("full", "4\theld\t1\t\televator"), None);
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
    fn a_brief_run_tries_each_case_by_either_door_of_a_server() {
        let brief = Arguments {
            brief: true,
            ..Arguments::default()
        };
        let all = Arguments::default();
        let over_mcp = Arguments {
            door: vec![Way::Mcp],
            ..Arguments::default()
        };
        let mut halves = [0_usize, 0];
        for (number, attack) in corpus().expect("it is read").iter().enumerate() {
            let is_for_box = attack.is_for(Door::Box);
            let (at_full, at_uids) = (
                brief.ways(number, attack, "full"),
                brief.ways(number, attack, "uids"),
            );
            assert_eq!(at_full.contains(&Way::Sandbox), is_for_box);
            if attack.is_for(Door::Http) {
                let (http, mcp) = (Way::Http, Way::Mcp);
                assert_ne!(at_full.contains(&http), at_uids.contains(&http));
                assert_ne!(at_full.contains(&http), at_full.contains(&mcp));
                assert_ne!(at_uids.contains(&http), at_uids.contains(&mcp));
                halves[usize::from(at_full.contains(&mcp))] += 1;
                assert_eq!(over_mcp.ways(number, attack, "full"), [mcp]);
                assert!(all.ways(number, attack, "uids").ends_with(&[http, mcp]));
            }
            let between = brief.ways(number, attack, "namespaces");
            assert_eq!(between.is_empty(), !is_for_box);
        }
        assert!(halves[0].abs_diff(halves[1]) <= 1 && halves[0] > 0);
    }

    #[test]
    fn what_is_open_or_missing_fails() {
        let only = |door: &[Way]| Arguments {
            case: vec!["1".to_owned()],
            door: door.to_vec(),
            rung: vec!["full".to_owned()],
            ..Arguments::default()
        };
        let result = |way: Way, complaint: &str| Case {
            id: "1".to_owned(),
            rung: "full".to_owned(),
            way,
            millis: 1,
            complaint: complaint.to_owned(),
        };
        let check = |door: &[Way], results: &[Case], expected: bool| {
            assert_eq!(
                report(&only(door), results).is_ok(),
                expected,
                "{results:?}"
            );
        };
        let [sandbox, http, mcp] = Way::ALL.map(|way| result(way, ""));
        check(&[Way::Sandbox], std::slice::from_ref(&sandbox), true);
        check(&[Way::Sandbox], &[result(Way::Sandbox, "leaked")], false);
        check(&[Way::Sandbox], &[], false);
        check(&[], &[sandbox.clone(), http.clone()], false);
        check(&[], &[sandbox, http.clone(), mcp], true);
        check(&[Way::Mcp], &[http], false);
    }
}
