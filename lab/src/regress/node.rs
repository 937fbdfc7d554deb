//! Node's common modules: a script of ours prints a line for each thing that it
//! does, and both sides have to print the same.

use super::Outcomes;

/// What the selection calls it.
pub(super) const NAME: &str = "node";
/// Node outside: the one that the server finds, too.
pub(super) const PROGRAM: &str = "/usr/bin/node";
/// Its last line, so that half a script is not taken for a whole one.
const LAST: &str = "end: all";

/// Each line's name and what it says; `None` when the script did not get to its end.
pub(super) fn outcomes(output: &str) -> Option<Outcomes> {
    let whole = output.lines().any(|line| line == LAST);
    let lines = output.lines().filter_map(|line| line.split_once(": "));
    let outcomes = lines
        .map(|(name, said)| (format!("{NAME}.{name}"), (said.to_owned(), said.to_owned())))
        .collect();
    whole.then_some(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_whole_or_not_at_all() {
        let read = outcomes("fs.read: 3\nnoise\nend: all\n").expect("whole");
        assert_eq!(read.len(), 2);
        assert_eq!(read["node.fs.read"].0, "3");
        assert_eq!(outcomes("fs.read: 3\n"), None);
    }
}
