//! A server as its own process: what it says, how it ends, who else notices.

use std::fs::Permissions;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::processes;
use crate::server::{Process, wait_until};
use crate::support::{Home, PIPED, RUNS, SUM, Server, feed, finish};

#[test]
fn the_first_start_shows_a_token_that_works_and_later_ones_do_not() {
    let home = Home::new();
    let server = home.serve(&["serve"]);
    let token = server.token();
    let curl = format!(
        "curl -sS -X POST {}/execute -H \"Authorization: Bearer {token}\" -H \"Content-Type: application/json\" -d '{{\"code\": \"print(2+2)\", \"language\": \"python\"}}'",
        server.url
    );
    assert!(server.said.contains(&curl), "{}", server.said);
    assert_eq!(server.execute(Some(&token)), 200);
    assert_eq!(server.execute(None), 401);
    server.process.signal("TERM");
    let (code, error) = server.process.wait();
    assert_eq!(code, Some(0), "{error}");
    assert!(!error.contains(&token), "the log holds the token: {error}");

    let server = home.serve(&["serve"]);
    assert!(
        !server.said.contains(&token) && server.said.contains("token create"),
        "{}",
        server.said
    );
    assert_eq!(server.execute(Some(&token)), 200);
}

#[test]
fn tokens_hold_and_end_while_it_runs() {
    let home = Home::new();
    let made_before = home
        .run(&["token", "create", "before"])
        .out()
        .trim()
        .to_owned();
    let server = home.serve(&["serve"]);
    assert!(!server.said.contains("shown this once"), "{}", server.said);
    assert_eq!(server.execute(Some(&made_before)), 200);
    let made_now = home
        .run(&["token", "create", "now"])
        .out()
        .trim()
        .to_owned();
    assert_eq!(server.execute(Some(&made_now)), 200);
    home.run(&["token", "revoke", "now"]).out();
    assert_eq!(server.execute(Some(&made_now)), 401);
    assert_eq!(server.execute(Some(&made_before)), 200);
}

#[test]
fn a_second_one_is_told_of_the_first() {
    let home = Home::new();
    let server = home.serve(&["up"]);
    let up = home.run(&["up"]);
    assert!(
        up.out()
            .contains(&format!("already running at {}", server.url)),
        "{up:?}"
    );
    assert!(up.stdout.contains("kill "), "{up:?}");
    home.run(&["serve"]).refused(6, "already running at");

    // With another data directory the port is in the way.
    let other = Home::new();
    let port = server.url.rsplit(':').next().unwrap();
    other
        .run(&["serve", "--port", port])
        .refused(5, "is taken by another codex-server");
}

#[test]
fn a_port_that_others_have() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    home.run(&["serve", "--port", &port])
        .refused(5, &format!("port {port} is taken by"));
}

#[test]
fn a_lock_of_the_dead_holds_nobody_up() {
    let home = Home::new();
    let server = home.serve(&["serve"]);
    server.process.signal("KILL");
    assert_eq!(server.process.wait().0, None);
    assert_eq!(
        home.serve(&["serve"]).call("GET", "/health", None, "").0,
        200
    );
}

