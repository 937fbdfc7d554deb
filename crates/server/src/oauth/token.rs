//! A request at the token endpoint, read: which client, by what it shows that it
//! is the one, and for what. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq as _;

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
    method: Method,
}

/// Reads who asks, from the header or from the form but never from both.
///
/// # Errors
/// When nobody is named, or two are.
pub(crate) fn credentials(
    authorization: Option<&str>,
    form: &Params,
) -> Result<Credentials, Refusal> {
    let id = form.get("client_id");
    let in_form = form.get("client_secret");
    let Some(header) = authorization else {
        let id = id.ok_or(Refusal::Client)?.to_owned();
        return Ok(Credentials {
            id,
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
        method: if secret.is_some() {
            Method::Basic
        } else {
            Method::None
        },
        secret,
    })
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
    /// Checks that they are a client's.
    ///
    /// # Errors
    /// When they are not, or come in another way than the client registered.
    pub(crate) fn check(&self, client: &Client) -> Result<(), Refusal> {
        let good = match (client.method, &client.secret_hash, &self.secret) {
            (Method::None, None, None) => true,
            (method, Some(hash), Some(secret)) if method == self.method => secret::hash(secret)
                .as_bytes()
                .ct_eq(hash.as_bytes())
                .into(),
            _ => false,
        };
        if good { Ok(()) } else { Err(Refusal::Client) }
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
        ] {
            let read = credentials(authorization.as_deref(), &form(text));
            let checked = read.and_then(|one| one.check(&client(method, secret)));
            assert_eq!(checked.is_ok(), good, "{authorization:?} {text} {method:?}");
        }
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
