//! A request for a grant, read: who asks, where the answer goes, and what for.
//! Pure. Client and redirect come first, since what is wrong with them must never
//! be told by a redirect.

use super::client::Client;
use super::params::Params;
use super::redirect::{self, Receiver, ReceiverKind};
use super::{Site, known_path, scopes, secret};
use crate::auth::Scope;

/// Bytes of a state, which is given back as it came.
const STATE_BYTES: usize = 4096;

/// A request that may be put before a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Where the answer goes.
    pub(crate) answer: Answer,
    /// Whether the client said where.
    pub(crate) redirect_sent: bool,
    /// The challenge of PKCE.
    pub(crate) challenge: String,
    /// What the client wants to do.
    pub(crate) scopes: Vec<Scope>,
}

/// The way of an answer to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Where it goes.
    pub(crate) redirect: String,
    /// What goes back as it came.
    pub(crate) state: Option<String>,
    /// Who gets it.
    pub(crate) receiver: Receiver,
    /// What is known of that.
    pub(crate) trust: Trust,
}

impl Answer {
    /// Returns the address of an answer, with who gives it (RFC 9207).
    pub(crate) fn url(&self, site: &Site, params: &[(&str, &str)]) -> String {
        let mut params = params.to_vec();
        if let Some(state) = &self.state {
            params.push(("state", state));
        }
        params.push(("iss", site.issuer()));
        redirect::with(&self.redirect, &params)
    }
}

/// What is known of who gets an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It is a program on the person's own device.
    Local,
    /// People know whose it is: a place where ChatGPT or Claude takes answers, or
    /// one at the host of the client's own document there.
    Known,
    /// The operator listed its host.
    Listed,
    /// Nobody knows.
    Stranger,
}

impl Receiver {
    /// Returns what people are shown.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns what people type to show that they know it.
    pub(crate) fn typed(&self) -> &str {
        &self.typed
    }

    /// Says whether it is an app, which a link would start.
    pub(crate) fn is_app(&self) -> bool {
        self.kind == ReceiverKind::App
    }

    /// Returns what is known of it, for a client of this id.
    fn trust(&self, client: &str, listed: &[String]) -> Trust {
        let (host, path) = match &self.kind {
            ReceiverKind::Local { .. } => return Trust::Local,
            ReceiverKind::Site { host, path } => (host, path),
            ReceiverKind::Port | ReceiverKind::App => return Trust::Stranger,
        };
        if known_path(host, path) || (super::is_known(host) && document_host(client) == Some(host))
        {
            Trust::Known
        } else if listed.contains(host) {
            Trust::Listed
        } else {
            Trust::Stranger
        }
    }
}

/// Returns the host of a client's document, where its id is the address of one.
pub(crate) fn document_host(client: &str) -> Option<&str> {
    client.strip_prefix("https://")?.split('/').next()
}

impl Answer {
    /// Says whether it may go there without a person's doing.
    pub(crate) fn is_expected(&self) -> bool {
        self.trust != Trust::Stranger
    }

    /// Returns the sources, as policies write them, that a form may end at by a
    /// redirect; `None` where it goes by a page of its own. Browsers hold every hop
    /// after a form against the policy of the page with the form: programs of this
    /// machine lead on to a page of their makers, the sites that people know to each
    /// other, strangers anywhere. No policy can name an IPv6 address.
    pub(crate) fn form_sources(&self) -> Option<String> {
        match (&self.receiver.kind, self.trust) {
            (ReceiverKind::Local { origin }, _) if !origin.contains('[') => {
                Some(format!("{origin} https:"))
            }
            (ReceiverKind::Site { .. }, Trust::Known) => Some(super::known_origins()),
            _ => None,
        }
    }
}

/// Why a request is not put before a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is told to the person, and to nobody else.
    Page(&'static str),
    /// The client is told by a redirect: the protocol's code, and words.
    Back(Box<Answer>, &'static str, &'static str),
}