#[test]
fn a_server_without_its_warden_says_so_and_ends() {
    let home = Home::new();
    let token = home.run(&["token", "create", "a"]).out().trim().to_owned();
    let server = home.serve(&["serve"]);
    let slow = r#"{"code": "import time; time.sleep(20)", "timeout": 25}"#;
    std::thread::scope(|scope| {
        let job = scope.spawn(|| server.call("POST", "/execute", Some(&token), slow));
        wait_until("the run", || {
            let health = server.call("GET", "/health", None, "").1;
            health.contains(r#""running":1"#)
        });
        server.process.kill_warden();
        // Its job fails at once: nothing waits for the grace.
        let (status, body) = job.join().unwrap();
        assert_eq!(status, 500, "{body}");
    });
    let begun = Instant::now();
    let (code, log) = server.process.wait();
    assert_eq!(code, Some(9), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{log}");
    assert!(
        log.contains("the warden") && log.contains("start the server again"),
        "{log}"
    );
    // Another start is the cure.
    assert_eq!(home.serve(&["serve"]).execute(Some(&token)), 200);
}

#[test]
fn a_server_without_its_warden_is_unhealthy() {
    // It listens until its next look, at most a second later: on a busy
    // machine that may be too soon for us, so that there are a few tries.
    let tries = (0..5).find_map(|_| {
        let home = Home::new();
        let server = home.serve(&["serve"]);
        assert_eq!(server.call("HEAD", "/health", None, "").0, 200);
        server.process.kill_warden();
        let seen = server.try_call("GET", "/health", None, "").ok()?;
        let head = server.try_call("HEAD", "/health", None, "").ok()?;
        Some((seen, head))
    });
    let ((status, body), head) = tries.expect("one of five was seen in time");
    assert_eq!(status, 503, "{body}");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(health["status"], "unhealthy");
    assert_eq!(head, (503, String::new()));
}

#[test]
fn a_signal_lets_jobs_end_and_a_second_one_does_not() {
    let slow = r#"{"code": "import time; time.sleep(3); print('done')", "timeout": 10}"#;
    let home = Home::new();
    let token = home.run(&["token", "create", "a"]).out().trim().to_owned();
    let server = home.serve(&["serve"]);
    std::thread::scope(|scope| {
        let job = scope.spawn(|| server.call("POST", "/execute", Some(&token), slow));
        std::thread::sleep(Duration::from_secs(1));
        server.process.signal("TERM");
        let (status, body) = job.join().unwrap();
        assert_eq!(status, 200, "{body}");
    });
    assert_eq!(server.process.wait().0, Some(0));

    let server = home.serve(&["serve"]);
    std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let address = server.url.strip_prefix("http://").unwrap();
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let request = format!("POST /execute HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{slow}", slow.len());
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            // Reset or closed, both will do.
            stream.read_to_end(&mut answer).ok();
        });
        std::thread::sleep(Duration::from_secs(1));
        let begun = Instant::now();
        server.process.signal("INT");
        std::thread::sleep(Duration::from_millis(200));
        server.process.signal("INT");
        job.join().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2));
    });
    assert_eq!(server.process.wait().0, Some(130));
}

#[test]
fn open_mode_warns_and_needs_no_token() {
    let home = Home::new();
    let server = home.serve(&["serve", "--open"]);
    assert!(
        server.said.contains("WARNING: open mode"),
        "{}",
        server.said
    );
    assert_eq!(server.execute(None), 200);
    assert!(
        !server.said.contains("codex_"),
        "no token is made in open mode"
    );
}

#[test]
fn json_logs_hold_nothing_but_json_and_no_token() {
    let home = Home::new();
    let server = home.serve(&["serve", "--log-format", "json"]);
    let token = server.token();
    assert_eq!(server.execute(Some(&token)), 200);
    server.process.signal("TERM");
    let (_, error) = server.process.wait();
    let lines: Vec<&str> = error.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!lines.is_empty(), "{error}");
    for line in lines {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert!(
        !error.contains(&token) && !error.contains("print(2+2)"),
        "{error}"
    );
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let home = Home::new();
    home.configure("open = true\nrate_limit = 'off'\nlog_queue = 8");
    for read_in_the_end in [false, true] {
        let mut command = home.command(&["serve", "--port", "0"]);
        let mut server = Server::of(Process::start_unread(&mut command));
        // A line each: more than a pipe holds.
        for _ in 0..600 {
            assert_eq!(server.call("GET", "/health", None, "").0, 200);
        }
        assert_eq!(server.execute(None), 200);
        if read_in_the_end {
            server.process.read_errors();
        }
        server.process.signal("TERM");
        let (code, log) = server.process.wait();
        assert_eq!(code, Some(0), "{log}");
        if read_in_the_end {
            assert!(log.contains(" lines are missing here: "), "{log}");
            assert!(log.ends_with("stopped\n"), "{log}");
        }
    }
}

