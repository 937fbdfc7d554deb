//! Clients: one reader for what a client registers and for the document that its
//! id leads to. Pure; believes nothing but what it can check, and says nothing of
//! a client that people could take for more than its own word.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::redirect;

/// Characters of a name.
const NAME_CHARS: usize = 64;

/// The way in which a client shows that it is the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Method {
    /// Not at all: PKCE alone ties its requests together.
    #[serde(rename = "none")]
    None,
    /// With its secret in the form.
    #[serde(rename = "client_secret_post")]
    Post,
    /// With its secret in a header.
    #[serde(rename = "client_secret_basic")]
    Basic,
}

impl Method {
    /// All, the usual one first.
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Post, Self::Basic];

    /// Returns its word in the protocol.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Post => "client_secret_post",
            Self::Basic => "client_secret_basic",
        }
    }

    fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == word)
    }
}

/// A client as this server understands it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    /// What it calls itself; empty where it does not.
    pub(crate) name: String,
    /// Where its answers may go, at least one.
    pub(crate) redirects: Vec<String>,
    /// How it shows that it is the one.
    pub(crate) method: Method,
    /// SHA-256 of its secret in hex, where it has one.
    pub(crate) secret_hash: Option<String>,
}

/// Why a client is not taken: the protocol's code and words.
pub(crate) type BadClient = (&'static str, String);

impl Client {
    /// Reads what a client registers. Unknown members are ignored.
    ///
    /// # Errors
    /// With the code of RFC 7591.
    pub(crate) fn registered(members: &Map<String, Value>) -> Result<Self, BadClient> {
        let method = match members.get("token_endpoint_auth_method") {
            None | Some(Value::Null) => Some(Method::Basic),
            Some(value) => value.as_str().and_then(Method::read),
        };
        let method = method.ok_or_else(|| {
            let words = Method::ALL.map(Method::as_str).join(", ");
            metadata(&format!(
                "token_endpoint_auth_method must be one of {words}"
            ))
        })?;
        Self::read(members, method)
    }

    /// Reads the document that a client's id leads to.
    ///
    /// # Errors
    /// In words, when it is not that client's, or no client of ours.
    pub(super) fn of_document(id: &str, members: &Map<String, Value>) -> Result<Self, BadClient> {
        if members.get("client_id").and_then(Value::as_str) != Some(id) {
            return Err(metadata("client_id is not the address of the document"));
        }
        if members.contains_key("client_secret") {
            return Err(metadata("a document that all can read holds a secret"));
        }
        // ChatGPT's has both: the plural is what it can do.
        let plural = members.get("token_endpoint_auth_methods_supported");
        let can = match plural.and_then(Value::as_array) {
            Some(words) => words.iter().any(|word| word == "none"),
            None => match members.get("token_endpoint_auth_method") {
                None | Some(Value::Null) => true,
                Some(word) => word == "none",
            },
        };
        if !can {
            return Err(metadata("the client cannot do without a secret (`none`)"));
        }
        Self::read(members, Method::None)
    }

    fn read(members: &Map<String, Value>, method: Method) -> Result<Self, BadClient> {
        let uris = members.get("redirect_uris").and_then(Value::as_array);
        let uris = uris.filter(|uris| (1..=redirect::MOST).contains(&uris.len()));
        let uris = uris.ok_or_else(|| {
            let words = format!("redirect_uris must hold 1 to {} texts", redirect::MOST);
            ("invalid_redirect_uri", words)
        })?;
        let mut redirects = Vec::with_capacity(uris.len());
        for (at, uri) in uris.iter().enumerate() {
            let uri = uri.as_str().unwrap_or_default();
            redirect::check(uri).map_err(|problem| {
                (
                    "invalid_redirect_uri",
                    format!("redirect_uris[{at}] {problem}"),
                )
            })?;
            redirects.push(uri.to_owned());
        }
        let has = |name: &str, word: &str| match members.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(words)) => words.iter().any(|one| one == word),
            Some(_) => false,
        };
        if !has("grant_types", "authorization_code") || !has("response_types", "code") {
            return Err(metadata(
                "only the grant authorization_code, with the response code, is given here",
            ));
        }
        let name = members.get("client_name").and_then(Value::as_str);
        Ok(Self {
            name: tidy(name.unwrap_or_default()),
            redirects,
            method,
            secret_hash: None,
        })
    }

    /// Says whether an answer may go to a URI.
    pub(super) fn may_redirect(&self, asked: &str) -> bool {
        self.redirects
            .iter()
            .any(|one| redirect::matches(one, asked))
    }
}

