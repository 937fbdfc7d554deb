//! A conversation of an agent with a session, from a file to its results, over HTTP and
//! again over MCP: the same steps, and the same words at each.

use serde_json::{Value, json};

use crate::mcp::stateless;
use crate::support::TestServer;

/// What an agent does, and a part of what it is told then.
enum Step {
    /// Runs code; in Python unless it says otherwise.
    Code(&'static str, &'static str),
    Js(&'static str, &'static str),
    /// Runs code that fails.
    Fails(&'static str, &'static str),
    /// Runs a shell command.
    Command(&'static str, &'static str),
    /// Writes a file, and reads one.
    Write(&'static str, &'static str),
    Read(&'static str, &'static str),
    /// Lists all files.
    Files(&'static str),
    /// Forks the Python context; its name is what is told.
    Fork(&'static str),
    /// Runs code in the fork.
    Second(&'static str, &'static str),
}

use Step::{Code, Command, Fails, Files, Fork, Js, Read, Second, Write};

const STEPS: &[Step] = &[
    Write(
        "data/sales.csv",
        "region,month,amount\nnorth,1,10\nsouth,1,20\nnorth,2,30\nsouth,2,\neast,2,abc\n",
    ),
    Files("data/sales.csv"),
    Command("head -n 1 data/sales.csv", "region,month,amount"),
    Command("wc -l < data/sales.csv", "6"),
    Code("import csv, json, os, statistics", ""),
    Code("rows = list(csv.DictReader(open('data/sales.csv')))", ""),
    Code("len(rows)", "5"),
    Code("rows[0]", "'region': 'north'"),
    Fails(
        "sum(int(row['amount']) for row in rows)",
        "ValueError: invalid literal for int()",
    ),
    Code("rows[3]['amount']", "''"),
    Code(
        "def amount(row):\n    text = row['amount']\n    return int(text) if text.isdigit() else None",
        "",
    ),
    Code("[amount(row) for row in rows]", "[10, 20, 30, None, None]"),
    Code(
        "good = [row for row in rows if amount(row) is not None]",
        "",
    ),
    Code("print(len(good), 'of', len(rows))", "3 of 5"),
    Code(
        "by_region = {}\nfor row in good:\n    by_region.setdefault(row['region'], []).append(amount(row))\nby_region",
        "{'north': [10, 30], 'south': [20]}",
    ),
    Code(
        "{name: statistics.mean(found) for name, found in by_region.items()}",
        "'north': 20",
    ),
    Fails("by_region['west']", "KeyError: 'west'"),
    Code("by_region.get('west', [])", "[]"),
    Code("_", "[]"),
    Code("total = sum(map(sum, by_region.values())); total", "60"),
    Code("total;", "[no output]"),
    Write(
        "lib.py",
        "def share(part, whole):\n    return round(100 * part / whole)\n",
    ),
    Code("import lib\nlib.share(40, total)", "67"),
    Write(
        "lib.py",
        "def share(part, whole):\n    return f'{100 * part / whole:.1f} %'\n",
    ),
    Code(
        "import importlib; importlib.reload(lib).share(40, total)",
        "'66.7 %'",
    ),
    Code(
        "class Bars:\n    def _repr_svg_(self):\n        bars = ''.join(f'<rect x=\"{20 * at}\" height=\"{sum(v)}\" width=\"9\"/>' for at, v in enumerate(by_region.values()))\n        return f'<svg xmlns=\"http://www.w3.org/2000/svg\">{bars}</svg>'\n    def __repr__(self): return 'bars of ' + ', '.join(by_region)\nBars()",
        "bars of north, south",
    ),
    Code("open('bars.svg', 'w').write(Bars()._repr_svg_())", ""),
    Read("bars.svg", "<rect x=\"0\" height=\"40\""),
    Code(
        "class Dot:\n    def _repr_png_(self): return bytes.fromhex('89504e470d0a1a0a')\n    def __repr__(self): return 'a dot'\nDot()",
        "a dot",
    ),
    Code("display({'shown': 1}, [2]); 'and a value'", "{'shown': 1}"),
    Fails(
        "def f(depth):\n    return f(depth + 1)\nf(0)",
        "RecursionError",
    ),
    Fails("import nothing_of_that_name", "ModuleNotFoundError"),
    Fails("x = (1 +", "SyntaxError"),
    Code(
        "import asyncio\nasync def slow(n):\n    await asyncio.sleep(0.01)\n    return n * 2\nawait asyncio.gather(*(slow(n) for n in range(3)))",
        "[0, 2, 4]",
    ),
    Code(
        "counter = 0\nasync def tick():\n    global counter\n    for _ in range(3):\n        counter += 1\n        await asyncio.sleep(0.01)\ntask = asyncio.ensure_future(tick())",
        "",
    ),
    Code("await task; counter", "3"),
    Code(
        "json.dump({name: sum(found) for name, found in by_region.items()}, open('totals.json', 'w'))",
        "",
    ),
    Js(
        "const fs = require('node:fs'); const totals = JSON.parse(fs.readFileSync('totals.json', 'utf8')); totals",
        "north: 40, south: 20",
    ),
    Js(
        "const names = Object.keys(totals).sort(); names",
        "[ 'north', 'south' ]",
    ),
    Js(
        "const names = Object.keys(totals).reverse(); names[0]",
        "'south'",
    ),
    Js(
        "import { createHash } from 'node:crypto'\ncreateHash('sha256').update('x').digest('hex').slice(0, 8)",
        "'2d711642'",
    ),
    Js(
        "await new Promise(go => setTimeout(() => go('waited'), 10))",
        "'waited'",
    ),
    Fails(
        "js: totals.west.length",
        "TypeError: Cannot read properties of undefined",
    ),
    Js(
        "[...Array(3).keys()].map(n => ({ n, square: n * n }))",
        "{ n: 2, square: 4 }",
    ),
    Js(
        "fs.writeFileSync('from-js.txt', names.join('\\n')); fs.statSync('from-js.txt').size",
        "11",
    ),
    Code("open('from-js.txt').read()", "'south\\nnorth'"),
    Command(
        "ls | sort | tr '\\n' ' '",
        "bars.svg data from-js.txt lib.py totals.json",
    ),
    Command(
        "python3 -c 'import json; print(json.load(open(\"totals.json\"))[\"north\"])'",
        "40",
    ),
    Command("grep -c south data/sales.csv; exit 3", "2"),
    Command("cat /etc/shadow 2>&1 || true", "cat: /etc/shadow"),
    Code(
        "import subprocess; subprocess.run(['sort', 'from-js.txt'], capture_output=True, text=True).stdout",
        "'north\\nsouth\\n'",
    ),
    Code(
        "with open('report.md', 'w') as out:\n    for name, found in by_region.items():\n        print(f'- {name}: {sum(found)}', file=out)",
        "",
    ),
    Read("report.md", "- north: 40\n- south: 20"),
    Code(
        "import threading\nseen = []\nthread = threading.Thread(target=lambda: seen.append(total)); thread.start(); thread.join(); seen",
        "[60]",
    ),
    Code("import sys; sys.exit(0)", ""),
    Fails("import sys; sys.exit('gave up')", "gave up"),
    Code("total, counter, len(rows)", "(60, 3, 5)"),
    Code("!echo from the shell", "from the shell"),
    Code("here = %pwd\nos.path.basename(here)", "'workspace'"),
    Code("%%writefile note.txt\nwritten by a cell", ""),
    Read("note.txt", "written by a cell"),
    Code(
        "sorted(name for name in globals() if name in ('rows', 'good', 'lib', 'total'))",
        "['good', 'lib', 'rows', 'total']",
    ),
    Files("report.md"),
    Code(
        "import random; random.seed(4); plan = ['load', 'clean']",
        "",
    ),
    Fork("python-2"),
    Second("plan.append('drop rows'); plan, total", "'drop rows'], 60)"),
    Second(
        "rows = [row for row in rows if amount(row)]; len(rows)",
        "3",
    ),
    Code(
        "plan.append('fill in'); plan",
        "['load', 'clean', 'fill in']",
    ),
    Code(
        "len(rows), [type(row).__name__ for row in rows][:1]",
        "(5, ['dict'])",
    ),
    Code("open('kept.txt', 'w').write('first')", ""),
    Second("open('kept.txt').read()", "'first'"),
    Second("1 / 0", "ZeroDivisionError"),
    Second("plan", "['load', 'clean', 'drop rows']"),
    Code("random.random() == random.Random(4).random()", "True"),
    Second("random.random() == random.Random(4).random()", "True"),
];

/// A way to talk to a session.
trait Way {
    /// Runs code: whether it succeeded, and all that was told.
    fn run(&self, language: &str, code: &str) -> (bool, String) {
        self.run_in(None, language, code)
    }
    fn run_in(&self, context: Option<&str>, language: &str, code: &str) -> (bool, String);
    /// Forks the Python context, and returns the new one's name.
    fn fork(&self) -> String;
    fn command(&self, command: &str) -> String;
    fn write(&self, path: &str, content: &str);
    fn read(&self, path: &str) -> String;
    fn files(&self) -> String;
}

struct Http<'a> {
    server: &'a TestServer,
    id: String,
}

impl Http<'_> {
    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let bearer = self.server.bearer();
        let headers = ["Content-Type: application/json", bearer.as_str()];
        let reply = self.server.request(method, path, &headers, body.as_bytes());
        assert!(reply.status < 300, "{method} {path}: {}", reply.text());
        reply.text()
    }
}

