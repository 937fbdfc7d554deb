//! A client's configuration with this server in it: what is there stays as it
//! is, comments included, but for those in our own entry in YAML, which is written
//! anew. Works on texts alone, and believes no editor: the new text is read again,
//! and must say what was meant and nothing else.

use serde_json::{Map, Value};

use super::client::Syntax;

mod json;
mod toml;
mod yaml;

/// The names that this server may have, the best first.
const NAMES: [&str; 2] = ["codex", "codex-server"];

/// The members by which an entry says how to reach its server. They go when
/// another transport is chosen; all others are people's own.
const REACH_MEMBERS: [&str; 8] = [
    "type",
    "command",
    "cmd",
    "args",
    "url",
    "serverUrl",
    "httpUrl",
    "uri",
];

/// The members by which an entry says with what. They stay with an address, and
/// go with it.
const CREDENTIALS: [&str; 4] = [
    "headers",
    "http_headers",
    "bearer_token_env_var",
    "env_keys",
];

/// What shall be in a configuration.
pub(super) struct NewEntry<'a> {
    pub(super) syntax: Syntax,
    /// The member that has the servers by their names.
    pub(super) key: &'a str,
    pub(super) entry: &'a Value,
    /// An element of the list `inputs` that the entry needs.
    pub(super) question: Option<&'a Value>,
    /// Whether credentials that an entry of ours has stay.
    pub(super) keeps_credentials: bool,
    /// Says whether an address is this server's.
    pub(super) is_our_url: &'a dyn Fn(&str) -> bool,
}

/// A configuration that was changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MergeResult {
    pub(super) text: String,
    /// The name that this server has in it.
    pub(super) name: &'static str,
    pub(super) change: EntryChange,
    /// Our entry in it.
    pub(super) entry: Value,
    /// How many other servers there are.
    pub(super) others: usize,
}

/// What became of our entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryChange {
    Added,
    Updated,
    /// It was there as it should be.
    Nothing,
}

/// Why a configuration is left as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MergeError {
    /// The file cannot be read as what it should be.
    #[error("cannot be read: {0}")]
    Broken(String),
    /// Something else is where the servers should be.
    #[error("has something else where servers are expected, at {0}")]
    Shape(String),
    /// Both of our names are another's.
    #[error("has other servers named codex and codex-server")]
    Taken,
    /// The edited text does not say what was meant.
    #[error("is written in a way that cannot be edited safely")]
    Unsure,
}

/// A change of a configuration.
#[derive(Debug, PartialEq)]
enum Edit {
    Set(Vec<String>, Value),
    Remove(Vec<String>),
    /// Adds an element to a list.
    Push(String, Value),
}

/// Adds this server to a configuration, or brings its entry up to date.
///
/// # Errors
/// When the text cannot be changed without touching what is not ours.
pub(super) fn merge(text: &str, wanted: &NewEntry<'_>) -> Result<MergeResult, MergeError> {
    let before = parse(wanted.syntax, text)?;
    let (name, entry) = our_entry(&before, wanted)?;
    let old = before.get(wanted.key).and_then(|servers| servers.get(name));
    let is_there = old.is_some();
    let mut edits = Vec::new();
    let path = vec![wanted.key.to_owned(), name.to_owned()];
    match old {
        Some(old) => differences(path, old, &entry, &mut edits),
        None => edits.push(Edit::Set(path, entry.clone())),
    }
    if let Some(question) = wanted.question {
        let id = question.get("id");
        match before.get("inputs") {
            None | Some(Value::Null) => {
                let list = Value::Array(vec![question.clone()]);
                edits.push(Edit::Set(vec!["inputs".to_owned()], list));
            }
            Some(Value::Array(list)) if list.iter().any(|one| one.get("id") == id) => {}
            Some(Value::Array(_)) => {
                edits.push(Edit::Push("inputs".to_owned(), question.clone()));
            }
            Some(_) => return Err(MergeError::Shape("inputs".to_owned())),
        }
    }
    let others = before.get(wanted.key).and_then(Value::as_object);
    let others = others.map_or(0, |servers| {
        servers.keys().filter(|other| *other != name).count()
    });
    let change = match (is_there, edits.is_empty()) {
        (false, _) => EntryChange::Added,
        (true, true) => EntryChange::Nothing,
        (true, false) => EntryChange::Updated,
    };
    let merged = |text| MergeResult {
        text,
        name,
        change,
        entry,
        others,
    };
    if edits.is_empty() {
        return Ok(merged(text.to_owned()));
    }
    let mut after = before;
    for edit in &edits {
        apply(&mut after, edit);
    }
    let edited = match wanted.syntax {
        Syntax::Json => json::edit(text, &edits, &after),
        Syntax::Toml => toml::edit(text, &edits),
        Syntax::Yaml => yaml::edit(text, wanted.key, name, &after),
    };
    let edited = edited.ok_or(MergeError::Unsure)?;
    match parse(wanted.syntax, &edited) {
        Ok(found) if found == after => Ok(merged(edited)),
        _ => Err(MergeError::Unsure),
    }
}

