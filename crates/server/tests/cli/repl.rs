//! `session repl`: through a pipe and at a terminal, with a server and without.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::thread::JoinHandle;

use crate::server::wait_until;
use crate::support::{Desk, Home, feed};
use crate::terminal::{CTRL_C, CTRL_D, Terminal};

/// What is piped, arguments, code, standard output, and words on standard error.
type Piped = (
    &'static str,
    &'static [&'static str],
    i32,
    &'static str,
    &'static str,
);

const JAVASCRIPT: &[&str] = &["--language", "javascript"];
const PICTURE: &str =
    "class P:\n    def _repr_png_(self): return b'\\x89PNG\\r\\n\\x1a\\n'\n\nP()\n";

/// The same wherever the engine is.
const PIPED: &[Piped] = &[
    ("", &[], 0, "", ""),
    ("x = 40\nx + 2", &[], 0, "42\n", ""),
    (
        "def f(x):\n    y = x\n\n    return y + 1\n\nf(1)\n",
        &[],
        0,
        "2\n",
        "",
    ),
    ("[1,\n\n 2]\n'''a\nb'''\n", &[], 0, "[1, 2]\n'a\\nb'\n", ""),
    ("for i in (1, 2):\n    print(i)", &[], 0, "1\n2\n", ""),
    (
        "1/0\n2\n",
        &[],
        1,
        "2\n",
        "ZeroDivisionError: division by zero\n",
    ),
    ("def f(!):\n\n3", &[], 1, "3\n", "SyntaxError"),
    (
        "input()\n.stdin a\\nb\ninput() + input()\n",
        &[],
        1,
        "'ab'\n",
        "EOFError",
    ),
    (
        "import os\n_ = open('a.txt', 'w').write('abc')\n.files\n",
        &[],
        0,
        "",
        "a.txt (text/plain, 3 bytes)",
    ),
    (
        ".put blob in/b\nopen('in/b', 'rb').read()\n.get in/b\n",
        &[],
        0,
        "b'\\xff'\n",
        "got b\n",
    ),
    (
        ".put none\n4\n",
        &[],
        1,
        "4\n",
        "error: failed to read none",
    ),
    (".nope\n", &[], 1, "", "error: .nope is no command"),
    ("5\n.quit\n6\n", &[], 0, "5\n", ""),
    ("x = 7\n.restart\nx\n", &[], 1, "", "NameError"),
    (
        "x = 8\n.pause\nx\n",
        &[],
        0,
        "8\n",
        "paused until the next cell",
    ),
    (
        "const a = {\n  b: [1]\n}\na.b\n`x\n${a.b}`",
        JAVASCRIPT,
        0,
        "[ 1 ]\n'x\\n1'\n",
        "",
    ),
    ("throw new Error('no')\n", JAVASCRIPT, 1, "", "Error: no\n"),
    (
        "1\n.context js javascript\n[1].map(String)\n.context python\n_\n",
        &[],
        0,
        "1\n[ '1' ]\n1\n",
        "",
    ),
    (
        "x = [1]\n.fork twin\nx.append(2)\nx\n.context python\nx\n",
        &[],
        0,
        "[1, 2]\n[1]\n",
        "in twin now; .context python goes back",
    ),
    (
        ".context nope\n",
        &[],
        1,
        "",
        "Make one with .context NAME LANGUAGE",
    ),
    (
        PICTURE,
        &[],
        0,
        "",
        "codex-output/python-2.png (image/png, 8 bytes)",
    ),
    (
        "import time; time.sleep(9)\n",
        &["--timeout", "1"],
        1,
        "",
        "--timeout gives it more",
    ),
    (
        "import os; os.environ['A']\n",
        &["--env", "A=b"],
        0,
        "'b'\n",
        "",
    ),
];

#[track_caller]
fn piped(home: &Home, command: impl Fn(&[&str]) -> Command) {
    fs::write(home.path().with_file_name("blob"), [0xff]).unwrap();
    for (input, args, code, stdout, stderr) in PIPED {
        let got = home.path().with_file_name("b");
        if got.exists() {
            fs::remove_file(&got).unwrap();
        }
        let mut command = command(&[&["repl"], *args].concat());
        let done = feed(&mut command, input.as_bytes());
        // A list of files says when they were made.
        let out = match input.contains(".files") {
            true => "",
            false => done.stdout.as_str(),
        };
        assert_eq!(
            (done.code, out),
            (Some(*code), *stdout),
            "{input:?}: {done:?}"
        );
        assert!(
            done.stderr.contains(stderr),
            "{input:?} lacks {stderr:?}: {done:?}"
        );
    }
}