impl Way for Http<'_> {
    fn run_in(&self, context: Option<&str>, language: &str, code: &str) -> (bool, String) {
        let body = json!({
            "code": code, "language": language, "session_id": self.id, "context": context,
        });
        let answer: Value =
            serde_json::from_str(&self.ask("POST", "/execute", &body.to_string())).expect("JSON");
        let results = answer["results"].as_array().into_iter().flatten();
        let shown: Vec<&str> = results
            .filter_map(|one| one["data"]["text/plain"].as_str())
            .collect();
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let told = [text("output"), shown.join("\n"), text("error")].concat();
        let told = if told.is_empty() {
            "[no output]".to_owned()
        } else {
            told
        };
        (answer["status"] == "success", told)
    }

    fn fork(&self) -> String {
        let path = format!("/sessions/{}/fork", self.id);
        let answer = self.ask("POST", &path, "{\"context\": \"python\"}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["forked"].as_str().expect("a name").to_owned()
    }

    fn command(&self, command: &str) -> String {
        let path = format!("/sessions/{}/commands", self.id);
        self.ask("POST", &path, &json!({ "command": command }).to_string())
    }

    fn write(&self, path: &str, content: &str) {
        self.ask(
            "PUT",
            &format!("/sessions/{}/files/{path}", self.id),
            content,
        );
    }

    fn read(&self, path: &str) -> String {
        self.ask("GET", &format!("/sessions/{}/files/{path}", self.id), "")
    }

    fn files(&self) -> String {
        self.ask("GET", &format!("/sessions/{}/files?deep=true", self.id), "")
    }
}