#[test]
fn health_is_an_exit_code() {
    let home = Home::new();
    home.run(&["health"])
        .refused(1, "no server runs with the data directory");
    assert!(!home.path().exists(), "a look makes nothing");
    let server = home.serve(&["serve"]);
    let done = home.run(&["health"]);
    assert!(
        done.out().starts_with("healthy: ") && done.out().contains(&server.url),
        "{done:?}"
    );
    drop(server);
    home.run(&["health"])
        .refused(1, "no server runs with the data directory");
}

#[test]
fn doctor_finds_the_server() {
    let home = Home::new();
    let server = home.serve(&["serve"]);
    let done = home.run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(done.out()).unwrap();
    assert_eq!(report["ok"], true, "{report:#}");
    assert!(
        done.stdout
            .contains(&format!("the server runs at {}", server.url)),
        "{report:#}"
    );
    // Through its own address all calls are as they should be, but ChatGPT could not make them.
    drop(server);
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let args = ["serve", "--port", &port.to_string(), "--public-url", &url];
    let server = Server::listen(&mut home.command(&args));
    let done = home.run(&["doctor", "--public"]);
    let guide = home.run(&["connect", "chatgpt", "--by", "action", "--new-token"]);
    drop(server);
    assert_eq!(done.stdout.matches('✓').count(), 6, "{}", done.stdout);
    assert!(
        done.stdout.contains("ChatGPT cannot reach"),
        "{}",
        done.stdout
    );
    assert_eq!(done.code, Some(8));
    assert_eq!(guide.code, Some(8));
    for words in [
        "ChatGPT cannot reach",
        "No token was made",
        &format!("{url}/actions/openapi.json"),
    ] {
        assert!(guide.stdout.contains(words), "{}", guide.stdout);
    }
    assert!(!home.run(&["token", "list"]).out().contains("chatgpt"));
}

#[test]
fn run_exits_as_the_program_does() {
    let home = Home::new();
    let check = |args: &[&str], code: i32, stdout: &str, stderr: &str| {
        home.run(&[&["run"], args].concat())
            .ended(code, stdout, stderr);
    };
    let beside = |name: &str| home.path().with_file_name(name);
    std::fs::write(beside("top.mjs"), "console.log(await Promise.resolve(6))").unwrap();
    std::fs::write(beside("numbers"), "1\n2\n").unwrap();
    for (args, code, stdout, stderr) in RUNS {
        check(args, *code, stdout, stderr);
    }
    check(&["-c", "1", "--language", "cobol"], 125, "", "cobol");
    check(&["-c", "1", "--timeout", "99"], 125, "", "--max-timeout");
    std::fs::write(beside("a.txt"), "x").unwrap();
    check(&["a.txt"], 125, "", "--language");
}

#[test]
fn run_passes_on_what_is_piped_to_it() {
    let home = Home::new();
    let beside = |name: &str| home.path().with_file_name(name);
    std::fs::write(beside("sum.py"), SUM).unwrap();
    std::fs::write(beside("numbers"), "1\n2\n").unwrap();
    for (args, input, code, stdout, stderr) in PIPED {
        let mut command = home.command(&[&["run"], *args].concat());
        feed(&mut command, input).ended(*code, stdout, stderr);
    }
    let mut from_file = home.command(&["run", "sum.py"]);
    from_file.stdin(std::fs::File::open(beside("numbers")).unwrap());
    finish(&mut from_file).ended(0, "3\n", "");
    let mut bytes = home.command(&["run", "-c", "import sys; print(sys.stdin.buffer.read())"]);
    feed(&mut bytes, b"\xff").ended(0, "b'\\xff'\n", "");
}