#[test]
fn what_is_piped_runs_cell_by_cell_without_a_server() {
    let home = Home::new();
    piped(&home, |args| home.command(&[&["session"], args].concat()));
    home.run(&["session", "repl", "--keep"])
        .refused(1, "no server is found");
    home.run(&["session", "repl", "ses_1"])
        .refused(1, "no server is found");
    home.run(&["session", "repl", "--language", "cobol"])
        .refused(1, "`language`");
}

#[test]
fn what_is_piped_runs_cell_by_cell_on_a_server() {
    let desk = Desk::new();
    piped(&desk.home, |args| desk.command(args));
    desk.run(&["list"]).ended(0, "", "no sessions");
    // One that is given, or to be kept, is there afterwards.
    let id = desk.create(&["--language", "javascript"]);
    let given = |input| feed(&mut desk.command(&["repl", &id]), input);
    given(b"let a = 1\n").ended(0, "", "");
    given(b"a + 1\n").ended(0, "2\n", "");
    feed(&mut desk.command(&["repl", "--keep"]), b"x = 1\n").ended(
        0,
        "",
        "kept: codex-server session repl ses_",
    );
    assert_eq!(desk.run(&["list"]).out().lines().count(), 3);
    desk.run(&["repl", "ses_none"]).refused(1, "(404): ");
    // Without a token it does without the server, and says so.
    let mut local = desk.command(&["repl"]);
    feed(local.env_remove("CODEX_TOKEN"), b"1 + 1").ended(0, "2\n", "in a process of its own");
    feed(&mut desk.command(&["repl", "--local"]), b"1 + 2").ended(0, "3\n", "");
    feed(
        &mut desk.command(&["repl", "--max-timeout", "60"]),
        b"1 + 3",
    )
    .ended(0, "4\n", "");
    assert_eq!(desk.run(&["list"]).out().lines().count(), 3);
}

/// What a person does and sees, wherever the engine is.
fn sit_down(mut command: Command) -> String {
    command.env(
        "XDG_STATE_HOME",
        command.get_current_dir().unwrap().join("state"),
    );
    let mut terminal = Terminal::start(&command);
    terminal.shows("Ctrl-D ends");
    let mut number = 0;
    let mut asks = |terminal: &mut Terminal, typed: &str, shown: &str| {
        number += 1;
        terminal.shows(&format!("[{number}]: "));
        terminal.types(typed);
        terminal.shows(shown);
    };
    asks(&mut terminal, "x = 40\r", "\r\n");
    asks(&mut terminal, "x + 2\r", "\r\n42\r\n");
    asks(&mut terminal, "1/0\r", "\x1b[31mTraceback");
    terminal.shows("ZeroDivisionError: division by zero\r\n");
    asks(&mut terminal, "def f(a):\r    return a * 3\r\r", "\r\n");
    asks(&mut terminal, "f(5)\r", "\r\n15\r\n");
    // A terminal is shown what it would obey.
    asks(
        &mut terminal,
        "print(chr(27) + ']52;c;eA==', end='')\r",
        "\r\n^[]52;c;eA==\r\n",
    );
    // A line that is dropped is no cell.
    terminal.shows("[7]: ");
    terminal.types("garbage(");
    terminal.shows("garbage(");
    terminal.types(CTRL_C);
    // What is typed ahead is not lost.
    let ahead = "print('begun')\rwhile True: pass\r";
    asks(&mut terminal, ahead, "begun\r\n");
    terminal.shows("[8]: ");
    terminal.shows("while True: pass");
    terminal.shows("\x1b[?2004l");
    // The terminal itself shows it where a cell runs.
    terminal.types(CTRL_C);
    terminal.shows("KeyboardInterrupt");
    terminal.shows("[9]: ");
    terminal.types("x\r");
    terminal.shows("\r\n40\r\n");
    terminal.shows("[10]: ");
    terminal
        .types("display(type('P', (), {'_repr_png_': lambda s: b'\\x89PNG\\r\\n\\x1a\\n'})())\r");
    terminal.shows("codex-output/python-10.png (image/png, 8 bytes)");
    // Pasted at once, and one cell.
    terminal.shows("[11]: ");
    terminal.types("\x1b[200~a = 1\nfor i in (1, 2):\n    a += i\n\x1b[201~\r");
    terminal.shows("[12]: ");
    terminal.types("a\t+ 1\r");
    terminal.shows("\r\n5\r\n");
    terminal.shows("[13]: ");
    terminal.types(".help\r");
    terminal.shows(".fork [NAME]");
    terminal.shows("[13]: ");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ended(), Some(0));
    terminal.screen()
}

