//! A step that a person takes: what to do, what to copy, and what to put into
//! which field. Only shown; nothing is done here.

use serde_json::{Value, json};

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Step {
    pub(super) what: String,
    /// What to copy: an address, a command, lines of a file.
    pub(super) copy: Option<String>,
    /// The fields of a form, each with what goes there.
    pub(super) fields: Vec<(String, String)>,
    /// What to know besides.
    pub(super) note: Option<String>,
}

impl Step {
    /// Returns a step with something to copy.
    pub(super) fn copying(what: &str, copy: String) -> Self {
        Self {
            what: what.to_owned(),
            copy: Some(copy),
            ..Self::default()
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let mut step = json!({"what": self.what, "copy": self.copy});
        if !self.fields.is_empty() {
            let fields = self.fields.iter();
            let fields = fields.map(|(label, value)| json!({"label": label, "value": value}));
            step["fields"] = fields.collect();
        }
        if let Some(note) = &self.note {
            step["note"] = json!(note);
        }
        step
    }
}

/// Returns steps with their numbers, counted on from those `before`.
pub(super) fn shown(steps: &[Step], before: usize) -> String {
    let mut text = String::new();
    for (number, step) in (before + 1..).zip(steps) {
        text += &format!("\n{number:>2}. {}", step.what);
        match &step.copy {
            Some(copy) => {
                let lines = copy.lines().map(|line| format!("      {line}\n"));
                text += &format!(":\n\n{}", lines.collect::<String>());
            }
            None => text += ".\n",
        }
        let width = step.fields.iter().map(|(label, _)| label.chars().count());
        let width = width.max().unwrap_or_default();
        if width > 0 {
            text += "\n";
        }
        for (label, value) in &step.fields {
            text += &format!("      {label:<width$}  {value}\n");
        }
        if let Some(note) = &step.note {
            text += &format!("\n    {note}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_and_fields_aligned() {
        let steps = [
            Step::copying("Run", "one\ntwo".to_owned()),
            Step {
                what: "Fill in".to_owned(),
                fields: vec![
                    ("Name".to_owned(), "codex".to_owned()),
                    ("Connection".to_owned(), "Tunnel".to_owned()),
                ],
                note: Some("Then wait.".to_owned()),
                ..Step::default()
            },
        ];
        assert_eq!(
            shown(&steps, 8),
            "\n 9. Run:\n\n      one\n      two\n\n10. Fill in.\n\n      Name        codex\n      Connection  Tunnel\n\n    Then wait.\n"
        );
        assert_eq!(
            steps[1].to_json(),
            json!({
                "what": "Fill in", "copy": null, "note": "Then wait.",
                "fields": [{"label": "Name", "value": "codex"}, {"label": "Connection", "value": "Tunnel"}],
            })
        );
    }
}
