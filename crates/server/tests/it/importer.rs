//! The rules of ChatGPT's importer, as a check over any document, and proof
//! that each rule can fail.

use serde_json::{Value, json};

const TEXT_CHARS: usize = 300;
const FIELD_CHARS: usize = 700;
const OPERATIONS: usize = 30;
const BYTES: usize = 1_000_000;
const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];
const UNIONS: [&str; 4] = ["oneOf", "anyOf", "allOf", "not"];

/// What the importer would stumble over; empty for a good document.
pub(crate) fn faults(document: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let version = document["openapi"].as_str().unwrap_or_default();
    if !(version.starts_with("3.0.") || version.starts_with("3.1.")) {
        faults.push(format!("version {version:?}"));
    }
    // Pretty printing is the longest form it can arrive in.
    if serde_json::to_string_pretty(document).map_or(0, |text| text.len()) >= BYTES {
        faults.push("too large".into());
    }
    servers(document, &mut faults);
    operations(document, &mut faults);
    walk("", document, &mut faults);
    faults
}

fn servers(document: &Value, faults: &mut Vec<String>) {
    let servers = document["servers"].as_array();
    let urls: Vec<&str> = servers
        .into_iter()
        .flatten()
        .filter_map(|server| server["url"].as_str())
        .collect();
    match urls.as_slice() {
        [url] if url.starts_with("https://") && !url.contains('{') && !url.ends_with('/') => {}
        other => faults.push(format!("servers {other:?}")),
    }
}

fn operations(document: &Value, faults: &mut Vec<String>) {
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            if !METHODS.contains(&method.as_str()) {
                faults.push(format!("{path} {method} is no operation"));
                continue;
            }
            match operation["operationId"].as_str() {
                Some(id) if !id.is_empty() && !ids.contains(&id) => ids.push(id),
                other => faults.push(format!("{path} {method} id {other:?}")),
            }
            for text in ["summary", "description"] {
                if chars(&operation[text]) > TEXT_CHARS {
                    faults.push(format!("{path} {method} {text} too long"));
                }
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if !parameter["name"].is_string() || parameter["in"] == "header" {
                    faults.push(format!("{path} {method} parameter"));
                }
            }
            body(path, operation, faults);
            security(path, document, operation, faults);
        }
    }
    if ids.is_empty() || ids.len() > OPERATIONS {
        faults.push(format!("{} operations", ids.len()));
    }
}

fn body(path: &str, operation: &Value, faults: &mut Vec<String>) {
    let Some(content) = operation["requestBody"]["content"].as_object() else {
        return;
    };
    for (kind, media) in content {
        if kind != "application/json" || media["schema"]["type"] != "object" {
            faults.push(format!("{path} body is not a JSON object"));
        }
    }
}

fn security(path: &str, document: &Value, operation: &Value, faults: &mut Vec<String>) {
    let schemes = &document["components"]["securitySchemes"];
    for wanted in operation["security"].as_array().into_iter().flatten() {
        for name in wanted
            .as_object()
            .into_iter()
            .flat_map(|scheme| scheme.keys())
        {
            if schemes[name].is_null() {
                faults.push(format!("{path} wants the unknown scheme {name}"));
            }
        }
    }
}

/// The rules that hold at every depth.
fn walk(place: &str, value: &Value, faults: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                walk(&format!("{place}/{at}"), item, faults);
            }
        }
        Value::Object(members) => {
            let names_properties = place.ends_with("/properties");
            if !names_properties {
                node(place, value, faults);
            }
            for (name, member) in members {
                walk(&format!("{place}/{name}"), member, faults);
            }
        }
        _ => {}
    }
}

fn node(place: &str, value: &Value, faults: &mut Vec<String>) {
    if value.get("$ref").is_some() {
        faults.push(format!("{place} is a reference"));
    }
    for union in UNIONS.iter().chain(&["nullable", "discriminator"]) {
        if value.get(union).is_some() {
            faults.push(format!("{place} has {union}"));
        }
    }
    if value["type"].is_array() {
        faults.push(format!("{place} has several types"));
    }
    if value["type"] == "object" && !value["properties"].is_object() {
        faults.push(format!("{place} is an object without properties"));
    }
    if value["type"] == "array" && !value["items"]["type"].is_string() {
        faults.push(format!("{place} is an array of anything"));
    }
    if value["enum"]
        .as_array()
        .is_some_and(|list| list.contains(&Value::Null))
    {
        faults.push(format!("{place} allows null"));
    }
    if chars(&value["description"]) > FIELD_CHARS {
        faults.push(format!("{place} description too long"));
    }
}

fn chars(text: &Value) -> usize {
    text.as_str().map_or(0, |text| text.chars().count())
}

