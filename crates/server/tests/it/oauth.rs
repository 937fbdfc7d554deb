//! OAuth as clients and browsers go through it, with a real server.

use serde_json::{Value, json};

use crate::support::{Reply, TestServer};

/// Of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://127.0.0.1:33418/callback";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

/// A client that registered itself, and goes by the metadata.
struct Client<'a> {
    server: &'a TestServer,
    id: String,
    redirect: String,
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let part = |text: &str| -> String {
        let escape = |byte: u8| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        };
        text.bytes().map(escape).collect()
    };
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", part(name), part(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn post(server: &TestServer, path: &str, pairs: &[(&str, &str)]) -> Reply {
    server.request("POST", path, &[FORM], encoded(pairs).as_bytes())
}

fn register(server: &TestServer, redirect: &str) -> Reply {
    let body = json!({"redirect_uris": [redirect], "client_name": "Test\u{202e}er", "token_endpoint_auth_method": "none"});
    let kind = "Content-Type: application/json";
    server.request(
        "POST",
        "/oauth/register",
        &[kind],
        body.to_string().as_bytes(),
    )
}

/// Standard Base64, of which the crates under test have a library and this has none.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut bits = 0_usize;
        for at in 0..3 {
            bits = bits << 8 | usize::from(three.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let letter = LETTERS[bits >> (18 - 6 * at) & 63];
            text.push(if at <= three.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

/// The value of a parameter in the address of an answer.
fn answered(location: &str, name: &str) -> Option<String> {
    let (_, query) = location.split_once('?')?;
    let pair = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
    Some(pair.replace("%3A", ":").replace("%2F", "/"))
}

impl<'a> Client<'a> {
    fn of(server: &'a TestServer, redirect: &str) -> Self {
        let reply = register(server, redirect);
        assert_eq!(reply.status, 201, "{}", reply.text());
        let told = reply.json();
        assert_eq!(told["client_name"], "Tester", "{told}");
        assert_eq!(told.get("client_secret"), None);
        Self {
            server,
            id: told["client_id"].as_str().expect("an id").to_owned(),
            redirect: redirect.to_owned(),
        }
    }

    fn query(&self, more: &[(&str, &str)]) -> String {
        let mut pairs = vec![
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect),
            ("state", "a b&c"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        pairs.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        pairs.extend(more);
        encoded(&pairs)
    }

    /// Lets a person agree with a token, and returns where the browser goes.
    fn agree(&self, token: &str, host: &str) -> Reply {
        let query = self.query(&[]);
        let page = self.server.get(&format!("/oauth/authorize?{query}"));
        assert_eq!(page.status, 200, "{}", page.text());
        let form = [
            ("query", query.as_str()),
            ("answer", self.redirect.as_str()),
            ("token", token),
            ("host", host),
            ("decision", "allow"),
        ];
        post(self.server, "/oauth/authorize", &form)
    }

    fn code(&self, token: &str) -> String {
        let reply = self.agree(token, "");
        assert_eq!(reply.status, 303, "{}", reply.text());
        let location = reply.header("location").expect("an address").to_owned();
        assert!(location.starts_with(&self.redirect), "{location}");
        assert_eq!(answered(&location, "state").as_deref(), Some("a+b%26c"));
        let issuer = format!("http://{}", self.server.address);
        assert_eq!(answered(&location, "iss"), Some(issuer));
        answered(&location, "code").expect("a code")
    }

    fn exchange(&self, code: &str) -> Reply {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", &self.redirect),
            ("client_id", &self.id),
        ];
        post(self.server, "/oauth/token", &form)
    }

    fn refresh(&self, token: &str) -> Reply {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", &self.id),
        ];
        post(self.server, "/oauth/token", &form)
    }
}

/// Lists the tools with an access token.
fn list(server: &TestServer, token: &str) -> Reply {
    let bearer = format!("Authorization: Bearer {token}");
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
    }});
    let headers = [
        bearer.as_str(),
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
    ];
    let request = server.bytes("POST", "/mcp", &headers, message.to_string().as_bytes());
    let mut stream = server.connect();
    std::io::Write::write_all(&mut stream, &request).expect("write");
    Reply::read(&mut stream, false)
}

fn tokens(reply: &Reply) -> (String, String) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let told = reply.json();
    assert_eq!(told["token_type"], "Bearer");
    let text = |name: &str| told[name].as_str().expect("a text").to_owned();
    (text("access_token"), text("refresh_token"))
}

