//! Completions and manual pages, given to the programs that read them.

use std::process::Stdio;

use crate::support::{Home, finish};

/// Runs another program over a file, where it is installed.
#[expect(
    clippy::disallowed_methods,
    reason = "shells and man read what we write"
)]
fn read_by(program: &str, args: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(program)
        .args(args)
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn bash_completes_commands_and_flags() {
    let home = Home::new();
    let script = home.path().with_file_name("completions");
    std::fs::write(&script, home.run(&["completions", "bash"]).out()).unwrap();
    let ask = "set -eu; source \"$1\"; shift; f=$(complete -p codex-server | grep -o -- '-F [^ ]*' | cut -c4-)
        COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); $f codex-server \"${!#}\" x; echo \"${COMPREPLY[@]}\"";
    let check = |words: &[&str], expected: &str| {
        let path = script.to_str().unwrap();
        let args = [&["-c", ask, "bash", path][..], words].concat();
        let (good, said) = read_by("/bin/bash", &args);
        assert!(good && said.contains(expected), "{words:?}: {said}");
    };
    check(&["codex-server", "co"], "connect completions");
    check(&["codex-server", "run", "--ti"], "--timeout");
    check(&["codex-server", "connect", "ch"], "chatgpt");
    check(&["codex-server", "serve", "--idle"], "--idle-shutdown");
    home.run(&["completions", "tcsh"]).refused(2, "powershell");
}

#[test]
fn every_page_of_the_manual_is_written() {
    let home = Home::new();
    let pages = home.path().with_file_name("man1");
    let done = home.run(&["man", "--out", pages.to_str().unwrap()]);
    done.out();
    assert!(done.stderr.contains("pages written"), "{done:?}");
    let names: Vec<String> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in [
        "codex-server.1",
        "codex-server-run.1",
        "codex-server-token-create.1",
    ] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    assert!(home.run(&["man"]).out().contains(".TH codex-server 1"));
    let page = home.run(&["man", "token", "create"]);
    assert!(page.out().contains(".TH codex-server-token-create 1"));
    home.run(&["man", "cook"]).refused(2, "token create");
    let file = home.path().with_file_name("a-file");
    std::fs::write(&file, "").unwrap();
    finish(&mut home.command(&["man", "--out", file.to_str().unwrap()]))
        .refused(1, "failed to write");
    assert!(!home.path().exists(), "documents make no data directory");
}
