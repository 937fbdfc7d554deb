//! `cargo xtask check`: what a commit needs, in three minutes where the last build
//! is warm. What takes longer is left to `cargo xtask test`.

use xtask::tally::Tally;

use crate::{changes, steps, tidy};

/// Checks the source, and the crates that changed since `main`. Returns whether
/// all went well.
pub(crate) fn check() -> bool {
    let mut tally = Tally::new();
    tally.step("formatting", steps::formatting);
    tally.step("tidy", tidy::tidy);
    tally.step("clippy", steps::clippy);
    match changes::crates() {
        Ok(crates) if crates.is_empty() => {
            tally.leave_out("tests", "no crate has changed since main");
        }
        Ok(crates) => {
            let names: Vec<&str> = crates.iter().map(String::as_str).collect();
            let name = format!("fast tests of {}", names.join(", "));
            tally.counted(&name, || steps::fast_tests(&crates));
            tally.leave_out(
                "slow tests",
                "`cargo xtask test` runs them; .config/nextest.toml says which",
            );
        }
        Err(error) => tally.step("what changed", || Err(error)),
    }
    tally.finish()
}
