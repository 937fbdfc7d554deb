//! Files that a request names by URL: fetched over real TLS from a server of
//! our own, whose key and certificate lie in `tls/` and are good for nothing else.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::mcp::stateless;
use crate::support::{Reply, TestServer};

const CERTIFICATE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/tls/localhost.crt.pem"
);
const KEY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/tls/localhost.key.pem"
);

/// Prints the name and content of each file in the working directory.
const SHOW: &str = "import os\nfor n in sorted(os.listdir('.')):\n    if not n.startswith('main.'): print(n, open(n).read()[:20])";

/// A host of files; counts the connections it gets.
struct Host {
    port: u16,
    calls: Arc<AtomicUsize>,
}

impl Host {
    fn start() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from_pem_file(CERTIFICATE).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(KEY).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("an address").port();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
                let config = Arc::clone(&config);
                std::thread::spawn(move || answer(config, stream));
            }
        });
        Self { port, calls }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.port)
    }

    /// A server that may fetch from here.
    fn trusted_by(&self) -> TestServer {
        let host = format!("localhost:{}", self.port);
        TestServer::with(&[
            ("CODEX_FILE_URL_HOST", host.as_str()),
            ("CODEX_FILE_URL_NETWORK", "127.0.0.0/8, ::1"),
            ("CODEX_MAX_FILE_URL_BYTES", "100KiB"),
            ("SSL_CERT_FILE", CERTIFICATE),
        ])
    }
}

fn answer(config: Arc<rustls::ServerConfig>, mut tcp: std::net::TcpStream) {
    let Ok(mut connection) = rustls::ServerConnection::new(config) else {
        return;
    };
    let mut stream = rustls::Stream::new(&mut connection, &mut tcp);
    let mut request = [0; 4096];
    let read = stream.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, more, body) = match path {
        "/data" => ("200 OK", "", "a,b\n1,2\n".to_owned()),
        "/huge" => ("200 OK", "", "x".repeat(200 * 1024)),
        "/away" => (
            "302 Found",
            "Location: https://169.254.169.254/\r\n",
            String::new(),
        ),
        "/there" => ("302 Found", "Location: /data\r\n", String::new()),
        _ => ("403 Forbidden", "", String::new()),
    };
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).ok();
    stream.conn.send_close_notify();
    stream.flush().ok();
}

fn ask(server: &TestServer, code: &str, refs: &Value) -> Reply {
    let body = json!({ "code": code, "openaiFileIdRefs": refs });
    server.execute(&body.to_string())
}

#[test]
fn files_of_the_conversation_lie_in_the_working_directory() {
    let host = Host::start();
    let server = host.trusted_by();
    let file = |name: &str, path: &str| json!({"name": name, "id": "file-1", "mime_type": "text/csv", "download_link": host.url(path)});
    let refs = json!([
        file("data.csv", "data"),
        file("data.csv", "there"),
        file("main.py", "data"),
        file("../../evil\n.txt", "data"),
        host.url("data"),
    ]);
    let reply = ask(&server, SHOW, &refs);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    let listed = json["output"].as_str().expect("text");
    let names: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(" a,b"))
        .collect();
    assert_eq!(
        names,
        ["data", "data-2.csv", "data.csv", "evil_.txt", "main-2.py"]
    );
    assert_eq!(json["files"], json!([]), "inputs are not given back");
    let warnings = json["warnings"].to_string();
    assert!(
        warnings.contains("\\\"main.py\\\" is called \\\"main-2.py\\\" here"),
        "{warnings}"
    );
    assert!(
        !server.log().contains("localhost:"),
        "links are as good as passwords"
    );
}

#[test]
fn a_tool_is_given_the_files_of_the_chat() {
    let host = Host::start();
    let server = host.trusted_by();
    let list = stateless(&server, "tools/list", None, json!({}));
    let tools = list["result"]["tools"].as_array().expect("tools").iter();
    let tool = tools.clone().find(|tool| tool["name"] == "run_code");
    let tool = tool.expect("run_code");
    assert_eq!(tool["_meta"]["openai/fileParams"], json!(["attachments"]));
    assert!(tool["inputSchema"]["properties"]["attachments"].is_object());
    let run = |attachments: Value| {
        let arguments = json!({"code": SHOW, "attachments": attachments});
        let params = json!({"name": "run_code", "arguments": arguments});
        stateless(&server, "tools/call", Some("run_code"), params)["result"].clone()
    };
    let file = |path: &str| json!({"file_id": "file-1", "file_name": "data.csv", "mime_type": "text/csv", "download_url": host.url(path)});
    let ran = run(json!([file("data"), file("there")]));
    let output = &ran["structuredContent"]["output"];
    let expected = "data-2.csv a,b\n1,2\n\ndata.csv a,b\n1,2\n\n";
    assert_eq!(output, expected, "{ran}");
    for (attachments, words) in [
        (json!(["chat_upload"]), "`attachments[0]`"),
        (
            json!([file("data"), file("gone")]),
            "`attachments[1].download_url`",
        ),
        (
            json!([{"file_id": "x", "download_url": "https://169.254.169.254/"}]),
            "a host that files may not come from",
        ),
    ] {
        let refused = run(attachments);
        assert_eq!(refused["isError"], true, "{refused}");
        let text = refused["content"][0]["text"].as_str().expect("words");
        assert!(text.contains(words), "{text}");
    }
    // Where nothing may be fetched, nothing is offered.
    let none = TestServer::with(&[("CODEX_FILE_URL_HOST", "off")]);
    let list = stateless(&none, "tools/list", None, json!({}));
    assert!(!list.to_string().contains("attachments"), "{list}");
}

