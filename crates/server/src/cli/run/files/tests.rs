//! Hostile names, taken names, and links in the way.

use std::os::unix::fs::symlink;

use proptest::prelude::proptest;

use super::*;

fn made(name: &str, content: &[u8]) -> Made {
    Made {
        name: name.to_owned(),
        size: content.len() as u64,
        content: Ok(content.to_vec()),
    }
}

struct Scratch {
    root: tempfile::TempDir,
    target: Target,
}

fn scratch() -> Scratch {
    let root = tempfile::tempdir().unwrap();
    let target = Target {
        directory: root.path().join("out"),
        force: false,
        through_link: false,
    };
    Scratch { root, target }
}

impl Scratch {
    #[track_caller]
    fn check(&self, name: &str, content: &[u8], expected: Saved) {
        assert_eq!(self.target.save(&made(name, content)), expected, "{name:?}");
        if let Saved::As(path) | Saved::There(path) = expected {
            let there = fs::read(self.target.directory.join(path)).unwrap();
            assert_eq!(there, content);
        }
    }
}

fn saved(path: &str) -> Saved {
    Saved::As(path.to_owned())
}

#[test]
fn names_are_tamed() {
    let scratch = scratch();
    let check = |name: &str, expected: &str| scratch.check(name, name.as_bytes(), saved(expected));
    check("plot.png", "plot.png");
    check("a/b/c.txt", "a/b/c.txt");
    check("日 本.csv", "日 本.csv");
    check(".git/hooks/pre-commit", "_git/hooks/pre-commit");
    check(".bashrc", "_bashrc");
    check("-rf", "_rf");
    check("~/.bashrc", "_/_bashrc");
    check("a\x1b]0;x\x07b\n", "a_]0;x_b_");
    check("a\u{202e}gnp", "a_gnp");
    check("\u{9b}31m", "_31m");
    // Two hostile names that come out the same are still two files.
    check("c\x01", "c_");
    check("c\x02", "c_-2");
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let scratch = scratch();
    let long = "a/".repeat(40) + "b";
    for name in [
        "../x",
        "/tmp/x",
        "a/../../x",
        ".",
        "..",
        "",
        "a//b",
        "a/",
        "a/./b",
        &long,
    ] {
        let refused = Saved::Not("its path leads out of the directory".to_owned());
        assert_eq!(scratch.target.save(&made(name, b"x")), refused, "{name:?}");
    }
    assert!(!scratch.root.path().join("x").exists());
    assert!(
        !scratch.target.directory.exists(),
        "nothing was to be saved"
    );
    let too_long = "x".repeat(300);
    assert!(matches!(
        scratch.target.save(&made(&too_long, b"x")),
        Saved::Not(_)
    ));
}

#[test]
fn nothing_is_overwritten_unless_told_to() {
    let mut scratch = scratch();
    scratch.check("a.txt", b"one", saved("a.txt"));
    scratch.check("a.txt", b"one", Saved::There("a.txt".to_owned()));
    scratch.check("a.txt", b"two", saved("a-2.txt"));
    scratch.check("a.txt", b"three", saved("a-3.txt"));
    scratch.check("a.txt", b"two", Saved::There("a-2.txt".to_owned()));
    scratch.check("b", b"1", saved("b"));
    scratch.check("b", b"2", saved("b-2"));
    scratch.target.force = true;
    scratch.check("a.txt", b"four", saved("a.txt"));
    fs::create_dir(scratch.target.directory.join("folder")).unwrap();
    let refused = scratch.target.save(&made("folder", b"x"));
    assert!(matches!(refused, Saved::Not(_)), "{refused:?}");
    let names = fs::read_dir(&scratch.target.directory).unwrap();
    let staged = names
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    assert!(!staged, "a refused replacement leaves nothing");
}

#[test]
fn links_are_never_followed() {
    let mut scratch = scratch();
    let outside = scratch.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "precious").unwrap();
    let out = scratch.target.directory.clone();
    fs::create_dir(&out).unwrap();
    symlink(outside.join("file"), out.join("link")).unwrap();
    symlink(&outside, out.join("folder")).unwrap();
    symlink(outside.join("nowhere"), out.join("dangling")).unwrap();
    scratch.check("link", b"x", saved("link-2"));
    scratch.check("dangling", b"x", saved("dangling-2"));
    let Saved::Not(why) = scratch.target.save(&made("folder/file", b"x")) else {
        panic!("a folder behind a link")
    };
    assert!(why.contains("links are not followed"), "{why}");
    scratch.target.force = true;
    scratch.check("link", b"new", saved("link"));
    assert!(
        !out.join("link").is_symlink(),
        "the link itself is replaced"
    );
    let precious = fs::read_to_string(outside.join("file")).unwrap();
    assert_eq!(precious, "precious");
    assert!(!outside.join("nowhere").exists());

    let elsewhere = scratch.root.path().join("elsewhere");
    symlink(&outside, &elsewhere).unwrap();
    scratch.target.directory = elsewhere;
    assert!(matches!(
        scratch.target.save(&made("a", b"x")),
        Saved::Not(_)
    ));
    scratch.target.through_link = true;
    scratch.check("a", b"x", saved("a"));
}

#[test]
fn saved_files_are_not_executable_and_no_pipe_is_waited_for() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = scratch();
    scratch.check("run.sh", b"#!/bin/sh", saved("run.sh"));
    let about = fs::metadata(scratch.target.directory.join("run.sh")).unwrap();
    assert_eq!(about.permissions().mode() & 0o111, 0);
    let pipe = scratch.target.directory.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, FILE, 0).unwrap();
    scratch.check("pipe", b"", saved("pipe-2"));
}

#[test]
fn media_types_follow_the_content() {
    let check = |name: &str, content: &[u8], expected: &str| {
        assert_eq!(media_type(name, content), expected, "{name}");
    };
    check("a.txt", b"\x89PNG\r\n\x1a\n...", "image/png");
    check("a.png", b"<html>", "text/plain");
    check("a.csv", b"a,b", "text/csv");
    check("A.JSON", b"{}", "application/json");
    check("a.bin", b"\0\xff", "application/octet-stream");
    check("a", b"text", "text/plain");
    check("a", b"", "text/plain");
    check("a.csv", b"PK\x03\x04", "application/zip");
    check("a.zip", b"no", "text/plain");
    check(
        "a.xlsx",
        b"PK\x03\x04",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    );
    check("a", b"RIFF....WEBPVP8 ", "image/webp");
}

proptest! {
    #[test]
    fn tamed_names_stay_below(path in "[a./\\-\u{1b}\n日]{0,24}") {
        for part in tame(&path).unwrap_or_default() {
            assert!(!part.is_empty() && !part.contains('/') && !part.starts_with(['.', '-']));
            assert_eq!(printable(&part), part);
        }
    }
}
