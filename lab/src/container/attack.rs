//! What user code must not be able to do, whatever the rung; and what the
//! server claims to be, checked from inside.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::http::Client;
use crate::load;

/// A server to attack.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// A token of it.
    pub(crate) token: String,
    /// Its data directory, as a process beside it would see it.
    pub(crate) state: PathBuf,
}

/// The rungs, weakest first.
const LADDER: [&str; 3] = ["uids", "namespaces", "full"];

/// Python that prints one line for each thing it could do and should not.
///
/// Where processes are not hidden from each other (`uids`), the server is
/// process 1 of the container.
const PROBE: &str = r#"
import glob, os, signal, socket

def tried(name, attempt):
    try:
        found = attempt()
    except BaseException as error:
        return
    if found:
        print("BREACH", name, found)

def others():
    # Every process that is not ours by descent: its memory and environment.
    for path in glob.glob("/proc/[0-9]*/environ"):
        pid = int(path.split("/")[2])
        if pid == os.getpid():
            continue
        try:
            data = open(path, "rb").read()
        except OSError:
            continue
        if b"CODEX" in data:
            return path

def servers():
    # The server's own number where it is known, and whatever looks like one.
    if SERVER_PID:
        yield SERVER_PID
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        pid = int(path.split("/")[2])
        try:
            words = open(path, "rb").read().split(b"\0")
        except OSError:
            continue
        if pid != os.getpid() and b"serve" in words:
            yield pid

def signals():
    for pid in servers():
        try:
            os.kill(pid, 0)
        except OSError:
            continue
        return pid

def capabilities():
    for line in open("/proc/self/status"):
        if line.startswith("CapEff:") and int(line.split()[1], 16):
            return line.strip()

def new_privileges():
    for line in open("/proc/self/status"):
        if line.startswith("NoNewPrivs:"):
            return line.split()[1] != "1" and line.strip()
    return "not shown"

def outside():
    with socket.socket() as s:
        s.settimeout(2)
        s.connect(("SERVER_HOST", SERVER_PORT))
    return "reached the server"

def became_root():
    os.setuid(0)
    open("/etc/codex-breach", "w")
    return f"uid {os.getuid()}"

tried("state", lambda: [open(path, "rb").read(1) for path in glob.glob("STATE_DIR/*") if os.path.isfile(path)])
tried("state listing", lambda: os.listdir("STATE_DIR"))
tried("state mode", lambda: os.chmod("STATE_DIR", 0o700) or "changed")
tried("state times", lambda: os.utime("STATE_DIR", (1, 1)) or "changed")
tried("shadow", lambda: open("/etc/shadow").read(1))
tried("environment", others)
tried("signal", signals)
tried("capabilities", capabilities)
tried("no_new_privs", new_privileges)
tried("network", outside)
tried("root", became_root)
tried("write", lambda: open("/usr/codex-breach", "w").write("x"))
print("probed as", os.getuid())
"#;

/// Every language works, the rung is at least `least`, and no attack gets
/// through. Gives back the rung.
pub(crate) fn all(server: &Target, least: &str) -> Result<String> {
    let mut client = Client::new(server.address, Some(&server.token));
    let rung = hello(&mut client)?;
    ensure!(
        rank(&rung) >= rank(least),
        "isolation is {rung:?}; at least {least:?} was to be had here"
    );
    let code = PROBE
        .replace("SERVER_HOST", &server.address.ip().to_string())
        .replace("SERVER_PORT", &server.address.port().to_string())
        .replace("STATE_DIR", &server.state.to_string_lossy())
        .replace("SERVER_PID", if rung == "uids" { "1" } else { "0" });
    let answer = client.execute("python", &code)?.json()?;
    let output = answer["output"].as_str().unwrap_or_default();
    ensure!(
        output.contains("probed as"),
        "the probe did not run to its end: {answer}"
    );
    let breaches = breaches(output);
    ensure!(
        breaches.is_empty(),
        "at {rung:?} user code got through: {}",
        breaches.join("; ")
    );
    let health = client.get("/health")?.json()?;
    ensure!(
        health["isolation"] == rung.as_str(),
        "/health claims {} and runs are at {rung:?}",
        health["isolation"]
    );
    Ok(rung)
}

/// Runs a program of each language; all must be at the same rung.
fn hello(client: &mut Client) -> Result<String> {
    let mut rungs = Vec::new();
    for (language, code, expected) in load::HELLO {
        let response = client.post("/execute", &json!({"code": code, "language": language}))?;
        let answer = response.json()?;
        ensure!(
            response.status == 200 && answer["output"] == expected,
            "{language} should print {expected:?} and got {}: {answer}",
            response.status
        );
        let rung = answer["isolation"]
            .as_str()
            .context("the answer names no isolation")?;
        rungs.push(rung.to_owned());
    }
    rungs.dedup();
    ensure!(
        rungs.len() == 1,
        "the languages ran at different rungs: {rungs:?}"
    );
    rungs.pop().context("no language ran")
}

fn rank(rung: &str) -> Option<usize> {
    LADDER.iter().position(|&known| known == rung)
}

fn breaches(output: &str) -> Vec<&str> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix("BREACH "))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::live::Home;

    #[test]
    fn rungs_are_ordered_and_unknown_ones_are_below_all() {
        assert!(rank("full") > rank("namespaces"));
        assert!(rank("namespaces") > rank("uids"));
        assert!(rank("made up") < rank("uids"));
    }

    #[test]
    fn a_breach_is_seen() {
        assert_eq!(breaches("BREACH shadow r\nprobed as 0\n"), ["shadow r"]);
        assert!(breaches("probed as 1000\n").is_empty());
    }

    /// Never as root, who could do to this machine what it tries.
    #[test]
    fn the_probe_finds_breaches_where_nothing_confines_it() {
        let mut home = Home::new().expect("there is room");
        let root = rustix::process::geteuid().is_root();
        if root {
            home.hand_over(64_124, Path::new("/bin/true"))
                .expect("root may");
        }
        let code = PROBE
            .replace("SERVER_HOST", "127.0.0.1")
            .replace("SERVER_PORT", "1")
            .replace("SERVER_PID", "0")
            .replace("STATE_DIR", &home.data().to_string_lossy());
        let mut python = home.command(Path::new(xtask::python::PYTHON));
        python.env("CODEX_MARK", "1").args(["-c", &code]);
        let output = xtask::process::capture("run the probe", &mut python).expect("it runs");
        assert!(output.contains("probed as"), "{output}");
        let found = breaches(&output);
        for name in ["no_new_privs", "state mode", "state times"] {
            assert!(
                found.iter().any(|breach| breach.starts_with(name)),
                "{output}"
            );
        }
    }
}
