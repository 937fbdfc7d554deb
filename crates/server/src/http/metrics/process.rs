//! What the server itself uses, by the names that every Prometheus client
//! gives it. Read from `/proc/self` at each scrape; what cannot be read is
//! left out.

use std::fmt::Write as _;

use rustix::process::{Resource, getrlimit};

/// One figure of this process.
struct Figure {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    value: Option<f64>,
}

/// The figures in the text form; `started` in seconds since 1970.
pub(in super::super) fn text(started: f64) -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat = Stat::of(&stat);
    let open = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    // The directory that is read is one of them.
    let open = open.map(|count| wide(count.saturating_sub(1) as u64));
    let most = getrlimit(Resource::Nofile).current;
    let page = wide(rustix::param::page_size() as u64);
    let ticks = wide(rustix::param::clock_ticks_per_second());
    let figures = [
        Figure {
            name: "process_cpu_seconds_total",
            help: "Processor time of the server itself.",
            kind: "counter",
            value: stat.ticks.map(|count| wide(count) / ticks),
        },
        Figure {
            name: "process_resident_memory_bytes",
            help: "Memory of the server itself.",
            kind: "gauge",
            value: stat.pages.map(|count| wide(count) * page),
        },
        Figure {
            name: "process_virtual_memory_bytes",
            help: "Address space of the server itself.",
            kind: "gauge",
            value: stat.size.map(wide),
        },
        Figure {
            name: "process_threads",
            help: "Threads of the server itself.",
            kind: "gauge",
            value: stat.threads.map(wide),
        },
        Figure {
            name: "process_open_fds",
            help: "Open file descriptors of the server itself.",
            kind: "gauge",
            value: open,
        },
        Figure {
            name: "process_max_fds",
            help: "File descriptors that the server may open.",
            kind: "gauge",
            value: most.map(wide),
        },
        Figure {
            name: "process_start_time_seconds",
            help: "When the server started, in seconds since 1970.",
            kind: "gauge",
            value: Some(started),
        },
    ];
    write(&figures)
}

fn write(figures: &[Figure]) -> String {
    let mut text = String::new();
    for figure in figures {
        let Figure {
            name, help, kind, ..
        } = figure;
        if let Some(value) = figure.value {
            writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            )
            .expect("writing to a String cannot fail");
        }
    }
    text
}

/// Fields of `/proc/PID/stat` (proc(5)).
#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    ticks: Option<u64>,
    threads: Option<u64>,
    size: Option<u64>,
    pages: Option<u64>,
}

impl Stat {
    fn of(line: &str) -> Self {
        // The name, in parentheses, may hold anything; the third field follows.
        let Some((_, rest)) = line.rsplit_once(')') else {
            return Self::default();
        };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Self {
            ticks: field(14).zip(field(15)).map(|(user, system)| user + system),
            threads: field(20),
            size: field(23),
            pages: field(24),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric is no more precise than a double"
)]
fn wide(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_name() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 999 4096000 300 18446744073709551615";
        let expected = Stat {
            ticks: Some(300),
            threads: Some(5),
            size: Some(4_096_000),
            pages: Some(300),
        };
        assert_eq!(Stat::of(line), expected);
        assert_eq!(Stat::of(""), Stat::default());
        assert_eq!(Stat::of("7 (a) S 1"), Stat::default());
    }

    #[test]
    fn this_process_has_all_figures() {
        let text = text(1.5);
        assert_eq!(text.matches("# TYPE").count(), 7, "{text}");
        assert!(text.contains("process_start_time_seconds 1.5\n"));
    }
}
