//! The greeting, word for word, and the ways a server ends.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::{Isolation, Language, Layer, Support};

use super::*;
use crate::config::{Env, Flags, resolve};

const TOKEN: &str = "codex_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn greet(env: &[(&str, &str)], flags: &[(&'static str, &str)], keys: Keys) -> String {
    let env: Env = env.iter().copied().collect();
    let flags = Flags(
        flags
            .iter()
            .map(|(name, value)| (*name, vec![(*value).to_owned()]))
            .collect(),
    );
    let settings = resolve(&flags, &env, None, "/data".into()).unwrap();
    let layer = |name: &str, holds: bool, detail: &str, cure: &str| Layer {
        name: name.to_owned(),
        holds,
        detail: detail.to_owned(),
        cure: cure.to_owned(),
    };
    let support = Support {
        isolation: Some(Isolation::Namespaces),
        layers: vec![
            layer("user namespace", true, "own", ""),
            layer(
                "memory cgroup",
                false,
                "no writable hierarchy",
                "start it with systemd Delegate=yes",
            ),
        ],
    };
    let language = |title: &str, version: &str, cure: Option<&str>| Language {
        name: title.to_lowercase(),
        title: title.to_owned(),
        aliases: Vec::new(),
        extensions: Vec::new(),
        version: version.to_owned(),
        available: cure.is_none(),
        cure: cure.map(str::to_owned),
        interpreter: None,
        passed_over: Vec::new(),
        version_of: None,
    };
    let url = public_url::local(&settings.config);
    Greeting {
        settings: &settings,
        support: &support,
        languages: vec![
            language("Python", "3.11.2", None),
            language("JavaScript", "", Some("install node")),
        ],
        keys,
        url: &url,
    }
    .to_string()
}

#[test]
fn the_first_start_shows_the_token_once_with_a_curl_line() {
    let expected = format!(
        "codex-server {}
  isolation   namespaces
              without memory cgroup: no writable hierarchy. Cure: start it with systemd Delegate=yes
  languages   Python 3.11.2
              without JavaScript: install node
  state       /data

Your token, named \"default\", shown this once:

  {TOKEN}

Try it:

  curl -sS -X POST http://127.0.0.1:8000/execute -H \"Authorization: Bearer {TOKEN}\" -H \"Content-Type: application/json\" -d '{{\"code\": \"print(2+2)\", \"language\": \"python\"}}'

Connect ChatGPT, by OpenAI's tunnel and without a public port:

  codex-server connect chatgpt

Connect Claude Code, Codex, Cursor, VS Code: codex-server connect

listening on http://127.0.0.1:8000",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(
        greet(&[], &[], Keys::First(Token::parse(TOKEN).unwrap())),
        expected
    );
}

#[test]
fn versions_stand_apart_and_a_missing_language_is_no_example() {
    let language = |title: &str, version: &str, of: Option<&str>| Language {
        name: title.to_lowercase(),
        title: title.to_owned(),
        aliases: Vec::new(),
        extensions: Vec::new(),
        version: version.to_owned(),
        available: !version.is_empty(),
        cure: None,
        interpreter: None,
        passed_over: Vec::new(),
        version_of: of.map(str::to_owned),
    };
    let check = |languages: Vec<Language>, expected: &str| {
        let said = Greeting {
            settings: &Settings::defaults("/data".into()),
            support: &Support {
                isolation: Some(Isolation::Full),
                layers: Vec::new(),
            },
            languages,
            keys: Keys::Known(vec!["default".to_owned()]),
            url: "http://127.0.0.1:8000",
        }
        .to_string();
        assert!(said.contains(expected), "lacks {expected:?}:\n{said}");
    };
    let versions = vec![
        language("Python", "3.11.2", None),
        language("JavaScript", "20.1.0", None),
        language("Python 3.12", "3.12.1", Some("python")),
        language("Python 3.9", "3.9.18", Some("python")),
    ];
    check(
        versions,
        "  languages   Python 3.11.2, JavaScript 20.1.0\n              and Python 3.12, Python 3.9\n",
    );
    check(
        vec![language("Python", "", None)],
        "Try it, once there is Python:",
    );
    check(vec![language("Python", "3.11.2", None)], "Try it:");
}

