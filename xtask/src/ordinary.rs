//! The server as an ordinary user without any right over cgroups: both
//! languages must run in namespaces.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::container::attack::{self, Target};
use crate::live::{self, Home, Server};
use crate::process;

/// A user that no system gives to anybody.
const UID: u32 = 64_123;

/// Starts the server as that user and puts its claims to the test.
pub(crate) fn ordinary(binary: &Path) -> Result<()> {
    check_kernel()?;
    let home = Home::new()?;
    // The build directory may be closed to others; a copy in the home is not.
    let copy = hand_over(&home, binary)?;
    let mut create = home.command(&copy);
    create
        .uid(UID)
        .gid(UID)
        .current_dir(home.path())
        .args(["token", "create", "check"]);
    let token = live::token_of(&process::capture(
        "create a token as an ordinary user",
        &mut create,
    )?)?;
    let mut serve = home.command(&copy);
    serve.uid(UID).gid(UID).current_dir(home.path());
    serve.args(["serve", "--host", "127.0.0.1", "--port", "0"]);
    let server = Server::spawn(&mut serve, Some(token.clone()))?;
    let target = Target {
        address: server.address,
        token,
        state: home.data(),
    };
    let told = attack::all(&target, "namespaces")?;
    ensure!(
        told == "namespaces",
        "an ordinary user without cgroups claims {told:?}"
    );
    println!("ordinary user: serves at {told}");
    let status = server.stop()?;
    ensure!(
        status.success(),
        "the server ended with {status} after SIGTERM"
    );
    Ok(())
}

/// Gives the home to the user and puts the binary into it.
fn hand_over(home: &Home, binary: &Path) -> Result<PathBuf> {
    let copy = home.path().join("codex-server");
    fs::copy(binary, &copy).context("failed to copy the binary")?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))
        .context("failed to open the binary to all")?;
    for path in [home.path().to_owned(), home.data(), home.tmp()] {
        chown(&path, Some(UID), Some(UID))
            .with_context(|| format!("failed to give {} away", path.display()))?;
    }
    Ok(copy)
}

/// Switches by which distributions forbid what this check needs, with the
/// value that allows it.
const SWITCHES: [(&str, &str); 2] = [
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "0",
    ),
    ("/proc/sys/kernel/unprivileged_userns_clone", "1"),
];

fn check_kernel() -> Result<()> {
    for (path, wanted) in SWITCHES {
        let Ok(value) = fs::read_to_string(path) else {
            continue;
        };
        ensure!(value.trim() == wanted, "{}", switch_cure(path, wanted));
    }
    Ok(())
}

fn switch_cure(path: &str, wanted: &str) -> String {
    let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
    format!(
        "this kernel gives ordinary users no namespaces; run `sysctl -w {name}={wanted}`, then try again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_is_a_line_to_paste() {
        assert_eq!(
            switch_cure(SWITCHES[1].0, SWITCHES[1].1),
            "this kernel gives ordinary users no namespaces; run `sysctl -w kernel.unprivileged_userns_clone=1`, then try again"
        );
    }
}
