//! The document that ChatGPT's importer takes, made from the whole one.
//!
//! Its importer is not a full OpenAPI reader: references inside schemas,
//! unions, and objects without properties make it drop parts in silence or
//! refuse the whole, descriptions are limited in length, and operations in
//! number. So this document has one server, three operations, no reference
//! and no union, and is small.
//!
//! It says OpenAPI 3.1.0, which the importer has taken in practice for long;
//! nothing in it is peculiar to 3.1, so it reads the same as 3.0.

use serde_json::{Map, Value, json};

use super::SCHEME;
use crate::config::Access;

/// The operations, in the order in which a reader meets them.
const OPERATIONS: [(&str, &str); 3] = [
    ("/execute", "post"),
    ("/health", "get"),
    ("/languages", "get"),
];

/// Fields of the request that a model is told of. The others work too; each
/// one more makes it harder for a model to choose.
const REQUEST: [&str; 6] = ["code", "language", "timeout", "stdin", "args", "files"];

/// Fields of the answer that a model is told of.
const RESPONSE: [&str; 11] = [
    "output",
    "error",
    "exit_code",
    "execution_time",
    "timestamp",
    "status",
    "truncated",
    "files",
    "markdown",
    "openaiFileResponse",
    "warnings",
];

/// Characters of a summary or description of an operation.
pub(super) const TEXT_CHARS: usize = 300;

/// How deep references are followed; ours are three deep.
const DEPTH: usize = 16;

/// Makes the flat document.
pub(super) fn flatten(whole: &Value, access: Access) -> Value {
    let mut paths = Map::new();
    for (path, method) in OPERATIONS {
        let operation = operation(whole, &whole["paths"][path][method]);
        paths.insert(path.to_owned(), json!({ method: operation }));
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": whole["info"]["title"],
            "description": whole["info"]["description"],
            "version": whole["info"]["version"],
        },
        "servers": whole["servers"],
        "paths": paths,
    });
    if access == Access::Token {
        document["components"] = json!({
            // The importer wants `schemas` wherever there are components.
            "schemas": {},
            "securitySchemes": { SCHEME: { "type": "http", "scheme": "bearer" } },
        });
    }
    document
}

fn operation(whole: &Value, from: &Value) -> Value {
    let mut flat = json!({
        "operationId": from["operationId"],
        "summary": cut(&from["summary"]),
        "description": cut(&from["description"]),
        // Code runs in a sandbox that is thrown away and cannot reach the
        // network, so no call has a consequence outside. `false` lets the user
        // choose "Always allow"; otherwise ChatGPT asks before each single run.
        "x-openai-isConsequential": false,
        "responses": responses(whole, &from["responses"]),
    });
    let body = &from["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        let mut schema = schema(whole, body, DEPTH);
        keep(&mut schema, &REQUEST);
        // Under this very name, and said to be strings: at run time ChatGPT
        // puts objects with links in the place of ids.
        schema["properties"]["openaiFileIdRefs"] = json!({
            "type": "array",
            "items": { "type": "string" },
            "description": "Files of the conversation that the program is to read, at most 10; they lie in the working directory under their names.",
        });
        // Named by the caller each time, a language is never guessed wrong.
        schema["required"] = json!(["code", "language"]);
        flat["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schema } },
        });
    }
    if from["security"]
        .as_array()
        .is_some_and(|list| !list.is_empty())
    {
        flat["security"] = from["security"].clone();
    }
    flat
}

fn responses(whole: &Value, from: &Value) -> Value {
    let all = from.as_object().into_iter().flatten();
    // An action is always answered with JSON.
    let all = all.filter(|(status, _)| *status != "406");
    let flat = all.map(|(status, response)| {
        let mut flat = json!({ "description": cut(&response["description"]) });
        let body = &response["content"]["application/json"]["schema"];
        // A model needs no fields of an answer that says that it went wrong.
        if status == "200" && !body.is_null() {
            let mut schema = schema(whole, body, DEPTH);
            if schema["properties"]["exit_code"].is_object() {
                keep(&mut schema, &RESPONSE);
            }
            flat["content"] = json!({ "application/json": { "schema": schema } });
        }
        (status.clone(), flat)
    });
    Value::Object(flat.collect())
}

/// Keeps the named properties of an object's schema, in `required` too.
fn keep(schema: &mut Value, names: &[&str]) {
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.retain(|name, _| names.contains(&name.as_str()));
    }
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|name| name.as_str().is_some_and(|name| names.contains(&name)));
    }
}

/// A schema without references and unions.
fn schema(whole: &Value, from: &Value, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else {
        return json!({ "type": "string" });
    };
    let target = resolve(whole, from);
    let mut flat = Map::new();
    for (name, value) in target.as_object().into_iter().flatten() {
        let value = match name.as_str() {
            "properties" => {
                let members = value.as_object().into_iter().flatten();
                let flat =
                    members.map(|(name, member)| (name.clone(), schema(whole, member, depth)));
                Value::Object(flat.collect())
            }
            "items" => schema(whole, value, depth),
            "type" => one_type(value),
            "enum" => without_null(value),
            "description" => cut(value),
            "minimum" | "maximum" | "minLength" | "default" | "required" => value.clone(),
            // Formats, bounds of length and examples only cost the model room.
            _ => continue,
        };
        flat.insert(name.clone(), value);
    }
    // What a property says of itself is more to the point than what its type says.
    if let Some(text) = from.get("description") {
        flat.insert("description".to_owned(), cut(text));
    }
    if let Some(default) = from.get("default") {
        flat.insert("default".to_owned(), default.clone());
    }
    Value::Object(flat)
}

/// What a schema means: itself, what it refers to, or the one alternative of
/// a union that is not null.
fn resolve<'a>(whole: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..DEPTH {
        let pointer = schema["$ref"]
            .as_str()
            .and_then(|text| text.strip_prefix('#'));
        if let Some(target) = pointer.and_then(|pointer| whole.pointer(pointer)) {
            schema = target;
            continue;
        }
        let union = ["oneOf", "anyOf", "allOf"]
            .iter()
            .find_map(|word| schema[*word].as_array());
        let real = union.and_then(|list| list.iter().find(|one| one["type"] != "null"));
        match real {
            Some(real) => schema = real,
            None => return schema,
        }
    }
    schema
}

/// A list of types without null, which stands for "may be left out".
fn one_type(kind: &Value) -> Value {
    let list = kind.as_array().into_iter().flatten();
    let real = list.into_iter().find(|one| *one != "null");
    real.unwrap_or(kind).clone()
}

fn without_null(list: &Value) -> Value {
    let all = list.as_array().into_iter().flatten();
    all.filter(|one| !one.is_null()).cloned().collect()
}

/// A text of at most [`TEXT_CHARS`] characters.
fn cut(text: &Value) -> Value {
    let text = text.as_str().unwrap_or_default();
    if text.chars().count() <= TEXT_CHARS {
        return json!(text);
    }
    let short: String = text.chars().take(TEXT_CHARS - 1).collect();
    json!(format!("{short}…"))
}
