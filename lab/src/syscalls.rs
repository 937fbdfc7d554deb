//! Which entries of the system-call policy the languages here use: their cases
//! run under strace, and each group of the policy is printed with what of it was
//! used and what never. A report, not a pruning: programs of other languages,
//! and other programs of these, need more.

mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use trace::Used;
use xtask::apt::{self, Need, Probe};
use xtask::process;

const NEEDS: [Need; 1] = [Need {
    probe: Probe::Program(&["strace"]),
    packages: &["strace"],
    reason: "to see which system calls programs make",
    required: true,
}];

/// The languages, as their folders and cases are called.
const LANGUAGES: [&str; 3] = ["python", "javascript", "bash"];
/// What any program makes: a trace without them is none.
const ALWAYS: [&str; 5] = ["execve", "mmap", "read", "write", "exit_group"];
/// Of so many cases one may fail: some have little time, and strace takes much.
const FAILURES: usize = 10;
const POLICY: &str = "crates/sandbox/src/policies/default.toml";

/// A group or a conditional entry.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    kind: String,
    reason: String,
    names: Vec<String>,
}

/// Runs the cases and prints the report.
///
/// # Errors
/// When nothing could be traced, or a trace lacks what it cannot lack.
pub(crate) fn syscalls() -> Result<()> {
    apt::ensure(&NEEDS)?;
    ensure!(
        process::is_root(),
        "strace sees into boxes as root only; try again with sudo"
    );
    let policy = std::fs::read_to_string(process::root().join(POLICY)).context(POLICY)?;
    let groups = groups(&policy)?;
    let tests = tests()?;
    let mut used = Vec::new();
    for language in LANGUAGES {
        println!("tracing the cases of {language}");
        used.push((language, traced(&tests, language)?));
    }
    report(&groups, &used);
    Ok(())
}

fn groups(policy: &str) -> Result<Vec<Group>> {
    let policy: toml::Table = policy.parse()?;
    let mut groups = Vec::new();
    for kind in ["allow", "when", "deny"] {
        let entries = policy.get(kind).and_then(toml::Value::as_array);
        for entry in entries.with_context(|| format!("{POLICY} has no {kind}"))? {
            let text = |name: &str| entry.get(name).and_then(toml::Value::as_str);
            let names = match entry.get("names").and_then(toml::Value::as_array) {
                Some(names) => names.iter().filter_map(toml::Value::as_str).collect(),
                None => text("name").into_iter().collect::<Vec<&str>>(),
            };
            groups.push(Group {
                kind: kind.to_owned(),
                reason: text("reason").context("a group has no reason")?.to_owned(),
                names: names.into_iter().map(str::to_owned).collect(),
            });
        }
    }
    Ok(groups)
}

/// The binary that runs languages' cases.
fn tests() -> Result<PathBuf> {
    let mut build = process::cargo();
    build.args(["test", "-p", "engine", "--test", "it", "--no-run"]);
    let built = process::capture(
        "build the cases",
        build.args(["--message-format", "json-render-diagnostics"]),
    )?;
    built
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "it")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .context("cargo built no test binary")
}

fn traced(tests: &Path, language: &str) -> Result<Used> {
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("trace");
    let mut strace = process::command("strace");
    strace
        .args(["-f", "-qq", "--decode-pids=pidns", "-e", "signal=none"])
        .args(["-s", "0", "-o"])
        .arg(&file)
        .arg(tests)
        .arg(format!("{language}/"));
    // On one rung: the others would only do the same again, more slowly.
    strace.env("ENGINE_TEST_RUNG", "full");
    let (_, said) = process::tee("trace the cases", &mut strace)?;
    let (passed, failed) = sums(&said).context("the cases did not run to their end")?;
    ensure!(
        passed > 0 && failed * FAILURES <= passed,
        "{failed} cases of {language} failed under strace, and {passed} passed"
    );
    let used = trace::read(&std::fs::read_to_string(&file).context("strace wrote no trace")?);
    ensure!(
        used.boxes >= passed && used.programs >= passed,
        "strace saw {} boxes and {} programs of {passed} cases: does something else trace here?",
        used.boxes,
        used.programs
    );
    for name in ALWAYS {
        let count = used.calls.get(name).map_or(0, |counts| counts.0);
        ensure!(
            count >= passed as u64 || (name == "read" && count > 0),
            "strace saw {name} {count} times in {passed} cases of {language}: its trace is not whole"
        );
    }
    Ok(used)
}

