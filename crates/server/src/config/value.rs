//! Values as people write them: durations, sizes, rates, switches. Pure;
//! each error says what was expected, never only that it was wrong.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::RateLimit;

/// Most requests a period may refill or a burst may hold.
const MOST_REQUESTS: u32 = 1_000_000;

/// Shortest and longest time that a server may go unused before it ends: one
/// that ends while its operator copies the token is of no use to anybody.
const IDLE_LEAST: Duration = Duration::from_secs(60);
const IDLE_MOST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A duration: `10`, `10s`, `1.5s`, `500ms`, `2m` or `1h`. A bare number is seconds.
///
/// # Errors
/// When it is none of these.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let scale = match unit {
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "ms" => 0.001,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        _ => return Err(not_a_duration()),
    };
    let seconds = number.parse::<f64>().map_err(|_| not_a_duration())? * scale;
    let near = Duration::try_from_secs_f64(seconds).map_err(|_| not_a_duration())?;
    // Microseconds are exact enough, and 0.1 s stays 100 ms. Rounded as a whole
    // number: as a fraction, much of it seconds, it would be rounded once more.
    let micros = (near.subsec_nanos() + 500) / 1000;
    Duration::from_secs(near.as_secs())
        .checked_add(Duration::from_micros(micros.into()))
        .ok_or_else(not_a_duration)
}

fn not_a_duration() -> String {
    "is not a duration such as 10s, 500ms or 2m".to_owned()
}

/// A size in bytes: `1048576`, `512MiB`, `512M`, `1GiB` or `10MB`. `K`, `M`
/// and `G` are powers of 1024, as in Docker; `kB`, `MB` and `GB` of 1000.
///
/// # Errors
/// When it is none of these.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text);
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(not_a_size()),
    };
    let number: u64 = number.parse().map_err(|_| not_a_size())?;
    number.checked_mul(scale).ok_or_else(not_a_size)
}

/// An interpreter of a language: `python=/opt/py/bin/python3`. The language is
/// given by its canonical name.
///
/// # Errors
/// When it is no such thing, or the language is not known.
pub fn interpreter(text: &str) -> Result<(String, PathBuf), String> {
    let named = text.split_once('=');
    let (word, file) = named.ok_or("does not name a language and a file")?;
    let file = PathBuf::from(file.trim());
    if !file.is_absolute() {
        return Err("does not name the file by an absolute path".to_owned());
    }
    let language = engine::language_named(word.trim())
        .map_err(|known| format!("names a language that is none of: {}", known.join(", ")))?;
    Ok((language, file))
}

fn not_a_size() -> String {
    "is not a size such as 1048576, 512MiB or 1GiB".to_owned()
}

/// A rate: `N/second`, `N/minute` or `N/hour`, or `off`. The burst is a
/// quarter of it, but no less than ten requests or the whole rate.
///
/// # Errors
/// When it is none of these, or N is out of range.
pub fn rate(text: &str) -> Result<RateLimit, String> {
    const EXPECTED: &str = "is not a rate such as 120/minute, 10/second, 1000/hour or off";
    if text == "off" {
        return Ok(RateLimit::OFF);
    }
    let (number, period) = text.split_once('/').ok_or(EXPECTED)?;
    let seconds = match period.trim() {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hr" | "hour" => 3600,
        _ => return Err(EXPECTED.to_owned()),
    };
    let requests: u32 = number.trim().parse().map_err(|_| EXPECTED)?;
    if !(1..=MOST_REQUESTS).contains(&requests) {
        return Err(format!(
            "is out of range: 1 to {MOST_REQUESTS} requests a period"
        ));
    }
    Ok(RateLimit {
        requests,
        period: Duration::from_secs(seconds),
        burst: (requests / 4).max(requests.min(10)),
    })
}

/// How long a server may go unused before it ends: `off`, or a duration.
///
/// # Errors
/// When it is neither, or out of range.
pub fn idle(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let limit = duration(text)?;
    if !(IDLE_LEAST..=IDLE_MOST).contains(&limit) {
        return Err("is out of range".to_owned());
    }
    Ok(Some(limit))
}

/// A switch: `true`, `1`, `yes`, `on`, or their opposites.
///
/// # Errors
/// When it is none of these.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A size as people read it: `512 MiB`, `1500 B`.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} B")
}

/// A duration as people read it: `10 s`, `500 ms`, `1.000005 s`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{} s", duration.as_secs())
    } else if duration.subsec_nanos().is_multiple_of(1_000_000) {
        format!("{} ms", duration.as_millis())
    } else {
        let (whole, part) = (duration.as_secs(), duration.subsec_micros());
        format!("{} s", format!("{whole}.{part:06}").trim_end_matches('0'))
    }
}

