//! What a cell shows: results, and the error that ended it, as far as they are kept.

use crate::config::Bounds;
use crate::outcome::{Exception, RichResult};

/// What a cell shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) results: Vec<RichResult>,
    bytes: usize,
    left_out: usize,
    pub(super) exception: Option<Exception>,
}

impl Shown {
    /// Says how many results there was no room for.
    pub(super) fn left_out(&self) -> Option<String> {
        (self.left_out > 0).then(|| {
            format!(
                "{} results are left out: a cell shows at most {} of {} MiB together",
                self.left_out,
                Bounds::RESULTS,
                Bounds::RESULTS_BYTES >> 20
            )
        })
    }

    /// Keeps the error that ended the cell.
    pub(super) fn fail(&mut self, told: Exception) {
        self.exception = Some(Exception {
            name: cut(told.name),
            message: cut(told.message),
            traceback: cut(told.traceback),
        });
    }

    /// Keeps a result, if there is room for it.
    pub(super) fn add(&mut self, result: RichResult) {
        let forms = result.forms.iter();
        let bytes: usize = forms.map(|form| escaped(&form.content)).sum();
        let full = self.results.len() == Bounds::RESULTS;
        if full || self.bytes + bytes > Bounds::RESULTS_BYTES {
            self.left_out += 1;
        } else if !result.forms.is_empty() {
            self.bytes += bytes;
            self.results.push(result);
        }
    }
}

/// Returns how many bytes a text has in JSON.
fn escaped(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    });
    bytes.sum()
}

/// Cuts a text to what is told of it.
fn cut(mut text: String) -> String {
    let most = Bounds::EXCEPTION_BYTES;
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_as_json_has_it() {
        let check = |text: &str, expected| assert_eq!(escaped(text), expected, "{text:?}");
        check("", 0);
        check("abc", 3);
        check("\"\\\n", 6);
        check("\u{1}\u{1}", 12);
        check("ä", 2);
        let long = "ä".repeat(Bounds::EXCEPTION_BYTES);
        assert_eq!(cut(long).chars().count(), Bounds::EXCEPTION_BYTES / 2 + 1);
        assert_eq!(cut("short".to_owned()), "short");
    }
}
