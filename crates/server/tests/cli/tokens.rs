//! Tokens without a server.

use crate::support::Home;

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
        .refused(2, "use execute or admin");
    home.run(&["token", "create", "ops", "--scope", "admin"])
        .out();
    home.run(&["token", "create", "plain"]).out();
    let list: serde_json::Value =
        serde_json::from_str(home.run(&["token", "list", "--json"]).out()).unwrap();
    assert_eq!(list[0]["scopes"], serde_json::json!(["execute", "admin"]));
    assert_eq!(list[1]["scopes"], serde_json::json!(["execute"]));
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
