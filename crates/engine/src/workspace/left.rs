//! Names the files that a program left where nobody gets them: in the directory
//! of temporary files, which is its home folder, too.
//!
//! The tree is as hostile as the workspace, and the same holds: nothing is
//! reached but by descriptor below the directory, through no link. No file is
//! opened, and no more than a few names are looked at.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Dir, FileType, OFlags};

use super::open;
use crate::quote::quote;

/// Names that are looked at, in the directory and in each below it.
const LOOKED_AT: usize = 200;
/// Names that are told.
const TOLD: usize = 5;
/// Beginnings of names that are meant to be temporary: hidden ones, and those
/// that libraries for temporary files make.
const TEMPORARY: [&str; 4] = [".", "tmp", "pymp-", "npm-"];

/// Returns a warning that names the files which lie in `root`, or in a directory
/// there; `None` when there are none, or none can be seen.
pub(crate) fn left(root: BorrowedFd<'_>, ignored: &[String]) -> Option<String> {
    let entries = list(root, ".").ok()?;
    let meant = entries.into_iter().filter(|(name, _)| {
        let temporary = TEMPORARY.iter().any(|start| name.starts_with(start));
        !temporary && !ignored.contains(name)
    });
    let mut names: Vec<String> = meant
        .filter_map(|(name, kind)| match kind {
            FileType::RegularFile => Some(name),
            FileType::Directory => holds_a_file(root, &name).then(|| name + "/"),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        return None;
    }
    names.sort();
    let more = names.len().saturating_sub(TOLD);
    names.truncate(TOLD);
    let quoted: Vec<String> = names
        .iter()
        .map(|name| format!("\"{}\"", quote(name)))
        .collect();
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "not collected, since in /tmp or the home folder and not in the working directory: {}{more}",
        quoted.join(", ")
    ))
}

fn holds_a_file(root: BorrowedFd<'_>, directory: &str) -> bool {
    let mut entries = list(root, directory).into_iter().flatten();
    entries.any(|(_, kind)| kind == FileType::RegularFile)
}

/// The names in a directory and what the file system says that they are.
fn list(root: BorrowedFd<'_>, directory: &str) -> io::Result<Vec<(String, FileType)>> {
    let found = Dir::new(open(root, directory, OFlags::DIRECTORY)?)?;
    let names = found.take(LOOKED_AT).filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().to_str().ok()?.to_owned();
        (name != "." && name != "..").then(|| (name, entry.file_type()))
    });
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_that_nobody_gets_are_named() {
        let check = |paths: &[&str], expected: Option<&str>| {
            let root = tempfile::tempdir().unwrap();
            for path in paths {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            symlink("/etc", root.path().join("etc")).unwrap();
            symlink("/etc/passwd", root.path().join("passwd")).unwrap();
            let directory = fs::File::open(root.path()).unwrap();
            let told = left(directory.as_fd(), &["__pycache__".to_owned()]);
            let told = told.as_deref().and_then(|told| told.split_once(": "));
            assert_eq!(told.map(|(_, names)| names), expected, "{paths:?}");
        };
        check(&[], None);
        check(&["b.csv", "a\n.csv"], Some(r#""a?.csv", "b.csv""#));
        check(&["out/plot.png", "none/in/depth"], Some(r#""out/""#));
        check(
            &[".cache/x", ".rc", "tmpa1b2/x", "tmp9", "__pycache__/x.pyc"],
            None,
        );
        check(
            &["1", "2", "3", "4", "5", "6", "7"],
            Some(r#""1", "2", "3", "4", "5" and 2 more"#),
        );
    }

    #[test]
    fn a_crowd_of_names_costs_little() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..LOOKED_AT * 2 {
            fs::write(root.path().join(number.to_string()), "").unwrap();
        }
        let directory = fs::File::open(root.path()).unwrap();
        let told = left(directory.as_fd(), &[]).unwrap();
        let most = LOOKED_AT - TOLD;
        let counts = [most - 2, most].map(|more| told.ends_with(&format!("and {more} more")));
        assert!(counts.contains(&true), "{told}");
    }
}
