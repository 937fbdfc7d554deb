//! Files that come as a form: what is taken, what is not, and what a form may cost.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::sessions::Caller;
use crate::support::{Reply, TestServer};

/// A server that gives up on clients soon.
const SLOW: [(&str, &str); 1] = [("CODEX_CLIENT_TIMEOUT", "1s")];
const KIND: &str = "Content-Type: multipart/form-data; boundary=b";

#[test]
fn files_come_as_a_form() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    let path = format!("/sessions/{id}/files");
    let send = |kind: &str, body: &str| {
        let kind = format!("Content-Type: {kind}");
        let headers = [kind.as_str(), caller.bearer.as_str()];
        server.request("POST", &path, &headers, body.as_bytes())
    };
    let form = "multipart/form-data; boundary=b";
    let part = |head: &str, body: &str| {
        format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
    };
    let body = [
        part("name=\"file\"; filename=\"one.txt\"", "first"),
        part("name=\"directory\"", "data/raw"),
        part("name=\"file\"; filename=\"two.bin\"", "a\r\n--\r\nb"),
        "--b--\r\n".to_owned(),
    ]
    .concat();
    let reply = send(form, &body);
    assert_eq!(reply.status, 201, "{}", reply.text());
    let files = reply.json()["files"].clone();
    let told = [0, 1].map(|at| (files[at]["path"].as_str(), files[at]["size"].as_u64()));
    let expected = [("one.txt", 5), ("data/raw/two.bin", 8)];
    assert_eq!(told, expected.map(|(path, size)| (Some(path), Some(size))));
    let read = caller.ask("GET", &format!("{path}/data/raw/two.bin"), &Value::Null);
    assert_eq!(read.text(), "a\r\n--\r\nb");
    let large = "x".repeat(3 << 20);
    let body = part("name=\"f\"; filename=\"large\"", &large) + "--b--\r\n";
    assert_eq!(send(form, &body).json()["files"][0]["size"], 3 << 20);
    for (kind, body, status, words) in [
        (
            form,
            part("name=\"file\"; filename=\"../x\"", "") + "--b--\r\n",
            400,
            "..",
        ),
        (
            form,
            part("name=\"file\"; filename=\"/etc/x\"", "") + "--b--\r\n",
            400,
            "absolute",
        ),
        (
            form,
            part("name=\"file\"", "no name") + "--b--\r\n",
            400,
            "missing in the form",
        ),
        (
            form,
            part("name=\"file\"; filename=\"cut\"", "cut").replace("\r\n\r\n", "\r\n"),
            400,
            "malformed",
        ),
        (form, String::new(), 400, "malformed"),
        (
            "multipart/form-data",
            "x".to_owned(),
            415,
            "application/json",
        ),
    ] {
        let reply = send(kind, &body);
        let told = reply.text();
        assert!(
            reply.status == status && told.contains(words),
            "{body:?}: {} {told}",
            reply.status
        );
    }
}

#[test]
fn a_form_that_is_cut_leaves_no_part_of_a_file() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let id = caller.session(&Value::Null);
    let path = format!("/sessions/{id}/files");
    let head = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"partly\"\r\n\r\n";
    let cut = head.to_owned() + &"x".repeat(3 << 20);
    let kind = "Content-Type: multipart/form-data; boundary=b";
    let reply = server.request("POST", &path, &[kind, &caller.bearer], cut.as_bytes());
    assert_ne!(reply.status, 201, "{}", reply.text());
    let read = caller.ask("GET", &format!("{path}/partly"), &Value::Null);
    assert_eq!(read.status, 404);
    let listed = caller.good("GET", &path, &Value::Null);
    assert_eq!(listed["files"], json!([]));
}

/// Sends the beginning of a form that never ends, and reads the answer.
fn begun(server: &TestServer, form: &[u8]) -> Reply {
    let caller = Caller::of(server);
    let path = format!("/sessions/{}/files", caller.session(&Value::Null));
    let headers = [KIND, &caller.bearer, "Content-Length: 100000000000"];
    let head = server.bytes("PUT", &path, &headers, b"");
    let mut stream = server.connect();
    stream
        .write_all(&[b"POST", &head[3..]].concat())
        .expect("sent");
    // It may be refused before all of it is there.
    stream.write_all(form).ok();
    Reply::read(&mut stream, false)
}

#[test]
fn what_comes_beside_files_is_bounded() {
    let server = TestServer::with(&SLOW);
    let part = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"";
    let field = "--b\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nx\r\n";
    let much = "a".repeat(64 << 10);
    for form in [
        format!("{part}{much}"),
        format!("{part}a\"\r\nX-Long: {much}"),
        format!("{part}a\"\r\n\r\ncontent\r\n{part}{much}"),
        format!("{field}{}", much.replace('a', "\r\n--")),
        format!("--b\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n{much}"),
        field.repeat(1000),
        much,
    ] {
        let reply = begun(&server, form.as_bytes());
        let told = reply.problem(400);
        assert!(told.contains("16 KiB"), "{}: {told}", &form[..80]);
    }
    server.still_answers();
}

#[test]
fn many_small_files_and_a_large_one_come_in_one_form() {
    let server = TestServer::start();
    let caller = Caller::of(&server);
    let path = format!("/sessions/{}/files", caller.session(&Value::Null));
    let (long, large) = ("n".repeat(200), "line\r\n--a\r\n\r".repeat(1 << 18));
    let mut form = String::new();
    for number in 0..300 {
        let content = if number == 150 {
            large.as_str()
        } else {
            "small"
        };
        form += &format!(
            "--b\r\nContent-Disposition: form-data; name=\"directory\"\r\n\r\nd{number}\r\n\
             --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{long}\"\r\n\r\n\
             {content}\r\n"
        );
    }
    form += "--b--\r\n";
    let reply = server.request("POST", &path, &[KIND, &caller.bearer], form.as_bytes());
    assert_eq!(reply.status, 201, "{}", reply.text());
    let files = reply.json();
    let files = files["files"].as_array().expect("files");
    assert_eq!(files.len(), 300);
    for (number, file) in files.iter().enumerate() {
        assert_eq!(file["path"], format!("d{number}/{long}"));
        let size = if number == 150 { large.len() } else { 5 };
        assert_eq!(file["size"], size);
    }
}

#[test]
fn a_form_that_does_not_go_on_is_given_up() {
    let server = TestServer::with(&SLOW);
    let head = "--b\r\nContent-Disposition: form-data; name=";
    for form in [
        "--".to_owned(),
        format!("{head}\"directory\"\r\n\r\ndata"),
        format!("{head}\"other\"\r\n\r\ndata"),
    ] {
        let told = begun(&server, form.as_bytes()).problem(408);
        assert!(told.contains("did not go on"), "{form}: {told}");
    }
}
