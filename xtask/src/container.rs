//! Starts the server where it has less than it would like: as an ordinary
//! user, as root in a plain container with Docker's defaults, in the same
//! container with the cure that the server names, and in one without rights.
//!
//! It has to serve in the first three: at `uids` in the plain one, and higher
//! with the cure. In the last it has to refuse and to name a cure. Whatever it claims in `isolation` is put to the test by user code.

pub(crate) mod attack;
mod seccomp;
mod spec;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::spec::Security;
use crate::apt::{self, Need, Probe};
use crate::live::{Home, Server};
use crate::ordinary;
use crate::process;

const RUNC: Need = Need {
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
    dropped(binary)
}

/// The server as root in a container with Docker's defaults.
fn plain(binary: &Path) -> Result<()> {
    let told = serves(binary, Security::Default, "uids").context("in a plain container")?;
    println!("plain container: serves at {told}");
    Ok(())
}

/// The same container with the cure that the server names: it must help.
fn cured(binary: &Path) -> Result<()> {
    let told = serves(binary, Security::Cured, "namespaces").context("the cure does not help")?;
    println!("cured container: serves at {told}");
    Ok(())
}

/// Starts the server in a container and attacks it. Gives the rung.
fn serves(binary: &Path, security: Security, least: &'static str) -> Result<String> {
    let home = Home::new()?;
    let token = home.token(binary)?;
    let bundle = Bundle::new(&home, binary, security)?;
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
    let home = Home::new()?;
    let token = home.token(binary)?;
    let bundle = Bundle::new(&home, binary, Security::Dropped)?;
    let server = Server::spawn(&mut bundle.run()?, Some(token));
    bundle.end()?;
    let Err(error) = server else {
        anyhow::bail!("the server serves in a container without capabilities");
    };
    let text = format!("{error:#}");
    refused_with_cure(&text)?;
    println!("container without capabilities: refuses, with the cure:\n{text}");
    Ok(())
}

/// A refusal is an exit by itself, with words that say what to do.
fn refused_with_cure(text: &str) -> Result<()> {
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
fn inside_network<T: Send + 'static>(
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

/// An OCI bundle below a home, with a root of its own and the host's `/usr`.
#[derive(Debug)]
struct Bundle {
    directory: PathBuf,
    runtime_state: PathBuf,
    name: String,
}

impl Bundle {
    fn new(home: &Home, binary: &Path, security: Security) -> Result<Self> {
        let directory = home.path().join("bundle");
        let root = directory.join("rootfs");
        for part in [
            "usr", "etc", "proc", "sys", "dev", "tmp", "root", "data", "run", "var/tmp", "codex",
        ] {
            let path = root.join(part);
            fs::create_dir_all(&path)
                .with_context(|| format!("failed to make {}", path.display()))?;
        }
        for part in ["tmp", "var/tmp"] {
            fs::set_permissions(root.join(part), fs::Permissions::from_mode(0o1777))
                .context("failed to open /tmp to all")?;
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            if Path::new("/usr").join(link).exists() {
                symlink(format!("usr/{link}"), root.join(link)).context("failed to make a link")?;
            }
        }
        copy_etc(&root)?;
        fs::copy(binary, root.join("codex/codex-server")).context("failed to copy the binary")?;
        let config = spec::config(&home.data(), security);
        fs::write(directory.join("config.json"), config.to_string())
            .context("failed to write the bundle")?;
        let name = format!("codex-check-{}", std::process::id());
        Ok(Self {
            runtime_state: home.path().join("runc"),
            directory,
            name,
        })
    }

    fn runc(&self) -> Result<Command> {
        let mut command = process::command(process::find("runc").context("runc is not installed")?);
        command.arg("--root").arg(&self.runtime_state);
        Ok(command)
    }

    fn run(&self) -> Result<Command> {
        let mut command = self.runc()?;
        command
            .arg("run")
            .arg("--bundle")
            .arg(&self.directory)
            .arg(&self.name);
        Ok(command)
    }

    /// Process id of the server, as the host sees it.
    fn state_pid(&self) -> Result<u32> {
        let state = process::capture(
            "ask for the container's state",
            self.runc()?.args(["state", &self.name]),
        )?;
        pid_in(&state).with_context(|| format!("the container's state has no pid: {state}"))
    }

    /// Ends the container, if it still runs, and removes what runc keeps.
    fn end(&self) -> Result<()> {
        let mut delete = self.runc()?;
        delete
            .args(["delete", "--force", &self.name])
            .stdin(Stdio::null());
        process::run("remove the container", &mut delete)
    }
}

fn pid_in(state: &str) -> Option<u32> {
    let state: serde_json::Value = serde_json::from_str(state).ok()?;
    u32::try_from(state["pid"].as_u64()?)
        .ok()
        .filter(|&pid| pid > 0)
}

/// Enough of `/etc` for programs to start and names to resolve.
fn copy_etc(root: &Path) -> Result<()> {
    let etc = root.join("etc");
    for name in [
        "ld.so.cache",
        "ld.so.conf",
        "nsswitch.conf",
        "localtime",
        "os-release",
    ] {
        let from = Path::new("/etc").join(name);
        if from.is_file() {
            fs::copy(&from, etc.join(name))
                .with_context(|| format!("failed to copy {}", from.display()))?;
        }
    }
    for (name, text) in [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        ("group", "root:x:0:\nnogroup:x:65534:\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("resolv.conf", ""),
    ] {
        fs::write(etc.join(name), text).with_context(|| format!("failed to write /etc/{name}"))?;
    }
    // Debian keeps some programs as links into here.
    let alternatives = Path::new("/etc/alternatives");
    if alternatives.is_dir() {
        copy_links(alternatives, &etc.join("alternatives"))?;
    }
    Ok(())
}

fn copy_links(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("failed to make {}", to.display()))?;
    for entry in fs::read_dir(from)
        .with_context(|| format!("failed to list {}", from.display()))?
        .flatten()
    {
        if let Ok(target) = fs::read_link(entry.path()) {
            symlink(target, to.join(entry.file_name())).context("failed to make a link")?;
        }
    }
    Ok(())
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

    #[test]
    fn the_pid_is_read_from_the_state() {
        assert_eq!(
            pid_in(r#"{"id":"x","pid":42,"status":"running"}"#),
            Some(42)
        );
        assert_eq!(pid_in(r#"{"id":"x","pid":0,"status":"stopped"}"#), None);
        assert_eq!(pid_in(""), None);
    }

    #[test]
    fn links_are_copied_as_links() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir(&from).expect("made");
        symlink("/usr/bin/nodejs", from.join("js")).expect("made");
        copy_links(&from, &to).expect("copied");
        assert_eq!(
            fs::read_link(to.join("js")).expect("a link"),
            Path::new("/usr/bin/nodejs")
        );
    }
}