/// Takes this server out of a configuration; `None` when it is not in it.
///
/// # Errors
/// When the text cannot be changed without touching what is not ours.
pub(super) fn remove(text: &str, wanted: &NewEntry<'_>) -> Result<Option<String>, MergeError> {
    let before = parse(wanted.syntax, text)?;
    let servers = before.get(wanted.key).and_then(Value::as_object);
    let found = servers.and_then(|servers| {
        let mut names = NAMES.iter();
        names.find(|name| servers.get(**name).is_some_and(|one| is_ours(one, wanted)))
    });
    let Some(name) = found else { return Ok(None) };
    let edit = Edit::Remove(vec![wanted.key.to_owned(), (*name).to_owned()]);
    let mut after = before;
    apply(&mut after, &edit);
    let edited = match wanted.syntax {
        Syntax::Json => json::edit(text, &[edit], &after),
        Syntax::Toml => toml::edit(text, &[edit]),
        Syntax::Yaml => yaml::remove(text, wanted.key, name),
    };
    let edited = edited.ok_or(MergeError::Unsure)?;
    match parse(wanted.syntax, &edited) {
        // A table that has nothing any more may be gone with it.
        Ok(found) if found == after || emptied(&found, &after, wanted.key) => Ok(Some(edited)),
        _ => Err(MergeError::Unsure),
    }
}

/// Says whether `found` is `after` but for an empty `key`, which it lacks or has as
/// nothing.
fn emptied(found: &Value, after: &Value, key: &str) -> bool {
    let mut found = found.clone();
    let nothing = Value::Object(Map::new());
    if after.get(key) != Some(&nothing) || !matches!(found.get(key), None | Some(Value::Null)) {
        return false;
    }
    found[key] = nothing;
    found == *after
}

/// Returns a configuration that has nothing but this server.
pub(super) fn alone(syntax: Syntax, key: &str, entry: &Value, question: Option<&Value>) -> String {
    let mut whole = Map::new();
    let servers = Map::from_iter([(NAMES[0].to_owned(), entry.clone())]);
    whole.insert(key.to_owned(), servers.into());
    if let Some(question) = question {
        whole.insert("inputs".to_owned(), Value::Array(vec![question.clone()]));
    }
    match syntax {
        Syntax::Json => format!("{:#}", Value::Object(whole)),
        Syntax::Toml => toml::alone(key, NAMES[0], entry),
        Syntax::Yaml => yaml::block(&Value::Object(whole), 0),
    }
}

fn parse(syntax: Syntax, text: &str) -> Result<Value, MergeError> {
    let parsed = match syntax {
        Syntax::Json => json::parse(text),
        Syntax::Toml => toml::parse(text),
        Syntax::Yaml => yaml::parse(text),
    };
    match parsed.map_err(MergeError::Broken)? {
        Value::Null if text.trim().is_empty() || syntax == Syntax::Yaml => {
            Ok(Value::Object(Map::new()))
        }
        whole @ Value::Object(_) => Ok(whole),
        _ => Err(MergeError::Shape("its beginning".to_owned())),
    }
}

/// Returns the name that this server shall have, and its whole entry.
fn our_entry(before: &Value, wanted: &NewEntry<'_>) -> Result<(&'static str, Value), MergeError> {
    let empty = Map::new();
    let servers = match before.get(wanted.key) {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(servers)) => servers,
        Some(_) => return Err(MergeError::Shape(wanted.key.to_owned())),
    };
    let ours = |name: &&&str| servers.get(**name).is_some_and(|one| is_ours(one, wanted));
    if let Some(name) = NAMES.iter().find(ours) {
        return Ok((name, renewed(&servers[*name], wanted)));
    }
    let free = NAMES.iter().find(|name| !servers.contains_key(**name));
    let name = free.ok_or(MergeError::Taken)?;
    let mut entry = wanted.entry.clone();
    if entry.get("name").is_some() {
        entry["name"] = (*name).into();
    }
    Ok((name, entry))
}

