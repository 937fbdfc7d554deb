//! TOML, changed in place.

use serde_json::Value;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike};

use super::Edit;

/// Reads a text. The error says where and why.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
}

/// Changes a text; `None` when it has another shape than was read.
pub(super) fn edit(text: &str, edits: &[Edit]) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    for edit in edits {
        match edit {
            Edit::Set(path, value) => {
                let (last, folders) = path.split_last()?;
                let at = descend(document.as_table_mut(), folders)?;
                let is_table = at.get(last).is_none_or(Item::is_table);
                let mut item = match value {
                    Value::Object(members) if is_table => Item::Table(table(members)),
                    value => Item::Value(convert(value)?),
                };
                let old = at.get(last).and_then(Item::as_value);
                if let (Some(old), Some(new)) = (old, item.as_value_mut()) {
                    // The comment after it.
                    *new.decor_mut() = old.decor().clone();
                }
                at.insert(last, item);
            }
            Edit::Remove(path) => {
                let (last, folders) = path.split_last()?;
                descend(document.as_table_mut(), folders)?.remove(last)?;
            }
            Edit::Push(..) => return None,
        }
    }
    Some(document.to_string())
}

/// Returns a text that has nothing but one entry.
pub(super) fn alone(key: &str, name: &str, entry: &Value) -> String {
    let path = vec![key.to_owned(), name.to_owned()];
    let set = Edit::Set(path, entry.clone());
    edit("", &[set]).unwrap_or_default().trim_end().to_owned()
}

fn descend<'a>(whole: &'a mut Table, folders: &[String]) -> Option<&'a mut dyn TableLike> {
    let mut at: &mut dyn TableLike = whole;
    for name in folders {
        if at.get(name).is_none() {
            let mut below = Table::new();
            below.set_implicit(true);
            at.insert(name, Item::Table(below));
        }
        at = at.get_mut(name)?.as_table_like_mut()?;
    }
    Some(at)
}

fn table(members: &serde_json::Map<String, Value>) -> Table {
    let mut table = Table::new();
    for (name, value) in members {
        if let Some(value) = convert(value) {
            table.insert(name, Item::Value(value));
        }
    }
    table
}

/// Returns a value in TOML's terms, which has no null.
fn convert(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => (*value).into(),
        Value::Number(value) => match value.as_i64() {
            Some(value) => value.into(),
            None => value.as_f64()?.into(),
        },
        Value::String(value) => value.as_str().into(),
        Value::Array(list) => {
            let list: Option<Array> = list.iter().map(convert).collect();
            list?.into()
        }
        Value::Object(members) => {
            let mut inline = InlineTable::new();
            for (name, value) in members {
                inline.insert(name, convert(value)?);
            }
            inline.into()
        }
    })
}
