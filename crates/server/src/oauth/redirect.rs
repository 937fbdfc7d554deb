//! Redirect URIs: which may be registered, when one that is asked for is a
//! registered one, and which host gets the answer. Pure.

use reqwest::Url;

use crate::public_url::split_authority;

/// Bytes of a redirect URI, and how many a client may have.
const LONGEST: usize = 512;
pub(super) const MOST: usize = 16;

/// Schemes that no answer may go to: a browser or the system would run, read or
/// send it.
const REFUSED: [&str; 29] = [
    "about",
    "blob",
    "chrome",
    "chrome-extension",
    "data",
    "edge",
    "facetime",
    "feed",
    "file",
    "filesystem",
    "ftp",
    "intent",
    "jar",
    "javascript",
    "ldap",
    "mailto",
    "moz-extension",
    "res",
    "resource",
    "search-ms",
    "sftp",
    "smb",
    "sms",
    "ssh",
    "tel",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// What the schemes of Windows' own handlers begin with.
const WINDOWS: &str = "ms-";

/// Parameters that the answer itself has.
const OURS: [&str; 4] = ["code", "state", "iss", "error"];

/// Hosts of this very machine.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// Checks that a URI may be registered.
///
/// # Errors
/// With the words that follow it in a message.
pub(super) fn check(uri: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(
                byte,
                b'*' | b'\\' | b'"' | b'\'' | b'<' | b'>' | b'`' | b'{' | b'}' | b'|' | b'^'
            )
    };
    if uri.len() > LONGEST || !uri.bytes().all(plain) {
        return Err("is too long, or has characters that no redirect URI needs");
    }
    if uri.contains('#') {
        return Err("has a fragment");
    }
    let parsed = Url::parse(uri).map_err(|_| "is no URI")?;
    let scheme = parsed.scheme();
    let written = uri.split(':').next().unwrap_or_default();
    if written != scheme {
        return Err("has a scheme that is not in lower case");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("has a user name or password");
    }
    if parsed.query_pairs().any(|(name, _)| OURS.contains(&&*name)) {
        return Err("has a parameter that the answer adds itself");
    }
    match scheme {
        // What a parser would have to mend is not what it says.
        "https"
            if uri.starts_with("https://")
                && parsed
                    .host_str()
                    .is_some_and(|host| is_authority(uri, host, parsed.port())) =>
        {
            Ok(())
        }
        "http" if loopback(uri).is_some() => Ok(()),
        "https" | "http" => Err("is neither https with a plain host nor http of this machine"),
        scheme if scheme.len() < 3 || REFUSED.contains(&scheme) || scheme.starts_with(WINDOWS) => {
            Err("has a scheme that no answer may go to")
        }
        _ => Ok(()),
    }
}

/// Says whether a URI names a host as a parser reads it, in letters that mean
/// nothing in a header or a page, with or without a port in its one spelling.
fn is_authority(uri: &str, host: &str, port: Option<u16>) -> bool {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    let Ok((written, _)) = split_authority(authority) else {
        return false;
    };
    let spelt = match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    written == host && authority == spelt
}

/// Says whether a URI that is asked for is one that is registered: byte for byte,
/// but for the port on this very machine, which native clients choose anew each
/// time (RFC 8252, 7.3).
pub(super) fn matches(registered: &str, asked: &str) -> bool {
    if registered == asked {
        return true;
    }
    match (loopback(registered), loopback(asked)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// Returns host and rest of a URI of this very machine, without its port.
fn loopback(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http://")?;
    let host = LOOPBACK.into_iter().find(|host| rest.starts_with(host))?;
    let rest = rest.get(host.len()..)?;
    let Some(numbered) = rest.strip_prefix(':') else {
        return (rest.is_empty() || rest.starts_with(['/', '?'])).then_some((host, rest));
    };
    let end = numbered.find(['/', '?']).unwrap_or(numbered.len());
    let (port, rest) = numbered.split_at(end);
    let good = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    (good && port.parse::<u16>().is_ok()).then_some((host, rest))
}

/// The receiver of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receiver {
    /// What people are shown: the host, with its port where that is not https's own,
    /// or the scheme of an app.
    pub(super) shown: String,
    /// What people type where nobody knows whose it is: the part of it that counts.
    pub(super) typed: String,
    pub(super) kind: ReceiverKind,
}

/// What kind of thing gets an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceiverKind {
    /// This very machine, as seen from the browser, by this origin.
    Local {
        /// Such as `http://127.0.0.1:33418`.
        origin: String,
    },
    /// A site at the port of https.
    Site {
        /// Its host.
        host: String,
        /// Where there, without dot segments.
        path: String,
    },
    /// A site at another port.
    Port,
    /// An app on the person's device.
    App,
}

