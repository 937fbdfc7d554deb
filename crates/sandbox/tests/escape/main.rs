//! The hostile corpus: programs that must get nothing, at every rung.
//!
//! Around every one of them something is planted that it must not reach, and
//! afterwards everything must be as it was. This binary starts itself once for
//! each rung, in a network of its own in which the addresses exist where clouds
//! keep credentials. A missing tool or kernel ability fails, with its cure.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attack;
mod census;
mod ground;
mod run;
mod rung;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use sandbox::Isolation;

/// Names the rung that this process is to attack.
const RUNG: &str = "ESCAPE_TEST_RUNG";
/// Numbers of cases, joined by commas, when not all are wanted.
const CASES: &str = "ESCAPE_TEST_CASES";
/// Set when there is time for the long versions.
const LONG: &str = "ESCAPE_TEST_LONG";
/// Set when `cargo xtask escape` follows, which attacks the rungs.
const APART: &str = "ESCAPE_TEST_APART";
/// Runs as root and starts what has less: the rungs are attacked as they are used.
const RUNGS: [(Isolation, u32); 3] = [
    (Isolation::Full, 0),
    (Isolation::Namespaces, ORDINARY),
    (Isolation::Uids, 0),
];
/// Cases of the numbered corpus.
const NUMBERED: u32 = 62;
/// A user without rights and without a cgroup.
const ORDINARY: u32 = 48_484;

/// Whether the long versions are wanted.
pub(crate) fn long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// Whether a case is wanted.
pub(crate) fn is_wanted(id: &str) -> bool {
    std::env::var(CASES).map_or(true, |wanted| wanted.split(',').any(|one| one == id))
}

/// Where the corpus lies.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape/corpus")
}

fn main() {
    sandbox::enter();
    if let Ok(rung) = std::env::var(RUNG) {
        rung::attack(rung.parse().unwrap());
        return;
    }
    let arguments = Arguments::from_args();
    let rungs = match std::env::var_os(APART) {
        None => &RUNGS[..],
        Some(_) => &[],
    };
    let mut trials: Vec<Trial> = rungs
        .iter()
        .copied()
        .map(|(rung, uid)| Trial::test(format!("the_corpus_at_{rung}"), move || at(rung, uid)))
        .collect();
    trials.extend([
        Trial::test("a_breach_is_seen", breaches),
        Trial::test("every_case_of_the_corpus_is_there", whole),
        Trial::test("security_md_says_what_the_corpus_shows", table::is_told),
        Trial::test("no_rung_is_left_out", every_rung),
    ]);
    libtest_mimic::run(&arguments, trials).exit();
}

/// Attacks one rung in a process of its own.
#[expect(clippy::disallowed_methods, reason = "tests start processes")]
fn at(rung: Isolation, uid: u32) -> Result<(), Failed> {
    // One after the other: each is to have the machine.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if !rustix::process::geteuid().is_root() {
        return Err("the corpus attacks every rung, and starts as root: run it as root".into());
    }
    // The build directory may be out of an ordinary user's reach.
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let binary = directory.path().join("escape");
    fs::copy(std::env::current_exe()?, &binary)?;
    let nonce = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let child = Command::new("/usr/bin/python3")
        .args(["-I", "-c", include_str!("ground.py"), &uid.to_string()])
        .arg(&binary)
        .env(RUNG, rung.as_str())
        .env(
            ground::SECRET,
            format!("{}{}", ground::CANARY, nonce.trim()),
        )
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("/usr/bin/python3: {error}; install python3"))?;
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("escape");
    fs::create_dir_all(&results)?;
    fs::write(results.join(format!("{rung}.tsv")), &told)?;
    let open: Vec<&str> = told
        .lines()
        .filter(|line| line.split('\t').nth(1) == Some("open"))
        .collect();
    match output.status.success() && open.is_empty() && !told.is_empty() {
        true => Ok(()),
        false => Err(format!("at {rung}, {}:\n{}", output.status, open.join("\n")).into()),
    }
}

/// What makes an attack fail, and what does not.
fn breaches() -> Result<(), Failed> {
    let attack: attack::Attack = toml::from_str(
        r#"
        id = "1"
        name = "x"
        program = ""
        tried = 2
        says = ["said"]
        [at.uids]
        open = ["known"]
        reason = "it is so"
        [at.full]
        status = ["timeout", "error"]
        "#,
    )?;
    // Rung, status, lines joined by `;`, and how many complaints there are.
    let cases = "namespaces success said;tried 2 0
namespaces success - 2
namespaces success said;tried 1 1
namespaces success tried 2 1
namespaces error said;tried 2 1
namespaces success said;tried 2;BREACH known: 1 1
full timeout said;tried 2 0
full success said;tried 2 1
uids success said;tried 2;BREACH known: 1 0
uids success said;tried 2;BREACH other: 1;BREACH known: 1 1
uids success said;tried 2 1";
    for case in cases.lines() {
        let (rung, rest) = case.split_once(' ').unwrap();
        let (status, rest) = rest.split_once(' ').unwrap();
        let (lines, count) = rest.rsplit_once(' ').unwrap();
        let stdout = lines.replace(';', "\n");
        let found = attack.complaints(rung, status, &stdout);
        if found.len() != count.parse::<usize>().unwrap() {
            return Err(format!("{case}: {found:?}").into());
        }
    }
    Ok(())
}

/// Every numbered case has a program, and no number is used twice.
fn whole() -> Result<(), Failed> {
    let corpus = attack::corpus(&directory())?;
    let mut seen = BTreeSet::new();
    for attack in &corpus {
        if !seen.insert(attack.id.clone()) {
            return Err(format!("two attacks are number {}", attack.id).into());
        }
        let mut rungs: Vec<&str> = Isolation::LADDER.map(Isolation::as_str).to_vec();
        rungs.push(attack::CELL);
        if let Some(odd) = attack
            .at
            .keys()
            .find(|name| !rungs.contains(&name.as_str()))
        {
            return Err(format!("{}: no rung is called {odd}", attack.id).into());
        }
        for (rung, at) in &attack.at {
            if at.open.is_empty() != at.reason.is_none() {
                return Err(format!("{} at {rung}: open without a reason", attack.id).into());
            }
        }
    }
    let missing: Vec<String> = (1..=NUMBERED)
        .map(|number| number.to_string())
        .filter(|number| !seen.contains(number))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!("no program for {}", missing.join(", ")).into()),
    }
}

/// A rung that can be built is attacked.
fn every_rung() -> Result<(), Failed> {
    for rung in Isolation::LADDER {
        if RUNGS.iter().any(|(known, _)| *known == rung) {
            continue;
        }
        let refusal = sandbox::launch(rung..=rung).err();
        // Nothing was even tried: it is a name only.
        if refusal.is_none_or(|refusal| !refusal.support.layers.is_empty()) {
            return Err(format!("the rung {rung} is built: attack it, too").into());
        }
    }
    Ok(())
}
