//! `session repl`: through a pipe and at a terminal, with a server and without.

use std::fs;
use std::process::Command;

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
    (".fork\n", &[], 1, "", "error: "),
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
    terminal.shows("[11]: ");
    terminal.types(".help\r");
    terminal.shows(".fork [NAME]");
    terminal.shows("[11]: ");
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
