//! Files that runs left: their links, what the links do not open, what browsers
//! are told, and what ends them.

use serde_json::{Value, json};

use crate::server::wait_for;
use crate::support::{Reply, TestServer};

/// Writes a real picture, without any package: one pixel.
const PNG: &str = r#"
import struct, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
png = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b""))
open("plot.png", "wb").write(png)
print(png.hex())
"#;

/// Runs Python and gives the answer.
#[track_caller]
fn run(server: &TestServer, code: &str) -> Value {
    let reply = server.execute(&json!({ "code": code }).to_string());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    assert_eq!(json["status"], "success", "{json}");
    json
}

/// The path and query of a file's link.
#[track_caller]
fn target(server: &TestServer, file: &Value) -> String {
    let url = file["url"]
        .as_str()
        .unwrap_or_else(|| panic!("no url: {file}"));
    let base = format!("http://{}", server.address);
    let target = url.strip_prefix(&base);
    target
        .unwrap_or_else(|| panic!("{url} is not at {base}"))
        .to_owned()
}

/// Runs a program that writes `name` with `content`, and gives its link.
#[track_caller]
fn leave(server: &TestServer, name: &str, content: &str) -> String {
    let name = serde_json::to_string(name).expect("a string");
    let content = serde_json::to_string(content).expect("a string");
    let code = format!("open({name}, 'w').write({content})");
    target(server, &run(server, &code)["files"][0])
}

fn header<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply
        .header(name)
        .unwrap_or_else(|| panic!("no {name}: {:?}", reply.headers))
}

#[test]
fn a_picture_comes_back_through_its_link() {
    let server = TestServer::start();
    let json = run(&server, PNG);
    let file = &json["files"][0];
    assert_eq!(file["name"], "plot.png");
    assert_eq!(file["path"], "plot.png");
    assert_eq!(file["media_type"], "image/png");
    let target = target(&server, file);
    let reply = server.get(&target);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let hex: String = reply
        .body
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(Some(hex.as_str()), json["output"].as_str().map(str::trim));
    assert_eq!(file["size"], reply.body.len());
    for (name, expected) in [
        ("content-type", "image/png"),
        (
            "content-disposition",
            "inline; filename=\"plot.png\"; filename*=UTF-8''plot.png",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("accept-ranges", "bytes"),
        ("x-robots-tag", "noindex"),
    ] {
        assert_eq!(header(&reply, name), expected);
    }
    let policy = header(&reply, "content-security-policy");
    assert!(
        policy.starts_with("sandbox; default-src 'none'"),
        "{policy}"
    );
    assert!(
        !policy.contains("script") && !policy.contains("allow-"),
        "{policy}"
    );
    let cache = header(&reply, "cache-control");
    assert!(cache.starts_with("private, max-age=3"), "{cache}");

    let head = server.request("HEAD", &target, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        head.header("content-length"),
        reply.header("content-length")
    );
    let tag = format!("If-None-Match: W/\"x\", {}", header(&reply, "etag"));
    let same = server.request("GET", &target, &[&tag], b"");
    assert_eq!((same.status, same.body.len()), (304, 0));
}

#[test]
fn parts_of_a_file_can_be_asked_for() {
    let server = TestServer::start();
    let target = leave(&server, "a.txt", "0123456789");
    for (range, status, body, content_range) in [
        ("bytes=2-4", 206, "234", Some("bytes 2-4/10")),
        ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
        ("bytes=-1", 206, "9", Some("bytes 9-9/10")),
        ("bytes=0-99", 206, "0123456789", Some("bytes 0-9/10")),
        ("bytes=1-2,4-5", 200, "0123456789", None),
        ("rows=1-2", 200, "0123456789", None),
    ] {
        let line = format!("Range: {range}");
        let reply = server.request("GET", &target, &[&line], b"");
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (status, body),
            "{range}"
        );
        assert_eq!(reply.header("content-range"), content_range, "{range}");
        let stale = server.request("GET", &target, &[&line, "If-Range: \"other\""], b"");
        assert_eq!((stale.status, stale.text().as_str()), (200, "0123456789"));
    }
    let reply = server.request("GET", &target, &["Range: bytes=10-"], b"");
    assert!(reply.problem(416).contains("10 bytes"));
    assert_eq!(reply.header("content-range"), Some("bytes */10"));
}

