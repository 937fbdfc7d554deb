//! `cargo xtask stream`: the events of runs, read by the clients that people use, and
//! by a browser, while programs print whatever one of them might take for more than
//! text.
//!
//! The clients' versions are pinned in `lab/python/requirements.txt` and
//! `lab/src/stream/package.json`. Never reads a stream itself: that others understand
//! the server is what is tested.

mod texts;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::live::{CLEAN_PATH, Home, Server};
use crate::npm::Packages;
use crate::{browser, venv};
use texts::Text;
use xtask::process;
use xtask::tally::Counts;

/// Seconds that all clients of one program may take.
const PATIENCE: &str = "120";

/// The folder of the programs, below the repository's root, and what it pins.
const FOLDER: &str = "lab/src/stream";
const PACKAGES: &str = "lab/src/stream/package.json";
const REQUIREMENTS: &str = "lab/python/requirements.txt";

/// Each client by the name that its program gives it.
const CLIENTS: [Client; 12] = [
    client("httpx", Pin::Python),
    client("httpx-sse", Pin::Python),
    client("requests", Pin::Python),
    client("sseclient-py", Pin::Python),
    client("aiohttp-sse-client", Pin::Python),
    client("aiohttp-sse-client2", Pin::Python),
    client("eventsource", Pin::Npm),
    client("eventsource-4", Pin::Npm),
    client("eventsource-parser", Pin::Npm),
    client("@microsoft/fetch-event-source", Pin::Npm),
    client("fetch", Pin::Chromium),
    client("EventSource", Pin::Chromium),
];

/// The events that a run without trouble has, the first one and the last one besides
/// its output.
const NAMES: [&str; 4] = [START, "stdout", "stderr", END];
const START: &str = "start";
const END: &str = "end";

const fn client(name: &'static str, pin: Pin) -> Client {
    Client { name, pin }
}

/// A client, and what decides its version.
#[derive(Debug)]
struct Client {
    name: &'static str,
    pin: Pin,
}

#[derive(Debug)]
enum Pin {
    Python,
    Npm,
    /// The system's own.
    Chromium,
}

/// A line that a program prints: what a client took for events.
#[derive(Debug, Deserialize)]
struct Told {
    client: String,
    text: String,
    /// Names and data.
    events: Vec<(String, String)>,
    failure: Option<String>,
}

/// What came of a client's texts, in their order: why one failed, if it did.
#[derive(Debug)]
struct Row {
    client: String,
    failures: Vec<Option<String>>,
}

/// Lets all clients at a server, and prints what came of it.
///
/// # Errors
/// When the clients cannot be installed, or the server does not start.
pub(crate) fn stream(binary: &Path) -> Result<Counts> {
    let packages = Packages::of_streams()?;
    let python = venv::bin()?.join("python");
    let chromium = browser::find()?;
    let home = Home::new()?;
    let server = Server::start(binary, &home, &[])?;
    let texts = texts::all();
    let setting = write_setting(&home, &server, &texts)?;
    let mut programs = [process::command(python), packages.node(), packages.node()];
    for (program, name) in programs
        .iter_mut()
        .zip(["clients.py", "clients.mjs", "browser.mjs"])
    {
        program.arg(script(name)).arg(&setting);
    }
    programs[2].arg(chromium);
    let told = run_all(&programs, &home)?;
    let mut rows = Vec::new();
    for client in &CLIENTS {
        let failures = texts.iter().map(|text| {
            let told = told
                .iter()
                .find(|told| told.client == client.name && told.text == text.name);
            judge(text, told).err().map(|error| format!("{error:#}"))
        });
        rows.push(Row {
            client: format!("{} {}", client.name, version(client)?),
            failures: failures.collect(),
        });
    }
    print!("{}", table(&rows, &texts));
    counted(&rows)
}

/// Writes down what each program is given.
fn write_setting(home: &Home, server: &Server, texts: &[Text]) -> Result<PathBuf> {
    let texts: Vec<Value> = texts
        .iter()
        .map(|text| json!({"name": text.name, "request": text.request()}))
        .collect();
    let setting = json!({
        "url": format!("http://{}", server.address),
        "token": server.token(),
        "texts": texts,
    });
    let path = home.path().join("setting.json");
    fs::write(&path, setting.to_string())
        .with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}

/// Runs programs side by side, and returns all that they tell.
fn run_all(programs: &[Command], home: &Home) -> Result<Vec<Told>> {
    thread::scope(|scope| {
        let running: Vec<_> = programs
            .iter()
            .map(|program| scope.spawn(|| run(program, home)))
            .collect();
        let mut told = Vec::new();
        for program in running {
            let lines = program.join().ok().context("a thread panicked")?;
            told.extend(lines?);
        }
        Ok(told)
    })
}

