//! A request at the token endpoint, read: which client, by what it shows that it
//! is the one, and for what. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq as _;

use super::assertion::{Assertion, KIND};
use super::client::{Client, Method};
use super::params::Params;
use super::secret;

/// Why a client gets nothing, as RFC 6749, 5.2 and RFC 8707 name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request is not whole.
    Request(&'static str),
    /// The client is not known, or did not show that it is the one.
    Client,
    /// The code or token is not good.
    Grant,
    /// The tokens are for another place.
    Target,
    /// It wants more than it was granted.
    Scope,
    /// Such grants are not given.
    GrantType,
}

impl Refusal {
    /// Returns the protocol's code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Request(_) => "invalid_request",
            Self::Client => "invalid_client",
            Self::Grant => "invalid_grant",
            Self::Target => "invalid_target",
            Self::Scope => "invalid_scope",
            Self::GrantType => "unsupported_grant_type",
        }
    }

    /// Returns words for the client's log.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Request(words) => words,
            Self::Client => {
                "the client is not known here, or showed no good credentials; register again"
            }
            Self::Grant => "the code or token is not good, or not any more; ask the user again",
            Self::Target => "the grant is for another resource",
            Self::Scope => "the grant has fewer scopes",
            Self::GrantType => "grant_type must be authorization_code or refresh_token",
        }
    }
}

/// A client as it names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Its id.
    pub(crate) id: String,
    secret: Option<String>,
    /// What it signed; empty, which is never good, where that is of another kind.
    signed: Option<String>,
    method: Method,
}

/// Reads who asks, from the header or from the form but never from both; what it
/// signed too, where `takes_keys`, which may be all that says who it is.
///
/// # Errors
/// When nobody is named, or two are.
pub(crate) fn credentials(
    authorization: Option<&str>,
    form: &Params,
    takes_keys: bool,
) -> Result<Credentials, Refusal> {
    let id = form.get("client_id");
    let in_form = form.get("client_secret");
    let signed = takes_keys.then(|| signed(form)).flatten();
    let Some(header) = authorization else {
        let subject = || Assertion::read(signed?).ok()?.subject().map(str::to_owned);
        let id = id.map(str::to_owned).or_else(subject);
        return Ok(Credentials {
            id: id.ok_or(Refusal::Client)?,
            signed: signed.map(str::to_owned),
            secret: in_form.map(str::to_owned),
            method: if in_form.is_some() {
                Method::Post
            } else {
                Method::None
            },
        });
    };
    let (name, password) = basic(header).ok_or(Refusal::Client)?;
    if in_form.is_some() || id.is_some_and(|id| id != name) {
        return Err(Refusal::Request(
            "credentials come in the header and in the form; send them once",
        ));
    }
    // An empty password is what some libraries send for none.
    let secret = (!password.is_empty()).then_some(password);
    Ok(Credentials {
        id: name,
        signed: signed.map(str::to_owned),
        method: if secret.is_some() {
            Method::Basic
        } else {
            Method::None
        },
        secret,
    })
}

/// Returns what a client signed; an empty text for what is of another kind.
fn signed(form: &Params) -> Option<&str> {
    let text = form.get("client_assertion");
    match form.get("client_assertion_type") {
        Some(KIND) => Some(text.unwrap_or_default()),
        Some(_) => Some(""),
        None => text.map(|_| ""),
    }
}

/// Reads `Basic`, whose parts are encoded as a form is (RFC 6749, 2.3.1).
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, rest) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    let decode = |part: &str| {
        let pair = format!("={part}");
        let mut pairs = form_urlencoded::parse(pair.as_bytes());
        pairs
            .next()
            .map_or_else(String::new, |(_, value)| value.into_owned())
    };
    // An id that is an address has a colon of its own, which must be encoded.
    Some((decode(name), decode(password)))
}

