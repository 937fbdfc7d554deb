//! YAML: one block of lines is put in or replaced, and no other line is touched.
//! Whatever is written in another style than blocks is left to people.

use std::ops::Range;

use serde_json::Value;

/// Reads a text; `Null` where there is none. The error says where and why.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    yaml_serde::from_str(text).map_err(|error| error.to_string())
}

/// Puts the entry `key.name` of `after` into a text; `None` where it has no
/// place that this can find.
pub(super) fn edit(text: &str, key: &str, name: &str, after: &Value) -> Option<String> {
    let entry = after.get(key)?.get(name)?;
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let lines: Vec<&str> = text.lines().collect();
    let Some(at) = lines.iter().position(|line| is_key(line, 0, key)) else {
        let whole = serde_json::json!({key: {name: entry}});
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        lines.extend(block(&whole, 0).lines().map(str::to_owned));
        return Some(lines.join(end) + end);
    };
    let section = at + 1..below(&lines, at + 1, 0);
    let children = section.clone().find(|line| !is_blank(lines[*line]));
    let width = children.map_or(2, |line| indentation(lines[line]));
    if width == 0 {
        return None;
    }
    let own = section
        .clone()
        .find(|line| is_key(lines[*line], width, name));
    let replaced = match own {
        Some(own) => own..below(&lines, own + 1, width),
        // Before the others, so that no comment at the end moves.
        None => at + 1..at + 1,
    };
    let whole = serde_json::json!({name: entry});
    Some(spliced(&lines, replaced, &block(&whole, width), end))
}

/// Takes the entry `key.name` out of a text; `None` where this cannot find it.
pub(super) fn remove(text: &str, key: &str, name: &str) -> Option<String> {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| is_key(line, 0, key))?;
    let mut section = at + 1..below(&lines, at + 1, 0);
    let width = section.clone().find(|line| !is_blank(lines[*line]));
    let width = indentation(lines[width?]);
    let own = section.find(|line| is_key(lines[*line], width, name))?;
    Some(spliced(&lines, own..below(&lines, own + 1, width), "", end))
}

fn spliced(lines: &[&str], replaced: Range<usize>, block: &str, end: &str) -> String {
    let before = lines[..replaced.start].iter().copied();
    let after = lines[replaced.end..].iter().copied();
    let lines: Vec<&str> = before.chain(block.lines()).chain(after).collect();
    lines.join(end) + end
}

/// Says whether a line opens the block of a key, with nothing else in it.
fn is_key(line: &str, width: usize, key: &str) -> bool {
    if indentation(line) != width {
        return false;
    }
    let Some(rest) = line[width..].strip_prefix(key) else {
        return false;
    };
    let Some(rest) = rest.strip_prefix(':') else {
        return false;
    };
    rest.trim().is_empty() || rest.trim_start().starts_with('#') && rest.starts_with(' ')
}

/// Returns the line after a block that begins at `from`, below lines of `width`.
/// Blank lines and comments at its end are not its own.
fn below(lines: &[&str], from: usize, width: usize) -> usize {
    let mut end = from;
    for (number, line) in lines.iter().enumerate().skip(from) {
        if is_blank(line) {
            continue;
        }
        if indentation(line) <= width {
            break;
        }
        end = number + 1;
    }
    end
}

fn is_blank(line: &str) -> bool {
    let text = line.trim_start();
    text.is_empty() || text.starts_with('#')
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Returns an object as lines that are indented by `width`. Texts are quoted as
/// in JSON, which YAML reads alike.
pub(super) fn block(value: &Value, width: usize) -> String {
    let mut text = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let indent = " ".repeat(width);
        match value {
            Value::Object(members) if !members.is_empty() => {
                text += &format!("{indent}{name}:\n{}\n", block(value, width + 2));
            }
            value => text += &format!("{indent}{name}: {value}\n"),
        }
    }
    text.trim_end().to_owned()
}
