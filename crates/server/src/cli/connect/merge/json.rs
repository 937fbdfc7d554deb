//! JSON, with comments and trailing commas, changed in place.

use std::collections::HashSet;

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::Value;

use super::Edit;

/// What clients take: strict JSON but for comments and trailing commas.
const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Reads a text; `Null` where there is none. The error says where and why.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let root = CstRootNode::parse(text, &OPTIONS).map_err(|error| error.to_string())?;
    if let Some(name) = root.object_value().and_then(|whole| named_twice(&whole)) {
        return Err(format!(
            "it has {name:?} twice, and which one counts is the client's secret"
        ));
    }
    Ok(root.to_serde_value().unwrap_or(Value::Null))
}

/// Returns a name that an object, or one below it, has twice.
fn named_twice(object: &CstObject) -> Option<String> {
    let mut names = HashSet::new();
    for member in object.properties() {
        let name = member.decoded_name()?;
        if let Some(found) = member.object_value().and_then(|below| named_twice(&below)) {
            return Some(found);
        }
        if !names.insert(name.clone()) {
            return Some(name);
        }
    }
    None
}

/// Changes a text; `None` when it has another shape than was read.
pub(super) fn edit(text: &str, edits: &[Edit], after: &Value) -> Option<String> {
    let root = CstRootNode::parse(text, &OPTIONS).ok()?;
    if root.value().is_none() && text.trim().is_empty() {
        return Some(format!("{after:#}\n"));
    }
    let whole = root.object_value()?;
    for edit in edits {
        match edit {
            Edit::Set(path, value) => {
                let (last, folders) = path.split_last()?;
                set(&descend(&whole, folders)?, last, value);
            }
            Edit::Remove(path) => {
                let (last, folders) = path.split_last()?;
                descend(&whole, folders)?.get(last)?.remove();
            }
            Edit::Push(name, value) => {
                let list = whole.array_value(name)?;
                list.append(input(value));
            }
        }
    }
    Some(root.to_string())
}

fn descend(whole: &CstObject, folders: &[String]) -> Option<CstObject> {
    let mut at = whole.clone();
    for name in folders {
        at = match at.object_value(name) {
            Some(below) => below,
            None => {
                set(&at, name, &Value::Object(serde_json::Map::new()));
                at.object_value(name)?
            }
        };
    }
    Some(at)
}

fn set(at: &CstObject, name: &str, value: &Value) {
    match at.get(name) {
        Some(member) => member.set_value(input(value)),
        None => drop(at.append(name, input(value))),
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(value) => CstInputValue::Number(value.to_string()),
        Value::String(value) => CstInputValue::String(value.clone()),
        Value::Array(list) => CstInputValue::Array(list.iter().map(input).collect()),
        Value::Object(members) => {
            let members = members.iter();
            CstInputValue::Object(
                members
                    .map(|(name, value)| (name.clone(), input(value)))
                    .collect(),
            )
        }
    }
}