/// Passed and failed, from the line that every test binary ends with.
fn sums(said: &str) -> Option<(usize, usize)> {
    let line = said
        .lines()
        .rev()
        .find(|line| line.starts_with("test result"))?;
    let number = |word: &str| {
        let (before, _) = line.split_once(word)?;
        before.trim_end().rsplit(' ').next()?.parse().ok()
    };
    Some((number(" passed")?, number(" failed")?))
}

fn report(groups: &[Group], used: &[(&str, Used)]) {
    let known: BTreeSet<&str> = groups
        .iter()
        .flat_map(|group| group.names.iter().map(String::as_str))
        .collect();
    let mut never = 0;
    for (kind, title) in [
        ("allow", "allowed"),
        ("when", "allowed for some arguments"),
        ("deny", "denied"),
    ] {
        println!("\n== {title}");
        for group in groups.iter().filter(|group| group.kind == kind) {
            let of = |language: &Used| -> Vec<&str> {
                let names = group.names.iter().map(String::as_str);
                names
                    .filter(|name| language.calls.contains_key(*name))
                    .collect()
            };
            let by_nobody: Vec<&str> = group
                .names
                .iter()
                .map(String::as_str)
                .filter(|name| used.iter().all(|(_, used)| !used.calls.contains_key(*name)))
                .collect();
            let counts: Vec<String> = used
                .iter()
                .map(|(language, used)| format!("{language} {}", of(used).len()))
                .collect();
            println!(
                "{} of {}: {}",
                counts.join(", "),
                group.names.len(),
                group.reason
            );
            if kind == "deny" {
                let tried = group
                    .names
                    .iter()
                    .filter(|name| !by_nobody.contains(&name.as_str()));
                let tried: Vec<&str> = tried.map(String::as_str).collect();
                if !tried.is_empty() {
                    println!("    tried: {}", tried.join(" "));
                }
            } else if !by_nobody.is_empty() {
                never += by_nobody.len();
                println!("    never used: {}", by_nobody.join(" "));
            }
        }
    }
    println!();
    for (language, used) in used {
        println!(
            "{language}: {} boxes, {} programs, {} different calls; refused: {}",
            used.boxes,
            used.programs,
            used.calls.len(),
            refused(&used.calls).join(" ")
        );
        let unknown = used
            .calls
            .keys()
            .filter(|name| !known.contains(name.as_str()));
        let unknown: Vec<&str> = unknown.map(String::as_str).collect();
        if !unknown.is_empty() {
            println!("    in no group by that name: {}", unknown.join(" "));
        }
    }
    println!("{never} calls are allowed, and no case here uses them");
}

fn refused(calls: &BTreeMap<String, (u64, u64)>) -> Vec<String> {
    calls
        .iter()
        .filter(|(_, (_, refused))| *refused > 0)
        .map(|(name, (_, refused))| format!("{name} {refused}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_has_groups_of_each_kind() {
        let text = std::fs::read_to_string(process::root().join(POLICY)).unwrap();
        let groups = groups(&text).unwrap();
        for kind in ["allow", "when", "deny"] {
            assert!(groups.iter().filter(|group| group.kind == kind).count() > 5);
        }
        assert!(groups.iter().all(|group| !group.names.is_empty()));
        assert!(super::groups("").is_err());
    }

    #[test]
    fn sums_are_read_from_the_last_line() {
        let check = |said: &str, expected| assert_eq!(sums(said), expected, "{said}");
        let line = "test result: FAILED. 54 passed; 1 failed; 0 ignored; 0 measured";
        check(&format!("running\n{line}\n\n"), Some((54, 1)));
        check("killed", None);
        check("test result: ok", None);
    }
}