#[test]
fn a_client_goes_from_the_challenge_to_a_call_and_back() {
    let server = TestServer::start();
    let base = format!("http://{}", server.address);
    let refused = list(&server, "codex_wrong");
    assert_eq!(refused.status, 401);
    let challenge = refused
        .header("www-authenticate")
        .expect("a challenge")
        .to_owned();
    for words in [
        "invalid_token",
        &format!("{base}/.well-known/oauth-protected-resource/mcp"),
        "execute",
    ] {
        assert!(challenge.contains(words), "{challenge}");
    }
    for path in ["", "/mcp"] {
        let resource = server.get(&format!("/.well-known/oauth-protected-resource{path}"));
        assert_eq!(resource.header("access-control-allow-origin"), Some("*"));
        assert_eq!(resource.json()["resource"], format!("{base}/mcp"));
        let metadata = server
            .get(&format!("/.well-known/oauth-authorization-server{path}"))
            .json();
        assert_eq!(metadata["issuer"], base);
        assert_eq!(metadata["token_endpoint"], format!("{base}/oauth/token"));
    }
    let client = Client::of(&server, REDIRECT);
    let code = client.code(&server.token);
    let (access, refresh) = tokens(&client.exchange(&code));
    assert_eq!(list(&server, &access).status, 200);
    // It opens nothing else, and a refresh token nothing at all.
    let bearer = format!("Authorization: Bearer {access}");
    assert_eq!(
        server.request("GET", "/metrics", &[&bearer], b"").status,
        401
    );
    assert_eq!(list(&server, &refresh).status, 401);
    let (next, second) = tokens(&client.refresh(&refresh));
    let (repeat, same) = tokens(&client.refresh(&refresh));
    assert_eq!(
        (second == same, next == repeat),
        (true, false),
        "one chain, within the grace"
    );
    for token in [&access, &next, &repeat] {
        assert_eq!(list(&server, token).status, 200);
    }
    let (_, listed) = server.beside(&["token", "list"]);
    assert!(
        listed.contains("127.0.0.1") && listed.contains("GRANT"),
        "{listed}"
    );
    let form = [("token", second.as_str()), ("client_id", &client.id)];
    assert_eq!(post(&server, "/oauth/revoke", &form).status, 200);
    assert_eq!(list(&server, &next).status, 401);
    let told = client.refresh(&second).json();
    assert_eq!(told["error"], "invalid_grant");
    // Nothing that was handed out is kept as it was.
    let mut kept = Vec::new();
    for name in ["state.db", "state.db-wal"] {
        kept.extend(std::fs::read(server.home().join(name)).unwrap_or_default());
    }
    for secret in [
        &server.token,
        &code,
        &access,
        &refresh,
        &next,
        &second,
        &repeat,
    ] {
        let found = kept
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "a secret is in the database");
    }
    let log = server.log();
    for secret in [&server.token, &code, &access, &refresh, &next, &second] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn what_is_shown_twice_or_by_another_ends_or_gains_nothing() {
    let server = TestServer::start();
    let (client, other) = (Client::of(&server, REDIRECT), Client::of(&server, REDIRECT));
    let code = client.code(&server.token);
    let foreign = Client {
        id: other.id.clone(),
        redirect: REDIRECT.to_owned(),
        server: &server,
    };
    assert_eq!(foreign.exchange(&code).json()["error"], "invalid_grant");
    let (access, refresh) = tokens(&client.exchange(&code));
    assert_eq!(foreign.refresh(&refresh).json()["error"], "invalid_grant");
    let form = [("token", access.as_str()), ("client_id", &other.id)];
    assert_eq!(post(&server, "/oauth/revoke", &form).status, 200);
    assert_eq!(
        list(&server, &access).status,
        200,
        "another's word ends nothing"
    );
    assert_eq!(client.exchange(&code).json()["error"], "invalid_grant");
    assert_eq!(
        list(&server, &access).status,
        401,
        "a code that is replayed ends all"
    );
    let unknown = Client {
        id: "codex_cl_none".to_owned(),
        redirect: REDIRECT.to_owned(),
        server: &server,
    };
    let reply = unknown.exchange(&code);
    assert_eq!(
        (reply.status, &reply.json()["error"]),
        (401, &json!("invalid_client"))
    );
    // A grant ends with the token that it was given from.
    let lent = server.another_token("lent");
    let (access, _) = tokens(&client.exchange(&client.code(&lent)));
    assert_eq!(list(&server, &access).status, 200);
    server.beside(&["token", "revoke", "lent"]);
    assert_eq!(list(&server, &access).status, 401);
}

