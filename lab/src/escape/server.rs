//! The corpus through the API of a running server, in a network of its own in
//! which the addresses exist where clouds keep credentials.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::attack::{Attack, Door, compiled};
use super::ground::{CANARY, Ground, Tenant};
use super::{Arguments, Case, corpus, parse, requests};
use crate::census;
use crate::crash;
use crate::http::{Client, Response};
use crate::live::{Home, Server};
use xtask::process;

/// The same bounds as in the tests of the sandbox.
const BOUNDS: [(&str, &str); 4] = [
    ("CODEX_WORKSPACE", "32MiB"),
    ("CODEX_INODES", "2000"),
    ("CODEX_SHM", "16MiB"),
    ("CODEX_QUEUE", "512"),
];
/// Wall time and memory of an attack that names none.
const WALL: u64 = 20;
const MEMORY_MB: u64 = 256;
/// How much later than its wall time an answer may come: the kill, and what
/// there is of files.
const LATE: Duration = Duration::from_secs(5);
/// Growth of the server's memory, in KiB, while it is attacked.
const FLAT_KIB: u64 = 96 * 1024;
/// How long a server is watched before, and how long it may take afterwards.
const QUIET: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);
/// Descriptors of pools that grow with use: connections to its store, and files.
const POOLED: usize = 32;
/// Runs that are live when the server is killed.
const LIVE: u16 = 5;

/// Starts this command again where it is to work, and reads what it tells.
pub(super) fn outside(arguments: &Arguments, binary: &Path) -> Result<Vec<Case>> {
    let mut results = Vec::new();
    for rung in arguments.api_rungs() {
        let ground = process::root().join("crates/sandbox/tests/escape/ground.py");
        let mut command = process::command("/usr/bin/python3");
        command.arg("-I").arg(ground).arg("0");
        // As it runs: a build may have replaced its file since.
        command.arg(format!("/proc/{}/exe", std::process::id()));
        command.args(["escape", "--inside", "--rung", rung]);
        for case in &arguments.case {
            command.args(["--case", case]);
        }
        if arguments.full {
            command.arg("--full");
        }
        command.arg("--binary").arg(binary);
        let (status, told) = process::tee("attack a server", &mut command)?;
        ensure!(
            status.success(),
            "the attack on a server at {rung} ended with {status}; see above"
        );
        results.extend(told.lines().filter_map(|line| parse(rung, line)));
    }
    Ok(results)
}

/// Attacks one server at one rung. Prints a line for each case.
pub(super) fn inside(arguments: &Arguments) -> Result<()> {
    let rung = arguments.rungs()[0];
    let binary = arguments.binary.as_deref().context("which server?")?;
    let home = Home::new()?;
    let ground = Ground::plant(&home)?;
    let tokens = [home.token(binary)?, home.token(binary)?];
    let mut command = home.command(binary);
    command.args(["serve", "--host", "127.0.0.1", "--port", "0"]);
    command.args(["--rate-limit", "1000000/minute"]);
    command.args(["--max-isolation", rung, "--min-isolation", rung]);
    command
        .envs(BOUNDS)
        .env("CODEX_ESCAPE_SECRET", ground.secret());
    let server = Server::spawn(&mut command, Some(tokens[0].clone()))?;
    let mut client = server.client();
    hello(&mut client, rung)?;
    let before = Held::settled(&server, None)?;
    let tenant = Tenant::new(&server, &tokens[1]);
    let target = Target {
        rung,
        long: arguments.full,
        told: ground.told(rung, arguments.full, &server, warden(&server)?),
        ground: &ground,
        server: &server,
    };
    for attack in corpus()? {
        if !attack.is_for(Door::Http) || !arguments.wants(&attack.id) {
            continue;
        }
        let started = Instant::now();
        let mut complaints = target.complaints(&attack)?;
        if attack.id == "61" {
            complaints.extend(requests::bad(&mut client)?);
        }
        if attack.id == "62" {
            complaints.extend(requests::tenants(&server, &tokens, arguments.full)?);
        }
        let word = if complaints.is_empty() {
            "held"
        } else {
            "open"
        };
        println!(
            "{}\t{word}\t{}\t{}",
            attack.id,
            started.elapsed().as_millis(),
            complaints.join("; ").replace(['\t', '\n'], " ")
        );
    }
    let runs = tenant.leave()?;
    println!("another tenant's {runs} runs beside it were not disturbed");
    Held::settled(&server, Some(before))?;
    let status = server.stop()?;
    ensure!(
        status.success(),
        "the server ended with {status} after SIGTERM"
    );
    if rung == "full" && arguments.wants("62") {
        crash::crash(binary, LIVE)?;
    }
    Ok(())
}

/// What a server holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    processes: usize,
    descriptors: usize,
    memory_kib: u64,
}

impl Held {
    fn take(server: &Server) -> Result<Self> {
        let family = census::lineage(server.pid())?;
        let descriptors = family.iter().map(|process| {
            let entries = fs::read_dir(format!("/proc/{}/fd", process.pid));
            entries.map_or(0, Iterator::count)
        });
        Ok(Self {
            processes: family.len(),
            descriptors: descriptors.sum(),
            memory_kib: census::Census::take(server.pid(), Path::new("/nowhere"))?.memory_kib,
        })
    }