struct Mcp<'a> {
    server: &'a TestServer,
    id: String,
}

impl Mcp<'_> {
    fn call(&self, tool: &str, mut arguments: Value) -> Value {
        arguments["session_id"] = json!(self.id);
        let params = json!({ "name": tool, "arguments": arguments });
        let answer = stateless(self.server, "tools/call", Some(tool), params);
        assert_eq!(answer["result"]["isError"], false, "{tool}: {answer}");
        answer["result"].clone()
    }

    fn text(&self, tool: &str, arguments: Value) -> String {
        let result = self.call(tool, arguments);
        result["content"][0]["text"]
            .as_str()
            .expect("a text")
            .to_owned()
    }
}

impl Way for Mcp<'_> {
    fn run_in(&self, context: Option<&str>, language: &str, code: &str) -> (bool, String) {
        let mut arguments = json!({ "code": code, "language": language });
        if let Some(context) = context {
            arguments["context"] = json!(context);
        }
        let result = self.call("run_code", arguments);
        let told = result["content"][0]["text"].as_str().expect("a text");
        (
            result["structuredContent"]["status"] == "success",
            told.to_owned(),
        )
    }

    fn fork(&self) -> String {
        let result = self.call("fork_context", json!({ "context": "python" }));
        let told = result["structuredContent"]["context"].as_str();
        told.expect("a name").to_owned()
    }

    fn command(&self, command: &str) -> String {
        self.text("run_command", json!({ "command": command }))
    }

    fn write(&self, path: &str, content: &str) {
        self.call("write_file", json!({ "path": path, "content": content }));
    }

    fn read(&self, path: &str) -> String {
        self.text("read_file", json!({ "path": path }))
    }

    fn files(&self) -> String {
        self.text("list_files", json!({ "deep": true }))
    }
}