#[test]
fn a_token_is_for_the_address_that_it_was_asked_for() {
    let server = TestServer::start();
    let client = Client::of(&server, REDIRECT);
    let (access, _) = tokens(&client.exchange(&client.code(&server.token)));
    assert_eq!(list(&server, &access).status, 200);
    // The same server, at another port.
    let server = server.crash_and_restart(&[]);
    assert_eq!(list(&server, &access).status, 401);
    assert_eq!(list(&server, &server.token).status, 200);
}

#[test]
fn people_are_shown_the_host_and_asked_for_their_token() {
    let server = TestServer::start();
    let stranger = Client::of(&server, "https://auth.evil.example/cb");
    let page = server.get(&format!("/oauth/authorize?{}", stranger.query(&[])));
    let text = page.text();
    for words in [
        "<h1>auth.evil.example</h1>",
        "It calls itself &ldquo;<bdi>Tester</bdi>&rdquo;",
        "name=\"host\"",
        "type=\"password\"",
    ] {
        assert!(text.contains(words), "lacks {words}: {text}");
    }
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("form-action 'self';"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"));
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    // The host has to be typed, and the token be good.
    let untyped = stranger.agree(&server.token, "");
    assert_eq!(untyped.status, 200);
    assert!(untyped.text().contains("in the second field, exactly so"));
    let wrong = stranger.agree("codex_wrong", "auth.evil.example");
    assert!(wrong.status == 200 && wrong.text().contains("no valid token of this server"));
    assert!(!wrong.text().contains("codex_wrong"));
    // By a page: what its own server answers with may lead to yet another place.
    let good = stranger.agree(&server.token, "auth.evil.example");
    let text = good.text();
    assert_eq!(
        (good.status, good.header("location")),
        (200, None),
        "{text}"
    );
    assert_eq!(good.header("referrer-policy"), Some("no-referrer"));
    let onward = "content=\"0;url=https://auth.evil.example/cb?code=codex_";
    assert!(
        text.contains(onward) && text.contains("<a href=\"https://auth.evil"),
        "{text}"
    );
    // Of an app its scheme.
    let app = Client::of(&server, "cursor://anysphere.cursor-mcp/callback");
    let untyped = app.agree(&server.token, "cursor.com");
    assert!(untyped.status == 200 && untyped.text().contains("does not know cursor:."));
    assert!(
        app.agree(&server.token, "cursor:")
            .text()
            .contains("0;url=cursor://")
    );
    // What was shown is what is agreed to.
    let query = stranger.query(&[]);
    let form = [
        ("query", query.as_str()),
        ("answer", "https://other.example/cb"),
        ("token", &server.token),
        ("host", "auth.evil.example"),
        ("decision", "allow"),
    ];
    let changed = post(&server, "/oauth/authorize", &form);
    assert!(
        changed.status == 200 && changed.text().contains("has changed"),
        "{}",
        changed.text()
    );
}

#[test]
fn who_says_no_sends_nobody_to_unknown_places() {
    let server = TestServer::start();
    let stranger = Client::of(&server, "https://auth.evil.example/cb");
    let query = stranger.query(&[]);
    let form = [("query", query.as_str()), ("decision", "deny")];
    let denied = post(&server, "/oauth/authorize", &form);
    assert_eq!((denied.status, denied.header("location")), (400, None));
    assert!(
        denied.text().contains("error=access_denied"),
        "{}",
        denied.text()
    );
    let app = Client::of(&server, "evil.app:/cb");
    let query = app.query(&[("prompt", "none")]);
    let reply = server.get(&format!("/oauth/authorize?{query}"));
    let text = reply.text();
    assert!(
        reply.status == 400 && !text.contains("href"),
        "no link starts an app: {text}"
    );
    let known = Client::of(&server, REDIRECT);
    let page = server.get(&format!("/oauth/authorize?{}", known.query(&[])));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.contains("form-action 'self' http://127.0.0.1:33418 https:;"),
        "{policy}"
    );
    assert!(
        page.text().contains("a program on the device"),
        "{}",
        page.text()
    );
    assert_eq!(
        page.header("cross-origin-opener-policy"),
        None,
        "clients wait for their window"
    );
    let query = known.query(&[]);
    let form = [("query", query.as_str()), ("decision", "deny")];
    let denied = post(&server, "/oauth/authorize", &form);
    let location = denied.header("location").expect("back to the client");
    assert!(
        denied.status == 303 && location.contains("error=access_denied"),
        "{location}"
    );
    // Nothing on the page makes browsers send `Origin: null`, which is refused.
    let text = page.text();
    assert!(text.contains("content=\"same-origin\"") && !text.contains("no-referrer"));
    let hidden = ["Origin: null", FORM];
    let reply = server.request("POST", "/oauth/authorize", &hidden, b"decision=allow");
    assert_eq!(reply.status, 403);
    let foreign = ["Origin: https://evil.example", FORM];
    let reply = server.request("POST", "/oauth/authorize", &foreign, b"decision=allow");
    assert_eq!(reply.status, 403);
}

