//! What figures were measured on: the machine, the interpreters and the day. Never
//! changes any of it.

use std::fs;
use std::thread;

use anyhow::{Context, Result};
use serde::Serialize;

use super::contenders::{NODE, PYTHON};
use xtask::process;

/// The machine that a benchmark runs on.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    /// How many cores it lets us use.
    pub(super) cores: usize,
    /// Its processor's name.
    pub(super) processor: String,
    /// The kernel's release.
    pub(super) kernel: String,
    /// Version of the Python that programs run on.
    pub(super) python: String,
    /// Version of the Node that programs run on.
    pub(super) node: String,
    /// Day and time before the first request, in UTC.
    pub(super) date: String,
}

impl Machine {
    /// Returns the one that we run on, now.
    ///
    /// # Errors
    /// When the kernel or an interpreter does not tell.
    pub(super) fn seen() -> Result<Self> {
        let cores = thread::available_parallelism().context("failed to count the cores")?;
        let read =
            |path: &str| fs::read_to_string(path).with_context(|| format!("failed to read {path}"));
        let told = |program: &str, word: &str| -> Result<String> {
            let mut command = process::command(program);
            let text = process::capture("ask for a version or the date", command.arg(word))?;
            Ok(text.trim().to_owned())
        };
        let mut date = process::command("date");
        date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]);
        let date = process::capture("ask for the date", &mut date)?;
        let python = told(PYTHON, "--version")?;
        Ok(Self {
            cores: cores.get(),
            processor: processor(&read("/proc/cpuinfo")?),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            python: python.trim_start_matches("Python ").to_owned(),
            node: told(NODE, "--version")?.trim_start_matches('v').to_owned(),
            date: date.trim().to_owned(),
        })
    }

    /// Returns cores, processor and kernel in a line.
    pub(super) fn hardware(&self) -> String {
        let Self {
            cores,
            processor,
            kernel,
            ..
        } = self;
        format!("{cores} cores, {processor}, kernel {kernel}")
    }

    /// Returns the interpreters in a line.
    pub(super) fn interpreters(&self) -> String {
        format!("Python {}, Node {}", self.python, self.node)
    }
}

/// The processor's name, as far as the kernel tells it.
fn processor(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == "model name")
        .map_or("processor not named", |(_, value)| value.trim())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_where_the_kernel_does() {
        let check = |cpuinfo, expected| assert_eq!(processor(cpuinfo), expected);
        check("processor\t: 0\nmodel name\t: Some CPU\n", "Some CPU");
        check("processor\t: 0\nCPU part\t: 0xd0c\n", "processor not named");
    }

    #[test]
    fn versions_are_numbers_and_the_date_is_one() {
        let machine = Machine::seen().expect("it is here");
        for version in [&machine.python, &machine.node] {
            assert!(version.starts_with(|one: char| one.is_ascii_digit()));
        }
        assert_eq!(machine.date.len(), "2026-01-31T12:00:00Z".len());
        assert!(machine.date.ends_with('Z'), "{}", machine.date);
    }
}