/// Returns who gets an answer that goes to a URI, which was checked before.
pub(super) fn receiver(uri: &str) -> Receiver {
    let parsed = Url::parse(uri).ok();
    let host = parsed
        .as_ref()
        .and_then(|url| url.host_str().map(str::to_owned));
    match (parsed, host) {
        (Some(url), Some(host)) if loopback(uri).is_some() => Receiver {
            shown: host.clone(),
            typed: host,
            kind: ReceiverKind::Local {
                origin: url.origin().ascii_serialization(),
            },
        },
        (Some(url), Some(host)) if matches!(url.scheme(), "http" | "https") => match url.port() {
            None => Receiver {
                shown: host.clone(),
                typed: host.clone(),
                kind: ReceiverKind::Site {
                    host,
                    path: url.path().to_owned(),
                },
            },
            Some(port) => Receiver {
                shown: format!("{host}:{port}"),
                typed: format!("{host}:{port}"),
                kind: ReceiverKind::Port,
            },
        },
        _ => {
            let scheme = uri.split(':').next().unwrap_or_default();
            Receiver {
                shown: format!("an app on this device ({scheme}:)"),
                typed: format!("{scheme}:"),
                kind: ReceiverKind::App,
            }
        }
    }
}

/// Returns a URI with parameters added to its query.
pub(super) fn with(uri: &str, params: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(params);
    let glue = match uri.split_once('?') {
        None => "?",
        Some((_, before)) if before.is_empty() || before.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{uri}{glue}{}", query.finish())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_may_be_registered() {
        for (uri, good) in [
            (
                "https://chatgpt.com/connector_platform_oauth_redirect",
                true,
            ),
            ("https://claude.ai/api/mcp/auth_callback", true),
            ("https://x.example:8443/cb?a=b", true),
            ("http://127.0.0.1/callback", true),
            ("http://127.0.0.1:33418/", true),
            ("http://[::1]:1/cb", true),
            ("http://localhost/callback", true),
            ("cursor://anysphere.cursor-retrieval/oauth", true),
            ("com.example.app:/cb", true),
            ("http://evil.example/cb", false),
            ("http://127.0.0.1.evil.example/", false),
            ("http://localhost.evil.example/", false),
            ("http://127.0.0.1:00080/", false),
            ("http://127.0.0.1:70000/", false),
            ("http://127.0.0.1:/", false),
            ("https:evil.example", false),
            ("https:///evil.example", false),
            ("https://u:p@x.example/", false),
            ("https://u@x.example/", false),
            ("https://x.example/#f", false),
            ("https://*.example/", false),
            ("https://x.example\\@y.example/", false),
            ("https://X.example/", false),
            ("HTTPS://x.example/", false),
            ("https://0x7f000001/", false),
            ("https://x.example/?code=1", false),
            ("https://x.example/?a=b&iss=1", false),
            ("https://x.example/ y", false),
            ("https://ä.example/", false),
            ("https://a;sandbox/cb", false),
            ("https://a,b.example/", false),
            ("https://(x)/", false),
            ("https://x&amp;.example/", false),
            ("https://x$y.example/", false),
            ("https://x.example:443/", false),
            ("https://x.example:/", false),
            ("https://x.example:0443/", false),
            ("https://x.example:08443/", false),
            ("https://[2606:4700::1111]/cb", true),
            ("https://[2606:4700:0::1111]/cb", false),
            ("javascript:alert(1)", false),
            ("filesystem:https://x.example/", false),
            ("mailto:a@x.example", false),
            ("intent://x#Intent;end", false),
            ("ms-msdt:/id", false),
            ("search-ms:query=x", false),
            ("chrome-extension://abc/cb", false),
            ("data:text/html,x", false),
            ("file:///etc/passwd", false),
            ("view-source:https://x.example", false),
            ("a:x", false),
            ("", false),
            ("/cb", false),
        ] {
            assert_eq!(check(uri).is_ok(), good, "{uri}: {:?}", check(uri));
        }
        assert!(check(&format!("https://x.example/{}", "a".repeat(500))).is_err());
    }

    #[test]
    fn ports_of_this_machine_are_free_and_nothing_else_is() {
        for (registered, asked, same) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:5555/cb", true),
            (
                "http://localhost/callback",
                "http://localhost:5555/callback",
                true,
            ),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1/cb", true),
            ("http://[::1]:1/cb", "http://[::1]:2/cb", true),
            ("http://127.0.0.1/cb", "http://localhost:5555/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:5555/cb/", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:5555/cb?x=1", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:05555/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:65536/cb", false),
            (
                "http://127.0.0.1/cb",
                "http://127.0.0.1:80@evil.example/cb",
                false,
            ),
            (
                "http://127.0.0.1/cb",
                "http://127.0.0.1.evil.example/cb",
                false,
            ),
            ("http://127.0.0.1/cb", "https://127.0.0.1/cb", false),
            ("https://x.example/cb", "https://x.example:443/cb", false),
            ("https://x.example/cb", "https://x.example/CB", false),
            ("https://x.example/cb", "https://x.example/%63b", false),
            ("https://x.example/cb", "https://x.example/cb", true),
        ] {
            assert_eq!(matches(registered, asked), same, "{registered} {asked}");
        }
    }

    #[test]
    fn answers_name_their_receiver() {
        let site = |host: &str, path: &str| ReceiverKind::Site {
            host: host.to_owned(),
            path: path.to_owned(),
        };
        let local = |origin: &str| ReceiverKind::Local {
            origin: origin.to_owned(),
        };
        for (uri, shown, kind) in [
            (
                "https://x.example/cb?a",
                "x.example",
                site("x.example", "/cb"),
            ),
            (
                "https://x.example/a/../b",
                "x.example",
                site("x.example", "/b"),
            ),
            (
                "https://x.example/a/%2e%2E/b",
                "x.example",
                site("x.example", "/b"),
            ),
            (
                "https://x.example:8443/cb",
                "x.example:8443",
                ReceiverKind::Port,
            ),
            (
                "http://localhost:5/cb",
                "localhost",
                local("http://localhost:5"),
            ),
            ("http://[::1]:5/cb", "[::1]", local("http://[::1]:5")),
            (
                "https://xn--e1awd7f.example/",
                "xn--e1awd7f.example",
                site("xn--e1awd7f.example", "/"),
            ),
            (
                "cursor://a/b",
                "an app on this device (cursor:)",
                ReceiverKind::App,
            ),
        ] {
            let typed = match kind {
                ReceiverKind::App => "cursor:",
                _ => shown,
            };
            let expected = Receiver {
                shown: shown.to_owned(),
                typed: typed.to_owned(),
                kind,
            };
            assert_eq!(receiver(uri), expected);
        }
        assert_eq!(with("https://x/", &[("a", "b c")]), "https://x/?a=b+c");
        assert_eq!(
            with("https://x/?y=1", &[("a", "&")]),
            "https://x/?y=1&a=%26"
        );
        assert_eq!(with("https://x/?", &[("a", "1")]), "https://x/?a=1");
    }

    proptest! {
        #[test]
        fn what_matches_goes_to_the_same_host(
            asked in "http://(127\\.0\\.0\\.1|localhost|\\[::1\\])[:@.a-z0-9/\\\\?#%]{0,20}",
        ) {
            for registered in ["http://127.0.0.1/cb", "http://localhost/cb", "http://[::1]/cb"] {
                if matches(registered, &asked) {
                    let host = |uri: &str| Url::parse(uri).expect("a URI").host_str().map(str::to_owned);
                    prop_assert_eq!(host(registered), host(&asked));
                }
            }
        }
    }
}
