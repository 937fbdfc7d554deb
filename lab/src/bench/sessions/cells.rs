//! The cells that are run, as data, and whether an answer is the one that a cell must
//! get, whichever server gave it. Never measures anything.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

/// What every PNG file begins with, in Base64.
const PNG: &str = "iVBORw0KGgo";

/// Characters of a picture in Base64 that is no empty one.
const PICTURE_LENGTH: usize = 1000;

/// A cell and what must come of it, on all sides alike.
#[derive(Debug)]
pub(super) struct Cell {
    /// The language, as our server names it.
    pub(super) language: &'static str,
    /// The cell before it in a live session, that is not measured.
    pub(super) setup: &'static str,
    /// The cell.
    pub(super) code: &'static str,
    /// What it prints.
    output: &'static str,
    /// What it shows: media types and what is to be read there.
    shown: &'static [(&'static str, Shown)],
}

/// What is to be read in one form of a value.
#[derive(Debug)]
enum Shown {
    /// This text.
    Is(&'static str),
    /// All of these.
    Has(&'static [&'static str]),
    /// A picture.
    Picture,
}

/// A sum.
pub(super) static SUM: Cell = Cell {
    language: "python",
    setup: "1+1",
    code: "2+2",
    output: "",
    shown: &[("text/plain", Shown::Is("4"))],
};

/// The same in JavaScript.
pub(super) static SUM_JAVASCRIPT: Cell = Cell {
    language: "javascript",
    ..SUM
};

/// A table of pandas, with pandas imported.
pub(super) static PANDAS: Cell = Cell {
    language: "python",
    setup: "\
import pandas as pd
df = pd.DataFrame({'a': range(100), 'b': [x / 2 for x in range(100)]})
",
    code: "df.describe()",
    output: "",
    shown: &[
        ("text/plain", Shown::Has(&["mean", "49.5", "29.011492"])),
        ("text/html", Shown::Has(&["<table", "49.5", "29.011492"])),
    ],
};

/// A figure of matplotlib, with matplotlib imported.
pub(super) static PLOT: Cell = Cell {
    language: "python",
    setup: "import matplotlib.pyplot as plt",
    code: "\
figure, axes = plt.subplots(figsize=(4, 3))
axes.plot([1, 2, 4, 8, 16])
plt.show()
",
    output: "",
    shown: &[("image/png", Shown::Picture)],
};

/// The first cell of a session, and a whole program.
pub(super) static FIRST: Cell = Cell {
    language: "python",
    setup: "",
    code: "print(2+2)",
    output: "4\n",
    shown: &[],
};

/// The same in JavaScript.
pub(super) static FIRST_JAVASCRIPT: Cell = Cell {
    language: "javascript",
    code: "console.log(2+2)",
    ..FIRST
};

/// What came of a cell or a program.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Whether it ended well.
    pub(super) is_well: bool,
    /// What it printed.
    pub(super) output: String,
    /// All that was shown, by media type.
    pub(super) shown: BTreeMap<String, String>,
    /// What else the server said, for messages.
    pub(super) words: String,
}

impl Answer {
    /// Adds the forms of one value.
    pub(super) fn show(&mut self, data: &Map<String, Value>) {
        for (form, value) in data {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            self.shown.insert(form.clone(), text);
        }
    }

    /// Fails unless it ended well and its value reads so.
    pub(super) fn reads(&self, expected: &str) -> Result<()> {
        let found = self.shown.get("text/plain").map(String::as_str);
        ensure!(
            self.is_well && found == Some(expected),
            "the value should read {expected:?}, and was {found:?}: {}",
            self.words
        );
        Ok(())
    }
}

/// The picture of the first answer that had one: all others must have the same, byte for
/// byte, whichever server gave it.
#[derive(Debug, Default)]
pub(super) struct Picture(OnceLock<String>);

impl Picture {
    /// Fails when an answer has another one.
    pub(super) fn is_in(&self, answer: &Answer) -> Result<()> {
        if let Some(picture) = answer.shown.get("image/png") {
            let first = self.0.get_or_init(|| picture.clone());
            ensure!(
                first == picture,
                "the picture is not the one that the first answer had"
            );
        }
        Ok(())
    }
}

impl Cell {
    /// Fails when an answer is not the one that this must get.
    pub(super) fn pass(&self, answer: &Answer) -> Result<()> {
        let Answer { words, .. } = answer;
        ensure!(
            answer.is_well && answer.output == self.output,
            "{:?} should have printed {:?}, and printed {:?}: {words}",
            self.code,
            self.output,
            answer.output,
        );
        for (form, expected) in self.shown {
            let found = answer.shown.get(*form).map_or("", String::as_str);
            let passes = match expected {
                Shown::Is(text) => found == *text,
                Shown::Has(texts) => texts.iter().all(|text| found.contains(text)),
                Shown::Picture => found.starts_with(PNG) && found.len() > PICTURE_LENGTH,
            };
            ensure!(
                passes,
                "{:?} should have shown {expected:?} as {form}, and showed {found:?}: {words}",
                self.code
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(output: &str, data: &Value) -> Answer {
        let mut answer = Answer {
            is_well: true,
            output: output.to_owned(),
            ..Answer::default()
        };
        answer.show(data.as_object().expect("an object"));
        answer
    }

    #[test]
    fn only_the_expected_answer_passes() {
        let check = |cell: &Cell, output: &str, data: Value, expected: bool| {
            let is_passed = cell.pass(&answer(output, &data)).is_ok();
            assert_eq!(is_passed, expected, "{output:?} {data}");
        };
        check(&SUM, "", json!({"text/plain": "4"}), true);
        check(&SUM, "", json!({"text/plain": "44"}), false);
        check(&SUM, "", json!({}), false);
        check(&SUM, "4\n", json!({"text/plain": "4"}), false);
        check(&FIRST, "4\n", json!({}), true);
        check(&FIRST_JAVASCRIPT, "5\n", json!({}), false);
        let told = "mean 49.5 29.011492";
        let both = json!({"text/plain": told, "text/html": format!("<table {told}")});
        check(&PANDAS, "", both, true);
        check(&PANDAS, "", json!({"text/plain": told}), false);
        let picture = |start: &str| json!({"image/png": format!("{start}{}", "A".repeat(2000))});
        check(&PLOT, "", picture(PNG), true);
        check(&PLOT, "", picture("R0lGODlh"), false);
        check(&PLOT, "", json!({"image/png": PNG}), false);
    }

    #[test]
    fn pictures_are_compared_with_the_first() {
        let first = Picture::default();
        let check = |data: Value, expected: bool| {
            assert_eq!(first.is_in(&answer("", &data)).is_ok(), expected, "{data}");
        };
        check(json!({"text/plain": "4"}), true);
        check(json!({"image/png": "one"}), true);
        check(json!({"image/png": "two"}), false);
        check(json!({"image/png": "one"}), true);
    }

    #[test]
    fn a_cell_that_failed_never_passes() {
        let failed = Answer {
            is_well: false,
            ..answer("", &json!({"text/plain": "4"}))
        };
        assert!(SUM.pass(&failed).is_err());
        assert!(failed.reads("4").is_err());
        assert!(answer("", &json!({"text/plain": "4"})).reads("4").is_ok());
        assert!(answer("", &json!({"text/plain": "5"})).reads("4").is_err());
    }
}