    /// The least, once it is quiet; or an error when it stays above `before`.
    fn settled(server: &Server, before: Option<Self>) -> Result<Self> {
        let since = Instant::now();
        let mut most = Self::default();
        loop {
            let now = Self::take(server)?;
            most.processes = most.processes.max(now.processes);
            most.descriptors = most.descriptors.max(now.descriptors);
            most.memory_kib = now.memory_kib;
            match before {
                None if since.elapsed() > QUIET => return Ok(most),
                Some(before)
                    if now.processes <= before.processes
                        && now.descriptors <= before.descriptors + POOLED =>
                {
                    let growth = now.memory_kib.saturating_sub(before.memory_kib);
                    println!("the server before: {before:?}, after: {now:?}");
                    ensure!(
                        growth <= FLAT_KIB,
                        "the server's memory grew by {growth} KiB"
                    );
                    return Ok(now);
                }
                Some(before) if since.elapsed() > PATIENCE => {
                    bail!("something of the attacks is left: before {before:?}, after {now:?}")
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// The process that makes boxes: the server's only child.
fn warden(server: &Server) -> Result<u32> {
    let family: BTreeSet<_> = census::lineage(server.pid())?;
    let warden = family.iter().find(|process| process.pid != server.pid());
    Ok(warden.context("the server has no warden")?.pid)
}

fn hello(client: &mut Client, rung: &str) -> Result<()> {
    let answer = client.execute("python", "print(2 + 2)")?.json()?;
    ensure!(
        answer["output"] == "4\n" && answer["isolation"] == rung,
        "the server does not serve at {rung}: {answer}"
    );
    Ok(())
}

struct Target<'a> {
    rung: &'a str,
    long: bool,
    told: String,
    ground: &'a Ground,
    server: &'a Server,
}

impl Target<'_> {
    fn complaints(&self, attack: &Attack) -> Result<Vec<String>> {
        let bounds = attack.bounds(self.long, self.rung);
        let wall = bounds.wall.unwrap_or(WALL).min(30);
        let mut body = json!({
            "code": attack.text(&self.told),
            "timeout": wall,
            "memory_mb": bounds.memory_mb.unwrap_or(MEMORY_MB),
        });
        if let Some(source) = &attack.c {
            let program = compiled(source).map_err(|error| anyhow::anyhow!(error))?;
            body["files"] = json!([
                {"path": "attack", "content": base64(&program), "encoding": "base64"}
            ]);
        }
        let started = Instant::now();
        let response = self.server.client().post("/execute", &body)?;
        let mut complaints = Vec::new();
        let took = started.elapsed();
        if took > Duration::from_secs(wall) + LATE {
            complaints.push(format!("answered after {took:?}"));
        }
        complaints.extend(self.answer(attack, &response));
        if let Err(error) = hello(&mut self.server.client(), self.rung) {
            complaints.push(format!("the next run: {error:#}"));
        }
        complaints.extend(self.ground.disturbed());
        Ok(complaints)
    }

    /// What is wrong with an answer.
    fn answer(&self, attack: &Attack, response: &Response) -> Vec<String> {
        if response.status != 200 {
            return vec![format!("status {}: {}", response.status, response.text())];
        }
        let answer: Value = match response.json() {
            Ok(answer) => answer,
            Err(error) => return vec![format!("{error:#}")],
        };
        let output = answer["output"].as_str().unwrap_or_default();
        let status = answer["status"].as_str().unwrap_or_default();
        let mut complaints = attack.complaints(self.rung, status, output);
        if answer.to_string().contains(CANARY) {
            complaints.push("a secret is in the answer".to_owned());
        }
        let names = || {
            let files = answer["files"].as_array().into_iter().flatten();
            files
                .filter_map(|file| file["name"].as_str())
                .collect::<Vec<_>>()
        };
        if let Some(wanted) = &attack.files
            && names() != *wanted
        {
            complaints.push(format!("files are {:?}, not {wanted:?}", names()));
        }
        if attack
            .truncated
            .is_some_and(|wanted| answer["truncated"] != wanted)
        {
            complaints.push(format!("truncated is {}", answer["truncated"]));
        }
        if !complaints.is_empty() {
            let end: String = output
                .chars()
                .rev()
                .take(400)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect();
            let error = answer["error"].as_str().unwrap_or_default();
            complaints.push(format!(
                "it said {end:?} {:?}",
                error.chars().take(300).collect::<String>()
            ));
        }
        complaints
    }
}

/// Standard Base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for part in bytes.chunks(3) {
        let word = part
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - part.len()));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= part.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_letters() {
        let check = |text: &str, expected: &str| assert_eq!(base64(text.as_bytes()), expected);
        check("", "");
        check("f", "Zg==");
        check("fo", "Zm8=");
        check("foo", "Zm9v");
        check("foobar", "Zm9vYmFy");
    }
}