/// Runs a program to its end in an environment of its own, for as long as `PATIENCE`
/// allows. One that fails has told nothing of what is missing then, which is judged.
fn run(program: &Command, home: &Home) -> Result<Vec<Told>> {
    let mut bounded = process::command("timeout");
    bounded
        .arg(PATIENCE)
        .arg(program.get_program())
        .args(program.get_args())
        .env_clear()
        .env("PATH", CLEAN_PATH)
        .env("HOME", home.path())
        .env("TMPDIR", home.tmp())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if let Some(directory) = program.get_current_dir() {
        bounded.current_dir(directory);
    }
    let output = bounded
        .output()
        .context("failed to start a client with `timeout`")?;
    let printed = String::from_utf8(output.stdout).context("a client printed no UTF-8")?;
    printed
        .lines()
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("a client printed {line:?}"))
        })
        .collect()
}

/// Judges what a client took for the events of a run that printed `text`.
fn judge(text: &Text, told: Option<&Told>) -> Result<()> {
    let told = told.context("the client said nothing of it")?;
    if let Some(failure) = &told.failure {
        bail!("the client failed: {failure}");
    }
    let names: Vec<&str> = told.events.iter().map(|(name, _)| name.as_str()).collect();
    let order = shown(&names.join(", "));
    if let Some(other) = names.iter().find(|name| !NAMES.contains(name)) {
        bail!("an event {other}, of {order}");
    }
    let ends = names.iter().filter(|name| **name == END).count();
    ensure!(ends == 1, "{ends} events {END}, of {order}");
    let mut events = Vec::new();
    for (name, data) in &told.events {
        let data: Value = serde_json::from_str(data)
            .with_context(|| format!("data of {name} are no JSON: {}", shown(data)))?;
        events.push((name.as_str(), data));
    }
    let [(START, start), output @ .., (END, end)] = events.as_slice() else {
        bail!("the order is {order}");
    };
    ensure!(
        start["id"].is_string() && start["id"] == end["id"],
        "the last event is of no run, or of another: {}",
        shown(&end.to_string())
    );
    ensure!(
        (&end["status"], &end["exit_code"]) == (&json!("success"), &json!(0)),
        "the program ended with {}: {}",
        end["status"],
        end["error"]
    );
    for (stream, field) in [("stdout", "output"), ("stderr", "error")] {
        let printed = text.printed(stream);
        let pieces = output.iter().filter(|(name, _)| *name == stream);
        let read: Option<String> = pieces.map(|(_, data)| data["text"].as_str()).collect();
        let read = read.with_context(|| format!("an event {stream} without a text"))?;
        same(&format!("all of {stream}"), &read, &printed)?;
        let told = end[field].as_str().unwrap_or_default();
        same(&format!("{field} of the last event"), told, &printed)?;
    }
    Ok(())
}

/// Checks that a text is another, or shows where it begins to differ.
fn same(what: &str, read: &str, printed: &str) -> Result<()> {
    if read == printed {
        return Ok(());
    }
    let pairs = read.chars().zip(printed.chars());
    let alike: usize = pairs
        .take_while(|(one, other)| one == other)
        .map(|(one, _)| one.len_utf8())
        .sum();
    bail!(
        "{what}: after {alike} bytes {} instead of {}",
        shown(&read[alike..]),
        shown(&printed[alike..])
    )
}

/// Returns the beginning of a text, with its odd characters escaped.
fn shown(text: &str) -> String {
    let begin: String = text.chars().take(60).collect();
    format!("{begin:?}")
}

/// Returns a row for each client with a column for each text, and what failed below.
fn table(rows: &[Row], texts: &[Text]) -> String {
    let width = rows.iter().map(|row| row.client.len()).max().unwrap_or(0);
    let mut table = format!("{:width$}", "");
    for text in texts {
        table += &format!(" {:>7}", text.name);
    }
    table.push('\n');
    let mut failures = String::new();
    for row in rows {
        table += &format!("{:width$}", row.client);
        for (text, failure) in texts.iter().zip(&row.failures) {
            let cell = if failure.is_some() { "failed" } else { "ok" };
            table += &format!(" {cell:>7}");
            if let Some(failure) = failure {
                failures += &format!("FAILED  {}, {}: {failure}\n", row.client, text.name);
            }
        }
        table.push('\n');
    }
    table + &failures
}

/// Returns how many cells of the table passed and failed.
fn counted(rows: &[Row]) -> Result<Counts> {
    let cells = rows.iter().flat_map(|row| &row.failures);
    let (failed, passed): (Vec<_>, Vec<_>) = cells.partition(|failure| failure.is_some());
    Ok(Counts {
        passed: u32::try_from(passed.len())?,
        failed: u32::try_from(failed.len())?,
        skipped: 0,
    })
}

