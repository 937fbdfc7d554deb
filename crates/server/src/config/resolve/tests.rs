//! Each layer over the one below it, and what each error says.

use super::*;
use crate::config::LogFormat;
use engine::Isolation;
use std::time::Duration;

fn flags(pairs: &[(&'static str, &str)]) -> Flags {
    let mut flags = Flags::default();
    for (name, value) in pairs {
        flags.0.entry(name).or_default().push((*value).to_owned());
    }
    flags
}

fn try_layers(
    given: &[(&'static str, &str)],
    env: &[(&str, &str)],
    file: &str,
) -> Result<Settings, ConfigError> {
    let file = (!file.is_empty()).then_some((Path::new("codex.toml"), file));
    resolve(
        &flags(given),
        &env.iter().copied().collect(),
        file,
        "/data".into(),
    )
}

fn layers(given: &[(&'static str, &str)], env: &[(&str, &str)], file: &str) -> Settings {
    try_layers(given, env, file).unwrap()
}

#[test]
fn flags_over_environment_over_file_over_default() {
    let check =
        |given: &[(&'static str, &str)], env: &[(&str, &str)], file: &str, expected: u16| {
            assert_eq!(
                layers(given, env, file).config.port,
                expected,
                "{given:?} {env:?} {file}"
            );
        };
    let (flag, env, port) = (("port", "1"), ("CODEX_PORT", "2"), ("PORT", "3"));
    check(&[flag], &[env, port], "port = 4", 1);
    check(&[], &[env, port], "port = 4", 2);
    check(&[], &[port], "port = 4", 3);
    check(&[], &[], "port = 4", 4);
    check(&[], &[], "", 8000);
    // An empty variable counts as unset.
    check(&[], &[("CODEX_PORT", ""), port], "", 3);
    check(&[], &[("CODEX_PORT", ""), ("PORT", "")], "port = 4", 4);
}

#[test]
fn every_setting_is_read_from_file_and_environment() {
    for key in keys::all().filter(|key| key.in_file) {
        let sample = match key.kind {
            Kind::Count(_, most, _) => most.to_string(),
            Kind::Bytes(_, most, _) => value::show_bytes(most),
            Kind::Time(_, most, _) => value::show_duration(most),
            Kind::Word(words, _) => words[0].to_owned(),
            Kind::Switch(_) => "true".to_owned(),
            Kind::Text(..) | Kind::List(..) => match key.name {
                "host" | "trusted_proxy" | "file_url_network" => "192.0.2.1".to_owned(),
                "file_url_host" => "*.x.example, y.example:8443".to_owned(),
                "oauth_host" => "auth.x.example".to_owned(),
                "tunnel" => format!("tunnel_{}", "0a".repeat(16)),
                "tunnel_organization" => "org-x1".to_owned(),
                "rate_limit" => "5/second".to_owned(),
                "idle_shutdown" => "30m".to_owned(),
                "search_path" => "/opt/bin:/bin".to_owned(),
                "interpreter" => "py=/opt/py/bin/python3".to_owned(),
                _ => "https://x.example".to_owned(),
            },
        };
        // Company for those that must fit with others.
        let rest =
            "max_timeout = '300s'\nmax_memory = '64GiB'\nmemory = '64GiB'\nmax_body = '1GiB'\n";
        let rest: String = rest
            .lines()
            .filter(|line| !line.starts_with(&format!("{} ", key.name)))
            .map(|l| format!("{l}\n"))
            .collect();
        let file = format!("{rest}{} = {sample:?}", key.name);
        assert!(
            layers(&[], &[], &file).sources.contains_key(key.name),
            "{}",
            key.name
        );
        let name = key.env();
        let found = layers(&[], &[(name.as_str(), sample.as_str())], &rest);
        assert_eq!(found.sources[key.name], Source::Env(name.clone()), "{name}");
    }
}

#[test]
fn documented_defaults_are_the_real_ones() {
    for key in keys::all() {
        let documented = key
            .default
            .split_once(';')
            .map_or(key.default, |(first, _)| first);
        let mut set = Settings::defaults("/data".into());
        if matches!(
            key.kind,
            Kind::Count(..) | Kind::Bytes(..) | Kind::Time(..) | Kind::Word(..) | Kind::Switch(_)
        ) && key.name != "rate_burst"
            && key.name != "concurrency"
        {
            if key.name == "processes" {
                // Unset, it leaves the languages their own numbers.
                set.config.bounds.processes = Some(engine::Bounds::PROCESSES);
            }
            let before = format!("{:?}", set.config);
            apply(key, &[documented.to_owned()], &mut set).unwrap();
            assert_eq!(format!("{:?}", set.config), before, "{}", key.name);
        }
    }
    assert_eq!(value::rate("120/minute"), Ok(RateLimit::PER_KEY));
    assert_eq!(value::rate("10/minute"), Ok(RateLimit::OPEN));
}

fn refused(given: &[(&'static str, &str)], env: &[(&str, &str)], file: &str, expected: &str) {
    let error = try_layers(given, env, file).unwrap_err();
    assert_eq!(error.to_string(), expected, "{given:?} {env:?} {file}");
}

#[test]
fn wrong_values_name_source_and_range() {
    refused(
        &[("port", "http")],
        &[],
        "",
        "--port: port = \"http\" is not a whole number. Give 0 to 65535",
    );
    refused(
        &[("port", "65536")],
        &[],
        "",
        "--port: port = \"65536\" is out of range. Give 0 to 65535",
    );
    refused(
        &[("port", "-1")],
        &[],
        "",
        "--port: port = \"-1\" is out of range. Give 0 to 65535",
    );
    refused(
        &[],
        &[("PORT", "x")],
        "",
        "PORT: port = \"x\" is not a whole number. Give 0 to 65535",
    );
    refused(
        &[],
        &[("CODEX_MAX_TIMEOUT", "3600")],
        "",
        "CODEX_MAX_TIMEOUT: max_timeout = \"3600\" is out of range. Give 1 s to 300 s",
    );
    refused(
        &[],
        &[],
        "# a\n\nmemory = '1KiB'",
        "codex.toml:3: memory = \"1KiB\" is out of range. Give 16 MiB to 64 GiB",
    );
}

#[test]
fn wrong_files_name_the_line() {
    refused(
        &[],
        &[],
        "max_timout = 5",
        "codex.toml:1: unknown setting \"max_timout\"; did you mean max_timeout?",
    );
    refused(
        &[],
        &[],
        "rate-limit = '1/s'",
        "codex.toml:1: unknown setting \"rate-limit\"; did you mean rate_limit?",
    );
    refused(
        &[],
        &[],
        "colour = 'red'",
        "codex.toml:1: unknown setting \"colour\"; docs/configuration.md lists them all",
    );
    refused(
        &[],
        &[],
        "home = '/x'",
        "codex.toml:1: home cannot stand in the file; use --home or CODEX_HOME",
    );
    refused(
        &[],
        &[],
        "[port]\na = 1",
        "codex.toml:1: port is a table. Give 0 to 65535",
    );
    refused(
        &[],
        &[],
        "port = 1\nport = 2",
        "codex.toml:2: is not TOML: duplicate key",
    );
}

#[test]
fn wrong_words_and_contradictions_are_told() {
    refused(
        &[("min_isolation", "max")],
        &[],
        "",
        "--min-isolation: min_isolation = \"max\" is not known. Give full, namespaces, uids",
    );
    refused(
        &[],
        &[("CODEX_MIN_ISOLATION", "landlock")],
        "max_isolation = \"landlock\"",
        "CODEX_MIN_ISOLATION: min_isolation = \"landlock\" no longer exists: the weakest level is uids. Give full, namespaces, uids\ncodex.toml:1: max_isolation = \"landlock\" no longer exists: the weakest level is uids. Give full, namespaces, uids",
    );
    refused(
        &[("public_url", "x.example")],
        &[],
        "",
        "--public-url: public_url = \"x.example\" has no scheme, such as https://. Give http(s)://host[:port][/path]",
    );
    refused(
        &[("trusted_proxy", "127.0.0.1"), ("trusted_proxy", "lo")],
        &[],
        "",
        "--trusted-proxy: trusted_proxy = \"lo\" is neither an address nor a network such as 10.1.0.0/16. Give addresses or networks such as 10.1.0.0/16",
    );
    refused(
        &[],
        &[],
        "timeout = 60",
        "codex.toml:1: timeout of 60 s is above max_timeout of 30 s: raise max_timeout or lower timeout",
    );
    refused(
        &[("port", "x")],
        &[("CODEX_OPEN", "maybe")],
        "memory = true",
        "--port: port = \"x\" is not a whole number. Give 0 to 65535\nCODEX_OPEN: open = \"maybe\" is neither true nor false. Give true, false\ncodex.toml:1: memory = \"true\" is not a size such as 1048576, 512MiB or 1GiB. Give 16 MiB to 64 GiB",
    );
}

#[test]
fn only_flags_make_a_usage_error() {
    assert!(
        try_layers(&[("port", "x")], &[], "")
            .unwrap_err()
            .is_usage()
    );
    assert!(
        !try_layers(&[("port", "x")], &[], "x = 1")
            .unwrap_err()
            .is_usage()
    );
}

#[test]
fn listens_where_its_host_reaches_it() {
    let check = |given: &[(&'static str, &str)], env: &[(&str, &str)], expected: &str| {
        assert_eq!(
            layers(given, env, "").config.host.to_string(),
            expected,
            "{given:?} {env:?}"
        );
    };
    let codespaces = [
        ("CODESPACES", "true"),
        ("CODESPACE_NAME", "x"),
        ("PORT", "8000"),
    ];
    check(&[], &[], "127.0.0.1");
    check(&[], &codespaces, "127.0.0.1");
    check(&[], &[("PORT", "8080")], "0.0.0.0");
    check(
        &[],
        &[
            ("RAILWAY_PUBLIC_DOMAIN", "x.up.railway.app"),
            ("PORT", "8080"),
        ],
        "::",
    );
    check(&[], &[("FLY_APP_NAME", "x")], "::");
    check(&[], &[("RENDER", "true"), ("PORT", "10000")], "0.0.0.0");
    check(&[("host", "127.0.0.1")], &[("PORT", "8080")], "127.0.0.1");
    check(&[("host", "localhost")], &[], "127.0.0.1");
    check(&[("host", "[::1]")], &[], "::1");
    // Open mode never listens beyond loopback unless told to.
    check(&[("open", "true")], &[("PORT", "8080")], "127.0.0.1");
    check(&[("open", "true")], &[("FLY_APP_NAME", "x")], "127.0.0.1");
    check(&[("open", "true"), ("host", "0.0.0.0")], &[], "0.0.0.0");
}

#[test]
fn public_url_and_its_source() {
    let check =
        |given: &[(&'static str, &str)], env: &[(&str, &str)], expected: Option<(&str, &str)>| {
            let config = layers(given, env, "").config;
            let found = config
                .public_url
                .as_deref()
                .zip(config.public_url_source.as_deref());
            assert_eq!(found, expected, "{given:?} {env:?}");
        };
    let fly = ("FLY_APP_NAME", "x");
    check(&[], &[], None);
    check(&[], &[fly], Some(("https://x.fly.dev", "Fly")));
    check(
        &[("public_url", "https://y.example/")],
        &[fly],
        Some(("https://y.example", "--public-url")),
    );
    check(
        &[],
        &[("CODEX_PUBLIC_URL", "https://y.example"), fly],
        Some(("https://y.example", "CODEX_PUBLIC_URL")),
    );
    let mut settings = layers(
        &[("port", "0")],
        &[("CODESPACES", "true"), ("CODESPACE_NAME", "x")],
        "",
    );
    assert_eq!(settings.config.public_url, None);
    settings.bound_to(4321);
    assert_eq!(
        settings.config.public_url.as_deref(),
        Some("https://x-4321.app.github.dev")
    );
}

#[test]
fn rates_follow_the_access() {
    let check = |given: &[(&'static str, &str)], file: &str, expected: RateLimit| {
        assert_eq!(layers(given, &[], file).config.rate, expected, "{given:?}");
    };
    let five = RateLimit {
        requests: 5,
        period: Duration::from_secs(1),
        burst: 5,
    };
    check(&[], "", RateLimit::PER_KEY);
    check(&[("open", "true")], "", RateLimit::OPEN);
    check(&[("rate_limit", "5/second")], "", five);
    check(&[("open", "true"), ("rate_limit", "5/second")], "", five);
    check(
        &[("rate_limit", "5/second")],
        "rate_burst = 7",
        RateLimit { burst: 7, ..five },
    );
    check(&[("rate_limit", "off")], "rate_burst = 7", RateLimit::OFF);
}

#[test]
fn values_that_follow_others() {
    let settings = layers(&[("max_timeout", "5"), ("max_memory", "32M")], &[], "");
    assert_eq!(settings.config.bounds.wall_time, Duration::from_secs(5));
    assert_eq!(settings.config.bounds.memory, 32 << 20);
    assert_eq!(settings.config.bounds.shm, 32 << 20);
}

#[test]
fn words_and_lists_arrive() {
    let file = "log_format = 'json'\nmin_isolation = 'full'\ncors_origin = ['https://a.example', 'https://b.example']\nopen = true";
    let config = layers(
        &[],
        &[("CODEX_TRUSTED_PROXY", "10.0.0.1, ::1, 172.16.9.9/12")],
        file,
    )
    .config;
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.min_isolation, Isolation::Full);
    assert_eq!(
        config.cors_origins,
        ["https://a.example", "https://b.example"]
    );
    for (peer, trusted) in [
        ("10.0.0.1", true),
        ("::ffff:10.0.0.1", true),
        ("10.0.0.2", false),
        ("::1", true),
        ("172.17.0.1", true),
        ("172.32.0.1", false),
    ] {
        let peer = peer.parse().expect("an address");
        assert_eq!(config.trusts(peer), trusted, "{peer}");
    }
    assert_eq!(config.access, Access::Open);
}

#[test]
fn misspelt_variables_are_told() {
    let found = layers(
        &[],
        &[
            ("CODEX_MAX_TIMEOUTS", "5"),
            ("CODEX_SANDBOX_NETWORK_DISABLED", "1"),
            ("CODEX_URL", "https://x.example"),
            ("CODEX_TOKEN", "codex_x"),
        ],
        "",
    )
    .warnings;
    assert_eq!(
        found,
        ["CODEX_MAX_TIMEOUTS is not a setting; did you mean CODEX_MAX_TIMEOUT?"]
    );
}
