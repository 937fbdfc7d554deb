//! What models are told: the tools with their schemas, and how to use them.
//!
//! Schemas are plain: no references, no unions, no formats, which some clients
//! refuse or warn about. Texts are short, since every one costs each chat.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use super::{session_tools, view};
use crate::app::App;
use crate::provision;

/// The tool that runs a program.
pub(super) const RUN_CODE: &str = "run_code";

/// The tool that says what can run.
pub(super) const LIST_LANGUAGES: &str = "list_languages";

/// The argument into which ChatGPT fills the files of a chat.
pub(super) const ATTACHMENTS: &str = "attachments";

/// The mark by which ChatGPT knows such arguments.
const FILE_PARAMS: &str = "openai/fileParams";

/// Characters of the instructions that every client shows its model.
const ESSENTIAL_CHARS: usize = 512;

/// Returns all tools, by name.
pub(super) fn all(app: &App) -> Vec<Tool> {
    let mut tools = session_tools::all().to_vec();
    tools.extend([list_languages(), run_code(app)]);
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    tools
}

/// Returns what a model should know before its first call, the essential first.
pub(super) fn instructions(app: &App) -> String {
    let bounds = app.engine.bounds();
    let mut text = format!(
        "run_code runs a program in a fresh sandbox and returns what it printed, its pictures and files. No network. For work in steps call create_session once and pass its session_id: variables and files then stay from call to call. Without it each run starts empty. At most {} s and {} MiB a run.",
        bounds.wall_time_max.as_secs(),
        bounds.memory_max >> 20,
    );
    for state in app.engine.packages() {
        let mut list = String::new();
        for package in provision::named(&state) {
            let room = ESSENTIAL_CHARS.saturating_sub(text.chars().count() + list.chars().count());
            if package.name.chars().count() + state.title.len() + 20 > room {
                list.push_str(", …");
                break;
            }
            if !list.is_empty() {
                list.push_str(", ");
            }
            list.push_str(&package.name);
        }
        if !list.is_empty() {
            text.push_str(&format!(" {}: {list}.", state.title));
        }
    }
    text
}

fn run_code(app: &App) -> Tool {
    let bounds = app.engine.bounds();
    let languages = app.engine.languages();
    let known: Vec<&str> = languages.iter().map(|one| one.name.as_str()).collect();
    let mut input = json!({
        "type": "object",
        "properties": {
            "code": {
                "type": "string",
                "description": "The program text. Print what you want to see; save pictures and files into the working directory.",
            },
            "language": {
                "type": "string",
                "enum": known,
                "default": known.first(),
                "description": "Language of the code.",
            },
            "timeout": {
                "type": "number",
                "minimum": 1,
                "maximum": bounds.wall_time_max.as_secs(),
                "default": bounds.wall_time.as_secs(),
                "description": "Seconds before the program is stopped.",
            },
            "session_id": {
                "type": "string",
                "description": "A session of create_session: the code then finds the variables and files of earlier calls. Omit for a fresh sandbox.",
            },
            "context": {
                "type": "string",
                "description": "An interpreter of the session other than its language's own.",
            },
            "stdin": { "type": "string", "description": "What the program reads from standard input." },
            "args": {
                "type": "array",
                "items": { "type": "string" },
                "description": "Arguments of the program; not in a session.",
            },
            "files": {
                "type": "array",
                "description": "Files to put into the working directory first.",
                "items": {
                    "type": "object",
                    "properties": {
                        "path": { "type": "string", "description": "Relative path, such as data.csv." },
                        "content": { "type": "string" },
                        "encoding": {
                            "type": "string",
                            "enum": ["utf8", "base64"],
                            "default": "utf8",
                        },
                    },
                    "required": ["path", "content"],
                },
            },
        },
        "required": ["code"],
    });
    // Where nothing may be fetched, nothing is offered.
    let fetches = !app.fetcher.bounds().hosts().is_empty();
    if fetches {
        input["properties"][ATTACHMENTS] = attachments();
    }
    let mut tool = tool(
        RUN_CODE,
        "Run code",
        "Runs a program in a sandbox without network and returns its output, pictures and files. A program that fails is a result: look at status and exit_code.",
        input,
        run_result(),
        // Nothing of a run is left but its own files, and it reaches nothing.
        ToolAnnotations::from_raw(
            Some("Run code".to_owned()),
            Some(false),
            Some(false),
            Some(false),
            Some(false),
        ),
    );
    tool.meta = Some(view::meta(marks(fetches)));
    tool
}

