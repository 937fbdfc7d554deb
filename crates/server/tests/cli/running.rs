//! `run` on this machine: what it is given, and what becomes of its files.

use std::fs;
use std::path::PathBuf;

use crate::support::{Home, finish};

fn below(home: &Home, name: &str) -> PathBuf {
    home.path().with_file_name(name)
}

#[test]
fn files_are_saved_and_named() {
    let home = Home::new();
    let code = r"
open('plot.png', 'wb').write(b'\x89PNG\r\n\x1a\n' + b'x' * 2000)
open('.profile', 'w').write('hidden')
open('a\x1b]0;title\x07b', 'w').write('odd')
";
    let done = home.run(&["run", "-c", code]);
    assert_eq!(done.out(), "");
    for line in [
        "codex-server: saved codex-output/plot.png (image/png, 1.9 KiB)\n",
        "codex-server: saved .profile as codex-output/_profile (text/plain, 6 bytes)\n",
        "codex-server: saved a\\u{1b}]0;title\\u{7}b as codex-output/a_]0;title_b (text/plain, 3 bytes)\n",
    ] {
        assert!(
            done.stderr.contains(line),
            "lacks {line:?}: {}",
            done.stderr
        );
    }
    assert!(!done.stderr.contains('\x1b'), "{:?}", done.stderr);
    let saved = below(&home, "codex-output");
    assert_eq!(
        fs::read_to_string(saved.join("_profile")).unwrap(),
        "hidden"
    );
    assert_eq!(fs::read_dir(&saved).unwrap().count(), 3);

    let again = home.run(&["run", "-c", code]);
    assert_eq!(
        again.stderr.matches("the same is there already").count(),
        3,
        "{again:?}"
    );
    let other = "open('plot.png', 'w').write('new')";
    let done = home.run(&["run", "-c", other]);
    assert!(
        done.stderr
            .contains("saved plot.png as codex-output/plot-2.png"),
        "{done:?}"
    );
    let done = home.run(&["run", "-c", other, "--out", "codex-output", "--force"]);
    assert!(
        done.stderr
            .contains("saved codex-output/plot.png (text/plain, 3 bytes)"),
        "{done:?}"
    );
    assert_eq!(fs::read(saved.join("plot.png")).unwrap(), b"new");
    assert_eq!(fs::read(saved.join("plot-2.png")).unwrap(), b"new");
}

#[test]
fn files_are_only_named_where_that_was_asked_for() {
    let home = Home::new();
    let code = "open('a.csv', 'w').write('1,2')";
    let done = home.run(&["run", "-c", code, "--no-out"]);
    assert_eq!(done.stderr, "codex-server: a.csv (text/csv, 3 bytes)\n");
    let done = home.run(&["run", "-c", code, "--json"]);
    assert!(
        done.out().contains("a.csv") && done.stderr.is_empty(),
        "{done:?}"
    );
    assert!(!below(&home, "codex-output").exists());
    home.run(&["run", "-c", "1", "--no-out", "--out", "x"])
        .refused(2, "cannot be used with");
}

#[test]
fn denied_calls_are_explained_to_who_asks() {
    let home = Home::new();
    let code = "import os\ntry: os.chroot('.')\nexcept PermissionError: print('refused')";
    let done = home.run(&["run", "--explain", "-c", code]);
    assert_eq!(done.out(), "refused\n");
    let line = "codex-server: denied chroot once (EPERM): mounts and roots\n";
    assert!(done.stderr.contains(line), "{done:?}");
    let done = home.run(&["run", "-c", code]);
    assert!(!done.stderr.contains("denied"), "{done:?}");
    let quiet = "console.log(1)";
    let done = home.run(&[
        "run",
        "--explain",
        "-c",
        quiet,
        "-l",
        "javascript",
        "--json",
    ]);
    assert!(done.stdout.contains("\"denied_calls\": ["), "{done:?}");
}

