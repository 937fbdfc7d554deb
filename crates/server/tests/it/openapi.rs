//! The OpenAPI documents: golden copies, and what must hold in them.

use std::path::PathBuf;

use codex_server::api::Code;
use codex_server::config::Access;
use codex_server::http::description;
use codex_server::http::openapi::{EXAMPLE_URL, Server, to_yaml};
use serde_json::{Value, json};

use crate::importer::faults;

/// Rewrites the golden copies instead of comparing them.
const UPDATE: &str = "UPDATE_GOLDEN";

fn document(access: Access) -> Value {
    description().document(&Server::unseen(EXAMPLE_URL, access))
}

fn actions_document(access: Access) -> Value {
    description().actions_document(&Server::unseen(EXAMPLE_URL, access))
}

#[track_caller]
fn check_golden(name: &str, document: &Value) {
    let mut text = serde_json::to_string_pretty(document).expect("serialises");
    text.push('\n');
    check_golden_text(name, &text);
}

#[track_caller]
fn check_golden_text(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, text).expect("write the golden copy");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{name} differs from what the code makes; look at the change with\n  {UPDATE}=1 cargo test -p codex-server --test it golden && git diff {name}"
    );
}

#[test]
fn golden_whole_document() {
    check_golden("openapi.json", &document(Access::Token));
}

#[test]
fn golden_document_for_actions() {
    check_golden("openapi-actions.json", &actions_document(Access::Token));
}

#[test]
fn golden_manual_of_problems() {
    let mut text = String::from(
        "# Problems\n\n\
         Every refusal and failure is an `application/problem+json` document (RFC 9457):\n\
         `type` leads to a heading of this page, `title` and `status` go with it, `detail`\n\
         says what is wrong with this very request and what to send instead, `field` names\n\
         the field where there is one, and `request_id` finds the request in the server's\n\
         log.\n\n\
         A program that fails, runs out of time or out of memory is no problem in this\n\
         sense: it is answered with 200, and `status` and `exit_code` say how it ended.\n",
    );
    for code in Code::ALL {
        let (slug, status, title, doc) = (code.slug(), code.status(), code.title(), code.doc());
        text.push_str(&format!("\n## {slug}\n\n{status} {title}. {doc}\n"));
    }
    check_golden_text("docs/errors.md", &text);
}

#[test]
fn the_document_for_actions_breaks_no_rule_of_the_importer() {
    for access in [Access::Token, Access::Open] {
        let document = actions_document(access);
        assert_eq!(faults(&document), Vec::<String>::new(), "{access:?}");
    }
}

#[test]
fn the_whole_document_would_break_some() {
    assert!(!faults(&document(Access::Token)).is_empty());
}

#[test]
fn the_document_for_actions_has_the_operations_and_fields() {
    let document = actions_document(Access::Token);
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(
        paths.keys().collect::<Vec<_>>(),
        ["/execute", "/health", "/languages"]
    );
    let execute = &document["paths"]["/execute"]["post"];
    assert_eq!(execute["operationId"], "executeCode");
    assert_eq!(execute["security"], json!([{"BearerAuth": []}]));
    let request = &execute["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(request["required"], json!(["code", "language"]));
    assert_eq!(
        request["properties"]["language"]["enum"],
        json!(["python", "bash", "javascript"])
    );
    assert_eq!(request["properties"]["language"]["default"], "python");
    assert_eq!(request["properties"]["timeout"]["minimum"], 1);
    assert_eq!(request["properties"]["timeout"]["maximum"], 30);
    assert_eq!(request["properties"]["timeout"]["default"], 10);
    let response =
        &execute["responses"]["200"]["content"]["application/json"]["schema"]["properties"];
    for field in [
        "output",
        "error",
        "exit_code",
        "execution_time",
        "timestamp",
    ] {
        assert!(response[field]["type"].is_string(), "{field}");
    }
    // ChatGPT knows these by name: files in and files out.
    let strings = json!({"type": "string"});
    assert_eq!(request["properties"]["openaiFileIdRefs"]["items"], strings);
    assert_eq!(response["openaiFileResponse"]["items"], strings);
    assert_eq!(response["markdown"]["type"], "string");
    let languages = &document["paths"]["/languages"]["get"]["responses"]["200"];
    let item =
        &languages["content"]["application/json"]["schema"]["properties"]["languages"]["items"];
    for field in ["name", "version", "available"] {
        assert!(item["properties"][field]["type"].is_string(), "{field}");
    }
    for (_, operations) in paths {
        for (_, operation) in operations.as_object().expect("operations") {
            assert_eq!(operation["x-openai-isConsequential"], false);
        }
    }
    let size = serde_json::to_string_pretty(&document)
        .expect("serialises")
        .len();
    // The importer takes 1 MB; a model reads all of it.
    assert!(size < 30_000, "{size}");
}

#[test]
fn tokens_are_asked_for_only_where_needed() {
    let open = actions_document(Access::Open);
    assert!(!open.to_string().contains("BearerAuth"));
    let whole = document(Access::Token);
    assert_eq!(
        whole["components"]["securitySchemes"]["BearerAuth"]["scheme"],
        "bearer"
    );
    for (path, item) in whole["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let guarded = operation["security"] != json!([]);
            let artifact = path.starts_with("/artifacts/");
            let session = path.starts_with("/sessions");
            let others = ["/execute", "/hooks/run", "/metrics"].contains(&path.as_str());
            let wanted = others || artifact || session;
            assert_eq!(guarded, wanted, "{path}");
            let ways = operation["security"].as_array().expect("a list");
            let optional = ways.contains(&json!({}));
            // A signature does there, or a token in the body.
            let other = method == "get" && artifact || path == "/hooks/run";
            assert_eq!(optional, other, "{method} {path}");
            assert_eq!(operation["responses"].get("401").is_some(), guarded);
        }
    }
    let open = document(Access::Open);
    assert!(
        open["paths"]["/execute"]["post"]["responses"]
            .get("401")
            .is_none()
    );
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document(Access::Token);
    let text = document.to_string();
    let mut found = 0;
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        found += 1;
    }
    assert!(found > 5);
    assert_eq!(document["openapi"], "3.1.0");
    let statuses = document["paths"]["/execute"]["post"]["responses"].as_object();
    let statuses: Vec<&String> = statuses.expect("responses").keys().collect();
    assert_eq!(
        statuses,
        [
            "200", "400", "401", "403", "404", "406", "408", "409", "410", "413", "415", "429",
            "500", "503", "507"
        ]
    );
}

#[test]
fn only_the_whole_document_tells_of_events() {
    let content = |document: &Value| {
        let ok = document["paths"]["/execute"]["post"]["responses"]["200"].clone();
        let content = ok["content"].as_object().expect("content").clone();
        content.keys().cloned().collect::<Vec<_>>()
    };
    let whole = document(Access::Token);
    assert_eq!(content(&whole), ["application/json", "text/event-stream"]);
    let actions = actions_document(Access::Token);
    assert_eq!(content(&actions), ["application/json"]);
    let refusals = &actions["paths"]["/execute"]["post"]["responses"];
    assert!(refusals.get("406").is_none());
}

#[test]
fn yaml_says_the_same_as_json() {
    for document in [document(Access::Token), actions_document(Access::Open)] {
        let back: Value = yaml_serde::from_str(&to_yaml(&document)).expect("valid YAML");
        assert_eq!(back, document);
    }
}
