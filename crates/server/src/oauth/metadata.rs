//! The documents by which clients find their way: whose tokens `/mcp` takes, and
//! what this authorization server can do. Pure.

use serde_json::{Value, json};

use super::client::Method;
use super::keys::Algorithm;
use super::{OFFERED, Site, words};

/// Returns the metadata of `/mcp` (RFC 9728).
pub(crate) fn resource(site: &Site) -> Value {
    json!({
        "resource": site.resource(),
        "authorization_servers": [site.issuer()],
        "scopes_supported": OFFERED.map(crate::auth::Scope::as_str),
        "bearer_methods_supported": ["header"],
        "resource_name": "Codex Server",
    })
}

/// Returns the metadata of the authorization server (RFC 8414); clients are told that
/// they may sign where `takes_keys`, and not otherwise: ChatGPT then prefers it.
pub(crate) fn server(site: &Site, takes_keys: bool) -> Value {
    let at = |path: &str| format!("{}/oauth/{path}", site.issuer());
    let mut methods = Method::REGISTRABLE.map(Method::as_str).to_vec();
    methods.extend(takes_keys.then_some(Method::Signed.as_str()));
    let mut told = json!({
        "issuer": site.issuer(),
        "authorization_endpoint": at("authorize"),
        "token_endpoint": site.token_endpoint(),
        "registration_endpoint": at("register"),
        "revocation_endpoint": at("revoke"),
        "scopes_supported": OFFERED.map(crate::auth::Scope::as_str),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": true,
    });
    if takes_keys {
        for endpoint in ["token", "revocation"] {
            let name = format!("{endpoint}_endpoint_auth_signing_alg_values_supported");
            told[name] = json!(Algorithm::ALL.map(Algorithm::as_str));
        }
    }
    told
}

/// Returns the challenge of an answer to who may not enter `/mcp`: with the
/// error where a token came.
pub(crate) fn challenge(site: &Site, error: Option<&str>) -> String {
    let error = error.map_or_else(String::new, |code| format!("error=\"{code}\", "));
    format!(
        "Bearer {error}resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp\", scope=\"{}\"",
        site.issuer(),
        words(&OFFERED)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_one_and_the_same() {
        let site = Site::at("https://x.example");
        let (resource, with_keys) = (resource(&site), server(&site, true));
        let server = server(&site, false);
        assert_eq!(resource["resource"], "https://x.example/mcp");
        assert_eq!(resource["authorization_servers"][0], server["issuer"]);
        assert_eq!(server["issuer"], "https://x.example");
        assert_eq!(server["token_endpoint"], "https://x.example/oauth/token");
        assert_eq!(server["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(server["token_endpoint_auth_methods_supported"][0], "none");
        let methods = json!([
            "none",
            "client_secret_post",
            "client_secret_basic",
            "private_key_jwt"
        ]);
        for endpoint in ["token", "revocation"] {
            let name = |rest: &str| format!("{endpoint}_endpoint_auth_{rest}");
            assert_eq!(with_keys[name("methods_supported")], methods);
            let algorithms = name("signing_alg_values_supported");
            assert_eq!(with_keys[&algorithms], json!(["RS256", "ES256"]));
            assert_eq!(server.get(algorithms), None);
        }
        let text = server.to_string();
        for absent in [
            "private_key_jwt",
            "device",
            "openid",
            "client_credentials",
            "plain",
        ] {
            assert!(!text.contains(absent), "{absent}");
        }
        assert_eq!(
            challenge(&site, Some("invalid_token")),
            "Bearer error=\"invalid_token\", resource_metadata=\"https://x.example/.well-known/oauth-protected-resource/mcp\", scope=\"execute\""
        );
    }
}
