//! What a cell left besides its output: values as text, pictures in the terminal
//! or as files, remarks. Nothing of it reaches a terminal untamed, and no file
//! takes the place of another.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::Stream;
use serde_json::Value;

use super::Showing;
use super::life::text;
use crate::cli::Failure;
use crate::cli::run::files::{Made, Target};
use crate::cli::run::images::Images;
use crate::cli::run::printer::{Printer, Printing, remark};
use crate::cli::run::remote::Answer;
use crate::cli::run::{OUT, SHOWN, about, named, told};
use crate::config::Env;
use crate::output;

/// Pictures by media type, with the ending of a file of them.
const PICTURES: [(&str, &str); 4] = [
    ("image/png", "png"),
    ("image/jpeg", "jpg"),
    ("image/gif", "gif"),
    ("image/svg+xml", "svg"),
];
/// Texts that a person can read, the best first.
const TEXTS: [&str; 3] = ["text/plain", "text/markdown", "text/latex"];
/// Files that are named after one cell.
const FILES: usize = 20;

/// Shows what cells left.
#[derive(Debug)]
pub(super) struct Shower {
    images: Images,
    /// Where pictures go that the terminal does not show.
    target: Option<Target>,
    printing: Printing,
}

impl Shower {
    pub(super) fn new(showing: &Showing, env: &Env) -> Self {
        let directory = showing.out.clone().unwrap_or_else(|| OUT.into());
        Self {
            images: showing.images.resolve(env),
            target: (!showing.no_out).then_some(Target {
                directory,
                force: false,
                through_link: showing.out.is_some(),
            }),
            printing: if showing.raw {
                Printing::Raw
            } else {
                Printing::RedErrors
            },
        }
    }

    /// Shows what comes after the output of a cell.
    pub(super) fn show(&self, answer: &Answer) -> Result<(), Failure> {
        let cell = answer.value.get("cell").unwrap_or(&Value::Null);
        let mut printer = Printer::new(self.printing);
        let open_line = !answer.output.is_empty() && !answer.output.ends_with('\n');
        let results = answer.value.get("results").and_then(Value::as_array);
        let results = results.map(Vec::as_slice).unwrap_or_default();
        if open_line && (output::is_terminal() || !results.is_empty()) {
            printer.print(Stream::Stdout, b"\n")?;
        }
        for (stream, name) in [
            (Stream::Stdout, "late_output"),
            (Stream::Stderr, "late_error"),
        ] {
            let late = cell.get(name).and_then(Value::as_str).unwrap_or_default();
            printer.print(stream, late.as_bytes())?;
        }
        let mut pictures = 0;
        for result in results {
            let Some(data) = result.get("data") else {
                continue;
            };
            if let Some((content, ending)) = picture(data) {
                pictures += 1;
                self.picture(cell, pictures, ending, content)?;
            } else if let Some(text) = readable(data) {
                printer.print(Stream::Stdout, format!("{text}\n").as_bytes())?;
            } else if let Some(forms) = data.as_object() {
                let forms: Vec<&str> = forms.keys().map(String::as_str).collect();
                remark(&format!(
                    "shown as {}, which is not shown here",
                    forms.join(", ")
                ));
            }
        }
        printer.finish()?;
        remarks(answer).iter().for_each(|text| remark(text));
        Ok(())
    }

    /// Shows a picture in the terminal, or saves and names it.
    fn picture(
        &self,
        cell: &Value,
        number: usize,
        ending: &str,
        content: Vec<u8>,
    ) -> Result<(), Failure> {
        if let Some(image) = self.images.show(&content)
            && number <= SHOWN
        {
            output::error_bytes(image.as_bytes())?;
            return Ok(());
        }
        let of_cell = cell
            .get("number")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let more = if number > 1 {
            format!("-{number}")
        } else {
            String::new()
        };
        let made = Made {
            name: format!("{}-{of_cell}{more}.{ending}", text(cell, "context")),
            size: content.len() as u64,
            content: Ok(content),
        };
        match &self.target {
            Some(target) => remark(&told(target, &made, &target.save(&made))),
            None => remark(&format!("a picture: {}", named(&made))),
        }
        Ok(())
    }
}

/// A picture among the forms of a result.
fn picture(data: &Value) -> Option<(Vec<u8>, &'static str)> {
    PICTURES.iter().find_map(|(kind, ending)| {
        let form = data.get(*kind)?.as_str()?;
        // A drawing is text, and may come as that.
        let content = match form.trim_start().starts_with('<') {
            true => form.as_bytes().to_vec(),
            false => BASE64.decode(form.trim()).ok()?,
        };
        Some((content, *ending))
    })
}

/// The form of a result that a person reads.
fn readable(data: &Value) -> Option<String> {
    let texts = TEXTS.iter().filter_map(|kind| data.get(*kind)?.as_str());
    let mut texts = texts.map(str::to_owned);
    texts
        .next()
        .or_else(|| Some(format!("{:#}", data.get("application/json")?)))
}

/// What a person would otherwise wonder about.
fn remarks(answer: &Answer) -> Vec<String> {
    let mut remarks = Vec::new();
    match answer.status.as_str() {
        "timeout" => {
            remarks.push("stopped when its time was over; --timeout gives it more".to_owned())
        }
        "memory_limit" => remarks.push("stopped for want of memory in the session".to_owned()),
        _ => {}
    }
    remarks.extend(answer.warnings.iter().cloned());
    let files = answer.value.get("files").and_then(Value::as_array);
    let files = files.map(Vec::as_slice).unwrap_or_default();
    remarks.extend(files.iter().take(FILES).map(|file| {
        let size = file.get("size").and_then(Value::as_u64).unwrap_or_default();
        let (path, kind) = (text(file, "path"), text(file, "media_type"));
        format!(
            "new or changed in the session: {path} ({kind}, {})",
            about(size)
        )
    }));
    if files.len() > FILES {
        remarks.push(format!("and {} files more", files.len() - FILES));
    }
    remarks
}
