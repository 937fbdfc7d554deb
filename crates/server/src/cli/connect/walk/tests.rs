//! The walk with a person who types, up to where a server is needed; the rest
//! is tried with a real one in the tests of the whole server.

use std::os::unix::fs::PermissionsExt as _;

use super::super::chatgpt::tests::Scripted;
use super::*;
use crate::config::Settings;

const ID: &str = "tunnel_0123456789abcdef0123456789abcdef";

/// Walks with these answers, and returns what was heard. The control plane is a
/// port at which nobody listens.
fn walk(home: &std::path::Path, answers: &[&'static str]) -> (Exit, String) {
    let mut settings = Settings::defaults(home.to_owned());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    settings.config.tunnel.url = Some(tunnel::control_plane(&url).unwrap());
    settings.config.tunnel.usual_key_file = home.join(tunnel::KEY_FILE);
    let mut person = Scripted::with(answers);
    let plan = TunnelPlan::of(&settings);
    let exit = lead(&mut person, plan, Duration::ZERO).unwrap();
    (exit, person.heard)
}

#[test]
fn what_is_missing_is_asked_for_and_kept() {
    let scratch = tempfile::tempdir().unwrap();
    let home = scratch.path().join("home");
    let file = home.join(tunnel::KEY_FILE);
    let check = |answers: &[&'static str], words: &[&str], kept: bool| {
        let (exit, heard) = walk(&home, answers);
        assert_eq!(exit, Exit::Public);
        for words in words {
            assert!(heard.contains(words), "lacks {words:?}: {heard}");
        }
        assert!(!heard.contains("sk-secret"), "{heard}");
        assert_eq!(file.exists(), kept, "{heard}");
    };
    let later = "run this again";
    check(&[], &["Create a tunnel", later], false);
    check(&[""], &["connect chatgpt", later], false);
    check(
        &["tunnel_x", ID, ""],
        &["✗ that is no tunnel's id", ID, later],
        false,
    );
    let key = "a key that is none";
    check(&[ID, key, ""], &["✗ the tunnel's key", later], false);
    check(
        &[ID, "codex_abc", ""],
        &["a token of this server", later],
        false,
    );
    let start = format!("up --tunnel {ID}");
    let words = [
        "cannot be used now",
        &start,
        "… no server runs",
        "Not connected",
    ];
    check(&[ID, "sk-secret"], &words, true);
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // It is found now, and not asked for.
    check(&[ID], &words, true);
    let all = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&file, all).unwrap();
    check(&[ID], &["can be read by others", "chmod 600", later], true);
}
