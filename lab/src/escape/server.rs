//! The corpus through the API and the MCP of a running server, in a network of its
//! own in which the addresses exist where clouds keep credentials.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::attack::{Attack, CELL, compiled};
use super::ground::{CANARY, Ground, Tenant};
use super::{Arguments, Case, Way, corpus, parse, requests};
use crate::census;
use crate::crash;
use crate::http::{Client, Response};
use crate::live::{Home, Server};
use crate::tool::{self, Era, Told, Tool};
use xtask::process;

/// The same bounds as in the tests of the sandbox.
const BOUNDS: [(&str, &str); 5] = [
    ("CODEX_WORKSPACE", "32MiB"),
    ("CODEX_SESSION_WORKSPACE", "32MiB"),
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
/// The id of a call over MCP, which is the only one of its client.
const CALL: u32 = 1;
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
        for way in &arguments.door {
            command.args(["--door", way.name()]);
        }
        for (flag, is_set) in [
            ("--full", arguments.full),
            ("--brief", arguments.brief),
            ("--sessions", arguments.sessions),
        ] {
            if is_set {
                command.arg(flag);
            }
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
        sessions: arguments.sessions,
        told: ground.told(rung, arguments.full, &server, warden(&server)?),
        ground: &ground,
        server: &server,
    };
    for (number, attack) in corpus()?.iter().enumerate() {
        if !arguments.wants(&attack.id) {
            continue;
        }
        for way in arguments.ways(number, attack, rung) {
            // The sandbox's own door is its tests' to try.
            if way == Way::Sandbox {
                continue;
            }
            let started = Instant::now();
            let complaints = target.complaints(attack, way)?;
            tell(&attack.id, way, started, &complaints);
        }
        if arguments.takes(Way::Http) {
            let started = Instant::now();
            let complaints = match attack.id.as_str() {
                "61" => requests::bad(&mut client)?,
                "62" => requests::tenants(&server, &tokens, arguments.full)?,
                _ => continue,
            };
            tell(&attack.id, Way::Http, started, &complaints);
        }
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

/// Prints what came of a case in the line that [`parse`] reads.
fn tell(id: &str, way: Way, started: Instant, complaints: &[String]) {
    let word = if complaints.is_empty() {
        "held"
    } else {
        "open"
    };
    println!(
        "{id}\t{word}\t{}\t{}\t{}",
        started.elapsed().as_millis(),
        complaints.join("; ").replace(['\t', '\n'], " "),
        way.name()
    );
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
    /// Whether programs are cells.
    sessions: bool,
    told: String,
    ground: &'a Ground,
    server: &'a Server,
}

impl Target<'_> {
    fn complaints(&self, attack: &Attack, way: Way) -> Result<Vec<String>> {
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
        let mut client = self.server.client();
        let response = match way {
            Way::Mcp => Tool::new(client, Era::Stateless)?.call(CALL, &body)?,
            Way::Http | Way::Sandbox if self.sessions => in_session(&mut client, &mut body)?,
            Way::Http | Way::Sandbox => client.post("/execute", &body)?,
        };
        let mut complaints = Vec::new();
        let took = started.elapsed();
        if took > Duration::from_secs(wall) + LATE {
            complaints.push(format!("answered after {took:?}"));
        }
        complaints.extend(match answer(way, &response) {
            Ok(answer) => self.judge(attack, &answer),
            Err(error) => vec![format!("{error:#}")],
        });
        // Wherever in an answer it is.
        if String::from_utf8_lossy(&response.body).contains(CANARY) {
            complaints.push("a secret is in the answer".to_owned());
        }
        if let Err(error) = hello(&mut self.server.client(), self.rung) {
            complaints.push(format!("the next run: {error:#}"));
        }
        complaints.extend(self.ground.disturbed());
        Ok(complaints)
    }

    /// What is wrong with an answer.
    fn judge(&self, attack: &Attack, answer: &Value) -> Vec<String> {
        let output = answer["output"].as_str().unwrap_or_default();
        let status = answer["status"].as_str().unwrap_or_default();
        // An interpreter of a session has descriptors of its own, and ends otherwise.
        let in_cell = self.sessions && attack.at.contains_key(CELL);
        let place = if in_cell { CELL } else { self.rung };
        let mut complaints = attack.complaints(place, status, output);
        let names = || {
            let files = answer["files"].as_array().into_iter().flatten();
            files
                .filter_map(|file| file["path"].as_str()?.rsplit('/').next())
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

/// Runs a case as a cell of a session of its own, which is ended then.
fn in_session(client: &mut Client, body: &mut Value) -> Result<Response> {
    let memory = body["memory_mb"].take();
    let made = client.post("/sessions", &json!({ "memory_mb": memory }))?;
    ensure!(made.status == 201, "no session: {}", made.text());
    let id = made.json()?["id"].clone();
    body["session_id"] = id.clone();
    if let Some(members) = body.as_object_mut() {
        members.remove("memory_mb");
    }
    let response = client.post("/execute", body)?;
    let path = format!("/sessions/{}", id.as_str().unwrap_or_default());
    let ended = client.delete(&path)?;
    ensure!(
        ended.status == 204,
        "the session does not end: {}",
        ended.text()
    );
    Ok(response)
}

/// Returns what the answer tells of the run.
///
/// # Errors
/// With what was answered instead.
fn answer(way: Way, response: &Response) -> Result<Value> {
    if way == Way::Mcp {
        return match tool::told(CALL, response)? {
            Told::Ran(answer) => Ok(answer),
            Told::Refused(words) => bail!("refused: {words}"),
        };
    }
    let (status, text) = (response.status, response.text());
    ensure!(status == 200, "status {status}: {text}");
    response.json()
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
