//! `cargo xtask mcp`: a live server used by the stock clients of the Model Context
//! Protocol, over HTTP, by standard input and through a tunnel, and probed by the
//! protocol's conformance suite and by its inspector.
//!
//! Their versions are pinned in `lab/mcp/package.json` and
//! `lab/python/requirements.txt`. Never speaks the protocol itself: that others
//! understand the server is what is tested.

mod inspector;
mod suite;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use plane::Plane;
use serde::Deserialize;
use serde_json::Value;

use crate::live::{CLEAN_PATH, Home, Server};
use crate::npm::Packages;
use crate::venv;
use xtask::process;

/// Seconds that one program of these may take.
const PATIENCE: &str = "90";

/// The versions that begin with `initialize`, and those without sessions.
const LEGACY: (&str, &str) = ("legacy", "2025-11-25");
const MODERN: (&str, &str) = ("auto", "2026-07-28");

/// Each stock client with the version that it has to agree upon: the npm package's
/// name, or `None` for Python's, and the mode with its version.
const CLIENTS: [(Option<&str>, (&str, &str)); 5] = [
    (Some("sdk"), LEGACY),
    (Some("client"), LEGACY),
    (Some("client"), MODERN),
    (None, LEGACY),
    (None, MODERN),
];

/// What `client.mjs` and `client.py` check, in their words.
const CHECKS: [&str; 10] = [
    "version",
    "tools",
    "languages",
    "picture",
    "structured content",
    "file and resource",
    "progress",
    "cancel",
    "refusal is an error",
    "failing program is a result",
];

/// The check that is no client's without sessions through a tunnel: it cancels by
/// closing its stream, of which the product tells a tunnel nothing.
const CANCEL: &str = "cancel";

/// A check with what was seen instead, where it failed.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    name: String,
    failure: Option<String>,
}

/// A line that a client prints.
#[derive(Debug, Deserialize)]
struct ClientLine {
    check: String,
    passed: bool,
    saw: Value,
}

/// What a program printed until it ended.
#[derive(Debug)]
struct Printed {
    out: String,
    error: String,
    succeeded: bool,
}

/// What all of them need.
struct Subject<'a> {
    packages: Packages,
    home: &'a Home,
    server: &'a Server,
}

/// Lets all of them at a server.
///
/// # Errors
/// With the names of the checks that failed.
pub(crate) fn mcp(binary: &Path) -> Result<()> {
    let packages = Packages::ready()?;
    let python = venv::bin()?.join("python");
    let home = Home::new()?;
    let plane = Plane::start();
    // No public address: through the tunnel nothing else leads to it.
    let tunnel = [
        ("CODEX_TUNNEL", plane.id()),
        ("CODEX_TUNNEL_URL", &plane.url()),
        ("CODEX_TUNNEL_KEY", plane.key()),
    ];
    let server = Server::start(binary, &home, &tunnel)?;
    let subject = Subject {
        packages,
        home: &home,
        server: &server,
    };
    let mut checks = Vec::new();
    let url = subject.url();
    let product = format!("{}/v1/mcp/{}", plane.url(), plane.id());
    let local = binary.to_string_lossy();
    let transports: [&[&str]; 3] = [
        &["http", &url, subject.token()?],
        &["stdio", &local, "mcp"],
        &["tunnel", &product],
    ];
    for (package, (mode, version)) in CLIENTS {
        for transport in transports {
            let (name, mut command) = match package {
                Some(package) => {
                    let mut node = subject.packages.node();
                    node.arg(script("client.mjs")).arg(package);
                    (package, node)
                }
                None => {
                    let mut python = process::command(&python);
                    python.arg(script("client.py"));
                    ("Python", python)
                }
            };
            command.args([mode, version]).args(transport);
            let printed = subject.run(&command)?;
            let kind = transport[0];
            let client = format!("{name} {mode} {kind}");
            let crosses = kind != "tunnel" || mode == LEGACY.0;
            let names = CHECKS.into_iter().filter(|name| crosses || *name != CANCEL);
            tell(&mut checks, read(&client, names, &printed));
        }
    }
    let breaches = plane.violations();
    let kept = Verdict {
        name: "tunnel: the server keeps the service's rules".to_owned(),
        failure: (!breaches.is_empty()).then(|| breaches.join("; ")),
    };
    tell(&mut checks, vec![kept]);
    tell(&mut checks, suite::probe(&subject)?);
    tell(&mut checks, inspector::inspect(&subject)?);
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| check.failure.is_some())
        .map(|check| check.name.as_str())
        .collect();
    ensure!(
        failed.is_empty(),
        "{} of {} checks of MCP clients failed: {}",
        failed.len(),
        checks.len(),
        failed.join(", ")
    );
    println!("{} checks of MCP clients passed", checks.len());
    Ok(())
}

