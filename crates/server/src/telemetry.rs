//! Log lines on standard error, as text or JSON. Never a token, never code:
//! those who log have to keep them out, there is no filter here.

use std::any::Any;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, Settings};
use crate::output::ErrorLines;

mod json;

/// Starts logging for the rest of the process. A second call changes nothing.
///
/// # Errors
/// When `RUST_LOG` is not a list of filter directives; the message says so.
pub fn start(settings: &Settings) -> Result<(), String> {
    let filter = filter(settings)?;
    let subscriber = subscriber(settings.config.log_format, filter, || ErrorLines);
    let started = subscriber.try_init();
    // Somebody has set up logging before, as tests do: theirs stays.
    drop(started);
    Ok(())
}

/// Writes the lines that `filter` lets pass, each with what is known of the
/// request and the run that it belongs to.
fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false);
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with((format == LogFormat::Json).then_some(json::Keep));
    match format {
        LogFormat::Text => Box::new(registry.with(lines.compact())),
        LogFormat::Json => Box::new(registry.with(lines.event_format(json::Lines))),
    }
}

/// Returns an error with all its causes on one line, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Returns the words of a panic, for the log.
pub(crate) fn panic_words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

fn filter(settings: &Settings) -> Result<EnvFilter, String> {
    if let Some(directives) = &settings.log_filter {
        let filter = EnvFilter::try_new(directives).map_err(|error| {
            format!("RUST_LOG: {directives:?} is not a list of filters: {error}. Give a level such as debug, or codex_server=debug,engine=info")
        })?;
        // At debug it prints the arguments of tools, which are code.
        let quiet = "rmcp=warn".parse().expect("a directive");
        return Ok(filter.add_directive(quiet));
    }
    let level = &settings.log_level;
    // Libraries speak up only when something is wrong with them.
    let others = if matches!(level.as_str(), "off" | "error") {
        level
    } else {
        "warn"
    };
    let directives =
        format!("{others},access={level},codex_server={level},engine={level},sandbox={level}");
    Ok(EnvFilter::new(directives))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod filters {
    use super::*;

    #[test]
    fn causes_are_chained() {
        let error = engine::Error::Io {
            step: "open the workspace",
            source: std::io::Error::other("no space"),
        };
        assert_eq!(chain(&error), "failed to open the workspace: no space");
    }

    #[test]
    fn filters() {
        let check = |level: &str, rust_log: Option<&str>, expected: Option<&str>| {
            let mut settings = Settings::defaults("/data".into());
            level.clone_into(&mut settings.log_level);
            settings.log_filter = rust_log.map(str::to_owned);
            let found = filter(&settings).ok().map(|filter| filter.to_string());
            let sorted = |text: String| {
                let mut parts: Vec<_> = text.split(',').map(str::to_owned).collect();
                parts.sort();
                parts
            };
            assert_eq!(
                found.map(sorted),
                expected.map(|text| sorted(text.to_owned())),
                "{level} {rust_log:?}"
            );
        };
        check(
            "info",
            None,
            Some("warn,access=info,codex_server=info,engine=info,sandbox=info"),
        );
        check(
            "off",
            None,
            Some("off,access=off,codex_server=off,engine=off,sandbox=off"),
        );
        check("info", Some("hyper=trace"), Some("hyper=trace,rmcp=warn"));
        check("info", Some("rmcp=trace"), Some("rmcp=warn"));
        check("info", Some("hyper=loud"), None);
    }
}
