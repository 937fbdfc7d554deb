//! The seed of the API: its three routes, their statuses and their headers.

use crate::support::TestServer;

#[test]
fn the_first_commands_work_unchanged() {
    let server = TestServer::start();
    let health = server.get("/health");
    assert_eq!(health.status, 200);
    let health = health.json();
    assert_eq!(health["status"], "healthy");
    assert!(
        ["full", "namespaces", "uids"].contains(&health["isolation"].as_str().expect("a word"))
    );

    let reply = server.execute(r#"{"code": "print(2+2)", "language": "python"}"#);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    assert_eq!(json["output"], "4\n");
    assert_eq!(json["error"], "");
    assert_eq!(json["exit_code"], 0);
    assert!(json["execution_time"].as_f64().expect("a number") > 0.0);
    let timestamp = json["timestamp"].as_str().expect("a string");
    assert!(
        timestamp.starts_with("20") && timestamp.ends_with('Z'),
        "{timestamp}"
    );
    assert_eq!(json["status"], "success");
    assert_eq!(json["truncated"], false);
    assert_eq!(json["isolation"], health["isolation"]);

    let reply = server.execute(r#"{"code": "console.log(2 + 2)", "language": "javascript"}"#);
    assert_eq!(reply.json()["output"], "4\n");
    let reply = server.execute(r#"{"code": "echo $((2 + 2))", "language": "bash"}"#);
    assert_eq!(reply.json()["output"], "4\n");
    let reply = server.execute(r#"{"code": "print('Hello World')"}"#);
    assert_eq!(reply.json()["output"], "Hello World\n");
}

#[test]
fn denied_calls_are_named_where_that_was_asked_for() {
    let server = TestServer::start();
    let code = "import os\ntry: os.chroot('.')\nexcept PermissionError: print('refused')";
    let execute = |explain: bool| {
        let body = serde_json::json!({"code": code, "explain": explain});
        server.execute(&body.to_string()).json()
    };
    let json = execute(true);
    assert_eq!(json["output"], "refused\n");
    let calls = json["denied_calls"].as_array().expect("a list");
    let call = calls.iter().find(|call| call["name"] == "chroot");
    let call = call.unwrap_or_else(|| panic!("no chroot in {json:#}"));
    assert_eq!(
        (&call["count"], &call["errno"]),
        (&1.into(), &"EPERM".into())
    );
    assert!(call["reason"].as_str().expect("words").contains("root"));
    let json = execute(false);
    assert_eq!(json["output"], "refused\n");
    assert!(json.get("denied_calls").is_none(), "{json:#}");
}

#[test]
fn the_languages_are_listed() {
    let server = TestServer::start();
    let json = server.get("/languages").json();
    let languages = json["languages"].as_array().expect("a list");
    assert_eq!(languages[0]["name"], "python");
    for language in languages {
        assert!(language["version"].is_string());
        assert!(language["available"].is_boolean());
        assert!(language["aliases"].is_array());
    }
}

/// A version that nobody has yet: what it says is what this machine's says, but
/// for the number.
#[test]
fn versions_are_languages_of_their_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = tempfile::tempdir().expect("a scratch directory");
    let file = place.path().join("python3.98");
    let text = "#!/bin/sh\n/usr/bin/python3 \"$@\" | /bin/sed 's/^version=.*/version=3.98.2/'\n";
    std::fs::write(&file, text).expect("a script");
    for path in [place.path(), &file] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let path = format!("/usr/bin:/bin:{}", place.path().display());
    let server = TestServer::with(&[("CODEX_SEARCH_PATH", &path)]);
    let json = server.get("/languages").json();
    let languages = json["languages"].as_array().expect("a list");
    let version = languages.iter().find(|one| one["name"] == "python3.98");
    let version = version.expect("the version is listed");
    assert_eq!(version["title"], "Python 3.98");
    assert_eq!(version["version"], "3.98.2");
    assert_eq!(version["aliases"], serde_json::json!(["py3.98"]));
    let packages = &version["packages"];
    assert_eq!(packages["installed"], serde_json::json!([]));
    let told = packages["message"].as_str().unwrap_or_default();
    assert!(told.contains("send the language `python`"), "{told}");

    let run = |language: &str| {
        let body = serde_json::json!({"code": "print(6 * 7)", "language": language});
        server.execute(&body.to_string()).json()
    };
    let answer = run("py3.98");
    assert_eq!(
        [&answer["output"], &answer["language"], &answer["version"]],
        ["42\n", "python3.98", "3.98.2"]
    );
    let refused = run("python3.97").to_string();
    for part in ["Python 3.97 is not on this server", "python3.98"] {
        assert!(refused.contains(part), "{refused}");
    }
    let schema = server.get("/openapi.json").text();
    assert!(schema.contains("\"python3.98\""), "the schema is silent");
}

#[test]
fn a_failing_program_is_a_good_answer() {
    let server = TestServer::start();
    for (code, status, exit_code) in [
        ("import sys; sys.exit(3)", "error", 3),
        ("this is not python", "error", 1),
        ("import time; time.sleep(9)", "timeout", 124),
    ] {
        let body = serde_json::json!({"code": code, "timeout": 1}).to_string();
        let reply = server.execute(&body);
        assert_eq!(reply.status, 200);
        let json = reply.json();
        assert_eq!(json["status"], status, "{code}");
        assert_eq!(json["exit_code"], exit_code, "{code}");
    }
}

#[test]
fn a_token_is_needed_for_all_but_the_open_pages() {
    let server = TestServer::start();
    let json = "Content-Type: application/json";
    let body = br#"{"code": "print(1)"}"#;
    let expected = "Unauthorized. Include 'Authorization: Bearer YOUR_TOKEN' header";
    for headers in [
        &[json][..],
        &[json, "Authorization: Bearer codex_wrong"],
        &[json, "Authorization: Basic Y29kZXg6eA=="],
        &[json, "Authorization: Bearer"],
    ] {
        let reply = server.request("POST", "/execute", headers, body);
        assert_eq!(reply.problem(401), expected);
        let challenge = reply.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Bearer"), "{challenge}");
    }
    assert_eq!(server.get("/nope").problem(401), expected);
    for path in [
        "/",
        "/health",
        "/languages",
        "/privacy",
        "/openapi.json",
        "/openapi.yaml",
        "/actions/openapi.json",
        "/actions/openapi.yaml",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn wrong_tokens_run_out() {
    let server = TestServer::start();
    let wrong = ["Authorization: Bearer codex_wrong"];
    let statuses: Vec<u16> = (0..25)
        .map(|_| server.request("GET", "/execute", &wrong, b"").status)
        .collect();
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses[24], 429);
    let reply = server.request("GET", "/execute", &wrong, b"");
    assert!(reply.problem(429).contains("wrong tokens"));
    assert!(reply.header("retry-after").is_some());
    let reply = server.execute(r#"{"code": "print(1)"}"#);
    assert_eq!(
        reply.status, 200,
        "a good token behind the same address still works"
    );
}

#[test]
fn methods_and_addresses_that_do_not_exist() {
    let (server, open) = (TestServer::start(), TestServer::open(&[]));
    let bearer = server.bearer();
    for (method, path, status, allow) in [
        ("GET", "/execute", 405, Some("POST")),
        ("PUT", "/execute", 405, Some("POST")),
        ("OPTIONS", "/execute", 405, Some("POST")),
        ("POST", "/health", 405, Some("GET,HEAD")),
        ("DELETE", "/languages", 405, Some("GET,HEAD")),
        ("TRACE", "/health", 405, Some("GET,HEAD")),
        ("GET", "/nope", 404, None),
        ("GET", "/health/", 404, None),
        ("POST", "/execute/../health", 404, None),
        ("GET", "/docs/other", 404, None),
        ("GET", "/.well-known/none", 404, None),
    ] {
        for server in [&server, &open] {
            let reply = server.request(method, path, &[&bearer], b"");
            reply.problem(status);
            assert_eq!(reply.header("allow"), allow, "{method} {path}");
        }
    }
}

#[test]
fn head_is_get_without_a_body() {
    let server = TestServer::start();
    for path in ["/", "/health", "/languages", "/openapi.json", "/privacy"] {
        let (head, get) = (server.request("HEAD", path, &[], b""), server.get(path));
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!(
            head.header("content-length"),
            get.header("content-length"),
            "{path}"
        );
    }
    assert_eq!(
        server
            .request("HEAD", "/execute", &[&server.bearer()], b"")
            .status,
        405
    );
}

#[test]
fn every_answer_carries_its_id_and_the_security_headers() {
    let server = TestServer::start();
    for path in ["/", "/health", "/nope", "/privacy", "/openapi.yaml"] {
        let reply = server.get(path);
        assert_eq!(
            reply.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(reply.header("access-control-allow-origin").is_none());
        assert!(
            reply
                .header("x-request-id")
                .is_some_and(|id| id.len() == 36)
        );
    }
    let reply = server.request("GET", "/health", &["X-Request-Id: mine-1.2_3"], b"");
    assert_eq!(reply.header("x-request-id"), Some("mine-1.2_3"));
    let reply = server.request("GET", "/health", &["X-Request-Id: not mine"], b"");
    assert_ne!(reply.header("x-request-id"), Some("not mine"));
}

#[test]
fn pages_need_nothing_from_elsewhere() {
    let server = TestServer::start();
    for path in ["/", "/privacy"] {
        let reply = server.get(path);
        assert_eq!(
            reply.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let html = reply.text();
        assert!(!html.contains("{{"), "{path}");
        for loaded in ["<script", "src=", "<link", "@import", "url("] {
            assert!(!html.contains(loaded), "{path} loads by {loaded}");
        }
    }
    let index = server.get("/").text();
    let here = format!("http://{}/actions/openapi.json", server.address);
    assert!(index.contains(&here), "{index}");
    assert!(
        index.contains("YOUR_TOKEN") && index.contains("Python"),
        "{index}"
    );
    assert!(server.get("/privacy").text().contains("at most one hour"));
    let open = TestServer::open(&[("CODEX_MAX_ARTIFACTS", "0")]);
    assert!(!open.get("/").text().contains("YOUR_TOKEN"));
    assert!(open.get("/privacy").text().contains("keeps no files"));
    // Relative, so that they work behind a proxy that adds a path.
    for link in [
        "docs",
        "health",
        "languages",
        "privacy",
        "openapi.json",
        "actions/openapi.json",
    ] {
        assert!(index.contains(&format!("href=\"{link}\"")), "{link}");
        assert_eq!(server.get(&format!("/{link}")).status, 200, "{link}");
    }
}

#[test]
fn the_documentation_is_served_whole() {
    let server = TestServer::start();
    let page = server.get("/docs");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.contains("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    assert!(policy.contains("connect-src 'self';"), "{policy}");
    for (path, kind, encoding) in [
        (
            "/docs/viewer.js?v=1",
            "text/javascript; charset=utf-8",
            Some("gzip"),
        ),
        ("/docs/viewer.css", "text/css; charset=utf-8", Some("gzip")),
        ("/docs/start.js", "text/javascript; charset=utf-8", None),
        ("/docs/licenses.txt", "text/plain; charset=utf-8", None),
    ] {
        let reply = server.get(path);
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-type"), Some(kind), "{path}");
        assert_eq!(reply.header("content-encoding"), encoding, "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(
            reply
                .header("cache-control")
                .is_some_and(|cache| cache.contains("max-age"))
        );
    }
    server.get("/docs/other.js").problem(401);
}

#[test]
fn the_rate_limit_is_told_and_held() {
    let settings = [
        ("CODEX_OPEN", "true"),
        ("CODEX_RATE_LIMIT", "3/minute"),
        ("CODEX_RATE_BURST", "3"),
    ];
    let server = TestServer::with(&settings);
    let bad = r#"{"code": ""}"#;
    let replies: Vec<_> = (0..4).map(|_| server.execute(bad)).collect();
    replies[0].problem(400);
    assert_eq!(replies[0].header("ratelimit-limit"), Some("3"));
    assert_eq!(replies[0].header("ratelimit-remaining"), Some("2"));
    assert_eq!(
        replies[0].header("ratelimit-policy"),
        Some("\"default\";q=3;w=60")
    );
    assert!(replies[0].header("ratelimit-reset").is_some());
    let last = &replies[3];
    assert!(
        last.problem(429).contains("--rate-limit"),
        "{}",
        last.text()
    );
    assert_eq!(last.header("ratelimit-remaining"), Some("0"));
    let wait: u64 = last
        .header("retry-after")
        .expect("a wait")
        .parse()
        .expect("seconds");
    assert!((1..=20).contains(&wait), "{wait}");
    assert!(
        last.header("ratelimit")
            .is_some_and(|now| now.starts_with("\"default\";r=0;t="))
    );
    server.still_answers();
    assert!(server.get("/health").header("ratelimit-limit").is_none());
}

#[test]
fn the_log_has_a_line_a_request_and_no_secret() {
    let server = TestServer::start();
    let agent = format!("User-Agent: probe/1 {}\tend", "x".repeat(300));
    let reply = server.request(
        "POST",
        "/execute?secret=query-word",
        &[&server.bearer(), "Content-Type: application/json", &agent],
        br#"{"code": "print('code' + '-word')"}"#,
    );
    assert_eq!(reply.json()["output"], "code-word\n");
    let id = reply.header("x-request-id").expect("an id").to_owned();
    let line = server.log_line(&[&id, "access"]);
    for word in ["POST", "/execute", "200", "test", "success", "probe/1"] {
        assert!(line.contains(word), "{word} is not in {line}");
    }
    assert!(!line.contains(&"x".repeat(201)), "the user agent is cut");
    server.get("/health?secret=query-word");
    server.request(
        "GET",
        "/path-word",
        &["Authorization: Bearer codex_wrong"],
        b"",
    );
    server.log_line(&["GET", "401", "access"]);
    let log = server.log();
    for secret in [
        server.token.as_str(),
        "query-word",
        "-word'",
        "path-word",
        "codex_wrong",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