/// A path that no file has.
const NOBODY: &str = "/artifacts/00000000000000000000000000000000/a.txt";

/// Whatever somebody could try who has the links to `a.txt` and `b.txt`.
fn forged(a: &str, b: &str) -> Vec<(&'static str, String)> {
    let (path_a, query_a) = a.split_once('?').expect("a query");
    let (path_b, query_b) = b.split_once('?').expect("a query");
    let (expires, signature) = query_a.split_once("&signature=").expect("both");
    let seconds: u64 = expires
        .trim_start_matches("expires=")
        .parse()
        .expect("a number");
    let upper = path_a[..43]
        .to_ascii_uppercase()
        .replace("/ARTIFACTS", "/artifacts");
    let bent = format!(
        "{}{}",
        if signature.starts_with('A') { 'B' } else { 'A' },
        &signature[1..]
    );
    vec![
        ("another file's signature", format!("{path_a}?{query_b}")),
        ("another file's path", format!("{path_b}?{query_a}")),
        ("a file that never was", format!("{NOBODY}?{query_a}")),
        (
            "a longer time",
            format!("{path_a}?expires={}&signature={signature}", seconds + 1),
        ),
        (
            "a shorter time",
            format!("{path_a}?expires={}&signature={signature}", seconds - 1),
        ),
        (
            "a time in other digits",
            format!("{path_a}?expires=0{seconds}&signature={signature}"),
        ),
        (
            "a bent signature",
            format!("{path_a}?{expires}&signature={bent}"),
        ),
        (
            "a cut signature",
            format!("{path_a}?{expires}&signature={}", &signature[..42]),
        ),
        (
            "a long signature",
            format!("{path_a}?{expires}&signature={signature}A"),
        ),
        (
            "an empty signature",
            format!("{path_a}?{expires}&signature="),
        ),
        ("no time", format!("{path_a}?signature={signature}")),
        (
            "two times",
            format!("{path_a}?{expires}&{expires}&signature={signature}"),
        ),
        (
            "another name",
            format!("{}?{query_a}", path_a.replace("a.txt", "b.txt")),
        ),
        (
            "another ending",
            format!("{}?{query_a}", path_a.replace("a.txt", "a.html")),
        ),
        (
            "a name in other case",
            format!("{}?{query_a}", path_a.replace("a.txt", "A.txt")),
        ),
        ("an id in other case", format!("{upper}/a.txt?{query_a}")),
        (
            "an id that is none",
            format!("/artifacts/x/a.txt?{query_a}"),
        ),
        (
            "a way up",
            format!("/artifacts/..%2f..%2fstate.db/a.txt?{query_a}"),
        ),
        ("a NUL", format!("{path_a}%00?{query_a}")),
    ]
}

#[test]
fn a_link_opens_one_file_and_nothing_else() {
    let server = TestServer::start();
    let json = run(&server, "for n in 'ab': open(n + '.txt', 'w').write(n * 9)");
    let (a, b) = (
        target(&server, &json["files"][0]),
        target(&server, &json["files"][1]),
    );
    assert_eq!(server.get(&a).text(), "a".repeat(9));
    let (path_a, query_a) = a.split_once('?').expect("a query");
    // What chats and mails add, and clients that encode once more, change nothing.
    let encoded = query_a.replace('e', "%65").replace('_', "%5f");
    for whole in [
        format!("{a}&utm_source=chatgpt.com"),
        format!("{path_a}?fbclid=Iw.A-R_0&{query_a}&"),
        format!("{path_a}?{encoded}"),
        a.replace('&', "&amp;"),
    ] {
        let reply = server.get(&whole);
        assert_eq!(
            (reply.status, reply.text()),
            (200, "a".repeat(9)),
            "{whole}"
        );
    }
    for (what, target) in forged(&a, &b) {
        let reply = server.get(&target);
        let detail = reply.problem(403);
        assert!(
            detail.contains("not one that this server signed"),
            "{what}: {detail}"
        );
        let reply = server.request("HEAD", &target, &[], b"");
        assert_eq!(reply.status, 403, "{what}");
    }
    // Without any signature a token is asked for, whether there is a file or not.
    for path in [path_a, NOBODY, "/artifacts/x/y"] {
        server.get(path).problem(401);
        server
            .request("DELETE", &format!("{path}?{query_a}"), &[], b"")
            .problem(401);
    }
    server.get("/artifacts/").problem(401);
    assert_eq!(
        server.get(&a).text(),
        "a".repeat(9),
        "the good link still works"
    );
    server.log_line(&["/artifacts/{id}/{name}", "200"]);
    let (_, signature) = a.split_once("&signature=").expect("a signature");
    assert!(!server.log().contains(signature) && !server.log().contains(path_a));
}

