//! The view of a run that a chat shows (MCP Apps), as the resource
//! `ui://codex/run.html`.
//!
//! The page is the same for everybody and holds nothing of any run: the host
//! hands it each result. A result is whole without it, so nothing is left out
//! of `content` or `structuredContent` for its sake.

use rmcp::model::{
    ClientCapabilities, ExtensionCapabilities, MetaObject, ReadResourceResult, Resource,
    ResourceContents,
};
use serde_json::{Value, json};

/// The address of the page, which `run_code` names.
pub(super) const URI: &str = "ui://codex/run.html";

/// The type by which hosts know a page of this kind.
const MEDIA_TYPE: &str = "text/html;profile=mcp-app";

/// The name of the extension, in the capabilities of both sides.
const EXTENSION: &str = "io.modelcontextprotocol/ui";

/// The key in a result's `_meta` under which the page finds its pictures.
const PICTURES: &str = "codex/pictures";

/// The page.
const PAGE: &str = include_str!("run.html");

/// A picture that a result shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    /// The path of its file, relative to the working directory.
    pub(super) name: String,
    /// `image/png` or `image/jpeg`.
    pub(super) media_type: String,
    /// Its bytes as Base64.
    pub(super) data: String,
}

/// Returns what the server says of the extension: that it has it.
pub(super) fn capability() -> ExtensionCapabilities {
    ExtensionCapabilities::from([(EXTENSION.to_owned(), serde_json::Map::new())])
}

/// Returns whether a client that has `capabilities` shows such pages.
pub(super) fn is_shown(capabilities: Option<&ClientCapabilities>) -> bool {
    let extensions = capabilities.and_then(|all| all.extensions.as_ref());
    let kinds = extensions
        .and_then(|all| all.get(EXTENSION)?.get("mimeTypes"))
        .and_then(Value::as_array);
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == MEDIA_TYPE))
}

/// Returns the mark of a tool whose results the page shows, for its `_meta`.
pub(super) fn mark() -> Value {
    json!({ "resourceUri": URI })
}

/// Returns the page as `resources/list` names it.
pub(super) fn resource() -> Resource {
    Resource::new(URI, "run")
        .with_title("A run in the chat")
        .with_description("Shows a result of run_code to people.")
        .with_mime_type(MEDIA_TYPE)
        .with_size(PAGE.len() as u64)
        .with_meta(settings())
}

/// Returns the page as `resources/read` gives it.
pub(super) fn read() -> ReadResourceResult {
    let contents = ResourceContents::text(PAGE, URI)
        .with_mime_type(MEDIA_TYPE)
        .with_meta(settings());
    ReadResourceResult::new(vec![contents])
}

/// Returns what hosts are asked for the page: no network at all, and a border.
fn settings() -> MetaObject {
    meta(json!({
        "ui": {
            "csp": {
                "connectDomains": [],
                "resourceDomains": [],
                "frameDomains": [],
                "baseUriDomains": [],
            },
            "prefersBorder": true,
        },
    }))
}

/// Returns the `_meta` of a result with the pictures for the page, which a
/// model does not read; `None` where there is none.
pub(super) fn pictures(pictures: &[Picture]) -> Option<MetaObject> {
    if pictures.is_empty() {
        return None;
    }
    let list: Vec<Value> = pictures
        .iter()
        .map(|one| json!({ "name": one.name, "media_type": one.media_type, "data": one.data }))
        .collect();
    Some(meta(json!({ PICTURES: list })))
}

/// Makes a `_meta` of an object.
pub(super) fn meta(object: Value) -> MetaObject {
    match object {
        Value::Object(members) => MetaObject(members),
        _ => MetaObject::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the page, at most: hosts fetch it for each chat.
    const PAGE_BYTES: usize = 50_000;

    #[test]
    fn the_page_is_small_and_asks_the_network_for_nothing() {
        assert!(PAGE.len() < PAGE_BYTES, "{} bytes", PAGE.len());
        assert!(PAGE.starts_with("<!doctype html>"), "a whole document");
        assert!(PAGE.contains("default-src 'none'"), "a policy of its own");
        for word in [
            "http://",
            "https://",
            "src=",
            "href=",
            "url(",
            "@import",
            "fetch(",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "XMLHttpRequest",
            "WebSocket",
            "localStorage",
            "onclick=",
        ] {
            let code = PAGE
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let found: Vec<&str> = code.filter(|line| line.contains(word)).collect();
            assert!(found.is_empty(), "{word}: {found:?}");
        }
    }

    #[test]
    fn clients_say_that_they_show_pages() {
        let check = |capabilities: Value, expected: bool| {
            let read = serde_json::from_value(capabilities.clone()).expect("capabilities");
            assert_eq!(is_shown(Some(&read)), expected, "{capabilities}");
        };
        let declared = |settings: Value| json!({"extensions": {EXTENSION: settings}});
        check(declared(json!({"mimeTypes": [MEDIA_TYPE]})), true);
        check(
            declared(json!({"mimeTypes": ["text/plain", MEDIA_TYPE]})),
            true,
        );
        check(declared(json!({"mimeTypes": ["text/html"]})), false);
        check(declared(json!({"mimeTypes": MEDIA_TYPE})), false);
        check(declared(json!({})), false);
        check(
            json!({"extensions": {"other/ui": {"mimeTypes": [MEDIA_TYPE]}}}),
            false,
        );
        check(json!({}), false);
        assert!(!is_shown(None), "a client that says nothing");
    }

    #[test]
    fn it_is_listed_and_read_as_hosts_want_it() {
        let policy = json!({
            "connectDomains": [],
            "resourceDomains": [],
            "frameDomains": [],
            "baseUriDomains": [],
        });
        let listed = serde_json::to_value(resource()).expect("JSON");
        let read = serde_json::to_value(read()).expect("JSON");
        for told in [&listed, &read["contents"][0]] {
            assert_eq!(told["uri"], "ui://codex/run.html", "{told}");
            assert_eq!(told["mimeType"], "text/html;profile=mcp-app");
            assert_eq!(told["_meta"]["ui"]["csp"], policy);
            assert_eq!(told["_meta"]["ui"]["prefersBorder"], true);
        }
        assert_eq!(listed["name"], "run");
        assert_eq!(read["contents"][0]["text"], PAGE);
    }

    #[test]
    fn pictures_travel_in_meta() {
        assert_eq!(pictures(&[]), None);
        let picture = Picture {
            name: "a/plot.png".to_owned(),
            media_type: "image/png".to_owned(),
            data: "iVBORw0KGgo=".to_owned(),
        };
        let told = serde_json::to_value(pictures(&[picture])).expect("JSON");
        let expected = json!({"codex/pictures": [
            {"name": "a/plot.png", "media_type": "image/png", "data": "iVBORw0KGgo="},
        ]});
        assert_eq!(told, expected);
    }
}