#[test]
fn bad_requests_go_nowhere() {
    let server = TestServer::start();
    let client = Client::of(&server, REDIRECT);
    let ask = |query: &str| server.get(&format!("/oauth/authorize?{query}"));
    for more in [
        [("client_id", "codex_cl_none")],
        [("client_id", "https://127.0.0.1/doc")],
        [("redirect_uri", "https://evil.example/cb")],
        [("redirect_uri", "http://127.0.0.1:80@evil.example/callback")],
    ] {
        let reply = ask(&client.query(&more));
        assert_eq!(
            (reply.status, reply.header("location")),
            (400, None),
            "{more:?}"
        );
    }
    let twice = format!("{}&state=x", client.query(&[]));
    assert_eq!(ask(&twice).status, 400);
    for (more, code) in [
        (("code_challenge_method", "plain"), "invalid_request"),
        (("resource", "https://evil.example/mcp"), "invalid_target"),
        (("response_type", "token"), "unsupported_response_type"),
        (("prompt", "none"), "login_required"),
    ] {
        let reply = ask(&client.query(&[more]));
        let location = reply.header("location").expect("back to the client");
        assert_eq!(answered(location, "error").as_deref(), Some(code));
        assert!(answered(location, "iss").is_some() && location.contains("state="));
    }
    for redirect in [
        "javascript:alert(1)",
        "http://evil.example/",
        "https://u@x.example/",
    ] {
        let reply = register(&server, redirect);
        assert_eq!(
            (reply.status, &reply.json()["error"]),
            (400, &json!("invalid_redirect_uri"))
        );
    }
    let json = ["Content-Type: application/json"];
    let reply = server.request("POST", "/oauth/token", &json, b"{}");
    assert_eq!(
        (reply.status, &reply.json()["error"]),
        (400, &json!("invalid_request"))
    );
    // A browser's client may ask from its own page.
    let foreign = ["Origin: https://app.example", FORM];
    let reply = server.request(
        "POST",
        "/oauth/token",
        &foreign,
        b"grant_type=x&client_id=y",
    );
    assert_eq!(
        (reply.status, reply.header("access-control-allow-origin")),
        (401, Some("*"))
    );
    let reply = server.request("OPTIONS", "/oauth/token", &foreign[..1], b"");
    assert_eq!(
        (reply.status, reply.header("access-control-allow-origin")),
        (204, Some("*"))
    );
    // Tokens are given so often, and no more.
    let (mut refresh, mut told) = (tokens(&client.exchange(&client.code(&server.token))).1, 200);
    for _ in 0..70 {
        let reply = client.refresh(&refresh);
        told = reply.status;
        if told != 200 {
            assert!(reply.header("retry-after").is_some(), "{}", reply.text());
            break;
        }
        refresh = tokens(&reply).1;
    }
    assert_eq!(told, 429);
    // A flood is slowed down, never with a code on which clients throw away what they have.
    let last = (0..40)
        .map(|_| register(&server, REDIRECT))
        .find(|reply| reply.status != 201);
    let last = last.expect("a bound");
    assert_eq!(last.status, 429);
    assert!(last.header("retry-after").is_some() && last.json()["error"] != "invalid_client");
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn open_servers_and_foreign_names_have_no_oauth() {
    let server = TestServer::start();
    let path = "/.well-known/oauth-authorization-server";
    let named = |host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        server.raw(request.as_bytes()).status
    };
    assert_eq!((named("evil.example"), named("localhost")), (404, 200));
    let server = TestServer::open(&[]);
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server/mcp",
        "/oauth/authorize?x",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    // A token would travel in the clear.
    let plain = TestServer::with(&[("CODEX_PUBLIC_URL", "http://code.example.com")]);
    assert_eq!(plain.get(path).status, 404);
    let public = TestServer::with(&[("CODEX_PUBLIC_URL", "https://code.example.com")]);
    let metadata: Value = public.get("/.well-known/oauth-authorization-server").json();
    assert_eq!(metadata["issuer"], "https://code.example.com");
}

