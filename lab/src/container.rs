//! Starts the server where it has less than it would like: as an ordinary
//! user, as root in a plain container with Docker's defaults, in the same
//! container with the cure that the server names, as an ordinary user in the
//! plain one, and in one without rights.
//!
//! It has to serve in the first three: at `uids` in the plain one, and higher
//! with the cure. An ordinary user in the plain one is refused, and so is root
//! without rights or without Landlock. Each refusal has to name a cure, and
//! whatever is claimed in `isolation` is put to the test by user code.

pub(crate) mod attack;
pub(crate) mod bundle;
mod seccomp;
pub(crate) mod spec;

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::bundle::Bundle;
use self::spec::Security;
use crate::live::{Home, Server};
use crate::ordinary;
use xtask::apt::{self, Need, Probe};
use xtask::process;

/// What starts containers.
pub(crate) const RUNC: Need = Need {
    probe: Probe::Program(&["runc"]),
    packages: &["runc"],
    reason: "to start the server in a plain container",
    required: true,
};

/// What a refusal must speak of, for the reader to be able to act on it.
const CURE_WORDS: [&str; 5] = [
    "seccomp",
    "--security-opt",
    "--privileged",
    "--cap-add",
    "--min-isolation",
];

const ROOT: u32 = 0;
/// The user of the non-root image.
const ORDINARY: u32 = 10_001;

/// How a server ends that finds no sandbox: see the table of exit codes.
const NO_SANDBOX: &str = "ended with exit status: 4 ";

/// All the checks.
pub(crate) fn container(binary: &Path) -> Result<()> {
    ensure!(
        process::is_root(),
        "these checks start containers and change users; run them as root"
    );
    apt::ensure(&[RUNC])?;
    ordinary::ordinary(binary)?;
    plain(binary)?;
    cured(binary)?;
    unprivileged(binary)?;
    without_landlock(binary)?;
    dropped(binary)
}

/// The server as root in a container with Docker's defaults.
fn plain(binary: &Path) -> Result<()> {
    let told = serves(binary, ROOT, Security::Default, "uids").context("in a plain container")?;
    println!("plain container: serves at {told}");
    Ok(())
}

/// The same container with the cure that the server names: it must help.
fn cured(binary: &Path) -> Result<()> {
    let told =
        serves(binary, ROOT, Security::Cured, "namespaces").context("the cure does not help")?;
    println!("cured container: serves at {told}");
    Ok(())
}

/// An ordinary user in the plain container has neither namespaces nor uids.
fn unprivileged(binary: &Path) -> Result<()> {
    let text = refuses(binary, ORDINARY, Security::Default)?;
    println!("ordinary user in a plain container: refuses, with the cure:\n{text}");
    Ok(())
}

/// Uids alone are not enough: what programs may open is Landlock's to say.
fn without_landlock(binary: &Path) -> Result<()> {
    let text = refuses(binary, ROOT, Security::WithoutLandlock)?;
    ensure!(
        text.contains("needs Linux 5.13"),
        "the refusal does not say which kernel has what is missing: {text}"
    );
    println!("plain container without Landlock: refuses");
    Ok(())
}

/// Starts the server in a container and attacks it. Gives the rung.
fn serves(binary: &Path, uid: u32, security: Security, least: &'static str) -> Result<String> {
    let home = Home::new()?;
    let token = home.token(binary)?;
    let bundle = Bundle::of_host(&home, binary, uid, security)?;
    let server = Server::spawn(&mut bundle.run()?, Some(token.clone()));
    let told = server.and_then(|server| {
        let pid = bundle.state_pid()?;
        let target = attack::Target {
            address: server.address,
            token,
            state: "/data".into(),
        };
        inside_network(pid, move || attack::all(&target, least))
    });
    bundle.end()?;
    told
}

/// A container whose root has no rights: nothing sound can be set up there.
fn dropped(binary: &Path) -> Result<()> {
    let text = refuses(binary, ROOT, Security::Dropped)?;
    println!("container without capabilities: refuses, with the cure:\n{text}");
    Ok(())
}

/// Starts the server in a container where it has to refuse. Gives its words.
fn refuses(binary: &Path, uid: u32, security: Security) -> Result<String> {
    let home = Home::new()?;
    let token = home.token(binary)?;
    let bundle = Bundle::of_host(&home, binary, uid, security)?;
    let server = Server::spawn(&mut bundle.run()?, Some(token));
    bundle.end()?;
    let Err(error) = server else {
        anyhow::bail!("the server serves as user {uid} in a container that is {security:?}");
    };
    let text = format!("{error:#}");
    refused_with_cure(&text)?;
    Ok(text)
}

/// A refusal is an exit by itself, with words that say what to do.
pub(crate) fn refused_with_cure(text: &str) -> Result<()> {
    ensure!(
        text.contains(NO_SANDBOX),
        "the server should refuse as having no sandbox in this container: {text}"
    );
    ensure!(
        !text.contains("panicked"),
        "the server panicked in this container: {text}"
    );
    ensure!(
        CURE_WORDS.iter().any(|word| text.contains(word)),
        "the refusal names no cure (one of {CURE_WORDS:?}): {text}"
    );
    Ok(())
}

/// Runs `check` on a thread of its own in the network of process `pid`.
pub(crate) fn inside_network<T: Send + 'static>(
    pid: u32,
    check: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let network = fs::File::open(format!("/proc/{pid}/ns/net"))
        .context("failed to open the container's network")?;
    thread::spawn(move || {
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&network),
            Some(LinkNameSpaceType::Network),
        )
        .context("failed to enter the container's network")?;
        check()
    })
    .join()
    .ok()
    .context("the check panicked")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_needs_an_exit_and_a_cure() {
        let check = |text: &str, passes: bool| {
            assert_eq!(refused_with_cure(text).is_ok(), passes, "{text}")
        };
        check(
            "the server ended with exit status: 4 before it listened; cure: --security-opt seccomp=unconfined",
            true,
        );
        check(
            "the server ended with exit status: 4 before it listened; no sandbox",
            false,
        );
        check(
            "the server ended with exit status: 1 before it listened; seccomp",
            false,
        );
        check("the server ended with signal: 11 (SIGSEGV); seccomp", false);
        check(
            "ended with exit status: 4 before; panicked at seccomp.rs",
            false,
        );
        check("did not listen within 60s; seccomp", false);
    }
}
