//! The server as an ordinary user without any right over cgroups: both
//! languages must run in namespaces.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::container::attack::{self, Target};
use crate::live::{Home, Server};

/// A user that no system gives to anybody.
const UID: u32 = 64_123;

/// Starts the server as that user and puts its claims to the test.
pub(crate) fn ordinary(binary: &Path) -> Result<()> {
    check_kernel()?;
    let mut home = Home::new()?;
    let copy = home.hand_over(UID, binary)?;
    let token = home.token(&copy)?;
    let mut serve = home.command(&copy);
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