#[test]
fn run_prints_while_the_program_runs_and_cuts_nothing() {
    let home = Home::new();
    let code = "import sys\nfor i in range(600_000): print(i)\nprint('end', file=sys.stderr)";
    let done = home.run(&["run", "-c", code]);
    assert!(done.stdout.lines().eq((0..600_000).map(|i| i.to_string())));
    assert_eq!(done.stderr, "end\n");

    let code = "import time; print('first', flush=True); time.sleep(20)";
    let run = Process::start(&mut home.command(&["run", "--timeout", "25", "-c", code]));
    wait_until("the first line", || run.stdout() == "first\n");
    run.signal("INT");
    let (code, note) = run.wait();
    assert_eq!(code, Some(130), "it ran on until then");
    assert!(note.contains("interrupted"), "{note}");
}

#[test]
fn run_prints_what_the_api_would_answer() {
    let home = Home::new();
    let code = "import sys; open('a.bin', 'wb').write(b'\\xff'); print(1); sys.exit(3)";
    let done = home.run(&["run", "--json", "-c", code]);
    let json: serde_json::Value = serde_json::from_str(done.out()).unwrap();
    assert_eq!(json["output"], "1\n");
    assert_eq!(json["exit_code"], 3);
    assert_eq!(json["files"][0]["name"], "a.bin");
    assert_eq!(json["files"][0]["content"], "/w==");
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let home = Home::new();
    let marker = format!("marker-run-{}", std::process::id());
    let code = "import os, time\nif os.fork() == 0:\n    os.setsid()\ntime.sleep(25)";
    for (signal, expected) in [("INT", Some(130)), ("KILL", None)] {
        let args = ["run", "--timeout", "28", "-c", code, "--", &marker];
        let run = Process::start(&mut home.command(&args));
        let in_box = || processes::with(&[&marker, "/proc/self/fd/"]);
        wait_until("two processes", || in_box() == 2);
        run.signal(signal);
        assert_eq!(run.wait().0, expected);
        wait_until("the end of both", || in_box() == 0);
    }
}