fn metadata(words: &str) -> BadClient {
    ("invalid_client_metadata", words.to_owned())
}

/// Returns a name without what could make it look like something else: control,
/// direction and invisible characters, and the quotes that it is shown in.
fn tidy(name: &str) -> String {
    let visible = |c: &char| {
        !c.is_control()
            && !matches!(*c, '"' | '\u{ab}' | '\u{bb}' | '\u{201c}'..='\u{201f}' | '\u{2039}' | '\u{203a}'
                | '\u{275d}'..='\u{275e}' | '\u{301d}'..='\u{301f}' | '\u{ff02}')
            && !matches!(*c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
    };
    let name: String = name
        .trim()
        .chars()
        .filter(visible)
        .take(NAME_CHARS)
        .collect();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn members(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(members) => members,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn registrations_are_read() {
        let good = json!({"redirect_uris": ["https://x.example/cb"], "client_name": "X", "scope": "claudeai", "application_type": "web"});
        let with = |name: &str, value: Value| {
            let mut whole = good.clone();
            whole[name] = value;
            Client::registered(&members(whole))
        };
        let read = with("x", json!(1)).expect("a client");
        assert_eq!((read.name.as_str(), read.method), ("X", Method::Basic));
        let method = "token_endpoint_auth_method";
        assert_eq!(
            with(method, json!("none")).expect("one").method,
            Method::None
        );
        for (name, value, code) in [
            (method, json!("private_key_jwt"), "invalid_client_metadata"),
            (method, json!(7), "invalid_client_metadata"),
            ("redirect_uris", json!([]), "invalid_redirect_uri"),
            (
                "redirect_uris",
                json!("https://x.example/cb"),
                "invalid_redirect_uri",
            ),
            (
                "redirect_uris",
                json!(["http://evil.example"]),
                "invalid_redirect_uri",
            ),
            (
                "redirect_uris",
                json!(vec!["https://x.example/cb"; 17]),
                "invalid_redirect_uri",
            ),
            (
                "grant_types",
                json!(["client_credentials"]),
                "invalid_client_metadata",
            ),
            (
                "response_types",
                json!(["token"]),
                "invalid_client_metadata",
            ),
        ] {
            assert_eq!(
                with(name, value.clone()).expect_err("refused").0,
                code,
                "{name} {value}"
            );
        }
        let types = json!(["refresh_token", "authorization_code", "urn:x"]);
        assert!(
            with("grant_types", types).is_ok(),
            "unknown ones are ignored"
        );
    }

    #[test]
    fn documents_of_real_clients_are_read() {
        let chatgpt = "https://chatgpt.com/oauth/client.json";
        let document = json!({
            "client_id": chatgpt,
            "client_name": "ChatGPT",
            "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
            "jwks_uri": "https://chatgpt.com/oauth/jwks.json",
            "grant_types": ["authorization_code", "refresh_token"],
        });
        let read = Client::of_document(chatgpt, &members(document.clone())).expect("ChatGPT");
        assert_eq!(read.method, Method::None);
        let code = "https://claude.ai/oauth/claude-code-client-metadata";
        let claude = json!({
            "client_id": code,
            "client_name": "Claude Code",
            "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
            "token_endpoint_auth_method": "none",
        });
        let read = Client::of_document(code, &members(claude)).expect("Claude Code");
        assert!(read.may_redirect("http://localhost:5555/callback"));
        assert!(!read.may_redirect("http://localhost:5555/other"));
        let bad = |name: &str, value: Value| {
            let mut whole = document.clone();
            whole[name] = value;
            Client::of_document(chatgpt, &members(whole)).is_err()
        };
        assert!(bad(
            "client_id",
            json!("https://chatgpt.com/oauth/client.json/")
        ));
        assert!(bad("client_secret", json!("x")));
        assert!(bad(
            "token_endpoint_auth_methods_supported",
            json!(["private_key_jwt"])
        ));
    }

    #[test]
    fn names_show_nothing_but_themselves() {
        for (name, expected) in [
            ("Claude", "Claude"),
            (" a\u{202e}b\0c\r\nd\u{200b} ", "abcd"),
            ("\u{e0041}x", "x"),
            (&"y".repeat(100), &"y".repeat(64)),
        ] {
            assert_eq!(tidy(name), expected);
        }
    }
}