/// Asks for a form as a browser sends it.
fn browse(server: &TestServer, site: &str, form: &str) -> Reply {
    let origin = format!("Origin: {site}");
    let headers = [
        origin.as_str(),
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Mode: navigate",
        FORM,
    ];
    server.request("POST", "/oauth/authorize", &headers, form.as_bytes())
}

#[test]
fn a_browser_sends_the_form_from_the_servers_own_page() {
    let server = TestServer::start();
    let client = Client::of(&server, REDIRECT);
    // A state of the longest, which is encoded once for each form that it stands in.
    let state = "\u{e9}".repeat(2048);
    let query = client.query(&[("state", &state)]);
    assert_eq!(server.get(&format!("/oauth/authorize?{query}")).status, 200);
    let form = encoded(&[
        ("query", &query),
        ("answer", REDIRECT),
        ("token", &server.token),
        ("decision", "allow"),
    ]);
    let site = format!("http://{}", server.address);
    let reply = browse(&server, &site, &form);
    assert_eq!(reply.status, 303, "{}", reply.text());
    assert_eq!(browse(&server, "https://evil.example", &form).status, 403);
    let long = client.query(&[("scope", &"x".repeat(30_000))]);
    let reply = server.get(&format!("/oauth/authorize?{long}"));
    assert!(matches!(reply.status, 414 | 431), "{}", reply.status);
    // What is not a form is told on a page, and to nobody else's.
    let json = ["Content-Type: application/json"];
    let reply = server.request("POST", "/oauth/authorize", &json, b"{}");
    assert_eq!(reply.status, 400);
    assert!(
        reply.text().starts_with("<!DOCTYPE html>"),
        "{}",
        reply.text()
    );
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[test]
fn what_one_does_keeps_no_other_out() {
    let server = TestServer::start();
    // Ids that nobody has cost nothing.
    for at in 0..40 {
        let reply = server.get(&format!("/oauth/authorize?client_id=x{at}"));
        assert_eq!(reply.status, 400, "{}", reply.text());
    }
    // Nor do registrations that are refused.
    for _ in 0..30 {
        assert_eq!(register(&server, "javascript:x").status, 400);
    }
    let client = Client::of(&server, REDIRECT);
    let (access, refresh) = tokens(&client.exchange(&client.code(&server.token)));
    // Codes that are made up, by a client that is the one.
    for _ in 0..150 {
        let reply = client.exchange("codex_ac_garbage");
        assert_eq!(reply.json()["error"], "invalid_grant");
    }
    let (next, _) = tokens(&client.refresh(&refresh));
    // Wrong tokens of a neighbour: one that has run out is told so all the same.
    for _ in 0..30 {
        list(&server, "codex_wrong");
    }
    assert_eq!(list(&server, "codex_wrong").status, 429);
    assert_eq!(list(&server, &next).status, 200);
    let (kind, _) = access.rsplit_once('_').expect("a kind");
    let expired = format!("{kind}_{}", "A".repeat(access.len() - kind.len() - 1));
    let reply = list(&server, &expired);
    assert_eq!(reply.status, 401, "{}", reply.text());
    let challenge = reply.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("resource_metadata"), "{challenge}");
    // Wrong credentials of clients are slowed, and others are not.
    let unknown = Client {
        id: "codex_cl_none".to_owned(),
        redirect: REDIRECT.to_owned(),
        server: &server,
    };
    let statuses: Vec<u16> = (0..40).map(|_| unknown.exchange("x").status).collect();
    assert!(
        statuses.starts_with(&[401; 20]) && statuses.ends_with(&[429]),
        "{statuses:?}"
    );
    tokens(&client.exchange(&client.code(&server.token)));
}

