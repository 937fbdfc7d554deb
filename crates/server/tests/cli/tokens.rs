//! Tokens, without a server and beside one.

use std::os::unix::fs::MetadataExt as _;

use crate::support::{Home, Server, finish};

#[test]
fn a_token_alone_on_standard_output() {
    let home = Home::new();
    let done = home.run(&["token", "create", "laptop"]);
    let token = done.out().strip_suffix('\n').unwrap();
    assert!(
        token.starts_with("codex_") && token.len() >= 6 + 43,
        "{token}"
    );
    assert!(!token.contains(char::is_whitespace));
    assert!(done.stderr.contains("not shown again") && !done.stderr.contains(token));
    home.run(&["token", "create", "laptop"])
        .refused(1, "codex-server token revoke laptop");
    let list = home.run(&["token", "list"]);
    assert!(list.out().contains("laptop") && !list.stdout.contains(token));
    assert!(list.stdout.contains(&token[..10]));
}

#[test]
fn names_and_scopes() {
    let home = Home::new();
    for name in ["", "a b", "../x", "open", "codex_x", "-x"] {
        let done = home.run(&["token", "create", "--", name]);
        assert_eq!(done.code, Some(2), "{name:?}: {done:?}");
    }
    home.run(&["token", "create", "a", "--scope", "root"])
        .refused(2, "possible values: execute, sessions, files");
    home.run(&["token", "create", "ops", "--scope", "metrics,execute"])
        .out();
    home.run(&["token", "create", "plain"]).out();
    let list: serde_json::Value =
        serde_json::from_str(home.run(&["token", "list", "--json"]).out()).unwrap();
    let expected = serde_json::json!(["execute", "metrics"]);
    assert_eq!(list[0]["scopes"], expected);
    let usual = list[1]["scopes"].as_array().expect("a list");
    assert_eq!(usual.len(), 7);
    assert!(!usual.contains(&"admin".into()));
}

#[test]
fn revoking() {
    let home = Home::new();
    home.run(&["token", "revoke", "a"])
        .refused(1, "no token named \"a\", nor any other");
    home.run(&["token", "create", "a"]).out();
    home.run(&["token", "revoke", "b"])
        .refused(1, "there is: a");
    home.run(&["token", "revoke", "a"]).out();
    home.run(&["token", "revoke", "a"])
        .refused(1, "revoked already");
    home.run(&["token", "create", "a"]).out();
}

#[test]
fn a_wrong_setting_keeps_nobody_from_revoking() {
    let home = Home::new();
    home.run(&["token", "create", "a"]).out();
    home.configure("port = 'x'");
    home.run(&["token", "revoke", "a"]).out();
}

