//! The table of observations.

use super::*;

const URL: &str = "https://x.example";
const HEALTHY: &str = r#"{"status":"healthy","version":"0.1.0","isolation":"full"}"#;

fn reply(status: u16, content_type: &str, body: &str) -> Reached {
    Reached::Reply(Reply {
        status,
        location: None,
        content_type: content_type.to_owned(),
        body: body.to_owned(),
        challenge: String::new(),
    })
}

fn redirect(location: &str) -> Reached {
    Reached::Reply(Reply {
        status: 302,
        location: Some(location.to_owned()),
        ..Reply::default()
    })
}

fn codespaces() -> Platform {
    Platform::Codespaces {
        name: "cs".to_owned(),
        domain: "app.github.dev".to_owned(),
    }
}

fn check(
    platform: Option<&Platform>,
    url: &str,
    probe: Probe,
    reached: &Reached,
    problem: &str,
    cure: &str,
) {
    let target = Target {
        url,
        platform,
        port: 8000,
        access: Access::Token,
    };
    let found =
        diagnose(&target, probe, reached).unwrap_or_else(|| panic!("nothing found in {reached:?}"));
    assert!(
        found.problem.contains(problem),
        "{found:?} lacks {problem:?}"
    );
    assert!(found.cure.contains(cure), "{found:?} lacks {cure:?}");
}

#[test]
fn what_is_as_it_should_be() {
    let check = |access: Access, probe: Probe, reached: &Reached| {
        let target = Target {
            url: URL,
            platform: None,
            port: 8000,
            access,
        };
        assert_eq!(
            diagnose(&target, probe, reached),
            None,
            "{probe:?} {reached:?}"
        );
    };
    let healthy = reply(200, "application/json", HEALTHY);
    for probe in [Probe::Local, Probe::Health, Probe::HealthPlain] {
        check(Access::Token, probe, &healthy);
    }
    let refused = "application/problem+json";
    check(Access::Token, Probe::Execute, &reply(401, refused, "{}"));
    check(Access::Open, Probe::Execute, &reply(400, refused, "{}"));
    check(
        Access::Token,
        Probe::Actions,
        &reply(
            200,
            "application/json",
            r#"{"servers":[{"url":"https://x.example"}]}"#,
        ),
    );
}

#[test]
fn connections_that_fail() {
    let railway = Platform::Railway { domain: None };
    check(
        None,
        URL,
        Probe::Health,
        &Reached::NoName,
        "x.example has no address",
        "DNS record",
    );
    check(
        Some(&railway),
        URL,
        Probe::Health,
        &Reached::NoName,
        "no address",
        "Generate Domain",
    );
    check(
        None,
        URL,
        Probe::Health,
        &Reached::Refused,
        "refuses connections",
        "forward to port 8000",
    );
    check(
        None,
        URL,
        Probe::Health,
        &Reached::Silent,
        "does not answer in time",
        "firewall",
    );
    check(
        None,
        URL,
        Probe::Health,
        &Reached::Tls("expired".into()),
        "expired",
        "public authority",
    );
    check(
        None,
        URL,
        Probe::Health,
        &Reached::Broken("reset".into()),
        "reset",
        "proxy's own log",
    );
    check(
        None,
        URL,
        Probe::Local,
        &Reached::Refused,
        "no codex-server answers on this machine's port 8000",
        "codex-server up",
    );
    check(
        None,
        URL,
        Probe::Local,
        &reply(200, "text/plain", "hello"),
        "no codex-server answers",
        "--port",
    );
}

#[test]
fn redirects() {
    let signin = redirect("https://github.com/codespaces/auth/cs?port=8000");
    check(
        Some(&codespaces()),
        URL,
        Probe::Health,
        &signin,
        "the port is private",
        "gh codespace ports visibility 8000:public -c cs",
    );
    check(
        None,
        URL,
        Probe::Health,
        &redirect("https://sso.example/login"),
        "asks callers to sign in",
        "access control",
    );
    check(
        None,
        "http://x.example",
        Probe::Execute,
        &redirect("https://x.example/execute"),
        "turns POST into GET",
        "--public-url https://x.example",
    );
    check(
        None,
        URL,
        Probe::Health,
        &redirect("https://www.x.example/health"),
        "redirects (302) to https://www.x.example/health",
        "--public-url",
    );
    check(
        None,
        URL,
        Probe::Health,
        &redirect("\u{1b}[31mred"),
        "to [31mred",
        "--public-url",
    );
}