#[test]
fn commands_can_be_copied() {
    let check = |program: &str, flags: &[(&'static str, &str)], home: &str, expected: &str| {
        let flags = flags
            .iter()
            .map(|(name, value)| (*name, vec![(*value).to_owned()]));
        let env: Env = [("HOME", "/h")].into_iter().collect();
        let flags = Flags(flags.collect());
        let mut settings = resolve(&flags, &env, None, home.into()).unwrap();
        program.clone_into(&mut settings.program);
        assert_eq!(settings.command("token list"), expected);
    };
    check("codex-server", &[], "/data", "codex-server token list");
    check(
        "/b/codex-server",
        &[],
        "/data",
        "/b/codex-server token list",
    );
    check(
        "codex-server",
        &[("home", "data")],
        "/my data",
        "codex-server token list --home '/my data'",
    );
}

#[test]
fn an_end_for_want_of_use_is_announced() {
    let said = greet(&[], &[("idle_shutdown", "30m")], Keys::Known(Vec::new()));
    assert!(
        said.contains("idle stop   after 1800 s without use"),
        "{said}"
    );
    assert!(!greet(&[], &[], Keys::Known(Vec::new())).contains("idle"));
}

#[test]
fn each_place_has_its_words() {
    let check =
        |env: &[(&str, &str)], flags: &[(&'static str, &str)], keys: Keys, expected: &[&str]| {
            let text = greet(env, flags, keys);
            for words in expected {
                assert!(text.contains(words), "lacks {words:?}:\n{text}");
            }
            assert_eq!(
                text.lines().last(),
                Some("listening on http://127.0.0.1:8000")
            );
        };
    let first = || Keys::First(Token::parse(TOKEN).unwrap());
    let known = || Keys::Known(vec!["default".to_owned(), "b".to_owned()]);
    check(
        &[],
        &[],
        known(),
        &[
            "Tokens: default, b.",
            "codex-server token create NAME",
            "Bearer $TOKEN",
        ],
    );
    check(
        &[],
        &[],
        Keys::Known(Vec::new()),
        &["All tokens are revoked"],
    );
    check(
        &[("CODESPACES", "true"), ("CODESPACE_NAME", "x")],
        &[],
        first(),
        &[
            "public URL  https://x-8000.app.github.dev (from Codespaces)",
            "gh codespace ports visibility 8000:public -c x",
            "imports https://x-8000.app.github.dev/actions/openapi.json: codex-server connect chatgpt --by action",
            "POST http://127.0.0.1:8000/execute",
        ],
    );
    check(
        &[("RAILWAY_PUBLIC_DOMAIN", "x.up.railway.app")],
        &[],
        known(),
        &[
            "POST https://x.up.railway.app/execute",
            "on all interfaces (because of Railway)",
        ],
    );
    check(
        &[],
        &[("host", "0.0.0.0")],
        known(),
        &["reachable   on all interfaces (because of --host)"],
    );
    check(
        &[],
        &[("open", "true")],
        Keys::Open,
        &["WARNING: open mode", "/execute -H \"Content-Type"],
    );
    check(
        &[],
        &[("open", "true"), ("host", "0.0.0.0")],
        Keys::Open,
        &["it can be reached from other machines"],
    );
    check(
        &[("FLY_APP_NAME", "x")],
        &[("open", "true")],
        Keys::Open,
        &["listening on loopback alone"],
    );
}

#[test]
fn chatgpt_comes_by_the_tunnel() {
    let id = "tunnel_0123456789abcdef0123456789abcdef";
    let check = |flags: &[(&'static str, &str)], has: &str, lacks: &str| {
        let text = greet(&[], flags, Keys::Known(Vec::new()));
        assert!(text.contains(has) && !text.contains(lacks), "{text}");
        assert!(text.contains("connect chatgpt\n"), "{text}");
    };
    let (mine, none, action) = (
        format!("reaches this server by {id}"),
        "by OpenAI's tunnel",
        "--by action",
    );
    check(&[("tunnel", id)], &mine, none);
    check(&[], none, action);
    check(&[("public_url", "http://x.example")], none, action);
    check(&[("public_url", "https://x.example")], action, &mine);
}

/// Sends a signal to this test process, as a terminal or service unit would.
#[expect(clippy::disallowed_methods, reason = "tests may start kill(1)")]
fn kill(signal: &str) {
    let pid = std::process::id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args([signal, &pid])
            .status()
            .unwrap()
            .success()
    );
}

// One test, because signals reach every listener in the process.
#[tokio::test(flavor = "multi_thread")]
async fn signals_end_a_server_in_order() {
    let mut signals = Signals::new().unwrap();
    let patience = Patience {
        grace: Duration::from_secs(8),
        last: Duration::from_millis(200),
    };

    // A signal tells the server, which ends in its own time.
    let (stop, stopped) = oneshot::channel::<()>();
    let told = AtomicBool::new(false);
    let server = async {
        told.store(stopped.await.is_ok(), Ordering::Relaxed);
        Ok(())
    };
    kill("-TERM");
    let exit = until_stopped(server, stop, &mut signals, pending(), patience, || 1).await;
    assert_eq!(exit.unwrap(), Exit::Success);
    assert!(told.load(Ordering::Relaxed));

    // A second signal ends it at once.
    let (stop, stopped) = oneshot::channel::<()>();
    let server = async {
        stopped.await.unwrap();
        kill("-INT");
        pending().await
    };
    kill("-INT");
    let exit = until_stopped(
        server,
        stop,
        &mut signals,
        pending(),
        Patience {
            last: Duration::from_secs(600),
            ..patience
        },
        || 1,
    )
    .await;
    assert_eq!(exit.unwrap(), Exit::Interrupted);

    // One that never ends is left behind.
    let (stop, _stopped) = oneshot::channel::<()>();
    kill("-HUP");
    let exit = until_stopped(pending(), stop, &mut signals, pending(), patience, || 0).await;
    assert_eq!(exit.unwrap(), Exit::Success);

    // A broken sandbox ends it in order too, with a code of its own.
    let (stop, stopped) = oneshot::channel::<()>();
    let server = async { stopped.await.map_err(io::Error::other) };
    let looks = AtomicUsize::new(0);
    let look = || looks.fetch_add(1, Ordering::Relaxed) < 3;
    let broken = async {
        broken(look, Duration::from_millis(1)).await;
        End::Broken
    };
    let exit = until_stopped(server, stop, &mut signals, broken, patience, || 0).await;
    assert_eq!(exit.unwrap(), Exit::Broken);
    assert_eq!(looks.load(Ordering::Relaxed), 4);

    // One that nobody uses ends as if it had been told to.
    let (stop, stopped) = oneshot::channel::<()>();
    let server = async { stopped.await.map_err(io::Error::other) };
    let activity = Activity::default();
    let limit = Duration::from_millis(20);
    let idle = async {
        activity.idle(limit, NOTICE, || false).await;
        End::Idle(limit)
    };
    let exit = until_stopped(server, stop, &mut signals, idle, patience, || 0).await;
    assert_eq!(exit.unwrap(), Exit::Success);

    // One that ends by itself is an error.
    let (stop, _stopped) = oneshot::channel::<()>();
    let failing = async { Err(io::Error::other("no more files")) };
    let failure = until_stopped(failing, stop, &mut signals, pending(), patience, || 0).await;
    let message = failure.unwrap_err().error.to_string();
    assert_eq!(message, "the server stopped listening: no more files");
}

#[tokio::test]
async fn the_first_token_is_made_once() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).await.unwrap();
    assert!(matches!(
        keys(&store, Access::Open).await.unwrap(),
        Keys::Open
    ));
    let Keys::First(token) = keys(&store, Access::Token).await.unwrap() else {
        panic!("there was none")
    };
    assert!(store.authenticate(token.reveal()).await.unwrap().is_ok());
    let Keys::Known(names) = keys(&store, Access::Token).await.unwrap() else {
        panic!("there is one")
    };
    assert_eq!(names, ["default"]);
    store.revoke_key("default").await.unwrap();
    let Keys::Known(names) = keys(&store, Access::Token).await.unwrap() else {
        panic!("there was one")
    };
    assert!(names.is_empty());
}