#[test]
fn a_revoked_token_stops_nothing_that_runs() {
    let home = Home::new();
    let server = home.serve(&["serve"]);
    let token = home.run(&["token", "create", "a"]).out().trim().to_owned();
    let slow = r#"{"code": "import time; time.sleep(1.5); print('done')"}"#;
    std::thread::scope(|scope| {
        let job = scope.spawn(|| server.call("POST", "/execute", Some(&token), slow));
        wait_until("the run", || {
            let health = server.call("GET", "/health", None, "").1;
            health.contains(r#""running":1"#)
        });
        home.run(&["token", "revoke", "a"]).out();
        assert_eq!(server.execute(Some(&token)), 401);
        let (status, body) = job.join().unwrap();
        assert!(status == 200 && body.contains("done"), "{status} {body}");
    });
}

#[test]
fn doctor_makes_no_data_directory() {
    let home = Home::new();
    let done = home.run(&["doctor", "--port", "0"]);
    assert!(done.out().contains("made at the first start"), "{done:?}");
    assert!(!home.path().exists());
    assert!(done.stdout.lines().count() <= 26, "{}", done.stdout);
}

#[test]
fn the_home_of_another_program_is_left_alone() {
    let home = Home::new();
    std::fs::create_dir(home.path()).unwrap();
    std::fs::write(home.path().join("auth.json"), "{}").unwrap();
    for command in [
        &["serve"][..],
        &["up"],
        &["doctor"],
        &["token", "create", "a"],
    ] {
        home.run(command).refused(3, "unset CODEX_HOME");
    }
    home.run(&["run", "-c", "1"]).refused(125, "--home DIR");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    let own = home.path().with_file_name("own");
    let done = home.run(&["run", "-c", "print(1)", "--home", own.to_str().unwrap()]);
    assert_eq!(done.out(), "1\n");
}

#[test]
fn a_codex_toml_of_the_working_directory_decides_nothing() {
    let home = Home::new();
    let here = home.working_directory();
    let interpreter = here.join("py");
    let script = format!(
        "#!/bin/sh\ntouch {}/ran\nexec /usr/bin/python3 \"$@\"\n",
        here.display()
    );
    std::fs::write(&interpreter, script).unwrap();
    std::fs::set_permissions(&interpreter, Permissions::from_mode(0o755)).unwrap();
    let text = format!("interpreter = [\"python={}\"]", interpreter.display());
    std::fs::write(here.join("codex.toml"), text).unwrap();

    let run = ["run", "-c", "print(2+2)"];
    let notice = "--config ./codex.toml";
    let done = home.run(&run);
    assert_eq!(done.out(), "4\n");
    assert!(!done.stderr.contains("codex.toml"), "{done:?}");
    let server = home.serve(&["serve"]);
    server.process.signal("TERM");
    let (_, said) = server.process.wait();
    assert_eq!(said.matches(notice).count(), 1, "{said}");
    assert!(!here.join("ran").exists(), "it ran on the host");

    // Asked for, it counts.
    let done = home.run(&[&run[..], &["--config", "./codex.toml"]].concat());
    assert_eq!(done.out(), "4\n");
    assert!(here.join("ran").exists());
}

#[test]
fn what_others_planted_in_the_data_directory_is_not_followed() {
    for (name, command) in [
        ("server.lock", &["serve", "--port", "0"][..]),
        ("state.lock", &["token", "list"]),
        ("state.db", &["token", "list"]),
        ("state.db-wal", &["token", "list"]),
        ("artifact.key", &["serve", "--port", "0"]),
        ("artifacts", &["serve", "--port", "0"]),
        ("runtimes", &["run", "-c", "1"]),
    ] {
        let home = Home::new();
        home.configure("");
        let victim = home.working_directory().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, home.path().join(name)).unwrap();
        let done = home.run(command);
        assert!(!matches!(done.code, Some(0)), "{name}: {done:?}");
        assert!(
            done.stderr.contains("it is a symbolic link") && done.stderr.contains(name),
            "{name}: {done:?}"
        );
        assert_eq!(
            std::fs::read_to_string(&victim).unwrap(),
            "precious",
            "{name}"
        );
    }
}

#[test]
fn a_data_directory_that_others_may_write_is_refused() {
    let home = Home::new();
    std::fs::create_dir(home.path()).unwrap();
    let mode = |mode| std::fs::set_permissions(home.path(), Permissions::from_mode(mode)).unwrap();
    mode(0o1777);
    let cure = format!("chmod go-w {}", home.path().display());
    for command in [
        &["serve"][..],
        &["up"],
        &["token", "list"],
        &["packages", "install"],
    ] {
        home.run(command).refused(7, &cure);
    }
    home.run(&["run", "-c", "1"]).refused(125, &cure);
    let doctor = home.run(&["doctor"]);
    assert!(
        doctor.code == Some(7) && doctor.stdout.contains(&cure),
        "{doctor:?}"
    );
    // Its file might be anybody's.
    home.configure("");
    home.run(&["serve"]).refused(3, &cure);
    mode(0o755);
    home.run(&["token", "list"]).out();
}

#[test]
fn a_tunnel_key_that_others_may_read_is_refused() {
    let home = Home::new();
    let file = home.working_directory().join("key");
    std::fs::write(&file, "sk-secret\n").unwrap();
    let id = format!("tunnel_{}", "0a".repeat(16));
    for mode in [0o644, 0o640, 0o604] {
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let mut command = home.command(&["serve", "--port", "0", "--tunnel", &id]);
        command.env("CODEX_TUNNEL_KEY_FILE", &file);
        let done = finish(&mut command);
        done.refused(3, "can be read by others");
        done.refused(3, &format!("chmod 600 {}", file.display()));
        assert!(!done.stderr.contains("sk-secret"), "{done:?}");
    }
}
