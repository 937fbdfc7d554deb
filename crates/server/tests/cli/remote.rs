//! `run --url`: against a real server, and against others that are none.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;

use crate::processes;
use crate::server::{Process, wait_until};
use crate::support::{Done, Home, PIPED, RUNS, SUM, Server, feed, finish};

/// A client with a home of its own, and the way to a server.
struct Far {
    home: Home,
    url: String,
    token: String,
}

impl Far {
    fn of(server: &Server) -> Self {
        Self {
            home: Home::new(),
            url: server.url.clone(),
            token: server.token(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&[&["run"], args].concat());
        command
            .env("CODEX_URL", &self.url)
            .env("CODEX_TOKEN", &self.token);
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        finish(&mut self.command(args))
    }

    #[track_caller]
    fn check(&self, args: &[&str], code: i32, stdout: &str, stderr: &str) {
        self.run(args).ended(code, stdout, stderr);
    }
}

#[test]
fn a_server_runs_it_as_this_machine_would() {
    let server_home = Home::new();
    let server = server_home.serve(&["serve"]);
    let far = Far::of(&server);
    let beside = |name: &str| far.home.path().with_file_name(name);
    fs::write(beside("top.mjs"), "console.log(await Promise.resolve(6))").unwrap();
    fs::write(beside("numbers"), "1\n2\n").unwrap();
    for (args, code, stdout, stderr) in RUNS {
        far.check(args, *code, stdout, stderr);
    }
    let language = "refuses it (400): `language`";
    far.check(&["-c", "1", "--language", "cobol"], 125, "", language);
    far.check(&["-c", "1", "--timeout", "99"], 125, "", "from 1 to 30");
    let setting = "--max-timeout is a setting of this machine";
    far.check(&["-c", "1", "--max-timeout", "60"], 125, "", setting);
}

#[test]
fn what_is_piped_goes_there() {
    let server_home = Home::new();
    let server = server_home.serve(&["serve"]);
    let far = Far::of(&server);
    let beside = |name: &str| far.home.path().with_file_name(name);
    fs::write(beside("sum.py"), SUM).unwrap();
    fs::write(beside("numbers"), "1\n2\n").unwrap();
    for (args, input, code, stdout, stderr) in PIPED {
        feed(&mut far.command(args), input).ended(*code, stdout, stderr);
    }
    feed(&mut far.command(&["sum.py"]), b"\xff").refused(125, "takes text only");
}

#[test]
fn files_go_there_and_come_back() {
    let server_home = Home::new();
    let server = server_home.serve(&["serve"]);
    let far = Far::of(&server);
    let check = |args: &[&str], code: i32, stdout: &str, stderr: &str| {
        far.check(args, code, stdout, stderr);
    };
    fs::write(far.home.path().with_file_name("blob"), [0xff]).unwrap();
    check(
        &["-c", "print(open('b', 'rb').read())", "--file", "b=blob"],
        0,
        "b'\\xff'\n",
        "",
    );
    check(&["-c", "1", "--stdin", "blob"], 125, "", "takes text only");

    let code = r"open('plot.png', 'wb').write(b'\x89PNG\r\n\x1a\n'); open('.x', 'w').write('é')";
    check(
        &["-c", code],
        0,
        "",
        "saved codex-output/plot.png (image/png, 8 bytes)",
    );
    let saved = far.home.path().with_file_name("codex-output");
    assert_eq!(
        fs::read(saved.join("plot.png")).unwrap(),
        b"\x89PNG\r\n\x1a\n"
    );
    assert_eq!(fs::read(saved.join("_x")).unwrap(), "é".as_bytes());

    let done = far.run(&["--json", "-c", "print(1); import sys; sys.exit(3)"]);
    let json: serde_json::Value = serde_json::from_str(done.out()).unwrap();
    assert_eq!(
        (&json["output"], &json["exit_code"]),
        (&"1\n".into(), &3.into())
    );
    assert!(
        !far.home.path().exists(),
        "a run elsewhere needs no data directory"
    );
}

#[test]
fn output_comes_while_the_program_runs_and_leaving_ends_it() {
    let server_home = Home::new();
    let server = server_home.serve(&["serve"]);
    let far = Far::of(&server);
    let marker = format!("marker-far-{}", std::process::id());
    let code = "import time; print('first', flush=True); time.sleep(25)";
    let mut command = far
        .home
        .command(&["run", "--timeout", "28", "-c", code, "--", &marker]);
    command
        .env("CODEX_URL", &far.url)
        .env("CODEX_TOKEN", &far.token);
    let run = Process::start(&mut command);
    wait_until("the first line", || run.stdout() == "first\n");
    let in_box = || processes::with(&[&marker, "/proc/self/fd/"]);
    assert_eq!(in_box(), 1);
    run.signal("INT");
    let (code, note) = run.wait();
    assert_eq!((code, note.as_str()), (Some(130), "interrupted\n"));
    wait_until("the end of the run", || in_box() == 0);
}

#[test]
fn long_output_comes_whole_and_in_order() {
    let server_home = Home::new();
    let server = server_home.serve(&["serve"]);
    let far = Far::of(&server);
    let done = far.run(&["-c", "for i in range(600_000): print(i)"]);
    assert!(
        done.stdout.lines().eq((0..600_000).map(|i| i.to_string())),
        "{}",
        done.stderr
    );
}

#[test]
fn refusals_name_the_cure() {
    let server_home = Home::new();
    let server = server_home.serve(&["serve", "--rate-limit", "1/hour"]);
    let far = Far::of(&server);
    let mut none = far.home.command(&["run", "-c", "1", "--url", &far.url]);
    finish(&mut none).refused(125, "asks for a token (401). Give one in CODEX_TOKEN");
    let wrong = far.home.run(&[
        "run",
        "-c",
        "1",
        "--url",
        &far.url,
        "--token",
        "codex_wrong",
    ]);
    wrong.refused(125, "refuses the token (401)");
    assert!(!wrong.stderr.contains("codex_wrong"), "{wrong:?}");
    assert_eq!(far.run(&["-c", "print(1)"]).out(), "1\n");
    let limited = far.run(&["-c", "print(1)"]);
    limited.refused(125, "takes no more calls for now (429)");
    let wait = limited.stderr.split("wait ").nth(1).unwrap();
    let seconds: u32 = wait.split(' ').next().unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&seconds), "{limited:?}");
    let port = far.url.rsplit(':').next().unwrap();
    let elsewhere = format!("http://localtest.invalid:{port}");
    far.home
        .run(&["run", "-c", "1", "--url", &elsewhere])
        .refused(125, "has no address");
    let tls = format!("https://127.0.0.1:{port}");
    far.home
        .run(&["run", "-c", "1", "--url", &tls])
        .refused(125, "cannot be secured");
    drop(server);
    far.run(&["-c", "1"]).refused(125, "refuses connections");
    for (url, words) in [
        ("x.example", "has no scheme"),
        ("ftp://x", "neither http nor https"),
    ] {
        far.home
            .run(&["run", "-c", "1", "--url", url])
            .refused(125, words);
    }
    far.home
        .run(&["run", "-c", "1", "--token", "x"])
        .refused(125, "name it with --url");
}