#[test]
fn two_credentials_are_none() {
    let server = TestServer::start();
    let body =
        json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_basic"});
    let kind = ["Content-Type: application/json"];
    let told = server.request(
        "POST",
        "/oauth/register",
        &kind,
        body.to_string().as_bytes(),
    );
    let told = told.json();
    let text = |name: &str| told[name].as_str().expect("a text").to_owned();
    let pair = format!("{}:{}", text("client_id"), text("client_secret"));
    let good = format!("Authorization: Basic {}", base64(pair.as_bytes()));
    let form = b"grant_type=refresh_token&refresh_token=x";
    let ask = |headers: &[&str]| server.request("POST", "/oauth/token", headers, form);
    // The client is the one; its token is not.
    let reply = ask(&[&good, FORM]);
    assert_eq!(reply.json()["error"], "invalid_grant");
    let reply = ask(&[&good, "Authorization: Basic eDp6", FORM]);
    assert_eq!(
        (reply.status, &reply.json()["error"]),
        (401, &json!("invalid_client"))
    );
}

#[test]
fn listed_hosts_and_ipv6_are_led_on_by_a_page() {
    let server = TestServer::with(&[("CODEX_OAUTH_HOST", "auth.corp.example")]);
    for redirect in ["https://auth.corp.example/cb", "http://[::1]:33418/cb"] {
        let client = Client::of(&server, redirect);
        let agreed = client.agree(&server.token, "");
        let query = client.query(&[]);
        let deny = [("query", query.as_str()), ("decision", "deny")];
        let denied = post(&server, "/oauth/authorize", &deny);
        for (reply, words) in [(agreed, "code=codex_"), (denied, "error=access_denied")] {
            let text = reply.text();
            assert_eq!(
                (reply.status, reply.header("location")),
                (200, None),
                "{text}"
            );
            assert!(
                text.contains(&format!("0;url={redirect}?{words}")),
                "{text}"
            );
        }
    }
}

#[test]
fn a_token_without_the_scope_is_told_where_to_ask() {
    let server = TestServer::start();
    let (_, said) = server.beside(&["token", "create", "watcher", "--scope", "files"]);
    let token = said
        .split_whitespace()
        .find(|word| word.starts_with("codex_"));
    let reply = list(&server, token.expect("a token"));
    assert_eq!(reply.status, 403);
    let challenge = reply.header("www-authenticate").expect("a challenge");
    for words in [
        "insufficient_scope",
        "resource_metadata",
        "scope=\"execute\"",
    ] {
        assert!(challenge.contains(words), "{challenge}");
    }
}

#[test]
fn oauth_keeps_its_rules_where_pages_are_listed() {
    let listed = "https://a.example";
    for setting in [listed, "*"] {
        let server = TestServer::with(&[("CODEX_CORS_ORIGIN", setting)]);
        let ask = |method: &str, path: &str, origin: &str| {
            let origin = format!("Origin: {origin}");
            let headers = [
                origin.as_str(),
                "Access-Control-Request-Method: POST",
                "Access-Control-Request-Headers: mcp-protocol-version",
            ];
            let reply = server.request(method, path, &headers, b"");
            let header = |name: &str| reply.header(name).unwrap_or_default().to_owned();
            (
                header("access-control-allow-origin"),
                header("access-control-allow-headers"),
            )
        };
        for origin in [listed, "https://other.example"] {
            for path in [
                "/oauth/token",
                "/oauth/register",
                "/oauth/revoke",
                "/.well-known/oauth-protected-resource/mcp",
            ] {
                let (allowed, headers) = ask("OPTIONS", path, origin);
                assert!(allowed == "*" || allowed == origin, "{path}: {allowed}");
                assert!(
                    headers.contains("mcp-protocol-version"),
                    "{path}: {headers}"
                );
            }
            let (allowed, _) = ask("GET", "/oauth/authorize?x", origin);
            assert_eq!(allowed, "", "{setting} {origin}");
        }
        let (allowed, _) = ask("OPTIONS", "/execute", "https://other.example");
        let expected = if setting == "*" {
            "https://other.example"
        } else {
            ""
        };
        assert_eq!(allowed, expected);
    }
}

#[test]
fn a_full_disk_is_told_and_forgotten() {
    let server = TestServer::on_small_disk("3m", &[]);
    // Fails where the room ends, and the rest of the last page is filled by bytes.
    server.inside("cat /dev/zero > filler; while echo >> filler; do :; done");
    let refused = (0..8).map(|_| register(&server, REDIRECT)).filter(|reply| {
        let waits = reply.header("retry-after").is_some();
        reply.status == 503 && waits && reply.json()["error"] == "temporarily_unavailable"
    });
    assert!(refused.count() > 4, "a full disk is our trouble");
    assert_eq!(server.inside("rm filler").0, Some(0));
    for _ in 0..6 {
        let reply = register(&server, REDIRECT);
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
}