/// Returns the version of a client.
fn version(client: &Client) -> Result<String> {
    let read = |path: &str| {
        fs::read_to_string(process::root().join(path))
            .with_context(|| format!("failed to read {path}"))
    };
    let version = match client.pin {
        Pin::Python => {
            let pins = read(REQUIREMENTS)?;
            let mut pins = pins.lines().filter_map(|line| line.split_once("=="));
            pins.find(|(name, _)| *name == client.name)
                .map(|(_, version)| version.to_owned())
        }
        Pin::Npm => {
            let manifest: Value = serde_json::from_str(&read(PACKAGES)?)
                .with_context(|| format!("{PACKAGES} is no JSON"))?;
            let pin = manifest["dependencies"][client.name].as_str();
            // An alias names the package, too.
            pin.map(|pin| pin.rsplit('@').next().unwrap_or(pin).to_owned())
        }
        Pin::Chromium => Some("of Chromium".to_owned()),
    };
    version.with_context(|| format!("{} is not pinned", client.name))
}

/// A file of the programs' folder.
fn script(name: &str) -> PathBuf {
    process::root().join(FOLDER).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events by name, with their data.
    type Events = Vec<(String, Value)>;

    /// Returns what a good client tells of the text `printed`.
    fn told(printed: &str) -> Events {
        let end =
            json!({"id": "1", "status": "success", "exit_code": 0, "output": printed, "error": ""});
        vec![
            ("start".to_owned(), json!({"id": "1"})),
            ("stdout".to_owned(), json!({"text": printed})),
            ("end".to_owned(), end),
        ]
    }

    #[test]
    fn only_what_was_printed_passes() {
        let texts = texts::all();
        let text = &texts[0];
        let printed = text.printed("stdout");
        let check = |change: &dyn Fn(&mut Events), expected: &str| {
            let mut events = told(&printed);
            change(&mut events);
            let told = Told {
                client: String::new(),
                text: String::new(),
                events: events
                    .into_iter()
                    .map(|(name, data)| (name, data.to_string()))
                    .collect(),
                failure: None,
            };
            let failure = judge(text, Some(&told))
                .err()
                .map(|error| format!("{error:#}"));
            let failure = failure.unwrap_or_default();
            assert_eq!(failure.is_empty(), expected.is_empty(), "{failure}");
            assert!(failure.contains(expected), "{failure}");
        };
        let forged = || ("end".to_owned(), json!({"id": "2", "status": "success"}));
        check(&|_| {}, "");
        check(&|events| events.clear(), "0 events end, of ");
        check(&|events| drop(events.remove(0)), "order is \"stdout, end\"");
        check(&|events| drop(events.pop()), "0 events end");
        check(&|events| events.insert(1, forged()), "2 events end");
        check(&|events| events.push(forged()), "2 events end");
        check(&|events| events[2] = forged(), "of another");
        check(
            &|events| events[1].0 = "message".to_owned(),
            "an event message",
        );
        check(
            &|events| events.swap(1, 2),
            "order is \"start, end, stdout\"",
        );
        check(
            &|events| drop(events.remove(1)),
            "all of stdout: after 0 bytes",
        );
        check(&|events| events[1].0 = "stderr".to_owned(), "all of stdout");
        check(
            &|events| events[2].1["output"] = json!("x"),
            "output of the last",
        );
        check(
            &|events| events[2].1["error"] = json!("x"),
            "error of the last",
        );
        check(&|events| events[2].1["exit_code"] = json!(1), "ended with");
    }

    #[test]
    fn a_client_that_fails_or_is_silent_does_not_pass() {
        let texts = texts::all();
        let failure = |told| judge(&texts[0], told).expect_err("it fails").to_string();
        assert!(failure(None).contains("said nothing"));
        let told = Told {
            client: String::new(),
            text: String::new(),
            events: Vec::new(),
            failure: Some("reset".to_owned()),
        };
        assert!(failure(Some(&told)).contains("reset"));
    }

    #[test]
    fn the_table_has_a_cell_for_each_and_names_what_failed() {
        let texts = &texts::all()[..2];
        let rows = [Row {
            client: "x 1".to_owned(),
            failures: vec![None, Some("cut".to_owned())],
        }];
        let expected = "         LF      CR\nx 1      ok  failed\nFAILED  x 1, CR: cut\n";
        assert_eq!(table(&rows, texts), expected);
        let counts = counted(&rows).expect("few");
        assert_eq!((counts.passed, counts.failed), (1, 1));
    }

    #[test]
    fn the_programs_know_the_clients_and_the_documentation_their_versions() {
        let programs = ["clients.py", "clients.mjs", "browser.mjs"].map(script);
        let programs = programs.map(|path| fs::read_to_string(path).expect("it is there"));
        let page = process::root().join("docs/streaming.md");
        let page = fs::read_to_string(page).expect("it is there");
        for client in &CLIENTS {
            let quoted = ['\'', '"'].map(|quote| format!("{quote}{}{quote}:", client.name));
            let known = |text: &String| quoted.iter().any(|one| text.contains(one));
            assert!(programs.iter().any(known), "{} has no program", client.name);
            let version = version(client).expect("it is pinned");
            let name = client.name.trim_end_matches("-4");
            let row = format!("| `{name}` {version} |");
            assert!(page.contains(&row), "docs/streaming.md lacks {row}");
        }
    }
}
