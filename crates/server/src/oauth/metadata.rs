//! The documents by which clients find their way: whose tokens `/mcp` takes, and
//! what this authorization server can do. Pure.

use serde_json::{Value, json};

use super::client::Method;
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

/// Returns the metadata of the authorization server (RFC 8414).
pub(crate) fn server(site: &Site) -> Value {
    let at = |path: &str| format!("{}/oauth/{path}", site.issuer());
    let methods = Method::ALL.map(Method::as_str);
    json!({
        "issuer": site.issuer(),
        "authorization_endpoint": at("authorize"),
        "token_endpoint": at("token"),
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
    })
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
        let (resource, server) = (resource(&site), server(&site));
        assert_eq!(resource["resource"], "https://x.example/mcp");
        assert_eq!(resource["authorization_servers"][0], server["issuer"]);
        assert_eq!(server["issuer"], "https://x.example");
        assert_eq!(server["token_endpoint"], "https://x.example/oauth/token");
        assert_eq!(server["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(server["token_endpoint_auth_methods_supported"][0], "none");
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
