//! Enough of Rust's grammar to look at code without its comments and strings.
//! Never changes the number of lines.

/// The source with the contents of comments, strings and character literals
/// blanked out; line breaks stay where they are.
pub(super) fn blank(source: &str) -> String {
    let mut scanner = Scanner {
        rest: source,
        out: String::with_capacity(source.len()),
    };
    while !scanner.rest.is_empty() {
        scanner.step();
    }
    scanner.out
}

struct Scanner<'a> {
    rest: &'a str,
    out: String,
}

impl Scanner<'_> {
    fn step(&mut self) {
        if self.rest.starts_with("//") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.hide(end);
        } else if self.rest.starts_with("/*") {
            self.hide(block_comment(self.rest));
        } else if let Some(end) = raw_string(self.rest).filter(|_| !self.inside_word()) {
            self.hide(end);
        } else if self.rest.starts_with('"') {
            self.hide(string(self.rest));
        } else if let Some(end) = character(self.rest) {
            self.hide(end);
        } else {
            let first = self.rest.chars().next().map_or(1, char::len_utf8);
            self.out.push_str(&self.rest[..first]);
            self.rest = &self.rest[first..];
        }
    }

    /// Whether what came last belongs to a name, so that `r` starts nothing.
    fn inside_word(&self) -> bool {
        self.out
            .ends_with(|last: char| last.is_alphanumeric() || last == '_')
    }

    fn hide(&mut self, length: usize) {
        let (hidden, rest) = self.rest.split_at(length);
        self.out
            .extend(hidden.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of a raw string, with or without `b` or `c` before it.
fn raw_string(text: &str) -> Option<usize> {
    let start = ["r", "br", "cr"]
        .iter()
        .find(|start| text.starts_with(**start))?
        .len();
    let hashes = text[start..]
        .bytes()
        .take_while(|&byte| byte == b'#')
        .count();
    let open = start + hashes;
    if !text[open..].starts_with('"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let end = text[open + 1..].find(&close)?;
    Some(open + 1 + end + close.len())
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a character literal; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        // The escaped character itself may be a quote.
        let first = escape.chars().next()?.len_utf8();
        let end = escape[first..].find('\'')?;
        return Some(2 + first + end + 1);
    }
    let first = inner.chars().next()?.len_utf8();
    inner[first..].starts_with('\'').then_some(1 + first + 1)
}

/// The lines before a trailing `#[cfg(test)] mod tests { … }`.
pub(super) fn without_tests(source: &str) -> &str {
    let blanked = blank(source);
    let mut at = 0;
    for line in blanked.split_inclusive('\n') {
        if line.trim_end() == "#[cfg(test)]" && opens_tests(&blanked[at + line.len()..]) {
            return &source[..byte_at(source, &blanked, at)];
        }
        at += line.len();
    }
    source
}

fn opens_tests(after: &str) -> bool {
    let first = after.trim_start().lines().next().unwrap_or_default();
    first.starts_with("mod ") && first.ends_with('{')
}

/// Blanking changes byte offsets, never lines: go by those.
fn byte_at(source: &str, blanked: &str, at: usize) -> usize {
    let lines = blanked[..at].matches('\n').count();
    source.split_inclusive('\n').take(lines).map(str::len).sum()
}

/// A function's name, first line (from 1) and lines of code in its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) length: usize,
}

/// Every function with a body, nested ones too.
pub(super) fn functions(source: &str) -> Vec<Function> {
    let blanked = blank(source);
    let mut found = Vec::new();
    for (at, _) in blanked.match_indices("fn ") {
        let before = blanked[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &blanked[at + 3..];
        let name: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if let Some(body) = body(rest).filter(|_| !name.is_empty()) {
            let line = blanked[..at].matches('\n').count() + 1;
            let length = body.lines().filter(|line| !line.trim().is_empty()).count();
            found.push(Function { name, line, length });
        }
    }
    found
}

/// What is between the braces; `None` for a declaration or a function type.
fn body(signature: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, character) in signature.char_indices() {
        match character {
            '(' | '[' => depth += 1,
            // Leaves whatever the word `fn` stood in: it was a type.
            ')' | ']' => depth = depth.checked_sub(1)?,
            ';' | ',' | '=' | '}' if depth == 0 && character != ',' => return None,
            '{' if depth == 0 => return Some(braced(&signature[at + 1..])),
            _ => {}
        }
    }
    None
}

fn braced(text: &str) -> &str {
    let mut depth = 1_usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blanked() {
        let check = |source: &str, expected: &str| assert_eq!(blank(source), expected);
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check("f(\"b\\\"c\") g", "f(      ) g");
        check("r#\"a\"b\"# c", "          c".get(1..).expect("ascii"));
        check("bar\"x\"", "bar   ");
        check("'a' 'b '\\'' x", "    'b      x");
        check("&'static str", "&'static str");
        check("\"a\nb\"", "  \n  ");
        check("\"never ends", "           ");
    }

    #[test]
    fn nothing_changes_the_number_of_lines() {
        let source = include_str!("rust.rs");
        assert_eq!(blank(source).lines().count(), source.lines().count());
    }

    #[test]
    fn trailing_tests_are_cut_off() {
        let check = |source: &str, expected: &str| assert_eq!(without_tests(source), expected);
        check("é\n#[cfg(test)]\nmod tests {\n}\n", "é\n");
        check(
            "a\n#[cfg(test)]\nmod tests;\n",
            "a\n#[cfg(test)]\nmod tests;\n",
        );
        check("a\n// #[cfg(test)]\nb\n", "a\n// #[cfg(test)]\nb\n");
    }

    #[test]
    fn functions_are_measured_without_blanks_and_comments() {
        let source = "fn a() {\n    one();\n\n    // no\n    two();\n}\n\nfn b(f: fn (u8) -> u8);\npub fn c<T>(x: [u8; 2]) -> u8 { 1 }\n";
        let found: Vec<_> = functions(source)
            .into_iter()
            .map(|f| (f.name, f.line, f.length))
            .collect();
        assert_eq!(found, [("a".to_owned(), 1, 2), ("c".to_owned(), 9, 1)]);
    }
}
