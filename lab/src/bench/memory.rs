//! Memory of a server with all its processes, as the kernel tells it. Reads `/proc`
//! only.

use std::fs;
use std::io::ErrorKind;

use anyhow::Result;

use super::contenders::Contender;
use crate::census;

/// Returns the proportional set size of a server and all its processes, in KiB, where
/// it may be read.
pub(super) fn pss_kib(server: &Contender) -> Result<Option<f64>> {
    let mut sum = 0.0;
    for process in census::lineage(server.pid())? {
        match fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)) {
            // A process that ends, or has no memory of its own, has none.
            Ok(text) => sum += field(&text, "Pss:").unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            Err(_) => {}
        }
    }
    Ok(Some(sum))
}

/// Returns a number of the kernel's tables.
pub(super) fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_read() {
        let check = |text, name, expected| assert_eq!(field(text, name), expected);
        let meminfo = "MemTotal:  100 kB\nMemAvailable:   24 kB\n";
        check(meminfo, "MemAvailable:", Some(24.0));
        check(meminfo, "Pss:", None);
        check("Pss_Dirty: 4 kB\nPss:  8 kB\n", "Pss:", Some(8.0));
    }
}