impl Credentials {
    /// Checks that they are a client's, but for what it signed: that is returned, and
    /// nothing is shown before it is proven.
    ///
    /// # Errors
    /// When they are not, or come in another way than the client registered.
    pub(crate) fn check(&self, client: &Client) -> Result<Option<&str>, Refusal> {
        // Who need not sign may send what it likes, unless it has keys.
        if let (Some(_), Some(signed)) = (&client.keys, &self.signed) {
            let alone = self.secret.is_none();
            return alone
                .then_some(Some(signed.as_str()))
                .ok_or(Refusal::Client);
        }
        let good = match (client.method, &client.secret_hash, &self.secret) {
            (Method::None, None, None) => true,
            (method, Some(hash), Some(secret)) if method == self.method => secret::hash(secret)
                .as_bytes()
                .ct_eq(hash.as_bytes())
                .into(),
            _ => false,
        };
        if good { Ok(None) } else { Err(Refusal::Client) }
    }
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// Tokens for a code.
    Exchange {
        code: &'a str,
        verifier: &'a str,
        redirect: Option<&'a str>,
    },
    /// The next tokens.
    Refresh {
        token: &'a str,
        scope: Option<&'a str>,
    },
}

/// Reads what a client wants.
///
/// # Errors
/// When it is not said, or not given here.
pub(crate) fn wanted(form: &Params) -> Result<Wanted<'_>, Refusal> {
    match form.get("grant_type") {
        Some("authorization_code") => {
            let verifier = form.get("code_verifier");
            Ok(Wanted::Exchange {
                code: form
                    .get("code")
                    .ok_or(Refusal::Request("code is missing"))?,
                verifier: verifier.filter(|text| secret::is_verifier(text)).ok_or(
                    Refusal::Request("code_verifier must be 43 to 128 unreserved characters"),
                )?,
                redirect: form.get("redirect_uri"),
            })
        }
        Some("refresh_token") => Ok(Wanted::Refresh {
            token: form
                .get("refresh_token")
                .ok_or(Refusal::Request("refresh_token is missing"))?,
            scope: form.get("scope"),
        }),
        Some(_) => Err(Refusal::GrantType),
        None => Err(Refusal::Request("grant_type is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Params {
        Params::parse(text.as_bytes()).expect("parameters")
    }

    fn client(method: Method, secret: Option<&str>) -> Client {
        Client {
            name: String::new(),
            redirects: vec!["https://x.example/cb".to_owned()],
            method,
            secret_hash: secret.map(secret::hash),
            keys: None,
        }
    }

    #[test]
    fn clients_show_what_they_registered() {
        let header = |text: &str| format!("Basic {}", BASE64.encode(text));
        let (none, post, basic) = (Method::None, Method::Post, Method::Basic);
        for (authorization, text, method, secret, good) in [
            (None, "client_id=c", none, None, true),
            (None, "client_id=c&client_secret=s", none, None, false),
            (None, "client_id=c&client_secret=s", post, Some("s"), true),
            (None, "client_id=c&client_secret=t", post, Some("s"), false),
            (None, "client_id=c", post, Some("s"), false),
            (None, "client_id=c&client_secret=s", basic, Some("s"), false),
            (Some(header("c:s")), "", basic, Some("s"), true),
            (Some(header("c:s")), "client_id=c", basic, Some("s"), true),
            (Some(header("c:a%2Bb")), "", basic, Some("a+b"), true),
            (Some(header("c:s")), "", post, Some("s"), false),
            (Some(header("c:")), "", none, None, true),
            (Some(header("c:s")), "client_id=d", basic, Some("s"), false),
            (
                Some(header("c:s")),
                "client_secret=s",
                basic,
                Some("s"),
                false,
            ),
            (
                Some("Bearer x".to_owned()),
                "client_id=c",
                none,
                None,
                false,
            ),
            (Some("Basic !".to_owned()), "client_id=c", none, None, false),
            (None, "", none, None, false),
            // Who has no keys may send what it likes.
            (None, "client_id=c&client_assertion=x", none, None, true),
            (
                None,
                "client_id=c&client_assertion=x",
                Method::Signed,
                None,
                false,
            ),
            (None, "client_id=c", Method::Signed, None, false),
            (None, "client_assertion=x", none, None, false),
        ] {
            let read = credentials(authorization.as_deref(), &form(text), true);
            let checked = read.and_then(|one| {
                let signed = one.check(&client(method, secret))?;
                assert_eq!(signed, None, "without keys nothing is proven");
                Ok(())
            });
            assert_eq!(checked.is_ok(), good, "{authorization:?} {text} {method:?}");
        }
    }

    #[test]
    fn clients_with_keys_show_what_they_signed() {
        let kind = KIND.replace(':', "%3A");
        let typed = format!("client_assertion_type={kind}");
        let keys = || serde_json::from_str(r#"{"algorithm":"RS256","set":[],"fresh_until":0}"#);
        let named = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjIn0.";
        let (none, signed) = (Method::None, Method::Signed);
        let check = |authorization: Option<&str>, text: &str, method, expected| {
            let client = Client {
                keys: keys().expect("keys"),
                ..client(method, None)
            };
            let read = credentials(authorization, &form(text), true);
            let shown = read.map(|one| one.check(&client).map(|shown| shown.map(str::to_owned)));
            let shown = shown.and_then(|shown| shown);
            let expected: Result<Option<&str>, Refusal> = expected;
            assert_eq!(
                shown,
                expected.map(|shown| shown.map(str::to_owned)),
                "{text}"
            );
        };
        for method in [none, signed] {
            let whole = format!("client_id=c&{typed}&client_assertion=x");
            check(None, &whole, method, Ok(Some("x")));
            check(
                None,
                &format!("{typed}&client_assertion={named}"),
                method,
                Ok(Some(named)),
            );
            check(
                None,
                &format!("{typed}&client_assertion=x"),
                method,
                Err(Refusal::Client),
            );
            // Of no kind, of another, or nothing: an empty text is never good.
            check(None, "client_id=c&client_assertion=x", method, Ok(Some("")));
            check(
                None,
                "client_id=c&client_assertion=x&client_assertion_type=y",
                method,
                Ok(Some("")),
            );
            check(None, &format!("client_id=c&{typed}"), method, Ok(Some("")));
            check(
                None,
                &format!("{whole}&client_secret=s"),
                method,
                Err(Refusal::Client),
            );
            let basic = format!("Basic {}", BASE64.encode("c:s"));
            check(Some(&basic), &whole, method, Err(Refusal::Client));
        }
        check(None, "client_id=c", none, Ok(None));
        check(None, "client_id=c", signed, Err(Refusal::Client));
        // Where the setting is off.
        let off = credentials(None, &form("client_id=c&client_assertion=x"), false).expect("read");
        assert_eq!(off.check(&client(none, None)), Ok(None));
        assert_eq!(off.check(&client(signed, None)), Err(Refusal::Client));
        let unnamed = format!("{typed}&client_assertion={named}");
        assert!(credentials(None, &form(&unnamed), false).is_err());
    }

    #[test]
    fn wishes_are_read() {
        let verifier = "v".repeat(43);
        let whole = format!("grant_type=authorization_code&code=c&code_verifier={verifier}");
        assert!(matches!(
            wanted(&form(&whole)),
            Ok(Wanted::Exchange { redirect: None, .. })
        ));
        assert!(matches!(
            wanted(&form("grant_type=refresh_token&refresh_token=r")),
            Ok(Wanted::Refresh { .. })
        ));
        for (text, code) in [
            ("grant_type=authorization_code&code=c", "invalid_request"),
            (
                "grant_type=authorization_code&code=c&code_verifier=short",
                "invalid_request",
            ),
            ("grant_type=refresh_token", "invalid_request"),
            ("grant_type=client_credentials", "unsupported_grant_type"),
            ("code=c", "invalid_request"),
        ] {
            assert_eq!(
                wanted(&form(text)).expect_err("refused").code(),
                code,
                "{text}"
            );
        }
    }
}
