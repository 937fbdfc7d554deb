//! What a fuzzer calls: one function for each reader of what a client, a
//! program, an operator or another server wrote, from any bytes, with what must
//! hold of the result.
//!
//! Exists for tests and under `cfg(fuzzing)` alone. A reader that is private
//! has its function below its own module, so that nothing has to be public for
//! its fuzzer. Must never open a socket.

use std::path::Path;
use std::time::Duration;

use engine::Draft;
use serde_json::Value;

use crate::api::event::TextDecoder;
use crate::api::{Code, Order, Problem, parse_object};
use crate::config::{Env, Flags, resolve, value};
use crate::media::{Media, disposition, label, percent, tidy_name};
use crate::output::terminal::{Tamer, printable};
use crate::provision::specifier;
use crate::public_url::{host_of, normalise, origin};

/// A name and what it calls; its seeds are in `fuzz/seeds/<name>`.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    ("requests", requests),
    ("headers", crate::http::fuzz::headers),
    ("links", crate::http::fuzz::links),
    ("assertions", crate::oauth::assertion::fuzz::assertions),
    ("file_urls", crate::file_url::fuzz::file_urls),
    ("records", crate::artifact::fuzz::records),
    ("messages", crate::mcp::fuzz::messages),
    ("resources", crate::mcp::fuzz::resources),
    ("tunnel_commands", crate::tunnel::fuzz::tunnel_commands),
    ("events", crate::cli::run::remote::fuzz::events),
    ("names", names),
    ("streams", streams),
    ("settings", settings),
    ("urls", urls),
    ("packages", packages),
];

/// The body of `POST /execute`, to the job that the engine takes.
fn requests(bytes: &[u8]) {
    let object = match parse_object(bytes) {
        Ok(object) => object,
        Err(problem) => return assert_told_well(&problem),
    };
    let whole: Value = serde_json::from_slice(without_mark(bytes)).expect("serde reads it too");
    assert_eq!(whole, Value::Object(object.clone()));
    let order = match Order::try_from(object) {
        Ok(order) => order,
        Err(problem) => return assert_told_well(&problem),
    };
    let warnings: usize = order.warnings.iter().map(String::len).sum();
    assert!(warnings < 4000, "{warnings} bytes of warnings");
    accept(order.draft);
}

/// On to the engine, whose own hooks only a fuzzer's build of it has.
#[cfg(fuzzing)]
fn accept(draft: Draft) {
    if let Err(invalid) = engine::fuzz::accepted(draft) {
        assert_told_well(&Problem::from(invalid));
    }
}

#[cfg(not(fuzzing))]
fn accept(draft: Draft) {
    drop(draft);
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

/// That a refusal is the client's to mend, plain and short, whatever was sent.
fn assert_told_well(problem: &Problem) {
    assert_eq!(problem.code, Code::InvalidRequest, "{problem:?}");
    assert!(!problem.detail.contains(char::is_control), "{problem:?}");
    assert!(
        problem.detail.len() < 3000,
        "{} bytes",
        problem.detail.len()
    );
}

/// Names that user code or a client gave to files.
fn names(bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes);
    let tidy = tidy_name(&name);
    assert!(!tidy.is_empty() && tidy != "." && tidy != "..");
    assert!(!tidy.contains(['/', '\\', '"', '\0']) && !tidy.contains(char::is_control));
    assert_eq!(tidy_name(&tidy), tidy, "tidy stays tidy");
    let header = disposition(Media::of(&tidy), &name);
    assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    assert_eq!(header.matches('"').count(), 2, "{header}");
    assert!(percent(&name).is_ascii());
    assert!(!label(&name).contains(['[', ']', '(', ')', '\n']));
    assert!(!printable(&name).contains(char::is_control));
}

/// What a program prints, on its way to a terminal and into events. The first
/// byte says how it is cut into pieces.
fn streams(bytes: &[u8]) {
    let [size, rest @ ..] = bytes else {
        return;
    };
    let pieces = || rest.chunks(usize::from(*size).max(1));
    let (mut decoder, mut text) = (TextDecoder::default(), String::new());
    let (mut tamer, mut shown) = (Tamer::default(), Vec::new());
    for piece in pieces() {
        text.push_str(&decoder.push(piece).text);
        shown.extend(tamer.push(piece));
    }
    text.push_str(&decoder.finish().text);
    shown.extend(tamer.finish());
    assert_eq!(text, String::from_utf8_lossy(rest), "cuts change the text");
    let mut whole = Tamer::default();
    let mut expected = whole.push(rest);
    expected.extend(whole.finish());
    assert_eq!(shown, expected, "cuts change what is shown");
    let shown = String::from_utf8(shown).expect("a terminal is sent text");
    for after in shown.split('\x1b').skip(1) {
        let rest = after.strip_prefix('[').expect("nothing but CSI");
        let end = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == ':');
        assert!(end.starts_with(['m', 'K']), "{shown:?}");
    }
}

/// `codex.toml`, and single values as flags and variables give them.
fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let file = Some((Path::new("codex.toml"), &*text));
    match resolve(&Flags::default(), &Env::default(), file, "/data".into()) {
        Ok(settings) => assert!(settings.config.port > 0 || text.contains("port")),
        Err(error) => {
            assert!(!error.problems.is_empty(), "wrong without a problem");
            assert!(!error.is_usage(), "a file is no command line");
        }
    }
    let word = text.lines().next().unwrap_or_default();
    // Up to where a float has a place for each microsecond.
    let exact = |duration: &Duration| duration.as_secs() < 1 << 30;
    if let Some(duration) = value::duration(word).ok().filter(exact) {
        let shown = value::show_duration(duration);
        assert_eq!(value::duration(&shown), Ok(duration), "{shown}");
    }
    if let Ok(bytes) = value::bytes(word) {
        let shown = value::show_bytes(bytes);
        assert_eq!(value::bytes(&shown), Ok(bytes), "{shown}");
    }
    drop((value::rate(word), value::idle(word)));
    drop((value::switch(word), value::interpreter(word)));
}

/// Public URLs and origins.
fn urls(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(url) = normalise(&text) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/.-_~[]".contains(&byte);
        assert!(url.bytes().all(plain), "{url:?}");
        let mut parts = url.split('/').skip(2);
        assert!(
            parts.all(|part| !matches!(part, "" | "." | "..")),
            "{url:?}"
        );
        assert_eq!(normalise(&url).as_ref(), Ok(&url), "it has one spelling");
        assert!(
            host_of(&url).is_some_and(|host| !host.is_empty()),
            "{url:?}"
        );
    }
    if let Ok(origin) = origin(&text) {
        assert!(
            origin == "*" || origin.matches('/').count() == 2,
            "{origin}"
        );
    }
}

/// What may be asked for with `packages add`, and goes to an installer.
fn packages(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let name = specifier::name(&text);
    assert!(text.starts_with(name));
    if specifier::check(&text).is_ok() {
        assert!(!text.starts_with('-') && !text.contains([':', '\\', ' ', '\0', '\n']));
        assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")));
        assert!(!specifier::key(name).is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::path::Path;

    /// Every seed, and every input that once broke something.
    #[test]
    fn seeds_are_borne() {
        for (name, run) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/seeds")
                .join(name);
            let seeds =
                std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut count = 0;
            for seed in seeds {
                run(&std::fs::read(seed.expect("a file").path()).expect("readable"));
                count += 1;
            }
            assert!(count > 0, "{name} has no seeds");
        }
    }
}
