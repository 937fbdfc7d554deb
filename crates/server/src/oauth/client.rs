//! Clients: one reader for what a client registers and for the document that its
//! id leads to. Pure; believes nothing but what it can check, and says nothing of
//! a client that people could take for more than its own word.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::keys::ClientKeys;
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
    /// With what it signs with a key of its document's.
    #[serde(rename = "private_key_jwt")]
    Signed,
}

impl Method {
    /// Those that may be registered, the usual one first. A key would be the word of
    /// whoever registers, and worth no more than a secret.
    pub(crate) const REGISTRABLE: [Self; 3] = [Self::None, Self::Post, Self::Basic];

    /// Returns its word in the protocol.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Post => "client_secret_post",
            Self::Basic => "client_secret_basic",
            Self::Signed => "private_key_jwt",
        }
    }

    fn read(word: &str) -> Option<Self> {
        let mut all = Self::REGISTRABLE.into_iter();
        all.find(|method| method.as_str() == word)
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
    /// Its keys, where it may sign: with the method `none` it may do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<ClientKeys>,
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
            let words = Method::REGISTRABLE.map(Method::as_str).join(", ");
            metadata(&format!(
                "token_endpoint_auth_method must be one of {words}"
            ))
        })?;
        Self::read(members, method)
    }

    /// Reads the document that a client's id leads to; its keys too, where `takes_keys`.
    ///
    /// # Errors
    /// In words, when it is not that client's, or no client of ours.
    pub(super) fn of_document(
        id: &str,
        members: &Map<String, Value>,
        takes_keys: bool,
    ) -> Result<Self, BadClient> {
        if members.get("client_id").and_then(Value::as_str) != Some(id) {
            return Err(metadata("client_id is not the address of the document"));
        }
        if members.contains_key("client_secret") {
            return Err(metadata("a document that all can read holds a secret"));
        }
        // ChatGPT's has both: the plural is what it can do.
        let plural = members.get("token_endpoint_auth_methods_supported");
        let singular = members.get("token_endpoint_auth_method");
        let can = |method: Method| match (plural.and_then(Value::as_array), singular) {
            (Some(words), _) => words.iter().any(|word| word == method.as_str()),
            (None, None | Some(Value::Null)) => method == Method::None,
            (None, Some(word)) => word == method.as_str(),
        };
        let signs = takes_keys && can(Method::Signed);
        let keys = signs.then(|| ClientKeys::of_document(id, members));
        let (method, keys) = match (can(Method::None), keys) {
            // It need not sign, so it may go without keys that are not good here.
            (true, keys) => (Method::None, keys.and_then(Result::ok)),
            (false, Some(Ok(keys))) => (Method::Signed, Some(keys)),
            (false, Some(Err(why))) => return Err(metadata(why)),
            (false, None) => {
                return Err(metadata("the client cannot do without a secret (`none`)"));
            }
        };
        let client = Self::read(members, method)?;
        Ok(Self { keys, ..client })
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
            keys: None,
        })
    }

    /// Takes over the keys that were fetched before, where they are still at the same
    /// address.
    pub(super) fn carry_keys_over(&mut self, old: Option<Self>) {
        if let (Some(keys), Some(old)) = (&mut self.keys, old.and_then(|old| old.keys)) {
            keys.carry_over(old);
        }
    }

    /// Says until when keys are good that the document itself holds.
    pub(super) fn date_keys(&mut self, fresh_until: i64) {
        if let Some(keys) = &mut self.keys
            && keys.address.is_none()
        {
            keys.fresh_until = fresh_until;
        }
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

    const CHATGPT: &str = "https://chatgpt.com/oauth/client.json";

    /// ChatGPT's document as it is published.
    fn chatgpt() -> Value {
        json!({
            "client_id": CHATGPT,
            "client_name": "ChatGPT",
            "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
            "token_endpoint_auth_signing_alg": "RS256",
            "jwks_uri": "https://chatgpt.com/oauth/jwks.json",
            "grant_types": ["authorization_code", "refresh_token"],
        })
    }

    #[test]
    fn documents_of_real_clients_are_read() {
        let document = chatgpt();
        for takes_keys in [false, true] {
            let read = Client::of_document(CHATGPT, &members(document.clone()), takes_keys);
            let read = read.expect("ChatGPT");
            assert_eq!(read.method, Method::None);
            assert_eq!(read.keys.is_some(), takes_keys);
        }
        let code = "https://claude.ai/oauth/claude-code-client-metadata";
        let claude = json!({
            "client_id": code,
            "client_name": "Claude Code",
            "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
            "token_endpoint_auth_method": "none",
        });
        let read = Client::of_document(code, &members(claude), true).expect("Claude Code");
        assert_eq!((read.method, &read.keys), (Method::None, &None));
        assert!(read.may_redirect("http://localhost:5555/callback"));
        assert!(!read.may_redirect("http://localhost:5555/other"));
        let bad = |name: &str, value: Value| {
            let mut whole = document.clone();
            whole[name] = value;
            Client::of_document(CHATGPT, &members(whole), true).is_err()
        };
        assert!(bad(
            "client_id",
            json!("https://chatgpt.com/oauth/client.json/")
        ));
        assert!(bad("client_secret", json!("x")));
    }

    #[test]
    fn documents_say_who_signs() {
        let none = || json!(["none"]);
        let (both, signed) = (
            json!(["none", "private_key_jwt"]),
            json!(["private_key_jwt"]),
        );
        let (here, there) = ("https://chatgpt.com/k", "https://cdn.example/k");
        let (may, must, cannot) = (
            Some((Method::None, true)),
            Some((Method::Signed, true)),
            Some((Method::None, false)),
        );
        for (plural, singular, uri, takes_keys, expected) in [
            (both.clone(), json!("private_key_jwt"), here, true, may),
            (both.clone(), json!("private_key_jwt"), here, false, cannot),
            (both, json!("private_key_jwt"), there, true, cannot),
            (signed.clone(), json!("none"), here, true, must),
            (signed.clone(), json!("none"), here, false, None),
            (signed, json!("none"), there, true, None),
            (none(), json!("private_key_jwt"), here, true, cannot),
            (json!(null), json!("private_key_jwt"), here, true, must),
            (json!(null), json!("private_key_jwt"), there, true, None),
            (json!(null), json!(null), here, true, cannot),
            (json!(["client_secret_post"]), json!(null), here, true, None),
        ] {
            let mut document = chatgpt();
            document["token_endpoint_auth_methods_supported"] = plural;
            document["token_endpoint_auth_method"] = singular;
            document["jwks_uri"] = json!(uri);
            let told = document.to_string();
            let read = Client::of_document(CHATGPT, &members(document), takes_keys).ok();
            let read = read.map(|client| (client.method, client.keys.is_some()));
            assert_eq!(read, expected, "{takes_keys} {told}");
        }
    }

    #[test]
    fn clients_that_were_kept_before_keys_are_read() {
        let kept = r#"{"name":"","redirects":["https://x.example/cb"],"method":"none","secret_hash":null}"#;
        let client: Client = serde_json::from_str(kept).expect("a client");
        assert_eq!((client.method, &client.keys), (Method::None, &None));
        assert_eq!(serde_json::to_string(&client).expect("JSON"), kept);
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