/// Checks a request of a client that is known, for an operator who listed hosts.
///
/// # Errors
/// See [`Stop`].
pub(crate) fn check(
    site: &Site,
    client: &Client,
    params: &Params,
    listed: &[String],
) -> Result<Asked, Stop> {
    let asked = params.get("redirect_uri");
    let redirect = match (asked, client.redirects.as_slice()) {
        (Some(uri), _) if client.may_redirect(uri) && redirect::check(uri).is_ok() => uri,
        (Some(_), _) => {
            return Err(Stop::Page(
                "The client asks for an answer at an address that it has not registered.",
            ));
        }
        (None, [only]) => only,
        (None, _) => {
            return Err(Stop::Page(
                "The client does not say where the answer shall go.",
            ));
        }
    };
    let state = params.get("state");
    if state.is_some_and(|state| state.len() > STATE_BYTES) {
        return Err(Stop::Page(
            "The client sent a state of more than 4096 bytes.",
        ));
    }
    let receiver = redirect::receiver(redirect);
    let id = params.get("client_id").unwrap_or_default();
    let answer = Answer {
        redirect: redirect.to_owned(),
        state: state.map(str::to_owned),
        trust: receiver.trust(id, listed),
        receiver,
    };
    let back = |code, words| Err(Stop::Back(Box::new(answer.clone()), code, words));
    if params.get("request").is_some() {
        return back("request_not_supported", "send plain parameters");
    }
    if params.get("request_uri").is_some() {
        return back("request_uri_not_supported", "send plain parameters");
    }
    match params.get("response_type") {
        Some("code") => {}
        Some(_) => return back("unsupported_response_type", "response_type must be code"),
        None => return back("invalid_request", "response_type is missing"),
    }
    if params
        .get("response_mode")
        .is_some_and(|mode| mode != "query")
    {
        return back("invalid_request", "response_mode must be query");
    }
    if params
        .get("prompt")
        .is_some_and(|prompt| prompt.split(' ').any(|word| word == "none"))
    {
        return back("login_required", "a person has to agree");
    }
    if params.get("code_challenge_method") != Some("S256") {
        return back("invalid_request", "code_challenge_method must be S256");
    }
    let challenge = params
        .get("code_challenge")
        .filter(|text| secret::is_challenge(text));
    let Some(challenge) = challenge else {
        return back(
            "invalid_request",
            "code_challenge must be 43 characters of base64url",
        );
    };
    if params
        .get("resource")
        .is_some_and(|resource| resource != site.resource())
    {
        return back(
            "invalid_target",
            "this server gives grants for its own /mcp alone",
        );
    }
    Ok(Asked {
        redirect_sent: asked.is_some(),
        challenge: challenge.to_owned(),
        scopes: scopes(params.get("scope")),
        answer,
    })
}

#[cfg(test)]
mod tests {
    use super::super::client::Method;
    use super::*;

    fn client(redirects: &[&str]) -> Client {
        Client {
            name: "x".to_owned(),
            redirects: redirects.iter().map(|uri| (*uri).to_owned()).collect(),
            method: Method::None,
            secret_hash: None,
            keys: None,
        }
    }

    const GOOD: &str = "response_type=code&client_id=c&redirect_uri=https://x.example/cb&state=a%26b&code_challenge_method=S256&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&resource=https://s.example/mcp&scope=execute";

    #[test]
    fn requests_are_checked_in_order() {
        let site = Site::at("https://s.example");
        let client = client(&["https://x.example/cb", "http://127.0.0.1/cb"]);
        let read = |query: &str| {
            let params = Params::parse(query.as_bytes()).expect("parameters");
            check(&site, &client, &params, &[])
        };
        let asked = read(GOOD).expect("a request");
        assert_eq!(asked.scopes, [Scope::Execute]);
        assert_eq!(
            asked.answer.url(&site, &[("code", "1")]),
            "https://x.example/cb?code=1&state=a%26b&iss=https%3A%2F%2Fs.example"
        );
        assert_eq!(asked.answer.trust, Trust::Stranger);
        for (from, to, code) in [
            (
                "response_type=code",
                "response_type=token",
                "unsupported_response_type",
            ),
            ("response_type=code&", "", "invalid_request"),
            ("S256", "plain", "invalid_request"),
            ("code_challenge_method=S256&", "", "invalid_request"),
            ("w-cM", "w-c", "invalid_request"),
            ("/mcp", "/mcp/", "invalid_target"),
            (
                "https://s.example/mcp",
                "https://S.example/mcp",
                "invalid_target",
            ),
            ("state=", "prompt=none&state=", "login_required"),
            ("state=", "response_mode=fragment&state=", "invalid_request"),
            ("state=", "request=x&state=", "request_not_supported"),
            (
                "state=",
                "request_uri=x&state=",
                "request_uri_not_supported",
            ),
        ] {
            let Err(Stop::Back(answer, told, words)) = read(&GOOD.replacen(from, to, 1)) else {
                panic!("{from} {to}");
            };
            assert_eq!(told, code, "{from} {to}");
            assert_eq!(answer.state.as_deref(), Some("a&b"));
            assert!(!words.is_empty());
        }
        for (from, to) in [
            ("x.example/cb", "x.example/cb/"),
            ("x.example/cb", "evil.example/cb"),
            (
                "https://x.example/cb",
                "http://127.0.0.1:80@evil.example/cb",
            ),
            ("redirect_uri=https://x.example/cb&", ""),
            ("state=a", &format!("state={}", "a".repeat(5000))),
        ] {
            let read = read(&GOOD.replacen(from, to, 1));
            assert!(matches!(read, Err(Stop::Page(_))), "{from} {to}: {read:?}");
        }
    }

