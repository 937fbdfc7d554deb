//! Tries a tarball where nobody has installed anything but interpreters: in
//! fresh Debian systems, as root in a container that takes nothing away that a
//! machine of one's own would give.

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

/// Suites with their C library's version, and whether their Node is new
/// enough. The oldest shows that the C library does not matter.
const SUITES: [(&str, &str, bool); 3] = [
    ("trixie", "2.41", true),
    ("bookworm", "2.36", true),
    ("bullseye", "2.31", false),
];

/// Runs and serves from the tarball in each.
pub(crate) fn all(tarball: &Path, name: &str) -> Result<()> {
    apt::ensure(&[RUNC])?;
    for (suite, library, node) in SUITES {
        let root = debian::root(suite, suite, &["python3", "nodejs"])?;
        let mut tar = process::command("tar");
        tar.arg("-xzf").arg(tarball).arg("-C").arg(root.join("opt"));
        process::run("unpack the tarball", &mut tar)?;
        let binary = format!("/opt/{name}/codex-server");
        let rung = tried(&root, &binary, node).with_context(|| format!("on Debian {suite}"))?;
        println!("Debian {suite} (glibc {library}): runs and serves at {rung}");
    }
    Ok(())
}

fn tried(root: &Path, binary: &str, node: bool) -> Result<String> {
    let home = Home::new()?;
    let bundle = |words: &[&str]| {
        let arguments = std::iter::once(binary).chain(words.iter().copied());
        let program = Program {
            root: root.to_owned(),
            host_usr: false,
            arguments: arguments.map(str::to_owned).collect(),
            uid: 0,
            data: home.data(),
        };
        Bundle::new(&home, &program, Security::Writable)
    };
    let capture = |words: &[&str]| -> Result<String> {
        let bundle = bundle(words)?;
        let said = process::capture(
            &format!("run `codex-server {}`", words[0]),
            &mut bundle.run()?,
        );
        bundle.end()?;
        said
    };
    let printed = capture(&["run", "-c", "print(2+2)"])?;
    ensure!(printed == "4\n", "`run` printed {printed:?}");
    let token = live::token_of(&capture(&["token", "create", "check"])?)?;
    let bundle = bundle(&["serve", "--host", "127.0.0.1", "--port", "0"])?;
    let rung = serves(&bundle, token, node);
    bundle.end()?;
    rung
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
