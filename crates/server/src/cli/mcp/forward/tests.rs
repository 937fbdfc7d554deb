//! Which servers are called.

use std::ffi::OsString;

use super::*;

#[test]
fn servers_are_named_safely() {
    let check = |url: &str, env: &[(&str, &str)], expected: Result<&str, &str>| {
        let env = env
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let env: Env = env.collect();
        let found = named(url, &Flags::default(), &env);
        let found = found.map_err(|failure| failure.error.to_string());
        match (found, expected) {
            (Ok(server), Ok(expected)) => assert_eq!(server.url, expected, "{url}"),
            (Err(told), Err(words)) => {
                assert!(told.contains(words), "{url}: {told}");
                assert!(!told.contains("codex_secret"), "{told}");
            }
            (found, _) => panic!("{url}: {:?}", found.map(|server| server.url)),
        }
    };
    check("https://x.example", &[], Ok("https://x.example"));
    check("https://x.example/mcp", &[], Ok("https://x.example"));
    check("https://x.example/a/mcp/", &[], Ok("https://x.example/a"));
    check("https://mcp", &[], Ok("https://mcp"));
    check("https://mcp/mcp", &[], Ok("https://mcp"));
    check("http://127.0.0.1:1/mcp", &[], Ok("http://127.0.0.1:1"));
    check("http://[::1]:1", &[], Ok("http://[::1]:1"));
    check("http://localhost", &[], Ok("http://localhost"));
    check("http://x.example", &[], Err("ssh -L"));
    check("http://localhost.x.example", &[], Err("ssh -L"));
    check("http://127.0.0.1.x.example", &[], Err("ssh -L"));
    check("x.example", &[], Err("https://host"));
    check("https://a@x.example", &[], Err("--url"));
    let token = ("CODEX_TOKEN", "codex_secret");
    check("https://x.example", &[token], Ok("https://x.example"));
    let same = ("CODEX_URL", "https://X.example/");
    check(
        "https://x.example/mcp",
        &[token, same],
        Ok("https://x.example"),
    );
    let other = ("CODEX_URL", "https://y.example");
    check("https://x.example", &[token, other], Err("unset CODEX_URL"));
    check("https://x.example", &[other], Ok("https://x.example"));
    let odd = ("CODEX_TOKEN", "codex_secret\u{e9}");
    check("https://x.example", &[odd], Err("copy it again"));
}