#[test]
fn a_name_that_is_too_long_for_a_disk_is_cut() {
    let host = Host::start();
    let server = host.trusted_by();
    let name = format!("{}.csv", "長".repeat(110));
    let file = json!({"name": name, "download_link": host.url("data")});
    let refs = json!([file, file]);
    let reply = ask(&server, SHOW, &refs);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let listed = reply.json()["output"].to_string();
    assert_eq!(listed.matches(".csv a,b").count(), 2, "{listed}");
}

#[test]
fn what_may_not_be_fetched_is_refused_and_not_run() {
    let host = Host::start();
    let server = host.trusted_by();
    let link = |url: &str| json!([{"name": "x", "download_link": url}]);
    for (url, words) in [
        (host.url("gone"), "status 403"),
        (host.url("huge"), "holds more than 102400 bytes"),
        (host.url("away"), "a host that files may not come from"),
        (
            host.url("data").replace("https", "http"),
            "not an https URL",
        ),
        (
            host.url("data").replace("localhost", "127.0.0.1"),
            "a host that files may not come from",
        ),
        (
            host.url("data").replace("localhost", "me@localhost"),
            "user name",
        ),
        (
            "https://169.254.169.254/latest/meta-data".to_owned(),
            "a host that files may not come from",
        ),
        ("file:///etc/passwd".to_owned(), "not an https URL"),
    ] {
        let reply = ask(&server, "print('ran')", &link(&url));
        let detail = reply.problem(400);
        assert!(detail.contains(words), "{url}: {detail}");
        assert_eq!(reply.json()["field"], "openaiFileIdRefs[0].download_link");
    }
    ask(&server, "print('ran')", &json!(["file-abc"])).problem(400);
    let eleven = json!(vec![host.url("data"); 11]);
    assert!(
        ask(&server, "print('ran')", &eleven)
            .problem(400)
            .contains("11 files")
    );
    server.still_runs();
}

#[test]
fn a_listed_host_inside_is_refused_by_its_address() {
    let host = Host::start();
    let listed = format!("localhost:{}, 127.0.0.1:{}", host.port, host.port);
    let server = TestServer::with(&[
        ("CODEX_FILE_URL_HOST", listed.as_str()),
        ("SSL_CERT_FILE", CERTIFICATE),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
    ]);
    for url in [
        host.url("data"),
        host.url("data").replace("localhost", "127.0.0.1"),
    ] {
        let reply = ask(
            &server,
            "print(1)",
            &json!([{"name": "x", "download_link": url}]),
        );
        let detail = reply.problem(400);
        assert!(detail.contains("not on the public internet"), "{detail}");
        assert!(detail.contains("file_url_network"), "{detail}");
    }
    assert_eq!(host.calls.load(Ordering::Relaxed), 0, "nobody was called");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let host = Host::start();
    let listed = format!("localhost:{}", host.port);
    let server = TestServer::with(&[
        ("CODEX_FILE_URL_HOST", listed.as_str()),
        ("CODEX_FILE_URL_NETWORK", "127.0.0.0/8, ::1"),
    ]);
    let refs = json!([{"name": "x", "download_link": host.url("data")}]);
    let detail = ask(&server, "print(1)", &refs).problem(400);
    assert!(detail.contains("could not be fetched"), "{detail}");
}

#[test]
fn without_hosts_nothing_is_fetched() {
    let server = TestServer::with(&[("CODEX_FILE_URL_HOST", "off")]);
    let refs = json!([{"name": "x", "download_link": "https://files.oaiusercontent.com/file-x"}]);
    let detail = ask(&server, "print(1)", &refs).problem(400);
    assert!(
        detail.contains("a host that files may not come from"),
        "{detail}"
    );
}
