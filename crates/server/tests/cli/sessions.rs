//! `session`: against a real server, each subcommand.

use std::fs;

use serde_json::Value;

use crate::server::{Process, wait_until};
use crate::support::{Desk, Home, finish};

#[test]
fn sessions_live_from_create_to_delete() {
    let desk = Desk::new();
    let none = desk.run(&["list"]);
    none.ended(0, "", "no sessions; make one");
    let made = [
        "--name", "march", "--memory", "256MiB", "--ttl", "2h", "--env", "WORD=x",
    ];
    let id = desk.create(&made);
    assert!(id.starts_with("ses_"), "{id}");
    desk.run(&["run", &id, "-c", "import os; os.environ['WORD']"])
        .ended(0, "'x'\n", "");
    let list = desk.run(&["list"]);
    let row = list.out().lines().nth(1).unwrap();
    assert!(
        row.starts_with(&id) && row.ends_with("python    march"),
        "{list:?}"
    );
    let shown = desk.run(&["show", &id]);
    for words in ["256 MiB", "march", "python   python    idle   1"] {
        assert!(shown.out().contains(words), "{shown:?}");
    }
    for args in [
        &["show", &id, "--json"][..],
        &["list", "--json"],
        &["create", "--json"],
    ] {
        let done = desk.run(args);
        let json: Value = serde_json::from_str(done.out()).unwrap();
        assert!(
            json["id"].is_string() || json["sessions"][0]["id"] == *id,
            "{json}"
        );
    }
    desk.run(&["pause", &id]).ended(0, "", "is paused");
    desk.run(&["resume", &id]).ended(0, "", "is live");
    desk.run(&["interrupt", &id]).ended(0, "", "python is idle");
    desk.run(&["restart", &id, "--context", "python"])
        .ended(0, "", "python is ");
    desk.run(&["restart", &id, "--context", "ruby"])
        .refused(1, "has no context \"ruby\"");
    let done = desk.run(&["delete", "ses_none", &id]);
    done.refused(1, &format!("deleted {id}"));
    assert!(done.stderr.contains("not deleted: ses_none: "), "{done:?}");
    desk.run(&["show", &id]).refused(1, "(410): ");
}

#[test]
fn cells_find_what_those_before_left() {
    let desk = Desk::new();
    let id = desk.create(&[]);
    let beside = |name: &str| desk.home.path().with_file_name(name);
    fs::write(beside("code.mjs"), "const a = 20; a + 1").unwrap();
    fs::write(beside("code.txt"), "1").unwrap();
    fs::write(beside("input"), "typed\n").unwrap();
    let png = "from base64 import b64decode\nclass P:\n def _repr_png_(self): return b'\\x89PNG\\r\\n\\x1a\\n'\n_ = P(); display(P(), P()); _";
    for (args, code, stdout, stderr) in [
        (&["-c", "x = 40; print(x)"][..], 0, "40\n", ""),
        (&["-c", "x + 2"], 0, "42\n", ""),
        (&["-c", "print(1, end=''); x"], 0, "1\n40\n", ""),
        (
            &["-c", "1/0"],
            1,
            "",
            "ZeroDivisionError: division by zero\n",
        ),
        (&["-c", "import sys; sys.exit(3)"], 3, "", ""),
        (
            &["-c", "while True: pass", "--timeout", "1"],
            124,
            "",
            "--timeout gives it more",
        ),
        (&["-c", "input()", "--stdin", "input"], 0, "'typed'\n", ""),
        (&["code.mjs"], 0, "21\n", ""),
        (&["-c", "a", "--context", "javascript"], 0, "20\n", ""),
        (&["-c", "a", "--language", "javascript"], 0, "20\n", ""),
        (
            &["-c", "open('made.txt', 'w').write('abc')"],
            0,
            "3\n",
            "made.txt (text/plain, 3 bytes)",
        ),
        (
            &["-c", png],
            0,
            "",
            "saved codex-output/python-9-3.png (image/png, 8 bytes)",
        ),
        (
            &["-c", "P()", "--no-out"],
            0,
            "",
            "a picture: python-10.png",
        ),
        (&["-c", ""], 125, "", "(400): `code`"),
        (&["code.txt"], 125, "", "names no language"),
        (
            &["-c", "1", "--context", "ruby"],
            125,
            "",
            "has no context \"ruby\"",
        ),
        (&["missing.py"], 125, "", "failed to read missing.py"),
    ] {
        desk.run(&[&["run", &id], args].concat())
            .ended(code, stdout, stderr);
    }
    // Seen in the terminal, where it is one that can.
    let head = "class I:\n def _repr_png_(s): return b'\\x89PNG\\r\\n\\x1a\\n\\0\\0\\0\\rIHDR\\0\\0\\0\\2\\0\\0\\0\\2'\nI()";
    let seen = desk.run(&["run", &id, "--images", "kitty", "-c", head]);
    seen.ended(0, "", "\x1b_Ga=T,f=100,q=2,m=0;");
    assert!(!beside("codex-output").join("python-11.png").exists());
    // What goes on between cells comes with the next one.
    let thread = "import threading, time; threading.Timer(0.2, print, ['late']).start()";
    desk.run(&["run", &id, "-c", thread]).ended(0, "", "");
    wait_until("what comes late", || {
        desk.run(&["run", &id, "-c", "1;"]).out() == "late\n"
    });
    let saved = beside("codex-output").join("python-9.png");
    assert_eq!(fs::read(saved).unwrap(), b"\x89PNG\r\n\x1a\n");
    let done = desk.run(&["run", &id, "--json", "-c", "1/0"]);
    let json: Value = serde_json::from_str(done.out()).unwrap();
    assert_eq!(json["cell"]["exception"]["name"], "ZeroDivisionError");
    desk.run(&["run", "ses_none", "-c", "1"])
        .refused(125, "(404): ");
}