/// A word as a shell takes it: quoted where it must be.
#[must_use]
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%:,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")))
}

/// Reads a network such as `10.1.0.0/16`, or one address.
///
/// # Errors
/// With the words that follow the text in a message.
pub fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(|one| one.to_canonical().into());
    text.parse::<IpNet>()
        .or_else(|_| address())
        .map(|network| network.trunc())
        .map_err(|_| "is neither an address nor a network such as 10.1.0.0/16".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_for_a_shell() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("/opt/codex-server", "/opt/codex-server");
        check("", "''");
        check("/my dir", "'/my dir'");
        check("$(id)", "'$(id)'");
        check("it's", "'it'\\''s'");
    }

    #[test]
    fn an_interpreter_is_a_language_and_a_file() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = interpreter(text).ok();
            let expected = expected.map(|(name, file)| (name.to_owned(), PathBuf::from(file)));
            assert_eq!(found, expected, "{text}");
        };
        check(
            "python=/opt/py/bin/python3",
            Some(("python", "/opt/py/bin/python3")),
        );
        check("JS = /opt/node", Some(("javascript", "/opt/node")));
        check("python=/a=b", Some(("python", "/a=b")));
        check("python=bin/python3", None);
        check("python3.12=/usr/bin/python3", None);
        check("cobol=/usr/bin/cobc", None);
        check("/usr/bin/python3", None);
        check("python=", None);
        check("", None);
    }

    #[test]
    fn durations() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(
                duration(text).ok(),
                millis.map(Duration::from_millis),
                "{text}"
            );
        };
        check("10", Some(10_000));
        check("10s", Some(10_000));
        check(" 10 s ", Some(10_000));
        check("1.5s", Some(1500));
        check("0.1", Some(100));
        check("500ms", Some(500));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        check("9788307.7", Some(9_788_307_700));
        for wrong in [
            "",
            "s",
            "ten",
            "-1",
            "NaN",
            "inf",
            "1e308",
            "1.2.3",
            "5 weeks",
            "999999999999999999999h",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn sizes() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(bytes(text).ok(), expected, "{text}");
        check("0", Some(0));
        check("1048576", Some(1 << 20));
        check("512MiB", Some(512 << 20));
        check("512m", Some(512 << 20));
        check("1 GiB", Some(1 << 30));
        check("10MB", Some(10_000_000));
        for wrong in [
            "",
            "MiB",
            "1.5GiB",
            "-1",
            "10 parsecs",
            "99999999999999999999",
            "99999999999GiB",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn rates() {
        let check = |text: &str, expected: Option<(u32, u64, u32)>| {
            let found = rate(text)
                .ok()
                .map(|r| (r.requests, r.period.as_secs(), r.burst));
            assert_eq!(found, expected, "{text}");
        };
        check("120/minute", Some((120, 60, 30)));
        check("10/minute", Some((10, 60, 10)));
        check("3/s", Some((3, 1, 3)));
        check("1000/hour", Some((1000, 3600, 250)));
        for wrong in [
            "",
            "120",
            "0/minute",
            "-1/minute",
            "1/fortnight",
            "1000001/second",
            "/minute",
            "1.5/s",
        ] {
            check(wrong, None);
        }
        assert!(rate("off").unwrap().is_off());
    }

    #[test]
    fn idle_times() {
        let check = |text: &str, expected: Option<Option<u64>>| {
            let expected = expected.map(|seconds| seconds.map(Duration::from_secs));
            assert_eq!(idle(text).ok(), expected, "{text}");
        };
        check("off", Some(None));
        check("30m", Some(Some(1800)));
        check("60", Some(Some(60)));
        check("720h", Some(Some(720 * 3600)));
        for wrong in ["59s", "0", "721h", "never", "", "-1"] {
            check(wrong, None);
        }
    }

    #[test]
    fn no_part_of_a_duration_is_hidden() {
        for (micros, shown) in [
            (10_000_000, "10 s"),
            (500_000, "500 ms"),
            (1_888_885, "1.888885 s"),
            (5, "0.000005 s"),
            (0, "0 s"),
        ] {
            let duration = Duration::from_micros(micros);
            assert_eq!(show_duration(duration), shown);
            assert_eq!(super::duration(shown), Ok(duration));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            drop((duration(&text), bytes(&text), switch(&text)));
            if let Ok(rate) = rate(&text) {
                prop_assert!(rate.requests > 0 && rate.burst > 0);
            }
        }

        #[test]
        fn what_is_shown_is_read_back(n in 0u64..1 << 50) {
            prop_assert_eq!(bytes(&show_bytes(n)), Ok(n));
        }
    }
}