#[test]
fn what_cannot_be_saved_is_told() {
    let home = Home::new();
    let code = "open('a', 'w').write('x'); import sys; sys.exit(3)";
    fs::write(below(&home, "file"), "").unwrap();
    let done = home.run(&["run", "-c", code, "--out", "file"]);
    assert_eq!(
        done.code,
        Some(125),
        "a named place is part of the order: {done:?}"
    );
    assert!(
        done.stderr.contains("not saved as asked: 1 of 1"),
        "{done:?}"
    );
    // Nobody asked for this one, so the program's own code counts.
    std::os::unix::fs::symlink(home.path(), below(&home, "codex-output")).unwrap();
    let done = home.run(&["run", "-c", code]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(
        done.stderr
            .contains("not saved: a (text/plain, 1 bytes): codex-output is there already"),
        "{done:?}"
    );
}

#[test]
fn programs_are_given_files_and_variables() {
    let home = Home::new();
    fs::write(below(&home, "data.csv"), "1,2").unwrap();
    fs::write(below(&home, "blob"), [0xff, 0]).unwrap();
    let code = "import os; print(open('data.csv').read(), open('in/b', 'rb').read(), os.environ['A'], os.environ['B'])";
    let mut command = home.command(&[
        "run",
        "-c",
        code,
        "--file",
        "data.csv",
        "--file",
        "in/b=blob",
        "--env",
        "A=1=2",
        "--env",
        "B",
    ]);
    let done = finish(command.env("B", "ours"));
    assert_eq!(done.out(), "1,2 b'\\xff\\x00' 1=2 ours\n");
    home.run(&["run", "-c", "1", "--file", "none.csv"])
        .refused(125, "failed to read none.csv");
    home.run(&["run", "-c", "1", "--file", "../x=blob"])
        .refused(125, "path");
    home.run(&["run", "-c", "1", "--env", "NONE"])
        .refused(125, "give NONE=VALUE");
}

/// The arguments of `run`, in a terminal; gives what the terminal was sent.
#[expect(clippy::disallowed_methods, reason = "script makes the terminal")]
fn in_terminal(home: &Home, line: &str) -> String {
    let binary = env!("CARGO_BIN_EXE_codex-server");
    let output = std::process::Command::new("/usr/bin/script")
        .args(["-qec", &format!("{binary} run {line}"), "/dev/null"])
        .env("CODEX_HOME", home.path())
        .env("TERM", "xterm-kitty")
        .env_remove("TMUX")
        .env_remove("STY")
        .current_dir(home.path().parent().unwrap())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn terminals_get_colours_and_images_but_nothing_else_to_obey() {
    let home = Home::new();
    let png = r"b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x1b]52;c;x\x07'";
    let code = format!(
        "import sys\nprint('\\x1b[31mred\\x1b]52;c;aGk=\\x07\\x1b[2J')\nprint('\\x1b[6n', file=sys.stderr)\nopen('a.png', 'wb').write({png})\nopen('b.png', 'wb').write(b'\\x1b]52;c;x\\x07')"
    );
    std::fs::write(below(&home, "draw.py"), code).unwrap();
    let tamed = in_terminal(&home, "draw.py");
    assert!(
        tamed.contains("\x1b[31mred^[]52;c;aGk=^G^[[2J"),
        "{tamed:?}"
    );
    assert!(tamed.contains("^[[6n"), "{tamed:?}");
    // The colour ends before anything of ours, and the one real image is shown.
    let (reset, saved) = (tamed.find("\x1b[0m"), tamed.find("codex-server: saved"));
    assert!(reset.is_some() && reset < saved, "{tamed:?}");
    assert_eq!(
        tamed.matches("\x1b_Ga=T,f=100,q=2,m=0;").count(),
        1,
        "{tamed:?}"
    );
    assert!(!tamed.contains("\x1b]52"), "{tamed:?}");
    let raw = in_terminal(&home, "draw.py --raw --no-out --images never");
    assert!(
        raw.contains("\x1b[31mred\x1b]52;c;aGk=\x07\x1b[2J"),
        "{raw:?}"
    );
    assert!(
        raw.contains("\x1b[6n") && !raw.contains("\x1b_G"),
        "{raw:?}"
    );
}

#[test]
fn pipes_get_every_byte() {
    let home = Home::new();
    let code = r"import sys; sys.stdout.buffer.write(b'\x1b]52;c;x\x07\x00\xff\x1b[2J')";
    let output = home.command(&["run", "-c", code]).output().unwrap();
    assert_eq!(output.stdout, b"\x1b]52;c;x\x07\x00\xff\x1b[2J");
}
