//! `POST /hooks/run`, as Zapier and Make call it: flat in, flat out, and a token
//! among the fields that nobody else gets to see.

use serde_json::{Value, json};

use crate::support::{Reply, TestServer};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const JSON: &str = "Content-Type: application/json";

fn hook(server: &TestServer, headers: &[&str], body: &str) -> Reply {
    server.request("POST", "/hooks/run", headers, body.as_bytes())
}

/// Percent-encodes the fields of a form.
fn form(fields: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in fields {
        let coded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        form += &format!("{name}={coded}&");
    }
    form
}

/// The answer, of which each value is a single one.
#[track_caller]
fn flat(reply: &Reply) -> Value {
    let answer = reply.json();
    for (name, value) in answer.as_object().expect("an object") {
        let single = value.is_string() || value.is_number() || value.is_boolean();
        assert!(single, "{name}: {answer}");
    }
    answer
}

#[test]
fn a_token_may_come_in_a_header_or_among_the_fields() {
    let server = TestServer::start();
    let (bearer, token) = (server.bearer(), server.token.clone());
    let code = "print('ä', 2 + 2)";
    for (headers, body) in [
        (
            vec![JSON, bearer.as_str()],
            json!({ "code": code }).to_string(),
        ),
        (
            vec![JSON],
            json!({ "code": code, "token": token, "timeout": "5" }).to_string(),
        ),
        (vec![FORM, bearer.as_str()], form(&[("code", code)])),
        (
            vec![FORM],
            form(&[
                ("code", code),
                ("token", &token),
                ("timeout", "5"),
                ("stdin", ""),
                ("language", ""),
            ]),
        ),
    ] {
        let reply = hook(&server, &headers, &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answer = flat(&reply);
        assert_eq!(answer["output"], "ä 4\n", "{answer}");
        assert_eq!(answer["success"], true, "{answer}");
        assert_eq!(answer["warnings"], "", "{answer}");
    }
}

#[test]
fn an_answer_is_flat_whatever_comes_of_the_code() {
    let server = TestServer::start();
    let bearer = server.bearer();
    let run = |fields: Value| {
        let reply = hook(&server, &[JSON, &bearer], &fields.to_string());
        assert_eq!(reply.status, 200, "{}", reply.text());
        flat(&reply)
    };
    let failed = run(json!({ "code": "1 / 0", "extra": [1, { "a": 2 }] }));
    assert_eq!(
        (&failed["success"], &failed["status"]),
        (&json!(false), &json!("error"))
    );
    assert!(
        failed["error"]
            .as_str()
            .is_some_and(|text| text.contains("ZeroDivisionError"))
    );
    assert!(
        failed["warnings"]
            .as_str()
            .is_some_and(|text| text.contains("`extra`")),
        "{failed}"
    );
    let script =
        run(json!({ "code": "read x; echo \"$x!\"", "language": "bash", "stdin": "in\n" }));
    assert_eq!(script["output"], "in!\n");
    let left =
        run(json!({ "code": "open('a b.csv', 'w').write('1')\nopen('b.txt', 'w').write('2')" }));
    assert_eq!(left["file_names"], "a b.csv\nb.txt");
    assert_eq!(left["file_count"], 2);
    let links: Vec<&str> = left["files"].as_str().unwrap_or_default().lines().collect();
    assert_eq!(links.len(), 2, "{left}");
    for (link, content) in links.iter().zip(["1", "2"]) {
        let target = link
            .split_once(&server.address.to_string())
            .expect("our address")
            .1;
        assert_eq!(server.get(target).text(), content);
    }
    let slow = run(json!({ "code": "import time; time.sleep(29)", "timeout": 1 }));
    assert_eq!(slow["status"], "timeout", "{slow}");
    assert_eq!(slow["exit_code"], 124);
}

#[test]
fn a_tool_is_answered_before_it_gives_up() {
    let server = TestServer::start();
    let body =
        json!({ "code": "import time; time.sleep(29)", "timeout": 30, "token": server.token });
    let begun = std::time::Instant::now();
    let answer = flat(&hook(&server, &[JSON], &body.to_string()));
    assert!(begun.elapsed().as_secs_f64() < 25.0);
    assert_eq!(answer["status"], "timeout");
    let warned = answer["warnings"].as_str().unwrap_or_default();
    assert!(
        warned.contains("a no-code tool must be answered within 25 s"),
        "{answer}"
    );
}

#[test]
fn whoever_has_no_token_is_refused_in_every_mode() {
    let tokens = TestServer::start();
    let open = TestServer::open(&[]);
    for server in [&tokens, &open] {
        let check = |headers: &[&str], body: &str, status: u16, part: &str| {
            let reply = hook(server, headers, body);
            assert_eq!(reply.status, status, "{body}: {}", reply.text());
            let problem = flat(&reply);
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(part), "{body}: {problem}");
            assert!(!reply.text().contains("codex_wrong"), "{problem}");
        };
        let code = r#"{"code": "print(1)"}"#;
        check(&[JSON], code, 401, "in the field `token`");
        check(
            &[JSON],
            r#"{"code": "1", "token": ""}"#,
            401,
            "in the field `token`",
        );
        check(
            &[JSON],
            r#"{"code": "1", "token": "codex_wrong"}"#,
            401,
            "Unauthorized",
        );
        check(
            &[JSON],
            r#"{"code": "1", "token": {"codex_wrong": 1}}"#,
            400,
            "`token`",
        );
        check(
            &[FORM],
            "code=1&token=codex_wrong&token=codex_wrong",
            400,
            "`token` comes more than once",
        );
        check(
            &[JSON, "Authorization: Bearer codex_wrong"],
            code,
            401,
            "Unauthorized",
        );
        // The header counts, whatever the body says.
        let good = json!({ "code": "1", "token": server.token }).to_string();
        check(
            &[JSON, "Authorization: Bearer codex_wrong"],
            &good,
            401,
            "Unauthorized",
        );
        check(&["Content-Type: text/plain"], code, 415, "Content-Type");
        check(
            &["Content-Type: multipart/form-data; boundary=x"],
            code,
            415,
            "Content-Type",
        );
        check(&[], code, 415, "Content-Type");
        let large = format!(r#"{{"code": "{}"}}"#, "x".repeat(5 << 20));
        check(&[JSON], &large, 413, "larger than");
        assert_eq!(
            server
                .request("GET", "/hooks/run", &[&server.bearer()], b"")
                .status,
            405
        );
        let reply = hook(
            server,
            &[FORM, "Origin: https://evil.example"],
            &format!("code=print(1)&token={}", server.token),
        );
        assert_eq!(reply.status, 200, "a page that knows a token was given it");
    }
}

#[test]
fn wrong_tokens_count_and_a_rate_holds() {
    let server = TestServer::with(&[("CODEX_RATE_LIMIT", "3/hour")]);
    let call = |token: &str| {
        hook(
            &server,
            &[JSON],
            &json!({ "code": "1", "token": token }).to_string(),
        )
    };
    let codes: Vec<u16> = (0..5).map(|_| call(&server.token).status).collect();
    assert_eq!(codes, [200, 200, 200, 429, 429]);
    let refused = call(&server.token);
    assert!(
        refused.header("ratelimit-policy").is_some(),
        "{:?}",
        refused.headers
    );
    assert!(refused.header("retry-after").is_some());
    let wrong: Vec<u16> = (0..40).map(|_| call("codex_wrong").status).collect();
    assert_eq!(wrong.first(), Some(&401));
    assert_eq!(wrong.last(), Some(&429), "{wrong:?}");
}

#[test]
fn no_log_and_no_page_shows_a_token_from_a_body() {
    let server = TestServer::with(&[("CODEX_LOG_FORMAT", "json"), ("CODEX_LOG_LEVEL", "trace")]);
    let token = server.token.clone();
    let good = form(&[
        ("code", "print(input())"),
        ("token", &token),
        ("stdin", "x"),
    ]);
    assert_eq!(hook(&server, &[FORM], &good).status, 200);
    for bad in [
        json!({ "code": 7, "token": token }).to_string(),
        json!({ "code": "1", "timeout": token, "token": token }).to_string(),
        format!("{{\"code\": \"1\", \"token\": \"{token}\", }}"),
        json!({ "code": "1", "token": [token] }).to_string(),
    ] {
        let reply = hook(&server, &[JSON], &bad);
        assert_eq!(reply.status, 400, "{}", reply.text());
        let tells = reply.text().contains(&token);
        assert!(!tells || bad.contains("timeout"), "{}", reply.text());
    }
    let line = server.log_line(&["/hooks/run", "200"]);
    assert!(line.contains("\"key\""), "{line}");
    assert!(!server.log().contains(&token));
}
