//! Whatever is sent, the answer is a clear refusal or harmless, and the
//! server goes on.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::{Reply, TestServer};

#[test]
fn each_bad_request_names_its_field() {
    let server = TestServer::open(&[]);
    let nested = format!("{{\"code\": {}", "[".repeat(10_000));
    let args: Vec<String> = (0..10_000).map(|at| at.to_string()).collect();
    for (body, field) in [
        (json!({}).to_string(), Some("code")),
        (json!({"code": ""}).to_string(), Some("code")),
        (json!({"code": null}).to_string(), Some("code")),
        (json!({"code": 4}).to_string(), Some("code")),
        (json!({"code": "a\u{0}b"}).to_string(), Some("code")),
        (json!({"code": "x".repeat(2 << 20)}).to_string(), Some("code")),
        (json!({"code": "1", "language": "cobol"}).to_string(), Some("language")),
        (json!({"code": "1", "language": 1}).to_string(), Some("language")),
        (json!({"code": "1", "timeout": 0}).to_string(), Some("timeout")),
        (json!({"code": "1", "timeout": 31}).to_string(), Some("timeout")),
        (json!({"code": "1", "timeout": -1}).to_string(), Some("timeout")),
        (json!({"code": "1", "timeout": "ten"}).to_string(), Some("timeout")),
        (json!({"code": "1", "timeout": true}).to_string(), Some("timeout")),
        (json!({"code": "1", "timeout": 1e308}).to_string(), Some("timeout")),
        (json!({"code": "1", "args": args}).to_string(), Some("args")),
        (json!({"code": " \n"}).to_string(), Some("code")),
        (json!({"code": "1", "language": ""}).to_string(), Some("language")),
        (json!({"code": "1", "timeout": []}).to_string(), Some("timeout")),
        (json!({"code": "1", "timeout": 0.999}).to_string(), Some("timeout")),
        (json!({"code": "1", "timeout": 30.001}).to_string(), Some("timeout")),
        (json!({"code": "1", "memory_mb": 0}).to_string(), Some("memory_mb")),
        (json!({"code": "1", "memory_mb": 1e30}).to_string(), Some("memory_mb")),
        (json!({"code": "1", "args": ["a\u{0}"]}).to_string(), Some("args[0]")),
        (json!({"code": "1", "args": "--verbose"}).to_string(), Some("args")),
        (json!({"code": "1", "stdin": 5}).to_string(), Some("stdin")),
        (json!({"code": "1", "env": {"A=B": "x"}}).to_string(), Some("env.A?B")),
        (json!({"code": "1", "env": {"A": "x\u{0}"}}).to_string(), Some("env.A")),
        (json!({"code": "1", "env": {"A": 1}}).to_string(), Some("env.A")),
        (json!({"code": "1", "env": ["A"]}).to_string(), Some("env")),
        (json!({"code": "1", "files": [{"path": "../x", "content": ""}]}).to_string(), Some("files[0].path")),
        (json!({"code": "1", "files": [{"path": "a/../../x", "content": ""}]}).to_string(), Some("files[0].path")),
        (json!({"code": "1", "files": [{"path": "a//x", "content": ""}]}).to_string(), Some("files[0].path")),
        (json!({"code": "1", "files": [{"path": "a\u{0}", "content": ""}]}).to_string(), Some("files[0].path")),
        (json!({"code": "1", "files": [{"path": "main.py", "content": ""}]}).to_string(), Some("files[0].path")),
        (json!({"code": "1", "files": [{"path": "a", "content": ""}, {"path": "a/b", "content": ""}]}).to_string(), Some("files[1].path")),
        (json!({"code": "1", "files": [{"path": "a", "content": "*", "encoding": "base64"}]}).to_string(), Some("files[0].content")),
        (json!({"code": "1", "files": [{"path": "a"}]}).to_string(), Some("files[0].content")),
        (json!({"code": "1", "files": [{"path": "/etc/x", "content": ""}]}).to_string(), Some("files[0].path")),
        (json!({"code": "1", "files": [{"path": "a", "content": ""}, {"path": "a", "content": ""}]}).to_string(), Some("files[1].path")),
        (r#"{"code": "1", "timeout": NaN}"#.to_owned(), None),
        (r#"{"code": "1", "timeout": 1e309}"#.to_owned(), None),
        (r#"{"code": "1", "timeout": Infinity}"#.to_owned(), None),
        (r#"{"code": "\ud800"}"#.to_owned(), None),
        (r#"{"code": "1", "args": ["\udc00"]}"#.to_owned(), None),
        (r#"{"code": "1", "stdin": "\ud83d-"}"#.to_owned(), None),
        ("{\"code\": ".to_owned(), None),
        (String::new(), None),
        ("[]".to_owned(), None),
        (nested, None),
        (format!("{{\"code\": \"1\", \"other\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000)), None),
        (format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)), None),
    ] {
        let reply = server.execute(&body);
        assert_eq!(reply.status, 400, "{body:.60}");
        let detail = reply.problem(400);
        let named = reply.json();
        let named = named.get("field").and_then(Value::as_str);
        assert_eq!(named, field, "{body:.60}: {detail}");
        assert!(detail.len() < 600, "{detail}");
    }
    for bytes in [
        &b"{\"code\": \"\xff\"}"[..],
        b"{\"code\": \"\xed\xa0\x80\"}",
    ] {
        let reply = server.execute_with(&[], bytes);
        assert!(reply.problem(400).contains("UTF-8"));
    }
    server.still_runs();
}

#[test]
fn invalid_json_is_placed() {
    let server = TestServer::open(&[]);
    let detail = server.execute("{\"code\":\n  nope}").problem(400);
    assert!(detail.contains("line 2, column"), "{detail}");
}

#[test]
fn unknown_fields_are_named() {
    let server = TestServer::start();
    let body = json!({"code": "print(1)", "seed": "s", "stream": true});
    let json = server.execute(&body.to_string()).json();
    assert_eq!(json["output"], "1\n");
    let warnings = json["warnings"].to_string();
    assert!(warnings.contains("`seed`, `stream`"), "{warnings}");
}

#[test]
fn dangerous_variables_reach_the_program_alone() {
    let server = TestServer::start();
    let trap = "import os; os._exit(99)";
    let trap = [
        json!({"path": "trap.py", "content": trap}),
        json!({"path": "sitecustomize.py", "content": trap}),
        json!({"path": "trap.cjs", "content": "process.exit(99)"}),
    ];
    for (language, code, variables) in [
        ("python", "print(2+2)", json!({"PYTHONSTARTUP": "trap.py"})),
        ("python", "print(2+2)", json!({"LD_PRELOAD": "/nope.so"})),
        (
            "python",
            "print(2+2)",
            json!({"LD_LIBRARY_PATH": "/nope", "LD_AUDIT": "/nope.so"}),
        ),
        (
            "python",
            "print(2+2)",
            json!({"PYTHONHASHSEED": "0", "PATH": "/nope", "HOME": "/nope"}),
        ),
        (
            "python",
            "print(2+2)",
            json!({"BASH_ENV": "/nope", "IFS": "4", "LANG": "xx_XX"}),
        ),
        (
            "javascript",
            "console.log(2+2)",
            json!({"LD_PRELOAD": "/nope.so", "NODE_PATH": "/nope"}),
        ),
    ] {
        let body = json!({"code": code, "language": language, "env": variables, "files": trap});
        let reply = server.execute(&body.to_string());
        let json = reply.json();
        assert_eq!(json["output"], "4\n", "{variables}: {json:#}");
        assert_eq!(json["exit_code"], 0, "{variables}: {json:#}");
    }
    // What breaks the interpreter itself breaks this run and no other.
    for (language, variables) in [
        ("python", json!({"PYTHONHOME": "/nope"})),
        ("python", json!({"PYTHONPATH": "."})),
        (
            "javascript",
            json!({"NODE_OPTIONS": "--require ./trap.cjs"}),
        ),
    ] {
        let body = json!({"code": "1", "language": language, "env": variables, "files": trap});
        let json = server.execute(&body.to_string()).json();
        let ended = json["status"].as_str().expect("a status");
        assert!(
            ["success", "error"].contains(&ended),
            "{variables}: {json:#}"
        );
    }
    server.still_runs();
}

#[test]
fn odd_output_is_valid_json() {
    let server = TestServer::start();
    let code = r#"import sys; sys.stdout.buffer.write(b"a\xff\x00\x1b[0m\xed\xa0\x80")"#;
    let reply = server.execute(&json!({ "code": code }).to_string());
    let output = reply.json()["output"]
        .as_str()
        .expect("a string")
        .to_owned();
    assert!(
        output.starts_with("a\u{fffd}\0\u{1b}[0m\u{fffd}"),
        "{output:?}"
    );
}

#[test]
fn wrong_content_types_are_refused() {
    let server = TestServer::start();
    let bearer = server.bearer();
    for headers in [
        &[bearer.as_str()][..],
        &[&bearer, "Content-Type: text/plain"],
        &[&bearer, "Content-Type: application/x-www-form-urlencoded"],
    ] {
        let reply = server.request("POST", "/execute", headers, br#"{"code": "1"}"#);
        assert!(reply.problem(415).contains("application/json"));
    }
}

#[test]
fn a_hundred_megabytes_are_refused_and_the_refusal_arrives() {
    let server = TestServer::start();
    let body = vec![b' '; 100 << 20];
    let reply = server.execute_with(&[], &body);
    assert!(reply.problem(413).contains("10485760 bytes"));

    // Without a length nobody knows beforehand.
    let mut stream = server.connect();
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: localhost\r\n{}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.bearer()
    );
    stream.write_all(head.as_bytes()).expect("write");
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    for _ in 0..20 {
        stream.write_all(&chunk).expect("the server reads on");
    }
    stream.write_all(b"0\r\n\r\n").expect("write");
    Reply::read(&mut stream, false).problem(413);

    // A client that asks first need not send at all.
    let reply = server.request(
        "POST",
        "/execute",
        &[
            &server.bearer(),
            "Content-Type: application/json",
            "Expect: 100-continue",
            "Content-Length: 104857600",
        ],
        b"",
    );
    assert_ne!(reply.status, 200);

    // Nor does a stranger get far.
    let json = "Content-Type: application/json";
    let reply = server.request("POST", "/execute", &[json], &body);
    reply.problem(401);
    server.still_runs();
}

#[test]
fn garbage_does_no_harm() {
    let server = TestServer::start();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut stream = server.connect();
        stream.write_all(garbage).expect("write");
        stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
        if let Ok(reply) = Reply::try_read(&mut stream, false) {
            assert!((400..500).contains(&reply.status), "{garbage:?}: {}", reply.status);
        }
    }
    server.still_runs();
}