#[test]
fn ctrl_c_stops_a_cell_and_keeps_the_state() {
    let desk = Desk::new();
    let id = desk.create(&[]);
    let code = "kept = 1\nprint('begun', flush=True)\nwhile True: pass";
    let run = Process::start(&mut desk.command(&["run", &id, "--timeout", "25", "-c", code]));
    wait_until("the first line, while it runs", || {
        run.stdout() == "begun\n"
    });
    run.signal("INT");
    let (code, said) = run.wait();
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("KeyboardInterrupt") && said.ends_with("interrupted\n"),
        "{said}"
    );
    desk.run(&["run", &id, "-c", "kept"]).ended(0, "1\n", "");
}

#[test]
fn files_go_into_a_session_and_out() {
    let desk = Desk::new();
    let id = desk.create(&[]);
    let beside = |name: &str| desk.home.path().with_file_name(name);
    fs::write(beside("a b.csv"), [b'x', 0xff]).unwrap();
    fs::create_dir(beside("got")).unwrap();
    let check = |args: &[&str], code: i32, stdout: &str, stderr: &str| {
        let args = [&[args[0], &id], &args[1..]].concat();
        desk.run(&args).ended(code, stdout, stderr);
    };
    check(&["put", "a b.csv"], 0, "", "put a b.csv\n");
    check(&["put", "a b.csv", "in/é?#.csv"], 0, "", "put in/é?#.csv\n");
    check(&["put", "a b.csv", "in/"], 0, "", "put in/a b.csv\n");
    check(&["put", "-", "empty"], 0, "", "put empty\n");
    check(&["put", "-"], 2, "", "say which path");
    check(&["put", "missing"], 2, "", "failed to read missing");
    check(&["put", "got", "x"], 2, "", "failed to read got");
    check(&["put", "a b.csv", "../x"], 2, "", "\"..\" can be no");
    let listed = desk.run(&["ls", &id]);
    let paths: Vec<&str> = listed
        .out()
        .lines()
        .map(|line| line.split_once("Z  ").unwrap().1)
        .collect();
    assert_eq!(paths, ["a b.csv", "empty", "in/"], "{listed:?}");
    assert!(
        desk.run(&["ls", &id, "--deep"])
            .out()
            .contains("in/é?#.csv")
    );
    assert!(
        desk.run(&["ls", &id, "in", "--json"])
            .out()
            .contains("\"in/a b.csv\"")
    );
    check(&["ls", "none"], 1, "", "(404): ");
    check(&["get", "a b.csv"], 1, "", "replace it with --force");
    check(&["get", "a b.csv", "--force"], 0, "", "got a b.csv\n");
    check(&["get", "in/é?#.csv", "got"], 0, "", "got got/é?#.csv\n");
    check(&["get", "none", "got"], 1, "", "(404): ");
    assert_eq!(
        fs::read(beside("got").join("é?#.csv")).unwrap(),
        [b'x', 0xff]
    );
    assert_eq!(
        fs::read_dir(beside("got")).unwrap().count(),
        1,
        "nothing by half"
    );
}

#[test]
fn commands_run_in_a_session() {
    let desk = Desk::new();
    let id = desk.create(&[]);
    desk.run(&["exec", &id, "--", "mkdir in; touch in/a"]).out();
    let check = |args: &[&str], code: i32, stdout: &str, stderr: &str| {
        let args = [&[args[0], &id], &args[1..]].concat();
        desk.run(&args).ended(code, stdout, stderr);
    };
    check(
        &["exec", "--", "echo $((2+2)) | tee four; exit 7"],
        7,
        "4\n",
        "",
    );
    check(&["get", "four", "-"], 0, "4\n", "");
    check(
        &["exec", "--", "printf", "%s|", "$HOME", "it's"],
        0,
        "$HOME|it's|",
        "",
    );
    check(
        &["exec", "--stdin", "input", "--", "cat"],
        125,
        "",
        "failed to read input",
    );
    check(&["exec", "--directory", "in", "--", "ls >&2"], 0, "", "a\n");
    check(&["exec", "--env", "A=1", "--", "echo $A"], 0, "1\n", "");
    check(
        &["exec", "--timeout", "1", "--", "sleep 9"],
        124,
        "",
        "--timeout gives it more",
    );
    assert!(
        desk.run(&["exec", &id, "--json", "--", "false"])
            .out()
            .contains("\"exit_code\": 1")
    );
    check(&["exec"], 2, "", "<COMMAND>");
}

#[test]
fn who_cannot_ask_a_server_is_told_why() {
    let home = Home::new();
    let done = home.run(&["session", "list"]);
    done.refused(1, "none runs with this data directory");
    home.run(&["session", "list", "--token", "x"])
        .refused(2, "name it with --url");
    let refused = [
        "session",
        "run",
        "x",
        "-c",
        "1",
        "--url",
        "http://127.0.0.1:1",
    ];
    home.run(&refused).refused(125, "refuses connections");
    let server = home.serve(&["serve"]);
    home.run(&["session", "list"])
        .refused(1, "asks for a token: give one in CODEX_TOKEN");
    let done = finish(
        home.command(&["session", "list"])
            .env("CODEX_TOKEN", "codex_wrong"),
    );
    done.refused(1, "refuses the token (401)");
    let elsewhere = Home::new();
    let url = [
        "session",
        "create",
        "--url",
        &server.url,
        "--token",
        &server.token(),
    ];
    assert!(elsewhere.run(&url).out().starts_with("ses_"));
    assert!(
        !elsewhere.path().exists(),
        "a server elsewhere needs no data directory"
    );
}