/// Says whether an entry starts or calls this server.
fn is_ours(entry: &Value, wanted: &NewEntry<'_>) -> bool {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let program = text("command").or_else(|| text("cmd"));
    if let Some(program) = program {
        let words = entry.get("args").and_then(Value::as_array);
        let words = words.into_iter().flatten().filter_map(Value::as_str);
        // With an address it runs nothing here: that is somebody's own choice.
        let is_far = words
            .into_iter()
            .any(|word| word == "--url" || word.starts_with("--url="));
        return program.rsplit('/').next() == Some("codex-server") && !is_far;
    }
    let url = ["url", "serverUrl", "httpUrl", "uri"]
        .into_iter()
        .find_map(text);
    url.is_some_and(wanted.is_our_url)
}

/// Returns an entry of ours as it shall be, with what people added to it.
fn renewed(old: &Value, wanted: &NewEntry<'_>) -> Value {
    let mut new = wanted.entry.clone();
    let has_credentials = old.get("bearer_token_env_var").is_some()
        || ["headers", "http_headers"].iter().any(|name| {
            let headers = old.get(*name).and_then(Value::as_object);
            headers.is_some_and(|headers| headers.keys().any(|name| is_authorization(name)))
        });
    let is_called = new.get("command").is_none() && new.get("cmd").is_none();
    if let Value::Object(new) = &mut new {
        // What people call it is theirs.
        for name in ["name", "description", "enabled", "timeout"] {
            if old.get(name).is_some() {
                new.remove(name);
            }
        }
        if wanted.keeps_credentials && has_credentials && is_called {
            for name in CREDENTIALS {
                new.remove(name);
            }
        }
    }
    let mut entry = old.clone();
    if let (Value::Object(entry), Value::Object(new)) = (&mut entry, &new) {
        entry.retain(|name, _| {
            let goes = REACH_MEMBERS.contains(&name.as_str())
                || (!is_called && CREDENTIALS.contains(&name.as_str()));
            !goes || new.contains_key(name)
        });
        if !wanted.keeps_credentials {
            // Two of them, and which counts would be the client's secret.
            for name in ["headers", "http_headers"] {
                if let Some(Value::Object(headers)) = entry.get_mut(name) {
                    headers.retain(|name, _| !is_authorization(name));
                }
            }
            entry.retain(|_, value| *value != Value::Object(Map::new()));
        }
    }
    overlay(&mut entry, new);
    entry
}

fn is_authorization(name: &str) -> bool {
    name.eq_ignore_ascii_case("authorization")
}

/// Puts `new` over `old`, member by member.
fn overlay(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                overlay(old.entry(name).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}

/// Lists what makes `new` of `old`.
fn differences(path: Vec<String>, old: &Value, new: &Value, edits: &mut Vec<Edit>) {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        if old != new {
            edits.push(Edit::Set(path, new.clone()));
        }
        return;
    };
    let below = |name: &String| {
        let mut path = path.clone();
        path.push(name.clone());
        path
    };
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        edits.push(Edit::Remove(below(name)));
    }
    for (name, value) in after {
        match before.get(name) {
            Some(old) => differences(below(name), old, value, edits),
            None => edits.push(Edit::Set(below(name), value.clone())),
        }
    }
}

/// Changes a value as an editor shall change the text.
fn apply(whole: &mut Value, edit: &Edit) {
    let (path, value) = match edit {
        Edit::Set(path, value) => (path.as_slice(), Some(value)),
        Edit::Remove(path) => (path.as_slice(), None),
        Edit::Push(name, value) => {
            if let Some(Value::Array(list)) = whole.get_mut(name) {
                list.push(value.clone());
            }
            return;
        }
    };
    let Some((last, folders)) = path.split_last() else {
        return;
    };
    let mut at = whole;
    for name in folders {
        if !at.get(name).is_some_and(Value::is_object) {
            at[name.as_str()] = Value::Object(Map::new());
        }
        at = &mut at[name.as_str()];
    }
    match (at, value) {
        (Value::Object(at), Some(value)) => {
            at.insert(last.clone(), value.clone());
        }
        (Value::Object(at), None) => {
            at.remove(last);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