fn good() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {"title": "t", "version": "1"},
        "servers": [{"url": "https://codex.example.com"}],
        "paths": {"/run": {"post": {
            "operationId": "run",
            "summary": "s",
            "description": "d",
            "security": [{"BearerAuth": []}],
            "parameters": [{"name": "n", "in": "query", "schema": {"type": "string"}}],
            "requestBody": {"content": {"application/json": {"schema": {
                "type": "object",
                "properties": {"code": {"type": "string", "enum": ["a"]},
                    "list": {"type": "array", "items": {"type": "string"}},
                    "type": {"type": "object", "properties": {}}},
            }}}},
            "responses": {"200": {"description": "ok"}},
        }}},
        "components": {"schemas": {}, "securitySchemes": {"BearerAuth": {"type": "http", "scheme": "bearer"}}},
    })
}

#[test]
fn a_good_document_has_no_fault() {
    assert_eq!(faults(&good()), Vec::<String>::new());
}

/// Where a document is spoilt, with what, and words of the fault.
type Spoilt = (&'static str, Value, &'static str);

#[track_caller]
fn check(spoilt: impl IntoIterator<Item = Spoilt>) {
    for (place, bad, expected) in spoilt {
        let mut document = good();
        *document.pointer_mut(place).expect(place) = bad;
        let found = faults(&document);
        assert!(
            found.iter().any(|fault| fault.contains(expected)),
            "{place} {expected}: {found:?}"
        );
    }
}

#[test]
fn each_rule_of_documents_and_operations_can_fail() {
    let many: serde_json::Map<String, Value> = (0..31)
        .map(|at| {
            (
                format!("/p{at}"),
                json!({"get": {"operationId": format!("o{at}")}}),
            )
        })
        .collect();
    check([
        ("/openapi", json!("2.0"), "version"),
        ("/openapi", json!("3.2.0"), "version"),
        ("/servers", json!([]), "servers"),
        (
            "/servers",
            json!([{"url": "https://a"}, {"url": "https://b"}]),
            "servers",
        ),
        ("/servers", json!([{"url": "http://a"}]), "servers"),
        ("/servers", json!([{"url": "https://{host}"}]), "servers"),
        ("/servers", json!([{"url": "https://a/"}]), "servers"),
        ("/paths", json!({}), "0 operations"),
        ("/paths", Value::Object(many), "31 operations"),
        ("/paths/~1run", json!({"parameters": []}), "is no operation"),
        ("/paths/~1run/post/operationId", Value::Null, "id None"),
        (
            "/paths/~1run/post/summary",
            json!("x".repeat(301)),
            "summary too long",
        ),
        (
            "/paths/~1run/post/description",
            json!("é".repeat(301)),
            "description too long",
        ),
        (
            "/paths/~1run/post/parameters",
            json!([{"$ref": "#/x"}]),
            "parameter",
        ),
        (
            "/paths/~1run/post/parameters",
            json!([{"name": "n", "in": "header"}]),
            "parameter",
        ),
        (
            "/paths/~1run/post/security",
            json!([{"Other": []}]),
            "unknown scheme Other",
        ),
        ("/info/title", json!("x".repeat(1_000_000)), "too large"),
    ]);
}

#[test]
fn each_rule_of_schemas_can_fail() {
    const BODY: &str = "/paths/~1run/post/requestBody/content/application~1json/schema";
    const CODE: &str =
        "/paths/~1run/post/requestBody/content/application~1json/schema/properties/code";
    check([
        (
            BODY,
            json!({"type": "array", "items": {"type": "string"}}),
            "not a JSON object",
        ),
        (
            CODE,
            json!({"$ref": "#/components/schemas/X"}),
            "is a reference",
        ),
        (CODE, json!({"oneOf": []}), "has oneOf"),
        (CODE, json!({"anyOf": []}), "has anyOf"),
        (CODE, json!({"allOf": []}), "has allOf"),
        (
            CODE,
            json!({"type": "string", "nullable": true}),
            "has nullable",
        ),
        (CODE, json!({"type": ["string", "null"]}), "several types"),
        (CODE, json!({"type": "object"}), "without properties"),
        (CODE, json!({"type": "array"}), "array of anything"),
        (
            CODE,
            json!({"type": "string", "enum": ["a", null]}),
            "allows null",
        ),
        (
            CODE,
            json!({"type": "string", "description": "x".repeat(701)}),
            "description too long",
        ),
    ]);
}

#[test]
fn operation_ids_may_not_repeat() {
    let mut twice = good();
    let operation = twice["paths"]["/run"].clone();
    twice["paths"]["/again"] = operation;
    let found = faults(&twice);
    assert!(
        found.iter().any(|fault| fault.contains("id Some(\"run\")")),
        "{found:?}"
    );
}