/// Returns what hosts read in the `_meta` of `run_code`: the page that shows its
/// results, and where files may be fetched, the argument that takes the chat's.
fn marks(fetches: bool) -> Value {
    let mut marks = json!({ "ui": view::mark() });
    if fetches {
        marks[FILE_PARAMS] = json!([ATTACHMENTS]);
    }
    marks
}

/// Returns the schema of the files of a chat, in the shape that ChatGPT wants.
fn attachments() -> Value {
    json!({
        "type": "array",
        "description": "Files that the user attached in ChatGPT, which fills this in. Other clients send files.",
        "items": {
            "type": "object",
            "properties": {
                "download_url": { "type": "string" },
                "file_id": { "type": "string" },
                "mime_type": { "type": "string" },
                "file_name": { "type": "string" },
            },
            "required": ["download_url", "file_id"],
        },
    })
}

/// Returns the schema of what a run gives.
fn run_result() -> Value {
    json!({
        "type": "object",
        "properties": {
            "status": {
                "type": "string",
                "enum": engine::Status::ALL.map(engine::Status::as_str),
                "description": "How the program ended.",
            },
            "exit_code": { "type": "integer" },
            "output": { "type": "string", "description": "Standard output." },
            "error": { "type": "string", "description": "Standard error." },
            "execution_time": { "type": "number", "description": "Seconds that the program took." },
            "language": { "type": "string" },
            "version": { "type": "string" },
            "truncated": { "type": "boolean" },
            "files": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "path": { "type": "string" },
                        "size": { "type": "integer" },
                        "media_type": { "type": "string" },
                        "uri": { "type": "string", "description": "Resource to read it by." },
                        "url": { "type": "string", "description": "Link for the user." },
                    },
                    "required": ["path", "size", "media_type"],
                },
            },
            "warnings": { "type": "array", "items": { "type": "string" } },
            "results": {
                "type": "array",
                "description": "In a session: values and what was shown. Pictures come as images.",
                "items": {
                    "type": "object",
                    "properties": {
                        "is_value": { "type": "boolean" },
                        "text": { "type": "string" },
                        "forms": { "type": "array", "items": { "type": "string" } },
                    },
                    "required": ["is_value", "text", "forms"],
                },
            },
            "session_id": { "type": "string" },
            "context": { "type": "string" },
        },
        "required": [
            "status", "exit_code", "output", "error", "execution_time", "language", "version",
            "truncated", "files", "warnings",
        ],
    })
}

fn list_languages() -> Tool {
    let output = json!({
        "type": "object",
        "properties": {
            "languages": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": { "type": "string" },
                        "version": { "type": "string" },
                        "available": { "type": "boolean" },
                        "packages": { "type": "array", "items": { "type": "string" } },
                    },
                    "required": ["name", "version", "available", "packages"],
                },
            },
        },
        "required": ["languages"],
    });
    tool(
        LIST_LANGUAGES,
        "List languages",
        "Lists the languages that run_code takes, with versions and installed packages.",
        json!({ "type": "object", "properties": {} }),
        output,
        ToolAnnotations::from_raw(
            Some("List languages".to_owned()),
            Some(true),
            Some(false),
            Some(true),
            Some(false),
        ),
    )
}

pub(super) fn tool(
    name: &'static str,
    title: &str,
    description: &'static str,
    input: Value,
    output: Value,
    annotations: ToolAnnotations,
) -> Tool {
    let mut tool = Tool::new(name, description, object(input));
    tool.title = Some(title.to_owned());
    tool.output_schema = Some(object(output));
    tool.annotations = Some(annotations);
    tool
}

fn object(schema: Value) -> Arc<JsonObject> {
    match schema {
        Value::Object(members) => Arc::new(members),
        _ => Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_code_names_its_page_beside_the_files_of_a_chat() {
        let page = json!({ "resourceUri": "ui://codex/run.html" });
        assert_eq!(marks(false), json!({ "ui": page }));
        let both = json!({ "ui": page, "openai/fileParams": ["attachments"] });
        assert_eq!(marks(true), both);
    }
}