/// Answers every request with the same bytes; what was asked is told.
fn fake(answer: String) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                request.extend_from_slice(&piece[..length]);
                let text = String::from_utf8_lossy(&request);
                let is_get = text.starts_with("GET ");
                if (is_get && text.contains("\r\n\r\n")) || text.ends_with('}') {
                    break;
                }
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let answer = if text.starts_with("GET ") {
                http("200 OK", "image/png", "12345678")
            } else {
                answer.clone()
            };
            // The test may have seen enough.
            asked.send(text).ok();
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    (url, requests)
}

fn http(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

fn run_on(answer: String) -> (Home, Done, mpsc::Receiver<String>) {
    let (url, requests) = fake(answer);
    let home = Home::new();
    let done = home.run(&["run", "-c", "1", "--url", &url, "--token", "codex_secret"]);
    (home, done, requests)
}

#[test]
fn a_stream_that_is_cut_is_no_success() {
    let start = "id: 1\nevent: start\ndata: {\"id\":\"1\"}\n\n";
    let output = "event: stdout\ndata: {\"text\":\"half\\n\"}\n\n";
    for (events, words) in [
        (format!("{start}{output}"), "before the program had ended"),
        (
            format!("{start}{output}event: end\ndata: {{\"output\":\"\""),
            "before the program had ended",
        ),
        (String::new(), "before the program started"),
    ] {
        let (_home, done, _) = run_on(format!("{STREAM}{events}"));
        assert_eq!(done.code, Some(125), "{done:?}");
        assert!(done.stderr.contains(words), "{done:?}");
        let expected = if events.is_empty() { "" } else { "half\n" };
        assert_eq!(done.stdout, expected, "what came is printed");
    }
}

#[test]
fn events_of_all_kinds_are_told() {
    let events = "event: queued\ndata: {\"running\":4,\"waiting\":3}\n\n: keep-alive\n\n\
        event: start\ndata: {}\n\nevent: of the future\ndata: ?\n\n\
        event: stdout\ndata: {\"text\":\"a\"}\n\nevent: dropped\ndata: {\"stream\":\"stdout\\u001b[2J\",\"bytes\":7}\n\n\
        event: truncated\ndata: {\"limit\":9}\n\n";
    let end = "event: end\ndata: {\"output\":\"a\",\"error\":\"\",\"exit_code\":4,\"status\":\"error\",\"warnings\":[\"w\\u001b[0m\"]}\n\n";
    let (_home, done, _) = run_on(format!("{STREAM}{events}{end}"));
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (Some(4), "a"),
        "{done:?}"
    );
    for words in [
        "waiting with 2 others",
        "7 bytes of stdout\\u{1b}[2J are missing here",
        "no more than 9 bytes",
        "w\\u{1b}[0m",
    ] {
        assert!(
            done.stderr.contains(words),
            "lacks {words:?}: {}",
            done.stderr
        );
    }
    assert!(!done.stderr.contains('\x1b'));
    let problem = "event: error\ndata: {\"status\":503,\"detail\":\"too long a wait\"}\n\n";
    let (_home, done, _) = run_on(format!("{STREAM}{problem}"));
    done.refused(125, "cannot run it now (503): too long a wait");
}