impl Subject<'_> {
    fn url(&self) -> String {
        format!("http://{}/mcp", self.server.address)
    }

    fn token(&self) -> Result<&str> {
        self.server.token().context("the server has no token")
    }

    /// Runs a command to its end in an environment of its own, for as long as
    /// `PATIENCE` allows.
    fn run(&self, command: &Command) -> Result<Printed> {
        let mut bounded = process::command("timeout");
        bounded
            .arg(PATIENCE)
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .env("PATH", CLEAN_PATH)
            .env("HOME", self.home.path())
            .env("CODEX_HOME", self.home.data())
            .env("TMPDIR", self.home.tmp())
            .stdin(Stdio::null());
        if let Some(directory) = command.get_current_dir() {
            bounded.current_dir(directory);
        }
        let output = bounded.output().with_context(|| {
            let program = command.get_program().to_string_lossy();
            format!("failed to start {program} with `timeout`")
        })?;
        Ok(Printed {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
            succeeded: output.status.success(),
        })
    }
}

/// A file of `lab/mcp`.
fn script(name: &str) -> OsString {
    process::root().join("lab/mcp").join(name).into()
}

/// Prints checks and adds them to the others.
fn tell(all: &mut Vec<Verdict>, checks: Vec<Verdict>) {
    for check in &checks {
        match &check.failure {
            None => println!("ok      {}", check.name),
            Some(saw) => println!("FAILED  {}: {saw}", check.name),
        }
    }
    all.extend(checks);
}

/// Reads what a client printed: one check for each of `names`, failed where the
/// client told nothing of it or ended badly.
fn read<'a>(
    client: &str,
    names: impl IntoIterator<Item = &'a str>,
    printed: &Printed,
) -> Vec<Verdict> {
    let lines: Vec<ClientLine> = printed
        .out
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    names
        .into_iter()
        .map(|name| {
            let line = lines.iter().find(|line| line.check == name);
            let failure = match line {
                Some(line) if line.passed && printed.succeeded => None,
                Some(line) if !line.passed => Some(line.saw.to_string()),
                _ => Some(format!("the client ended: {}", printed.error.trim())),
            };
            Verdict {
                name: format!("{client}: {name}"),
                failure,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client prints that passes all but `failed`, and says nothing of `left`.
    fn printed(failed: &str, left: &str, succeeded: bool) -> Printed {
        let lines = CHECKS.iter().filter(|name| **name != left).map(|name| {
            let passed = *name != failed;
            format!(
                "{}\n",
                serde_json::json!({"check": name, "passed": passed, "saw": 7})
            )
        });
        Printed {
            out: format!("a warning\n{}", lines.collect::<String>()),
            error: "Traceback\n".to_owned(),
            succeeded,
        }
    }

    #[test]
    fn what_fails_or_is_left_out_is_a_failed_check() {
        let check = |printed: Printed, expected: &[(&str, &str)]| {
            let read = read("x", CHECKS, &printed);
            assert_eq!(read.len(), CHECKS.len());
            let failed: Vec<(&str, &str)> = read
                .iter()
                .filter_map(|one| Some((one.name.as_str(), one.failure.as_deref()?)))
                .collect();
            assert_eq!(failed, expected);
        };
        check(printed("", "", true), &[]);
        check(printed("cancel", "", true), &[("x: cancel", "7")]);
        let ended = "the client ended: Traceback";
        check(printed("", "picture", true), &[("x: picture", ended)]);
        let all = read("x", CHECKS, &printed("", "", false));
        assert!(all.iter().all(|one| one.failure.as_deref() == Some(ended)));
    }

    #[test]
    fn the_scripts_make_these_checks() {
        for name in ["client.mjs", "client.py"] {
            let text = std::fs::read_to_string(script(name)).expect("it is there");
            for check in CHECKS {
                let quoted = [format!("'{check}'"), format!("\"{check}\"")];
                let known = quoted.iter().any(|one| text.contains(one));
                assert!(known, "{name} does not check {check}");
            }
        }
    }
}