#[test]
fn a_token_opens_its_own_files_only() {
    let server = TestServer::start();
    let target = leave(&server, "a.txt", "mine");
    let (path, _) = target.split_once('?').expect("a query");
    let other = server.another_token("other");
    let mine = server.bearer();
    let theirs = format!("Authorization: Bearer {other}");
    let ask = |method: &str, path: &str, bearer: &str| server.request(method, path, &[bearer], b"");
    assert_eq!(ask("GET", path, &mine).text(), "mine");
    let refused = ask("GET", path, &theirs).problem(404);
    let unknown = ask(
        "GET",
        "/artifacts/00000000000000000000000000000000/a.txt",
        &theirs,
    );
    assert_eq!(unknown.problem(404), refused, "no telling which it is");
    ask("DELETE", path, &theirs).problem(404);
    ask("GET", &path.replace("a.txt", "b.txt"), &mine).problem(404);
    // A link is good for whoever holds it, with whatever token.
    assert_eq!(ask("GET", &target, &theirs).text(), "mine");
    assert_eq!(ask("DELETE", path, &mine).status, 204);
    ask("DELETE", path, &mine).problem(404);
    assert!(
        server
            .get(&target)
            .problem(410)
            .contains("Run the program again")
    );
    let reply = ask("POST", path, &mine);
    reply.problem(405);
}

/// Names, and the type and disposition that they are served with.
const HOSTILE: [(&str, &str, &str); 16] = [
    (
        "x.html",
        "text/html; charset=utf-8",
        "attachment; filename=\"x.html\"",
    ),
    ("x.svg", "image/svg+xml", "attachment; filename=\"x.svg\""),
    ("x.xml", "application/xml", "attachment; filename=\"x.xml\""),
    (
        "x.xhtml",
        "application/octet-stream",
        "attachment; filename=\"x.xhtml\"",
    ),
    (
        "x.js",
        "text/plain; charset=utf-8",
        "attachment; filename=\"x.js\"",
    ),
    ("x.pdf", "application/pdf", "attachment; filename=\"x.pdf\""),
    (
        "x.txt",
        "text/plain; charset=utf-8",
        "inline; filename=\"x.txt\"",
    ),
    ("x.png", "image/png", "inline; filename=\"x.png\""),
    (
        "html",
        "application/octet-stream",
        "attachment; filename=\"html\"",
    ),
    (
        "a\"b.txt",
        "text/plain; charset=utf-8",
        "inline; filename=\"a_b.txt\"",
    ),
    (
        "a\r\nX-Evil: 1.txt",
        "text/plain; charset=utf-8",
        "inline; filename=\"a__X-Evil_ 1.txt\"",
    ),
    (
        "100%25.txt",
        "text/plain; charset=utf-8",
        "inline; filename=\"100_25.txt\"",
    ),
    (
        "été.txt",
        "text/plain; charset=utf-8",
        "inline; filename=\"_t_.txt\"; filename*=UTF-8''%C3%A9t%C3%A9.txt",
    ),
    (
        "fdp.\u{202e}txt.html",
        "text/html; charset=utf-8",
        "attachment; filename=\"fdp._txt.html\"",
    ),
    (
        "a?signature=x.txt",
        "text/plain; charset=utf-8",
        "inline; filename=\"a_signature=x.txt\"",
    ),
    (
        "back\\slash.txt",
        "text/plain; charset=utf-8",
        "inline; filename=\"slash.txt\"",
    ),
];

