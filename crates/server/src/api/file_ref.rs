//! Files of a conversation, as ChatGPT hands them over: in `openaiFileIdRefs` to an
//! Action, in `attachments` to a tool of the Model Context Protocol.
//!
//! The schema for Actions says "array of strings", since that is what its
//! importer wants; what comes are objects with a link that lives for five
//! minutes. A string is taken too where it is a link itself.

use serde_json::{Map, Value};

use super::error::{Problem, quote};
use super::json::wrong_type;

/// Files that ChatGPT sends with one request.
const MOST: usize = 10;

const CURE: &str = "Send what ChatGPT sends: objects with `name` and `download_link`.";

/// A file that the server is to fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileRef {
    /// What it is called; empty where nobody said.
    pub name: String,
    /// Where it is.
    pub download_link: String,
    /// The field of the request that holds the link, for messages.
    pub field: String,
}

/// Reads the files that ChatGPT fills into the argument `attachments` of a tool:
/// objects, or one alone.
///
/// # Errors
/// With the field that is wrong.
pub fn attachments(value: Value) -> Result<Vec<FileRef>, Problem> {
    const NAME: &str = "attachments";
    const CURE: &str = "ChatGPT fills it in for files that are attached in its web app: attach them there again, or send their contents in `files`.";
    let items = match value {
        Value::Array(items) => items,
        one => vec![one],
    };
    if items.len() > MOST {
        let problem = format!("holds {} files, over the limit of {MOST}", items.len());
        return Err(Problem::field(NAME, &problem, "Send fewer."));
    }
    let numbered = items.into_iter().enumerate();
    numbered
        .map(|(at, item)| {
            let Value::Object(mut members) = item else {
                // Its mobile apps have been seen to send a mere word.
                return Err(wrong_type(&format!("{NAME}[{at}]"), &item, CURE));
            };
            let mut text = |name: &str| match members.remove(name) {
                Some(Value::String(text)) if !text.is_empty() => Some(text),
                _ => None,
            };
            let field = format!("{NAME}[{at}].download_url");
            let download_link = text("download_url")
                .ok_or_else(|| Problem::field(field.clone(), "is missing", CURE))?;
            let name = text("file_name").or(text("file_id")).unwrap_or_default();
            Ok(FileRef {
                name,
                download_link,
                field,
            })
        })
        .collect()
}

/// Reads the whole list.
pub(super) fn file_refs(value: Value) -> Result<Vec<FileRef>, Problem> {
    let Value::Array(items) = value else {
        return Err(wrong_type("openaiFileIdRefs", &value, CURE));
    };
    if items.len() > MOST {
        let problem = format!("holds {} files, over the limit of {MOST}", items.len());
        return Err(Problem::field("openaiFileIdRefs", &problem, "Send fewer."));
    }
    let numbered = items.into_iter().enumerate();
    numbered.map(|(at, item)| file_ref(at, item)).collect()
}

fn file_ref(at: usize, value: Value) -> Result<FileRef, Problem> {
    match value {
        Value::Object(members) => object(at, members),
        Value::String(link) if link.contains("://") => {
            let path = link.split(['?', '#']).next().unwrap_or_default();
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            Ok(FileRef {
                name,
                download_link: link,
                field: format!("openaiFileIdRefs[{at}]"),
            })
        }
        // The id alone is of no use: only ChatGPT can turn it into a link.
        Value::String(id) => Err(Problem::field(
            format!("openaiFileIdRefs[{at}]"),
            &format!("is \"{}\", an id without a link", quote(&id)),
            CURE,
        )),
        other => Err(wrong_type(&format!("openaiFileIdRefs[{at}]"), &other, CURE)),
    }
}

fn object(at: usize, mut members: Map<String, Value>) -> Result<FileRef, Problem> {
    let field = |name: &str| format!("openaiFileIdRefs[{at}].{name}");
    let mut text = |name: &str| match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(&field(name), &other, "Send a string.")),
    };
    let name = text("name")?.or(text("id")?).unwrap_or_default();
    let download_link = text("download_link")?
        .ok_or_else(|| Problem::field(field("download_link"), "is missing", CURE))?;
    Ok(FileRef {
        name,
        download_link,
        field: field("download_link"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_read_in_both_forms() {
        let file = |name: &str, link: &str, field: &str| FileRef {
            name: name.to_owned(),
            download_link: link.to_owned(),
            field: format!("openaiFileIdRefs{field}"),
        };
        let read = file_refs(json!([
            {"name": "a b.csv", "id": "file-1", "mime_type": "text/csv", "download_link": "https://x.example/1?sig=y"},
            {"id": "file-2", "download_link": "https://x.example/2"},
            {"name": null, "download_link": "https://x.example/3"},
            "https://x.example/folder/data.csv?sig=a/b#c",
        ]));
        let expected = vec![
            file("a b.csv", "https://x.example/1?sig=y", "[0].download_link"),
            file("file-2", "https://x.example/2", "[1].download_link"),
            file("", "https://x.example/3", "[2].download_link"),
            file(
                "data.csv",
                "https://x.example/folder/data.csv?sig=a/b#c",
                "[3]",
            ),
        ];
        assert_eq!(read, Ok(expected));
        assert_eq!(file_refs(json!([])), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, field) in [
            (json!("https://x.example/1"), "openaiFileIdRefs"),
            (json!({"download_link": "x"}), "openaiFileIdRefs"),
            (json!(vec!["https://x.example/1"; 11]), "openaiFileIdRefs"),
            (json!(["file-abc"]), "openaiFileIdRefs[0]"),
            (json!([3]), "openaiFileIdRefs[0]"),
            (
                json!(["https://x.example/1", {"name": "a"}]),
                "openaiFileIdRefs[1].download_link",
            ),
            (
                json!([{"download_link": 1}]),
                "openaiFileIdRefs[0].download_link",
            ),
            (
                json!([{"name": [], "download_link": "x"}]),
                "openaiFileIdRefs[0].name",
            ),
        ] {
            let problem = file_refs(value.clone()).expect_err("refused");
            assert_eq!(problem.field.as_deref(), Some(field), "{value}");
        }
    }

    #[test]
    fn attachments_are_read_in_every_form() {
        let object = |extra: Value| {
            let mut whole = json!({"download_url": "https://x.example/1", "file_id": "file-1"});
            for (name, value) in extra.as_object().expect("an object") {
                whole[name] = value.clone();
            }
            whole
        };
        let read = attachments(json!([
            object(json!({"file_name": "a b.csv", "mime_type": "text/csv", "size": 3})),
            object(json!({})),
            object(json!({"file_name": null})),
        ]));
        let read = read.expect("files");
        let names: Vec<&str> = read.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a b.csv", "file-1", "file-1"]);
        assert_eq!(read[1].field, "attachments[1].download_url");
        assert_eq!(attachments(object(json!({}))).expect("one").len(), 1);
        for (value, field) in [
            (json!("chat_upload"), "attachments[0]"),
            (json!(["chat_upload://image_0"]), "attachments[0]"),
            (
                json!([object(json!({})), {"file_id": "x"}]),
                "attachments[1].download_url",
            ),
            (
                json!([object(json!({"download_url": 7}))]),
                "attachments[0].download_url",
            ),
            (json!(vec![object(json!({})); 11]), "attachments"),
        ] {
            let problem = attachments(value.clone()).expect_err("refused");
            assert_eq!(problem.field.as_deref(), Some(field), "{value}");
        }
    }
}