    #[test]
    fn one_redirect_need_not_be_named() {
        let site = Site::at("https://s.example");
        let query = GOOD.replace("redirect_uri=https://x.example/cb&", "");
        let query = query.replace("&resource=https://s.example/mcp&scope=execute", "");
        let params = Params::parse(query.as_bytes()).expect("parameters");
        let client = client(&["https://x.example/cb"]);
        let asked = check(&site, &client, &params, &[]).expect("a request");
        assert!(!asked.redirect_sent);
        assert_eq!(asked.scopes, super::super::OFFERED);
    }

    const KNOWN: Option<&str> = Some("https://chatgpt.com https://claude.ai https://claude.com");
    const CHATGPT: &str = "https://chatgpt.com/oauth/client.json";

    /// A redirect URI, a client's id, what is known of it, and where a form may end.
    const PLACES: &[(&str, &str, Trust, Option<&str>)] = &[
        (
            "https://chatgpt.com/connector_platform_oauth_redirect",
            "x",
            Trust::Known,
            KNOWN,
        ),
        (
            "https://chatgpt.com/connector/oauth/abc",
            "x",
            Trust::Known,
            KNOWN,
        ),
        (
            "https://claude.ai/api/mcp/auth_callback",
            "x",
            Trust::Known,
            KNOWN,
        ),
        (
            "https://claude.com/api/mcp/auth_callback",
            "x",
            Trust::Known,
            KNOWN,
        ),
        // Another place there may lead anywhere, but for the host's own client.
        (
            "https://claude.ai/login?returnTo=/x",
            "x",
            Trust::Stranger,
            None,
        ),
        ("https://chatgpt.com/new", CHATGPT, Trust::Known, KNOWN),
        ("https://claude.ai/new", CHATGPT, Trust::Stranger, None),
        (
            "https://chatgpt.com/connector/oauth/../../x",
            "x",
            Trust::Stranger,
            None,
        ),
        (
            "https://chatgpt.com/connector_platform_oauth_redirect/x",
            "x",
            Trust::Stranger,
            None,
        ),
        (
            "https://chatgpt.com:8443/connector/oauth/a",
            CHATGPT,
            Trust::Stranger,
            None,
        ),
        (
            "https://evil.example/cb",
            "https://evil.example/c",
            Trust::Stranger,
            None,
        ),
        ("https://auth.corp.example/cb", "x", Trust::Listed, None),
        (
            "https://auth.corp.example:8443/cb",
            "x",
            Trust::Stranger,
            None,
        ),
        (
            "http://127.0.0.1:5555/cb",
            "x",
            Trust::Local,
            Some("http://127.0.0.1:5555 https:"),
        ),
        (
            "http://localhost/cb",
            "x",
            Trust::Local,
            Some("http://localhost https:"),
        ),
        ("http://[::1]:5/cb", "x", Trust::Local, None),
        ("cursor://a/b", "x", Trust::Stranger, None),
    ];

    #[test]
    fn only_known_places_are_trusted() {
        let listed = ["auth.corp.example".to_owned()];
        for (uri, id, trust, form_source) in PLACES {
            let receiver = redirect::receiver(uri);
            let answer = Answer {
                redirect: (*uri).to_owned(),
                state: None,
                trust: receiver.trust(id, &listed),
                receiver,
            };
            let source = answer.form_sources();
            assert_eq!(
                (answer.trust, source.as_deref()),
                (*trust, *form_source),
                "{uri}"
            );
            assert_eq!(answer.is_expected(), *trust != Trust::Stranger);
        }
    }
}