#[test]
fn hostile_files_are_inert() {
    let server = TestServer::start();
    for (name, kind, disposition) in HOSTILE {
        let content = "<script>alert(1)</script>";
        let target = leave(&server, name, content);
        let reply = server.get(&target);
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, content),
            "{name:?}"
        );
        assert_eq!(header(&reply, "content-type"), kind, "{name:?}");
        let told = header(&reply, "content-disposition");
        assert!(told.starts_with(disposition), "{name:?}: {told}");
        assert_eq!(header(&reply, "x-content-type-options"), "nosniff");
        assert!(
            header(&reply, "content-security-policy").starts_with("sandbox;"),
            "{name:?}"
        );
        assert_eq!(reply.header("x-evil"), None);
    }
}

#[test]
fn at_the_bound_the_oldest_file_goes() {
    let settings = [
        ("CODEX_MAX_ARTIFACTS_BYTES", "10"),
        ("CODEX_MAX_ARTIFACTS", "2"),
    ];
    let server = TestServer::with(&settings);
    let first = leave(&server, "a.txt", "12345");
    let second = leave(&server, "b.txt", "12345");
    assert_eq!(server.get(&first).status, 200);
    let third = leave(&server, "c.txt", "1");
    assert!(
        server
            .get(&first)
            .problem(410)
            .contains("newer files took its room")
    );
    assert_eq!(server.get(&second).status, 200);
    assert_eq!(server.get(&third).status, 200);
    let json = run(&server, "open('d.txt', 'w').write('x' * 11)");
    assert_eq!(json["files"][0].get("url"), None);
    assert_eq!(json["files"][0]["content"], "x".repeat(11));
    let warning = json["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("not offered for download: 1"), "{warning}");
    assert_eq!(server.get(&second).status, 200, "nobody went for it");
    // Of three files of one run only two fit.
    let json = run(&server, "for n in 'efg': open(n, 'w').write(n)");
    assert_eq!(json["files"][0].get("url"), None);
    for at in [1, 2] {
        let target = target(&server, &json["files"][at]);
        assert_eq!(server.get(&target).status, 200);
    }
    let off = TestServer::with(&[("CODEX_MAX_ARTIFACTS", "0")]);
    let json = run(&off, "open('d.txt', 'w').write('x')");
    assert_eq!(json["files"][0].get("url"), None);
    assert_eq!(json["warnings"], json!([]));
}

#[test]
fn nobody_drives_out_the_files_of_another_token() {
    let settings = [
        ("CODEX_MAX_ARTIFACTS_BYTES", "10"),
        ("CODEX_MAX_ARTIFACTS", "4"),
    ];
    let server = TestServer::with(&settings);
    let mine = leave(&server, "a.txt", "1234");
    let theirs = format!("Authorization: Bearer {}", server.another_token("other"));
    let flood = |code: &str| {
        let headers = [theirs.as_str(), "Content-Type: application/json"];
        let body = json!({ "code": code }).to_string();
        server
            .request("POST", "/execute", &headers, body.as_bytes())
            .json()
    };
    for code in [
        "for n in range(9): open(f'{n}.txt', 'w').write('xxx')",
        "for n in range(9): open(f'{n}.txt', 'w')",
        "open('x.txt', 'w').write('x' * 6)",
    ] {
        let json = flood(code);
        let last = json["files"].as_array().and_then(|files| files.last());
        let last = target(&server, last.expect("a file"));
        assert_eq!(server.get(&last).status, 200, "room was left for it");
        assert_eq!(server.get(&mine).text(), "1234", "{code}");
    }
    let json = flood("open('x.txt', 'w').write('x' * 7)");
    assert_eq!(json["files"][0].get("url"), None);
    let warning = json["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("files of other tokens"), "{warning}");
    assert_eq!(server.get(&mine).text(), "1234");
}

#[test]
fn a_link_ends_with_its_file() {
    let server = TestServer::with(&[("CODEX_ARTIFACT_LIFETIME", "2s")]);
    let target = leave(&server, "a.txt", "x");
    assert_eq!(server.get(&target).status, 200);
    let expired = wait_for("the link's end", || {
        let reply = server.get(&target);
        (reply.status != 200).then_some(reply)
    });
    let detail = expired.problem(403);
    assert!(
        detail.contains("expired") && detail.contains("Run the program again"),
        "{detail}"
    );
    let (path, _) = target.split_once('?').expect("a query");
    server
        .request("GET", path, &[&server.bearer()], b"")
        .problem(404);
    wait_for("the file's end", || {
        let mut left = std::fs::read_dir(server.home().join("artifacts")).ok()?;
        left.next().is_none().then_some(())
    });
}

#[test]
fn a_crash_costs_no_file() {
    let server = TestServer::start();
    let target = leave(&server, "a.txt", "still here");
    let path = target.split('?').next().expect("a path").to_owned();
    let server = server.crash_and_restart(&[]);
    assert_eq!(server.get(&target).text(), "still here");
    let reply = server.request("GET", &path, &[&server.bearer()], b"");
    assert_eq!(reply.text(), "still here", "the token's own");
    let key = server.home().join("artifact.key");
    std::fs::remove_file(key).expect("removed");
    let server = server.crash_and_restart(&[]);
    server.get(&target).problem(403);
}

#[test]
fn a_full_disk_costs_the_link_and_not_the_answer() {
    let server = TestServer::on_small_disk("40m", &[("CODEX_OPEN", "true")]);
    let small = run(&server, "open('a.txt', 'w').write('x')");
    assert_eq!(server.get(&target(&server, &small["files"][0])).text(), "x");
    let json = run(
        &server,
        "open('b.txt', 'w').write('x' * 9_000_000); print('done')",
    );
    assert_eq!(json["output"], "done\n");
    assert_eq!(json["files"][0].get("url"), None);
    assert_eq!(json["files"][0]["size"], 9_000_000);
    let warning = json["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("the server's disk is full"), "{warning}");
    server.log_line(&["failed to keep files of a run", "make room"]);
    let again = run(&server, "open('c.txt', 'w').write('y')");
    assert_eq!(server.get(&target(&server, &again["files"][0])).text(), "y");
}

#[test]
fn whoever_fills_the_disk_can_be_revoked() {
    let server = TestServer::on_small_disk("40m", &[("CODEX_OPEN", "true")]);
    let code = "for n in range(3): open(f'{n}', 'w').write('x' * 3_000_000)";
    let mut kept = 0;
    let last = loop {
        let json = run(&server, code);
        let files = json["files"].as_array().expect("a list");
        let urls = files.iter().filter(|file| file.get("url").is_some());
        match urls.count() {
            0 => break json,
            more => kept += more,
        }
        assert!(kept < 9, "more was kept than there is room for");
    };
    assert!(kept > 0, "{last}");
    let warning = last["warnings"][0].as_str().expect("a warning");
    assert!(
        warning.contains("its last 32 MiB are not for files"),
        "{warning}"
    );
    for words in [["create", "tina"], ["revoke", "tina"]] {
        let (code, said) = server.beside(&[&["token"][..], &words].concat());
        assert_eq!(code, Some(0), "{words:?}: {said}");
    }
}

#[test]
fn an_action_gets_links_that_chatgpt_can_use() {
    let settings = [("CODEX_PUBLIC_URL", "https://codex.example.com")];
    let server = TestServer::with(&settings);
    let code = format!(
        "{PNG}\nopen('data.csv', 'w').write('a,b')\nopen('x.bin', 'wb').write(b'\\xff' * 9)"
    );
    let body = json!({ "code": code }).to_string();
    let agent = "User-Agent: ChatGPT-User/1.0";
    let json = server.execute_with(&[agent], body.as_bytes()).json();
    let url = |at: usize| json["files"][at]["url"].as_str().expect("a url");
    assert_eq!(json["markdown"], format!("![plot.png]({})", url(1)));
    assert_eq!(json["openaiFileResponse"], json!([url(0), url(2)]));
    assert!(url(0).starts_with("https://codex.example.com/artifacts/"));
    assert_eq!(json["files"][0]["content"], "a,b");
    assert_eq!(json["files"][1].get("content"), None);
    assert_eq!(json["files"][2].get("content"), None);
    let target = url(0).trim_start_matches("https://codex.example.com");
    let reply = server.request("GET", target, &["Host: codex.example.com"], b"");
    assert_eq!(reply.text(), "a,b");
    let plain = server.execute(&body).json();
    assert_eq!(plain.get("markdown"), None);
    assert_eq!(plain.get("openaiFileResponse"), None);
    assert!(plain["files"][1]["content"].is_string());
}
