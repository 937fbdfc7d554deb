//! What becomes of tests on both sides: how it is compared and explained, and
//! how the outside runs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Gid, Uid};
use serde::Deserialize;

use super::Outcomes;
use xtask::process;

/// The layers that may make a difference, in the words of the documents.
const LAYERS: [&str; 13] = [
    "root file system",
    "proc",
    "devices",
    "network",
    "users",
    "processes",
    "descriptors",
    "memory",
    "disk",
    "system calls",
    "landlock",
    "terminal",
    "environment",
];

/// Ends of tests that an explanation may name.
const ENDS: [&str; 6] = [
    "ok",
    "failed",
    "skipped",
    "expected failure",
    "missing",
    "different",
];

/// A user that owns nothing on any system.
const NOBODY: u32 = 65_534;

/// Why a test may end otherwise inside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explained {
    /// Names of tests; `*` stands for any text.
    pub(super) test: String,
    /// What becomes of them inside.
    inside: String,
    /// The layer that makes it so.
    pub(super) layer: String,
    /// Why that is right.
    reason: String,
    /// The rungs it is so at; all where there are none.
    #[serde(default)]
    rungs: Vec<String>,
    /// It depends on the machine, and need not differ everywhere.
    #[serde(default)]
    sometimes: bool,
}

impl Explained {
    pub(super) fn check(&self) -> Result<()> {
        let test = &self.test;
        ensure!(
            LAYERS.contains(&self.layer.as_str()),
            "{test}: {} is no layer: {}",
            self.layer,
            LAYERS.join(", ")
        );
        ensure!(ENDS.contains(&self.inside.as_str()), "{test}: no such end");
        ensure!(self.reason.len() > 15, "{test}: the reason is missing");
        ensure!(test.len() > 6, "{test}: that would explain anything");
        Ok(())
    }

    /// Whether it has to be seen in a full run at a rung.
    pub(super) fn holds_at(&self, rung: &str) -> bool {
        !self.sometimes && self.is_for(rung)
    }

    fn is_for(&self, rung: &str) -> bool {
        self.rungs.is_empty() || self.rungs.iter().any(|name| name == rung)
    }

    pub(super) fn explains(&self, difference: &Difference, rung: &str) -> bool {
        self.is_for(rung)
            && self.inside == difference.inside
            && matches(&self.test, &difference.test)
    }
}

/// Whether `text` is what `pattern` says, where a `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// A test that ends otherwise inside.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) test: String,
    inside: String,
    outside: String,
    /// What the test said inside, else outside.
    pub(super) reason: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            test,
            inside,
            outside,
            ..
        } = self;
        write!(f, "{test}: inside {inside}, outside {outside}")
    }
}

/// What ends otherwise, by name.
pub(super) fn differences(inside: &Outcomes, outside: &Outcomes) -> Vec<Difference> {
    let names: std::collections::BTreeSet<&String> = inside.keys().chain(outside.keys()).collect();
    let end = |side: &Outcomes, name: &String| match side.get(name) {
        Some((end, said)) => (end.clone(), said.clone()),
        None => ("missing".to_owned(), String::new()),
    };
    let cut = inside.len() == 1 && inside.keys().all(|name| !name.contains('.'));
    let mut found = Vec::new();
    for name in names {
        let ((inside, said), (outside, otherwise)) = (end(inside, name), end(outside, name));
        // Of a module that did not get to its end its own name tells.
        let told = cut && inside == "missing";
        if inside != outside && !told {
            // Node's tests have no ends but what they print.
            let known = ENDS.contains(&inside.as_str());
            found.push(Difference {
                test: name.clone(),
                reason: if said.is_empty() { otherwise } else { said },
                inside: if known {
                    inside
                } else {
                    "different".to_owned()
                },
                outside,
            });
        }
    }
    found
}

/// `ok/failed/skipped/other`.
pub(super) fn summary(side: &Outcomes) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (end, _) in side.values() {
        let end = match end.as_str() {
            "ok" | "failed" | "skipped" => end,
            _ => "other",
        };
        *counts.entry(end).or_default() += 1;
    }
    let count = |end| counts.get(end).copied().unwrap_or_default();
    format!(
        "{}/{}/{}/{}",
        count("ok"),
        count("failed"),
        count("skipped"),
        count("other")
    )
}

/// A program for the outside.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) interpreter: &'a Path,
    pub(super) code: &'a str,
    pub(super) argument: &'a str,
    /// As the inside has it.
    pub(super) environment: &'a BTreeMap<String, String>,
    /// Wall time.
    pub(super) seconds: u64,
}

/// Runs a program outside, as a user without rights: what it printed, and how it
/// ended.
pub(super) fn outside(program: &Program<'_>) -> Result<(String, String)> {
    let place = tempfile::tempdir().context("failed to make a directory for the outside")?;
    let name = match program.interpreter.ends_with("node") {
        true => "main.js",
        false => "main.py",
    };
    let file = place.path().join(name);
    std::fs::write(&file, program.code).context("failed to write the program")?;
    let mut command = match process::is_root() {
        true => {
            let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            for path in [place.path(), &file] {
                rustix::fs::chown(path, Some(user), Some(group))
                    .context("failed to give the program away")?;
            }
            let mut command = process::command("setpriv");
            command
                .arg(format!("--reuid={NOBODY}"))
                .arg(format!("--regid={NOBODY}"))
                .args(["--clear-groups", "--"]);
            command
        }
        false => process::command("env"),
    };
    let output = command
        .arg("timeout")
        .arg(program.seconds.to_string())
        .arg(program.interpreter)
        .args([name, program.argument])
        .env_clear()
        .envs(program.environment)
        .env("HOME", place.path())
        .env_remove("PWD")
        .current_dir(place.path())
        .stdin(Stdio::null())
        .output()
        .context("failed to run the outside")?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((
        String::from_utf8_lossy(&output.stdout).into_owned(),
        format!("{} {said}", output.status),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(pairs: &[(&str, &str)]) -> Outcomes {
        pairs
            .iter()
            .map(|(test, end)| ((*test).to_owned(), ((*end).to_owned(), String::new())))
            .collect()
    }

    #[test]
    fn patterns_name_tests() {
        for (pattern, text, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b.c", true),
            ("*.c", "a.b.c", true),
            ("a.*.c", "a.b.c", true),
            ("a.*.d", "a.b.c", false),
            ("a*b*c", "a.c.b", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_differs_is_found_and_explained() {
        let inside = outcomes(&[
            ("t.a", "ok"),
            ("t.beta", "failed"),
            ("t.c", "ok"),
            ("n", "x"),
        ]);
        let outside = outcomes(&[("t.a", "ok"), ("t.beta", "ok"), ("t.d", "ok"), ("n", "y")]);
        let found = differences(&inside, &outside);
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "n: inside different, outside y",
                "t.beta: inside failed, outside ok",
                "t.c: inside ok, outside missing",
                "t.d: inside missing, outside ok",
            ]
        );
        let cut = outcomes(&[("t", "failed")]);
        let whole = differences(&cut, &outside);
        assert_eq!(whole.len(), 1, "{whole:?}");
        let explained: Explained = toml::from_str(
            "test = \"t.beta*\"\ninside = \"failed\"\nlayer = \"network\"\nreason = \"it has none at all\"\nrungs = [\"uids\"]",
        )
        .expect("it parses");
        explained.check().expect("it is sound");
        assert!(explained.explains(&found[1], "uids"));
        assert!(!explained.explains(&found[1], "full"));
        assert!(!explained.explains(&found[3], "uids"));
        assert_eq!(summary(&inside), "2/1/0/1");
    }
}