#[test]
fn servers_without_streams_and_files_by_address_work_too() {
    let files = r#"[{"name":"plot.png","size":8,"url":"https://elsewhere.example/f/1?sig=x"},{"name":"../out","size":8,"url":"/f/2"},{"name":"gone","size":9,"url":"/f/3"},{"name":"none","size":9}]"#;
    let body = format!(
        r#"{{"output":"o\n","error":"e\n","exit_code":5,"execution_time":0.1,"timestamp":"","files":{files}}}"#
    );
    let (home, done, requests) = run_on(http("200 OK", "application/json; charset=utf-8", &body));
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (Some(5), "o\n"),
        "{done:?}"
    );
    for words in [
        "e\n",
        "saved codex-output/plot.png (text/plain, 8 bytes)",
        "not saved: ../out (text/plain, 8 bytes): its path leads out",
        "not saved: gone (9 bytes): the server gives it with another size",
        "not saved: none (9 bytes): the server sent no content of it",
    ] {
        assert!(
            done.stderr.contains(words),
            "lacks {words:?}: {}",
            done.stderr
        );
    }
    assert_eq!(
        fs::read(home.path().with_file_name("codex-output/plot.png")).unwrap(),
        b"12345678"
    );
    let asked: Vec<String> = requests.try_iter().collect();
    assert!(
        asked[0]
            .to_ascii_lowercase()
            .contains("accept: text/event-stream"),
        "{asked:?}"
    );
    assert!(asked[0].contains("codex_secret"), "{asked:?}");
    assert!(asked[1].starts_with("GET /f/1?sig=x "), "{asked:?}");
    let elsewhere = asked[1..]
        .iter()
        .any(|request| request.contains("codex_secret"));
    assert!(
        !elsewhere,
        "a signed address is called without the token: {asked:?}"
    );
}

#[test]
fn a_token_goes_to_its_own_server_only() {
    let body = r#"{"output":"","error":"","exit_code":0}"#;
    let (url, requests) = fake(http("200 OK", "application/json", body));
    let home = Home::new();
    let check = |usual: &str, flags: &[&str], sent: Option<&str>| {
        let mut command = home.command(&[&["run", "-c", "1", "--url", &url], flags].concat());
        let done = finish(
            command
                .env("CODEX_TOKEN", "codex_usual")
                .env("CODEX_URL", usual),
        );
        done.out();
        let asked = requests.recv().unwrap();
        let found = asked.lines().find_map(|line| line.split_once("Bearer "));
        assert_eq!(found.map(|(_, token)| token), sent, "{usual}: {asked}");
        let told = done.stderr.contains("is not sent to");
        assert_eq!(told, sent.is_none(), "{done:?}");
    };
    check("", &[], Some("codex_usual"));
    check(&format!("{url}/"), &[], Some("codex_usual"));
    check("https://usual.example", &[], None);
    check(
        "https://usual.example",
        &["--token", "codex_named"],
        Some("codex_named"),
    );
}

#[test]
fn what_is_no_codex_server_is_told_apart() {
    for (answer, words) in [
        (http("200 OK", "text/html", "<html>"), "no codex-server answers"),
        (http("200 OK", "application/json", "{}"), "not as a codex-server does"),
        (http("404 Not Found", "text/plain", "nope"), "no codex-server answers"),
        (http("502 Bad Gateway", "text/html", "<html>"), "is the server running?"),
        (http("403 Forbidden", "text/html", "<html>"), "private port"),
        (http("403 Forbidden", "application/problem+json", r#"{"detail":"The Host x is not known."}"#), "(403): The Host x is not known."),
        ("HTTP/1.1 302 Found\r\nLocation: https://evil.example/login\r\nContent-Length: 0\r\n\r\n".to_owned(), "redirects (302) to https://evil.example/login"),
        ("HTTP/1.1 503 Busy\r\nContent-Type: application/problem+json\r\nRetry-After: 5\r\nContent-Length: 17\r\n\r\n{\"detail\":\"busy\"}".to_owned(), "(503): busy; wait 5 s"),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "failed"),
        (http("200 OK", "application/json", "{").replace("Content-Length: 1", "Content-Length: 100"), "cut in the middle"),
    ] {
        let (_home, done, _) = run_on(answer.clone());
        assert_eq!(done.code, Some(125), "{answer}: {done:?}");
        assert!(done.stderr.contains(words), "{answer}: {done:?}");
        assert!(!done.stderr.contains("codex_secret"), "{done:?}");
    }
}

#[test]
fn junk_is_refused_at_its_first_byte() {
    // More is promised than ever comes: who waits for it hears of a cut connection.
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60000000\r\n\r\n";
    for junk in ["xxxxxxxx", "[1, 2", "\r\n <html>"] {
        let (_, done, _) = run_on(format!("{head}{junk}"));
        done.refused(125, "answered, but not as a codex-server does");
    }
}