#[test]
fn answers_of_others() {
    let html = "text/html; charset=utf-8";
    check(
        None,
        URL,
        Probe::Health,
        &reply(200, html, "<html>"),
        "a web page answers",
        "port 8000",
    );
    check(
        None,
        URL,
        Probe::HealthPlain,
        &reply(200, html, "<html>"),
        "a warning page",
        "nothing to do for Actions",
    );
    check(
        None,
        URL,
        Probe::Health,
        &reply(200, "application/json", r#"{"status":"ok","version":"2"}"#),
        "another service answers",
        "port 8000",
    );
    check(
        None,
        URL,
        Probe::Health,
        &reply(200, "", ""),
        "another service answers at https://x.example (status 200, no content type)",
        "port 8000",
    );
}

#[test]
fn answers_of_what_stands_before_us() {
    let html = "text/html; charset=utf-8";
    let railway = Platform::Railway { domain: None };
    check(
        None,
        URL,
        Probe::Health,
        &reply(403, "application/problem+json", "{}"),
        "refuses this host name",
        "--public-url https://x.example",
    );
    check(
        Some(&codespaces()),
        URL,
        Probe::Health,
        &reply(401, "", ""),
        "the port is private",
        "8000:public -c cs",
    );
    check(
        Some(&codespaces()),
        URL,
        Probe::Execute,
        &reply(403, html, "<html>"),
        "the port is private",
        "8000:public",
    );
    check(
        Some(&codespaces()),
        URL,
        Probe::Health,
        &reply(404, "", ""),
        "does not forward this port",
        "8000:public",
    );
    check(
        Some(&railway),
        URL,
        Probe::Health,
        &reply(404, "", ""),
        "Railway knows no running service",
        "deployment",
    );
    check(
        None,
        URL,
        Probe::Health,
        &reply(404, "", ""),
        "nothing is found",
        "every path",
    );
    check(
        None,
        URL,
        Probe::Health,
        &reply(404, "application/problem+json", "{}"),
        "not found there",
        "leave the path out",
    );
}

#[test]
fn gateways_and_limits() {
    let fly = Platform::Fly {
        app: "x".to_owned(),
    };
    check(
        None,
        URL,
        Probe::Health,
        &reply(502, "", ""),
        "cannot reach it (502)",
        "127.0.0.1:8000",
    );
    check(
        Some(&fly),
        URL,
        Probe::Health,
        &reply(503, "", ""),
        "cannot reach it (503)",
        "all interfaces",
    );
    check(
        None,
        URL,
        Probe::Health,
        &reply(429, "", ""),
        "limiting calls",
        "wait",
    );
}

#[test]
fn calls_to_execute() {
    check(
        None,
        URL,
        Probe::Execute,
        &reply(405, "", ""),
        "arrived as something else",
        "https address",
    );
    check(
        None,
        URL,
        Probe::Execute,
        &reply(200, "application/json", "{}"),
        "it runs in open mode",
        "without --open",
    );
    check(
        None,
        URL,
        Probe::Execute,
        &reply(400, "application/json", "{}"),
        "it runs in open mode",
        "without --open",
    );
    check(
        None,
        URL,
        Probe::Execute,
        &reply(418, "", ""),
        "another service",
        "--public-url",
    );
    let target = Target {
        url: URL,
        platform: None,
        port: 8000,
        access: Access::Open,
    };
    let found = diagnose(&target, Probe::Execute, &reply(401, "", "{}")).unwrap();
    assert!(found.problem.contains("though the server is open"));
}

#[test]
fn schemas_that_name_another_address() {
    let named = r#"{"servers":[{"url":"http://127.0.0.1:8000"}]}"#;
    check(
        None,
        URL,
        Probe::Actions,
        &reply(200, "application/json", named),
        "names http://127.0.0.1:8000",
        "--public-url https://x.example",
    );
    check(
        None,
        URL,
        Probe::Actions,
        &reply(200, "application/json", "{}"),
        "no action schema",
        "every path",
    );
}

#[test]
fn oauth_of_another_address() {
    let check = |body: &str, expected: Option<&str>| {
        let target = Target {
            url: "https://code.example.com",
            platform: None,
            port: 8000,
            access: Access::Token,
        };
        let reached = reply(200, "application/json", body);
        let found = diagnose(&target, Probe::Resource, &reached);
        let problem = found.map(|found| found.problem);
        let holds = match (&problem, expected) {
            (None, None) => true,
            (Some(problem), Some(expected)) => problem.contains(expected),
            _ => false,
        };
        assert!(holds, "{body}: {problem:?}");
    };
    check(r#"{"resource": "https://code.example.com/mcp"}"#, None);
    for (body, words) in [
        (
            r#"{"resource": "http://127.0.0.1:8000/mcp"}"#,
            "clients of another address",
        ),
        (
            r#"{"resource": "https://code.example.com"}"#,
            "clients of another address",
        ),
        ("{}", "not this server's"),
        ("[1]", "not this server's"),
    ] {
        check(body, Some(words));
    }
    let check = |body: &str, expected: Option<&str>| {
        let reached = reply(200, "application/json", body);
        let found = diagnose(&target(), Probe::Authority, &reached);
        let problem = found.map(|found| found.problem).unwrap_or_default();
        assert_eq!(expected.is_none(), problem.is_empty(), "{body}: {problem}");
        assert!(
            problem.contains(expected.unwrap_or_default()),
            "{body}: {problem}"
        );
    };
    check(r#"{"issuer": "https://code.example.com"}"#, None);
    check(r#"{"issuer": "https://x"}"#, Some("calls itself https://x"));
    check("[]", Some("not this server's"));
}

fn target() -> Target<'static> {
    Target {
        url: "https://code.example.com",
        platform: None,
        port: 8000,
        access: Access::Token,
    }
}

#[test]
fn refusals_that_clients_cannot_sign_in_by() {
    let check = |status: u16, challenge: &str, expected: Option<&str>| {
        let mut reached = reply(status, "application/problem+json", "{}");
        if let Reached::Reply(reply) = &mut reached {
            challenge.clone_into(&mut reply.challenge);
        }
        let found = diagnose(&target(), Probe::Mcp, &reached);
        let problem = found.map(|found| found.problem).unwrap_or_default();
        assert_eq!(
            expected.is_none(),
            problem.is_empty(),
            "{status}: {problem}"
        );
        assert!(
            problem.contains(expected.unwrap_or_default()),
            "{status}: {problem}"
        );
    };
    let whole = "Bearer error=\"invalid_token\", resource_metadata=\"x\"";
    check(401, whole, None);
    check(401, "Bearer", Some("drops WWW-Authenticate"));
    check(
        401,
        "Bearer resource_metadata=\"x\"",
        Some("drops the Authorization"),
    );
    check(200, whole, Some("answered with 200"));
    let tokens = |status: u16, body: &str| {
        let reached = reply(status, "application/json", body);
        diagnose(&target(), Probe::Token, &reached).is_none()
    };
    assert!(tokens(401, r#"{"error": "invalid_client"}"#));
    assert!(!tokens(404, "{}") && !tokens(200, "{}"));
}

#[test]
fn urls_that_chatgpt_cannot_call() {
    let check = |url: &str, expected: Option<&str>| {
        let found = diagnose_url(url).map(|found| found.problem);
        assert_eq!(found.is_some(), expected.is_some(), "{url}: {found:?}");
        assert!(
            expected.is_none_or(|words| found.unwrap().contains(words)),
            "{url}"
        );
    };
    check(URL, None);
    check("https://[2001:db8::1]", None);
    check("http://x.example", Some("plain http"));
    check("https://x.example:8443", Some("names a port"));
    check("https://localhost", Some("cannot reach"));
    check("https://192.168.1.5", Some("cannot reach"));
    check("https://box.local", Some("cannot reach"));
}
