//! What code shows: results, and the error that ended a cell, as far as they are kept.
//!
//! The interpreter of a session tells them while a cell runs; a program that runs once
//! leaves them in a file. Either way they are hostile, and bounded in number and size.

use std::sync::Arc;

use crate::config::Bounds;
use crate::events::Sink;
use crate::outcome::{Exception, RichResult};
use crate::session::frames::{self, Said};

/// What code shows.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    results: Vec<Arc<RichResult>>,
    bytes: usize,
    left_out: usize,
    /// Whether something came after which nothing could be read.
    broken: bool,
    pub(crate) exception: Option<Exception>,
    /// Hears of each result that is kept.
    sink: Option<Sink>,
}

impl Shown {
    /// Tells a sink of each result, too.
    pub(crate) fn new(sink: Option<Sink>) -> Self {
        Self {
            sink,
            ..Self::default()
        }
    }

    /// Keeps the results that a program left in its file, one frame after the other.
    pub(crate) fn read(&mut self, mut left: &[u8]) {
        while !left.is_empty() {
            match frames::parse(left) {
                Ok(Some((frame, length))) => {
                    if let Said::Result(result) = frame.said {
                        self.add(result);
                    }
                    left = &left[length..];
                }
                Ok(None) | Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    /// Returns what is kept.
    pub(crate) fn results(&mut self) -> Vec<RichResult> {
        let results = std::mem::take(&mut self.results).into_iter();
        results.map(Arc::unwrap_or_clone).collect()
    }

    /// Says what there was no room for, or could not be read.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let left_out = (self.left_out > 0).then(|| {
            format!(
                "{} results are left out: at most {} of {} MiB together are shown",
                self.left_out,
                Bounds::RESULTS,
                Bounds::RESULTS_BYTES >> 20
            )
        });
        let broken = self
            .broken
            .then(|| "further results are left out: they are not whole".to_owned());
        left_out.into_iter().chain(broken).collect()
    }

    /// Keeps the error that ended the cell.
    pub(crate) fn fail(&mut self, told: Exception) {
        self.exception = Some(Exception {
            name: cut(told.name),
            message: cut(told.message),
            traceback: cut(told.traceback),
        });
    }

    /// Keeps a result, if there is room for it.
    pub(crate) fn add(&mut self, result: RichResult) {
        let forms = result.forms.iter();
        let bytes: usize = forms.map(|form| escaped(&form.content)).sum();
        let full = self.results.len() == Bounds::RESULTS;
        if full || self.bytes + bytes > Bounds::RESULTS_BYTES {
            self.left_out += 1;
        } else if !result.forms.is_empty() {
            self.bytes += bytes;
            let result = Arc::new(result);
            if let Some(sink) = &self.sink {
                sink.result(Arc::clone(&result), bytes);
            }
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
    fn what_a_program_left_is_read_as_far_as_it_is_whole() {
        let check = |left: &[u8], results: usize, warnings: usize| {
            let mut shown = Shown::default();
            shown.read(left);
            let told = (shown.results().len(), shown.warnings().len());
            assert_eq!(told, (results, warnings), "{left:?}");
        };
        let one = frames::result_frame(&[("text/plain", "2")]);
        let end = b"\x0a\0\0\0\x03\0\0\0\0\0\0\0\0\0".as_slice();
        check(b"", 0, 0);
        check(&one, 1, 0);
        check(&[&one[..], &one].concat(), 2, 0);
        check(&[&one[..], &one[..9]].concat(), 1, 1);
        check(&[&one[..], end].concat(), 1, 1);
        check(&[&one[..], &[0xff; 9]].concat(), 1, 1);
        check(&one.repeat(Bounds::RESULTS + 3), Bounds::RESULTS, 1);
    }

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
