//! Tries a release where nobody has installed anything but interpreters: in
//! fresh Debian systems, as root in a container that takes nothing away that a
//! machine of one's own would give, by the release's own `install.sh`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::container::attack::{self, Target};
use crate::container::bundle::Bundle;
use crate::container::spec::{Program, Security};
use crate::container::{self, RUNC};
use crate::debian;
use crate::http::Client;
use crate::live::{self, Home, Server};
use xtask::apt;
use xtask::process;

/// A release of Debian.
struct Suite {
    name: &'static str,
    /// Its C library's version.
    library: &'static str,
    /// Whether its Node is new enough.
    node: bool,
    /// What fetches there, and the words by which it prints a file.
    fetcher: (&'static str, &'static str),
}

const CURL: (&str, &str) = ("curl", "curl -fsSL");
const WGET: (&str, &str) = ("wget", "wget -qO-");

/// The oldest shows that the C library does not matter.
const SUITES: [Suite; 3] = [
    Suite {
        name: "trixie",
        library: "2.41",
        node: true,
        fetcher: CURL,
    },
    Suite {
        name: "bookworm",
        library: "2.36",
        node: true,
        fetcher: WGET,
    },
    Suite {
        name: "bullseye",
        library: "2.31",
        node: false,
        fetcher: CURL,
    },
];

/// Where a system finds the release before it fetches it from itself.
const RELEASE: &str = "opt/release";

/// Where the script installs for root.
const BINARY: &str = "/root/.local/bin/codex-server";

/// Fetches and installs as people do, from a web server on loopback, and runs a
/// first program. `FETCH` prints an address.
const INSTALL: &str = r#"
set -eu
rm -rf ~/.local
base=http://127.0.0.1:8765
python3 -m http.server 8765 --bind 127.0.0.1 --directory /opt/release >/dev/null 2>&1 &
until FETCH $base/SHA256SUMS >/dev/null 2>&1; do sleep 0.05; done
begun=$(date +%s%N)
FETCH $base/install.sh | sh -s -- --from $base
installed=$(date +%s%N)
printf 'answer=%s\n' "$(~/.local/bin/codex-server run -c 'print(2+2)')"
ended=$(date +%s%N)
printf 'milliseconds=%s,%s\n' $(((installed - begun) / 1000000)) $(((ended - begun) / 1000000))
FETCH $base/install.sh | sh -s -- --from $base
~/.local/bin/codex-server --version
sed -i 's/^./z/' /opt/release/SHA256SUMS
if FETCH $base/install.sh | sh -s -- --from $base; then echo 'a wrong checksum passed'; fi
"#;

/// Installs, runs and serves from the release in each.
pub(crate) fn all(release: &Path) -> Result<()> {
    apt::ensure(&[RUNC])?;
    for suite in SUITES {
        let Suite { name, library, .. } = suite;
        let root = debian::root(name, name, &["python3", "nodejs", suite.fetcher.0])?;
        let to = root.join(RELEASE);
        if to.exists() {
            fs::remove_dir_all(&to).context("failed to remove the release before")?;
        }
        let mut copy = process::command("cp");
        process::run("copy the release", copy.arg("-r").arg(release).arg(&to))?;
        let told = tried(&root, &suite).with_context(|| format!("on Debian {name}"))?;
        println!("Debian {name} (glibc {library}): {told}");
    }
    Ok(())
}

/// Returns how long the installation took and at which rung it serves.
fn tried(root: &Path, suite: &Suite) -> Result<String> {
    let home = Home::new()?;
    let bundle = |words: &[&str]| {
        let program = Program {
            root: root.to_owned(),
            host_usr: false,
            arguments: words.iter().map(|&word| word.to_owned()).collect(),
            uid: 0,
            data: home.data(),
        };
        Bundle::new(&home, &program, Security::Writable)
    };
    let capture = |words: &[&str]| -> Result<String> {
        let bundle = bundle(words)?;
        let said = process::capture(&format!("run {}", words[0]), &mut bundle.run()?);
        bundle.end()?;
        said
    };
    let script = INSTALL.replace("FETCH", suite.fetcher.1);
    let times = times(&capture(&["/bin/sh", "-c", &script])?)?;
    let token = live::token_of(&capture(&[BINARY, "token", "create", "check"])?)?;
    let bundle = bundle(&[BINARY, "serve", "--host", "127.0.0.1", "--port", "0"])?;
    let rung = serves(&bundle, token, suite.node);
    bundle.end()?;
    Ok(format!("{times}; serves at {}", rung?))
}

/// Returns what the script's output says of its times, when it says all else
/// that it should.
fn times(said: &str) -> Result<String> {
    let lines = [
        "  checksum agrees",
        "answer=4",
        "  a server that runs goes on",
    ];
    for line in lines {
        let there = said.lines().any(|found| found.starts_with(line));
        ensure!(there, "the script printed no line {line:?}: {said}");
    }
    ensure!(!said.contains("a wrong checksum passed"), "{said}");
    let mut found = said.lines().filter_map(|line| {
        let (installed, answered) = line.strip_prefix("milliseconds=")?.split_once(',')?;
        Some((installed.parse().ok()?, answered.parse().ok()?))
    });
    let (installed, answered): (f64, f64) = found.next().context("the script told no times")?;
    Ok(format!(
        "installed {:.1} s and answered {:.1} s after the download began",
        installed / 1000.0,
        answered / 1000.0
    ))
}

fn serves(bundle: &Bundle, token: String, node: bool) -> Result<String> {
    let server = Server::spawn(&mut bundle.run()?, Some(token.clone()))?;
    let address = server.address;
    let rung = container::inside_network(bundle.state_pid()?, move || {
        if node {
            let target = Target {
                address,
                token,
                state: "/data".into(),
            };
            return attack::all(&target, "full");
        }
        let mut client = Client::new(address, Some(&token));
        let answer = client.execute("python", "print(2+2)")?.json()?;
        ensure!(answer["output"] == "4\n", "python answered {answer}");
        // A Node that is too old is told as such, not tried.
        let code = json!({"code": "1", "language": "javascript"});
        let refusal = client.post("/execute", &code)?;
        ensure!(
            refusal.status >= 400 && refusal.text().contains("node"),
            "javascript got {}: {}",
            refusal.status,
            refusal.text()
        );
        Ok(answer["isolation"].as_str().unwrap_or_default().to_owned())
    })?;
    let status = server.stop()?;
    ensure!(status.success(), "the server ended with {status}");
    Ok(rung)
}
