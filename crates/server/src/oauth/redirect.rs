//! Redirect URIs: which may be registered, when one that is asked for is a
//! registered one, and which host gets the answer. Pure.

use reqwest::Url;

/// Bytes of a redirect URI, and how many a client may have.
const LONGEST: usize = 512;
pub(super) const MOST: usize = 16;

/// Schemes that no answer may go to: a browser would run, read or send it.
const REFUSED: [&str; 9] = [
    "javascript",
    "data",
    "file",
    "blob",
    "about",
    "vbscript",
    "ws",
    "wss",
    "ftp",
];

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
                    .is_some_and(|host| host_written(uri) == host) =>
        {
            Ok(())
        }
        "http" if loopback(uri).is_some() => Ok(()),
        "https" | "http" => Err("is neither https with a plain host nor http of this machine"),
        scheme if scheme.len() < 3 || REFUSED.contains(&scheme) || scheme == "view-source" => {
            Err("has a scheme that no answer may go to")
        }
        _ => Ok(()),
    }
}

/// Returns the host of an `https` or `http` URI as it is written.
fn host_written(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
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
    /// What people are shown: the host, or the scheme of an app.
    pub(super) shown: String,
    /// What a page's policy has to name for a form to end there.
    pub(super) source: String,
    /// Whether it is this very machine, as seen from the browser.
    pub(super) is_local: bool,
}

/// Returns who gets an answer that goes to a URI, which was checked before.
pub(super) fn receiver(uri: &str) -> Receiver {
    let parsed = Url::parse(uri).ok();
    let host = parsed
        .as_ref()
        .and_then(|url| url.host_str().map(str::to_owned));
    match (parsed, host) {
        (Some(url), Some(host)) if matches!(url.scheme(), "http" | "https") => Receiver {
            is_local: loopback(uri).is_some(),
            source: url.origin().ascii_serialization(),
            shown: host,
        },
        _ => {
            let scheme = uri.split(':').next().unwrap_or_default();
            Receiver {
                shown: format!("an app on this device ({scheme}:)"),
                source: format!("{scheme}:"),
                is_local: false,
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
            ("javascript:alert(1)", false),
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
        for (uri, shown, source, is_local) in [
            (
                "https://x.example:8443/cb",
                "x.example",
                "https://x.example:8443",
                false,
            ),
            (
                "http://localhost:5/cb",
                "localhost",
                "http://localhost:5",
                true,
            ),
            (
                "https://xn--e1awd7f.example/",
                "xn--e1awd7f.example",
                "https://xn--e1awd7f.example",
                false,
            ),
            (
                "cursor://a/b",
                "an app on this device (cursor:)",
                "cursor:",
                false,
            ),
        ] {
            let expected = Receiver {
                shown: shown.to_owned(),
                source: source.to_owned(),
                is_local,
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
