//! Attacks that are requests, and what several clients can do to each other.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::census;
use crate::http::Client;
use crate::live::Server;

/// How long any answer to a bad request may take.
const QUICK: Duration = Duration::from_secs(8);
/// How long what a client left behind may live on.
const GONE: Duration = Duration::from_secs(10);
/// Requests at once.
const BURST: usize = 60;
const LONG_BURST: usize = 200;

/// Status codes that will do.
type Good = &'static [u16];
const BAD: Good = &[400];
const RUNS: Good = &[200];
const EITHER: Good = &[200, 400];

/// A harmless request with one more field.
fn with(name: &str, value: Value) -> Value {
    let mut body = json!({"code": "print('ran')"});
    body[name] = value;
    body
}

/// Requests that are to be refused, or to run without harm: what, body, and
/// the status codes that will do.
fn requests() -> Vec<(&'static str, Value, Good)> {
    let mut all = files();
    all.extend([
        (
            "arguments for a shell",
            with("args", json!(["a\nb", "\"; id; '", "-c", "$(id)", "`id`"])),
            RUNS,
        ),
        ("argument with NUL", with("args", json!(["a\0b"])), BAD),
        ("code with NUL", json!({"code": "print(1)\0"}), BAD),
        ("no code", json!({}), BAD),
        ("code of another type", json!({"code": ["print(1)"]}), BAD),
        (
            "language to be matched",
            with(
                "language",
                json!("python".to_owned() + &"3.".repeat(20_000)),
            ),
            BAD,
        ),
        ("language above", with("language", json!("../../etc")), BAD),
        ("memory below zero", with("memory_mb", json!(-1)), BAD),
        (
            "memory without end",
            with("memory_mb", json!(u64::MAX)),
            BAD,
        ),
        ("variable with NUL", with("env", json!({"A": "b\0c"})), BAD),
        (
            "variable without a name",
            with("env", json!({"": "x"})),
            BAD,
        ),
        ("variable with =", with("env", json!({"A=B": "x"})), BAD),
    ]);
    for timeout in [
        json!(0),
        json!(-1),
        json!(0.5),
        json!(1e308),
        json!("NaN"),
        json!("10"),
        json!([1]),
        json!(1e9),
    ] {
        all.push(("timeout", with("timeout", timeout), BAD));
    }
    // Whoever may run code may also steer the interpreter of that run alone.
    for name in [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONHOME",
        "NODE_OPTIONS",
        "BASH_ENV",
        "ENV",
        "PATH",
        "HOME",
        "IFS",
        "CODEX_HOME",
    ] {
        all.push(("variable", with("env", json!({name: "/nowhere"})), EITHER));
    }
    all
}

/// Files by names that lead elsewhere.
fn files() -> Vec<(&'static str, Value, Good)> {
    let named = |paths: &[&str]| {
        let files = paths
            .iter()
            .map(|path| json!({"path": path, "content": "x"}));
        with("files", files.collect())
    };
    vec![
        ("file above", named(&["../../x"]), BAD),
        ("file absolute", named(&["/etc/x"]), BAD),
        ("file with NUL", named(&["a\0b"]), BAD),
        ("file above in the middle", named(&["a/../../b"]), BAD),
        ("file of no name", named(&[""]), BAD),
        ("file that is the program", named(&["main.py"]), BAD),
        ("file and directory of one name", named(&["a", "a/b"]), BAD),
        ("file twice", named(&["a", "a"]), BAD),
    ]
}

/// Sends what is bad. What was answered otherwise than it should be.
pub(super) fn bad(client: &mut Client) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for (what, body, good) in requests() {
        let started = Instant::now();
        let response = client.post("/execute", &body)?;
        if !good.contains(&response.status) {
            complaints.push(format!(
                "{what}: status {}: {}",
                response.status,
                response.text()
            ));
        }
        if response.json().is_err() {
            complaints.push(format!("{what}: no JSON: {}", response.text()));
        }
        if started.elapsed() > QUICK {
            complaints.push(format!("{what}: answered after {:?}", started.elapsed()));
        }
    }
    // Far too deep for a recursive parser, and far too large.
    let deep = format!(
        "{{\"code\": {}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for (what, body, good) in [
        ("nested without end", deep, 400),
        (
            "twenty mebibytes",
            format!("{{\"code\": \"{}\"}}", "#".repeat(20 << 20)),
            413,
        ),
        (
            "numbers that are none",
            "{\"code\": \"print(1)\", \"timeout\": NaN}".to_owned(),
            400,
        ),
        (
            "a number without end",
            format!(
                "{{\"code\": \"print(1)\", \"timeout\": 1{}}}",
                "0".repeat(400)
            ),
            400,
        ),
        (
            "keys twice",
            "{\"code\": \"print(1)\", \"code\": \"print(2)\", \"timeout\": 1".to_owned(),
            400,
        ),
    ] {
        match client.post_text("/execute", &body) {
            Ok(response) if response.status == good => {}
            Ok(response) => complaints.push(format!("{what}: status {}", response.status)),
            // It may hang up on whoever sends too much before all is sent.
            Err(_) if good == 413 => {}
            Err(error) => complaints.push(format!("{what}: {error:#}")),
        }
    }
    Ok(complaints)
}