#[test]
fn many_processes_at_once() {
    let home = Home::new();
    let children: Vec<_> = (0..8)
        .map(|i| {
            home.command(&["token", "create", &format!("k{i}")])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let list: serde_json::Value =
        serde_json::from_str(home.run(&["token", "list", "--json"]).out()).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 8);
}

#[test]
fn a_damaged_database_names_its_cure() {
    let home = Home::new();
    home.configure("");
    std::fs::write(home.path().join("state.db"), "no database ".repeat(1000)).unwrap();
    home.run(&["token", "list"])
        .refused(7, "Restore it from a backup");
}

/// Leaves `secret.txt` by a run, and returns its path with and without the
/// signature.
fn leave_a_secret(server: &Server, token: &str) -> (String, String) {
    let code = r#"{"code": "open('secret.txt', 'w').write('carol secret')"}"#;
    let (status, body) = server.call("POST", "/execute", Some(token), code);
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let url = answer["files"][0]["url"].as_str().expect("a link");
    let at = url.find("/artifacts/").expect("a path");
    let bare = url[at..].split('?').next().expect("a path");
    (url[at..].to_owned(), bare.to_owned())
}

#[test]
fn a_name_used_again_is_another_caller() {
    let home = Home::new();
    let server = home.serve(&["serve"]);
    let create = || {
        home.run(&["token", "create", "carol"])
            .out()
            .trim()
            .to_owned()
    };
    let old = create();
    let (link, path) = leave_a_secret(&server, &old);
    let (status, body) = server.call("GET", &path, Some(&old), "");
    assert!(status == 200 && body.contains("carol secret"), "{body}");
    let done = home.run(&["token", "revoke", "carol"]);
    assert_eq!(done.code, Some(0));
    for words in ["files that its runs left: 1", "token clean carol"] {
        assert!(done.stderr.contains(words), "{done:?}");
    }
    let new = create();
    assert_eq!(server.call("GET", &path, Some(&new), "").0, 404);
    assert_eq!(server.call("DELETE", &path, Some(&new), "").0, 404);
    assert_eq!(server.call("GET", &link, None, "").0, 200, "as was said");
    // What was advised ends the links, and nothing of the new token.
    let (_, kept) = leave_a_secret(&server, &new);
    let done = home.run(&["token", "clean", "carol"]);
    assert!(done.stderr.contains("had left: 1, deleted"), "{done:?}");
    assert_eq!(server.call("GET", &link, None, "").0, 410);
    assert_eq!(server.call("GET", &kept, Some(&new), "").0, 200);
}

#[test]
fn revoking_can_end_the_links_too() {
    let home = Home::new();
    let server = home.serve(&["serve"]);
    let token = home.run(&["token", "create", "a"]).out().trim().to_owned();
    let (link, _) = leave_a_secret(&server, &token);
    assert_eq!(server.call("GET", &link, None, "").0, 200);
    home.run(&["token", "clean", "a"])
        .refused(1, "is not revoked");
    let done = home.run(&["token", "revoke", "a", "--files"]);
    assert!(done.stderr.contains("had left: 1, deleted"), "{done:?}");
    assert_eq!(server.call("GET", &link, None, "").0, 410);
}

#[test]
fn a_token_may_do_what_its_scopes_say() {
    let home = Home::new();
    let server = home.serve(&["serve"]);
    let create = |scope: &str| {
        let done = home.run(&["token", "create", scope, "--scope", scope]);
        done.out().trim().to_owned()
    };
    let (execute, metrics) = (create("execute"), create("metrics"));
    assert_eq!(server.execute(Some(&execute)), 200);
    assert_eq!(server.execute(Some(&metrics)), 403);
    assert_eq!(server.call("GET", "/metrics", Some(&metrics), "").0, 200);
    let (status, body) = server.call("GET", "/metrics", Some(&execute), "");
    assert!(status == 403 && body.contains("--scope metrics"), "{body}");
    let (_, path) = leave_a_secret(&server, &execute);
    assert_eq!(server.call("GET", &path, Some(&execute), "").0, 200);
    assert_eq!(server.call("DELETE", &path, Some(&execute), "").0, 403);
}

/// Every amount of room that is too small says what to do.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a disk of its own needs a process that mounts it"
)]
fn a_full_disk_keeps_nobody_from_learning_the_cure() {
    const SCRIPT: &str = r#"
mkdir -p "$CODEX_HOME"
mount -t tmpfs -o mode=700,size=1m small "$CODEX_HOME" || exit 99
"$1" token create tina > /dev/null 2>&1 || exit 98
for free in 0 4 8 12 16 24 32 36 40 44 48 56 64; do
    head -c 1m /dev/zero > "$CODEX_HOME/full" 2> /dev/null
    truncate -s -"$free"K "$CODEX_HOME/full"
    for words in "revoke tina" "create new$free"; do
        said=$("$1" token $words 2>&1)
        echo "$? $free $words: $said" | tr '\n' ' '
        echo
    done
    rm "$CODEX_HOME/full"
    "$1" token create tina > /dev/null 2>&1
done
"#;
    let home = Home::new();
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let binary = home.command(&[]);
    let mut command = std::process::Command::new("unshare");
    command
        .arg(if root { "-m" } else { "-rm" })
        .args(["sh", "-c", SCRIPT, "sh"])
        .arg(binary.get_program())
        .env("CODEX_HOME", home.path());
    let done = finish(&mut command);
    let lines = done.out().lines();
    let refused: Vec<&str> = lines.filter(|line| !line.starts_with("0 ")).collect();
    assert!(refused.len() > 2, "nothing was refused: {done:?}");
    for line in refused {
        assert!(
            line.starts_with("7 ") && line.contains("Make room on"),
            "{line}"
        );
    }
}
