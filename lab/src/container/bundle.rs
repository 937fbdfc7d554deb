//! An OCI bundle and the container that runc makes of it: Docker's work,
//! where there is no Docker.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::spec::{self, Program, Security};
use crate::live::Home;
use xtask::process;

/// Gives a directory and the files in it to a user.
fn give(directory: &Path, uid: u32) -> Result<()> {
    let files = fs::read_dir(directory).context("failed to list the data directory")?;
    let files = files.flatten().map(|entry| entry.path());
    for path in files.chain([directory.to_owned()]) {
        lchown(&path, Some(uid), Some(uid))
            .with_context(|| format!("failed to give {} away", path.display()))?;
    }
    Ok(())
}

/// An OCI bundle below a home.
#[derive(Debug)]
pub(crate) struct Bundle {
    directory: PathBuf,
    runtime_state: PathBuf,
    name: String,
}

impl Bundle {
    /// A root of its own with the host's `/usr`.
    pub(crate) fn of_host(
        home: &Home,
        binary: &Path,
        uid: u32,
        security: Security,
    ) -> Result<Self> {
        let root = home.path().join("bundle/rootfs");
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
        let arguments = [
            "/codex/codex-server",
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
        ];
        give(&home.data(), uid)?;
        let program = Program {
            root,
            host_usr: true,
            arguments: arguments.map(str::to_owned).to_vec(),
            uid,
            data: home.data(),
        };
        Self::new(home, &program, security)
    }

    /// Whatever is asked for.
    pub(crate) fn new(home: &Home, program: &Program, security: Security) -> Result<Self> {
        static BUNDLES: AtomicU32 = AtomicU32::new(1);
        let directory = home.path().join("bundle");
        fs::create_dir_all(&directory).context("failed to make the bundle")?;
        let config = spec::config(program, security);
        fs::write(directory.join("config.json"), config.to_string())
            .context("failed to write the bundle")?;
        let number = BUNDLES.fetch_add(1, Ordering::Relaxed);
        let name = format!("codex-check-{}-{number}", std::process::id());
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

    /// A command that starts the container and stays with it.
    pub(crate) fn run(&self) -> Result<Command> {
        let mut command = self.runc()?;
        command
            .arg("run")
            .arg("--bundle")
            .arg(&self.directory)
            .arg(&self.name);
        Ok(command)
    }

    /// A command that starts another program in the running container.
    pub(crate) fn exec(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.runc()?;
        command.arg("exec").arg(&self.name).args(arguments);
        Ok(command)
    }

    /// Process id of the server, as the host sees it.
    pub(crate) fn state_pid(&self) -> Result<u32> {
        let state = process::capture(
            "ask for the container's state",
            self.runc()?.args(["state", &self.name]),
        )?;
        pid_in(&state).with_context(|| format!("the container's state has no pid: {state}"))
    }

    /// Ends the container, if it still runs, and removes what runc keeps.
    pub(crate) fn end(&self) -> Result<()> {
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