/// What clients can learn of each other, and what becomes of those who leave.
pub(super) fn tenants(server: &Server, tokens: &[String; 2], long: bool) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    complaints.extend(guessed(server, tokens)?);
    complaints.extend(left(server)?);
    complaints.extend(burst(server, if long { LONG_BURST } else { BURST })?);
    let mut nobody = Client::new(server.address, None);
    for token in [
        "codex_",
        "codex_0000000000000000000000000000000000000000",
        "",
        "' OR 1=1 --",
    ] {
        let mut client = Client::new(server.address, Some(token));
        let status = client.execute("python", "print(1)")?.status;
        if status != 401 {
            complaints.push(format!("token {token:?}: status {status}"));
        }
    }
    let status = nobody.execute("python", "print(1)")?.status;
    if status != 401 {
        complaints.push(format!("no token: status {status}"));
    }
    Ok(complaints)
}

/// Files of others, by ids that are near to one's own.
fn guessed(server: &Server, tokens: &[String; 2]) -> Result<Vec<String>> {
    let mut owner = Client::new(server.address, Some(&tokens[1]));
    let answer = owner
        .execute("python", "open('secret.txt', 'w').write('mine')")?
        .json()?;
    let url = answer["files"][0]["url"]
        .as_str()
        .context("the file has no link")?;
    let path = &url[url.find("/artifacts/").context("an odd link")?..];
    let (bare, query) = path.split_once('?').context("a link without a signature")?;
    let id = answer["files"][0]["id"]
        .as_str()
        .context("the file has no id")?;
    let mut near = id.to_owned();
    let last = if near.pop() == Some('0') { '1' } else { '0' };
    near.push(last);
    let mut stranger = Client::new(server.address, Some(&tokens[0]));
    let mut complaints = Vec::new();
    for target in [
        bare.to_owned(),
        format!("{bare}?expires=9999999999&signature=AAAA"),
        format!("{}?{query}", bare.replace(id, &near)),
        format!("{}?{query}", bare.replace("secret.txt", "other.txt")),
        format!("{}0?{query}", bare),
        format!("/artifacts/../state.db?{query}"),
        format!("/artifacts/{id}/..%2f..%2fstate.db?{query}"),
    ] {
        let status = stranger.get(&target)?.status;
        if !matches!(status, 400 | 401 | 403 | 404) {
            complaints.push(format!("{}: status {status}", target.replace(query, "…")));
        }
    }
    Ok(complaints)
}

/// Seconds that the programs of a client that hangs up sleep, by which they are known.
const MARK: &str = "31.0625";

fn is_marked(pid: u32) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words
        .split(|byte| *byte == 0)
        .any(|word| word == MARK.as_bytes())
}

/// A client that hangs up: what it started dies.
fn left(server: &Server) -> Result<Vec<String>> {
    // By its own words: boxes that are made ahead come and go beside it.
    let code = format!(
        "import os\nif os.fork() == 0: os.setsid()\nos.execvp('sleep', ['sleep', '{MARK}'])"
    );
    let body = json!({"code": code, "timeout": 30}).to_string();
    let token = server.token().context("the server has a token")?;
    let mut stream = TcpStream::connect(server.address)?;
    write!(
        stream,
        "POST /execute HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    )?;
    thread::sleep(Duration::from_secs(1));
    let run: Vec<_> = census::lineage(server.pid())?
        .into_iter()
        .filter(|process| is_marked(process.pid))
        .collect();
    drop(stream);
    let mut complaints = Vec::new();
    if run.is_empty() {
        complaints.push("the run of a client that hangs up never started".to_owned());
    }
    let since = Instant::now();
    let run = run.into_iter().collect();
    while !census::alive(&run)?.is_empty() {
        if since.elapsed() > GONE {
            complaints.push(format!("{:?} after a client hung up its run lives", GONE));
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(complaints)
}

/// Many at once, of all kinds: each gets a typed answer, and its own.
fn burst(server: &Server, requests: usize) -> Result<Vec<String>> {
    let kinds = [
        ("print('ran')", "success"),
        ("while True: pass", "timeout"),
        (
            "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
            "timeout",
        ),
        ("import os; os.kill(os.getpid(), 9)", "signalled"),
        ("raise SystemExit(3)", "error"),
    ];
    let threads: Vec<_> = (0..requests)
        .map(|number| {
            let mut client = server.client();
            let (code, status) = kinds[number % kinds.len()];
            let code = format!("print('number {number}', flush=True)\n{code}");
            thread::spawn(move || -> Result<Option<String>> {
                let response = client.post("/execute", &json!({"code": code, "timeout": 1}))?;
                if matches!(response.status, 429 | 503) {
                    return Ok(None);
                }
                let answer = response.json()?;
                let output = answer["output"].as_str().unwrap_or_default();
                let own = output.starts_with(&format!("number {number}\n"))
                    || output.is_empty() && status == "timeout";
                // Pages that forked processes share count for each at some rungs.
                let good = answer["status"] == status
                    || answer["status"] == "memory_limit"
                    || answer["status"] == "timeout";
                Ok((response.status != 200 || !own || !good)
                    .then(|| format!("run {number} of a burst: {}", response.text())))
            })
        })
        .collect();
    let mut complaints = Vec::new();
    for thread in threads {
        complaints.extend(thread.join().ok().context("a client panicked")??);
    }
    Ok(complaints)
}