/// Takes all steps, and returns how many there were.
fn talk(way: &dyn Way) -> usize {
    for step in STEPS {
        let (told, expected) = match step {
            Code(code, expected) | Js(code, expected) => {
                let language = if matches!(step, Js(..)) {
                    "javascript"
                } else {
                    "python"
                };
                let (success, told) = way.run(language, code);
                assert!(success, "{code}: {told}");
                (told, expected)
            }
            Fails(code, expected) => {
                let (language, code) = match code.strip_prefix("js: ") {
                    Some(code) => ("javascript", code),
                    None => ("python", *code),
                };
                let (success, told) = way.run(language, code);
                assert!(!success, "{code}: {told}");
                (told, expected)
            }
            Command(command, expected) => (way.command(command), expected),
            Write(path, content) => {
                way.write(path, content);
                (way.read(path), content)
            }
            Read(path, expected) => (way.read(path), expected),
            Files(expected) => (way.files(), expected),
            Fork(expected) => (way.fork(), expected),
            Second(code, expected) => (way.run_in(Some("python-2"), "python", code).1, expected),
        };
        // Over HTTP texts of commands and lists are JSON.
        let plain = told.replace("\\n", "\n");
        let met = told.contains(expected) || plain.contains(expected);
        assert!(met, "{expected:?} is not in {told:?}");
    }
    STEPS.len()
}

#[test]
fn an_agent_works_over_http() {
    let server = TestServer::with(&[("CODEX_RATE_LIMIT", "6000/minute")]);
    let bearer = server.bearer();
    let made = server.request("POST", "/sessions", &[&bearer], b"");
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let way = Http {
        server: &server,
        id: id.clone(),
    };
    assert!(talk(&way) >= 60);
    // What only HTTP has: an interrupt, a pause, and going on after each.
    let endless = std::thread::scope(|scope| {
        let running = scope.spawn(|| way.run("python", "while True: pass"));
        loop {
            let state = way.ask("POST", &format!("/sessions/{id}/interrupt"), "");
            std::thread::sleep(std::time::Duration::from_millis(100));
            if state.contains("\"busy\"") {
                break running.join().expect("it ends");
            }
        }
    });
    assert!(
        !endless.0 && endless.1.contains("KeyboardInterrupt"),
        "{endless:?}"
    );
    assert!(
        way.ask("POST", &format!("/sessions/{id}/pause"), "")
            .contains("\"paused\"")
    );
    assert_eq!(way.run("python", "total"), (true, "60".to_owned()));
    let archive = server.request("GET", &format!("/sessions/{id}/archive"), &[&bearer], b"");
    assert_eq!(archive.status, 200);
}

#[test]
fn an_agent_works_over_mcp() {
    let server = TestServer::with(&[("CODEX_RATE_LIMIT", "6000/minute")]);
    let tool = "create_session";
    let made = stateless(
        &server,
        "tools/call",
        Some(tool),
        json!({ "name": tool, "arguments": {} }),
    );
    let id = &made["result"]["structuredContent"]["session_id"];
    let way = Mcp {
        server: &server,
        id: id.as_str().expect("an id").to_owned(),
    };
    assert!(talk(&way) >= 60);
}