#[test]
fn a_person_sits_down_without_a_server() {
    let home = Home::new();
    let screen = sit_down(home.command(&["session", "repl"]));
    assert!(screen.contains("in a process of its own"), "{screen}");
    let history = home
        .path()
        .with_file_name("state/codex-server/repl-history");
    let history = fs::read_to_string(history).unwrap();
    assert!(
        history.contains("def f(a):\\n    return a * 3\n"),
        "{history}"
    );
}

#[test]
fn a_person_sits_down_at_a_server() {
    let desk = Desk::new();
    let screen = sit_down(desk.command(&["repl"]));
    assert!(screen.contains(&desk.server.url), "{screen}");
    desk.run(&["list"]).ended(0, "", "no sessions");
}

#[test]
fn a_terminal_that_closes_ends_the_session() {
    let desk = Desk::new();
    let mut terminal = Terminal::start(&desk.command(&["repl"]));
    terminal.shows("[1]: ");
    assert_eq!(desk.run(&["list"]).out().lines().count(), 2);
    drop(terminal);
    let gone = || desk.run(&["list"]).out().is_empty();
    wait_until("the session's end", gone);
}

/// Answers each call by its method and path, once, with a status and a body.
fn pretender(
    answers: &'static [(&'static str, &'static str, &'static str)],
) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        for (call, status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            let mut piece = [0; 4096];
            while !asked.contains("\r\n\r\n") {
                let count = stream.read(&mut piece).unwrap();
                asked.push_str(&String::from_utf8_lossy(&piece[..count]));
            }
            assert!(
                asked.starts_with(&format!("{call} HTTP/1.1\r\n")),
                "{asked}"
            );
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream
                .write_all(format!("{head}{body}").as_bytes())
                .unwrap();
        }
    });
    (url, answering)
}

#[test]
fn a_fork_is_gone_on_in_and_a_refusal_told() {
    const SESSION: &str =
        r#"{"id": "ses_1", "contexts": [{"name": "python", "language": "python", "cells": 2}]}"#;
    const FORKED: &str = r#"{"id": "ses_1", "forked": "twin\u001b", "warnings": ["mind it"], "contexts": [{"name": "twin", "language": "python", "cells": 2}]}"#;
    const ANSWER: &str = r#"{"output": "", "error": "", "exit_code": 0, "status": "success", "cell": {"context": "twin", "number": 3}}"#;
    let (url, answering) = pretender(&[
        ("POST /sessions", "201 Created", SESSION),
        (
            "POST /sessions/ses_1/fork",
            "409 Conflict",
            r#"{"detail": "A thread runs. End it."}"#,
        ),
        ("POST /sessions/ses_1/fork", "201 Created", FORKED),
        (
            "POST /execute",
            "429 Too Many Requests\r\nRetry-After: 1",
            "{}",
        ),
        ("POST /execute", "200 OK", ANSWER),
        ("DELETE /sessions/ses_1", "204 No Content", ""),
    ]);
    let home = Home::new();
    let mut command = home.command(&["session", "repl", "--url", &url]);
    let done = feed(&mut command, b".fork\n.fork twin\n1;\n");
    let refused = format!("error: {url} refuses it (409): A thread runs. End it.\n");
    done.ended(1, "", &refused);
    for words in ["tried again in 1 s", "codex-server: mind it\n"] {
        assert!(done.stderr.contains(words), "{done:?}");
    }
    assert!(done.stderr.contains("in twin\\u{1b} now"), "{done:?}");
    answering.join().unwrap();
}
