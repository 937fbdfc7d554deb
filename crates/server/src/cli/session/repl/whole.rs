//! Whether an input is whole, or goes on with the next line. Pure, and a rule of
//! thumb: the interpreter has the last word, and what is taken for whole too
//! early, or sent by two empty lines, is an error there and nothing worse.

/// Whose rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Python,
    JavaScript,
    /// Each line is whole.
    Lines,
}

impl Syntax {
    /// The rule for a language.
    pub(super) fn of(language: &str) -> Self {
        match language {
            "python" => Self::Python,
            "javascript" | "typescript" => Self::JavaScript,
            _ => Self::Lines,
        }
    }
}

/// What an input still lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// Nothing.
    Nothing,
    /// The empty line that ends a block.
    EmptyLine,
    /// The end of a bracket, a string, a comment or a line that goes on.
    End,
}

/// Says what an input lacks; its last line has no line end.
pub(super) fn lack(syntax: Syntax, input: &str) -> Lack {
    match syntax {
        Syntax::Python => python(input),
        Syntax::JavaScript if javascript_is_open(input) => Lack::End,
        Syntax::JavaScript | Syntax::Lines => Lack::Nothing,
    }
}

/// A line that ends with a colon, a decorator or a cell magic begins a block,
/// which an empty line ends; brackets, long strings and backslashes go on until
/// they are closed.
fn python(input: &str) -> Lack {
    let mut lines = Code::default();
    let mut rest = input;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '#' => &rest[rest.find('\n').unwrap_or(rest.len())..],
            '"' | '\'' => match after_string(rest, c) {
                Some(after) => {
                    lines.last = c;
                    after
                }
                None => return Lack::End,
            },
            '\\' if rest[1..].is_empty() => return Lack::End,
            '\\' => &rest[1 + rest[1..].chars().next().map_or(0, char::len_utf8)..],
            _ => {
                lines.take(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    lines.end_line();
    let ended = input
        .lines()
        .last()
        .is_none_or(|line| line.trim().is_empty())
        || input.ends_with('\n');
    if lines.depth > 0 {
        Lack::End
    } else if (lines.block || input.starts_with("%%")) && !ended {
        Lack::EmptyLine
    } else {
        Lack::Nothing
    }
}

/// What is known of Python code outside of strings and comments.
#[derive(Debug, Default)]
struct Code {
    depth: usize,
    /// A line began a block.
    block: bool,
    /// First and last sign of the line, or NUL.
    first: char,
    last: char,
}

impl Code {
    fn take(&mut self, c: char) {
        match c {
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            '\n' if self.depth == 0 => return self.end_line(),
            _ => {}
        }
        if !c.is_whitespace() {
            if self.first == '\0' {
                self.first = c;
            }
            self.last = c;
        }
    }

    fn end_line(&mut self) {
        self.block |= self.last == ':' || self.first == '@';
        (self.first, self.last) = ('\0', '\0');
    }
}

/// What follows a string of Python; `None` where a long one is not closed. A
/// short one ends with its line at the latest.
fn after_string(text: &str, quote: char) -> Option<&str> {
    let long = [quote; 3].iter().collect::<String>();
    let (mut rest, end) = match text.strip_prefix(&long) {
        Some(rest) => (rest, long),
        None => (&text[1..], quote.to_string()),
    };
    loop {
        if let Some(after) = rest.strip_prefix(&end) {
            return Some(after);
        }
        let mut signs = rest.chars();
        match signs.next() {
            None if end.len() == 1 => return Some(""),
            None => return None,
            Some('\n') if end.len() == 1 => return Some(rest),
            Some('\\') => drop(signs.next()),
            Some(_) => {}
        }
        rest = signs.as_str();
    }
}

/// Where a scan of JavaScript is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// A bracket, or the `${` of a template.
    Bracket,
    Template,
}

/// Whether brackets, templates or comments are open.
fn javascript_is_open(input: &str) -> bool {
    let mut inside = Vec::new();
    // The last sign that counts, to tell a division from a regular expression.
    let mut last = ';';
    let mut signs = input.chars().peekable();
    while let Some(c) = signs.next() {
        if inside.last() == Some(&Inside::Template) {
            match c {
                '\\' => drop(signs.next()),
                '`' => drop(inside.pop()),
                '$' if signs.next_if_eq(&'{').is_some() => inside.push(Inside::Bracket),
                _ => {}
            }
            last = ')';
            continue;
        }
        match c {
            '/' if signs.next_if_eq(&'/').is_some() => {
                while signs.next_if(|c| *c != '\n').is_some() {}
            }
            '/' if signs.next_if_eq(&'*').is_some() => {
                let mut star = false;
                if !signs.by_ref().any(|c| {
                    c == '/' && star || {
                        star = c == '*';
                        false
                    }
                }) {
                    return true;
                }
            }
            '/' if "(,=:[!&|?{};+-*%~^<>\n".contains(last) => {
                until(&mut signs, '/');
                last = ')';
            }
            '"' | '\'' => {
                until(&mut signs, c);
                last = ')';
            }
            '`' => inside.push(Inside::Template),
            '(' | '[' | '{' => {
                inside.push(Inside::Bracket);
                last = c;
            }
            ')' | ']' | '}' => {
                inside.pop();
                last = c;
            }
            c if c.is_whitespace() => {}
            c => last = c,
        }
    }
    !inside.is_empty()
}

/// Goes on to the end of a string or a regular expression, which is that of the
/// line at the latest.
fn until(signs: &mut std::iter::Peekable<std::str::Chars<'_>>, end: char) {
    let mut class = false;
    while let Some(c) = signs.next_if(|c| *c != '\n') {
        match c {
            '\\' => drop(signs.next()),
            '[' if end == '/' => class = true,
            ']' => class = false,
            c if c == end && !class => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn python_goes_on_until_it_is_whole() {
        let check = |input: &str, expected: Lack| {
            assert_eq!(lack(Syntax::Python, input), expected, "{input:?}");
        };
        for whole in [
            "",
            "1",
            "x = {'a:': [1, 2]}",
            "print('''a''')",
            "'it\\'s'",
            "x[1:]",
            "x  # a:",
            "f('(')",
            "def f():\n    return 1\n",
            "if x:\n    y\n    ",
            "\"unclosed",
            "'a:'",
            "lambda: 1",
            ")",
            "a \\\n+ 1",
            "@d\ndef f(): pass\n",
            "%%bash\nls\n",
            "%time f(1)",
        ] {
            check(whole, Lack::Nothing);
        }
        for block in [
            "def f():",
            "if x:  # why",
            "def f():\n    return 1",
            "@d",
            "%%bash",
            "class A:\n  x = (\n 1)",
            "for x in (1,\n2):",
            "try: ",
        ] {
            check(block, Lack::EmptyLine);
        }
        for open in [
            "f(",
            "[1,\n2,",
            "'''a",
            "\"\"\"a\"\n",
            "x = \\",
            "def f(a,\n",
            "{'a': \"\"\"",
            "f(')'",
        ] {
            check(open, Lack::End);
        }
    }

    #[test]
    fn javascript_goes_on_until_it_is_whole() {
        let check = |input: &str, open: bool| {
            let expected = if open { Lack::End } else { Lack::Nothing };
            assert_eq!(lack(Syntax::JavaScript, input), expected, "{input:?}");
        };
        for whole in [
            "",
            "1",
            "f({a: [1]})",
            "'('",
            "`a${'`'}b`",
            "`${`${1}`}`",
            "// (",
            "/* ( */ 1",
            "/[(]/.test('(')",
            "a / b / (c)",
            "x = /\\(/",
            "\"unclosed (",
            "}",
            "(1) / 2 / (3)",
            "/* * / */",
        ] {
            check(whole, false);
        }
        for open in [
            "function f() {",
            "[1,",
            "`a\nb",
            "`${",
            "`${1}",
            "/* a",
            "f(')'",
            "if (x) { // }",
        ] {
            check(open, true);
        }
        assert_eq!(lack(Syntax::Lines, "if ("), Lack::Nothing);
        assert_eq!(
            [
                Syntax::of("python"),
                Syntax::of("javascript"),
                Syntax::of("bash")
            ],
            [Syntax::Python, Syntax::JavaScript, Syntax::Lines]
        );
    }

    proptest! {
        #[test]
        fn no_input_panics(input in "([\"'`(){}\\[\\]:#/*$\\\\\n a@é]|\"\"\"|'''){0,30}", other in any::<String>()) {
            for syntax in [Syntax::Python, Syntax::JavaScript, Syntax::Lines] {
                lack(syntax, &input);
                lack(syntax, &other);
            }
        }
    }
}
