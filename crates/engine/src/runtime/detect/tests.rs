//! Tests of detection: real processes, but of `/bin/sh` scripts made here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Mounts, Report, Search, ask, candidates, detect, read, wait};
use crate::runtime::manifest::{Manifest, System};

fn manifest() -> Manifest {
    let system =
        System::parse("mounts = ['/usr/bin', '/usr/lib', '/nowhere/at/all']\n[environment]\n")
            .unwrap();
    let text = r#"
name = "toy"
title = "Toy"
extensions = ["toy"]
source = "main.toy"
[detect]
candidates = ["toy3", "toy"]
argv = ["{candidate}", "-c", "{program}"]
program = "detect.toy"
minimum = "3.8"
cure = "Install it."
[[stages]]
name = "run"
argv = ["{interpreter}"]
"#;
    Manifest::parse("toy", text, &system).unwrap()
}

/// Written by a child: were the file open for writing in this process, another
/// test's fork could carry that over and make the script "busy".
#[expect(clippy::disallowed_methods, reason = "see above")]
fn script(directory: &Path, name: &str, body: &str) -> PathBuf {
    let path = directory.join(name);
    let written = std::process::Command::new("/bin/sh")
        .args([
            "-c",
            r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#,
            "sh",
        ])
        .arg(&path)
        .arg(body)
        .status();
    assert!(written.unwrap().success());
    path
}

fn find(directories: &[PathBuf]) -> Result<super::Interpreter, String> {
    let search = Search {
        path: directories,
        private: &[],
        in_place: false,
    };
    detect(&manifest(), "the program", search)
}

#[test]
fn prefers_the_path_s_order_over_the_candidates_order() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    script(first.path(), "toy", "");
    script(second.path(), "toy3", "");
    fs::write(first.path().join("toy3"), "not executable").unwrap();
    let path = [
        first.path().to_owned(),
        second.path().to_owned(),
        "relative".into(),
    ];
    let found = candidates(&manifest().detect, &path);
    assert_eq!(
        found,
        [first.path().join("toy"), second.path().join("toy3")]
    );
}

#[test]
fn takes_the_first_that_works_and_believes_what_it_says() {
    let (bad, good) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    script(bad.path(), "toy3", "exit 3");
    script(bad.path(), "toy", "echo version=3.7.9; echo interpreter=/x");
    let prefix = good.path().join("prefix");
    fs::create_dir(&prefix).unwrap();
    let body = format!(
        "test \"$1 $2\" = '-c the program' || exit 1; test -z \"$CARGO\" || exit 1; test $PWD = / || exit 1
         echo noise; echo version=3.10.1; echo interpreter=/real/toy; echo env.TOY_PATH=/a; echo env.9=no
         echo mount={}; echo mount=/usr; echo mount=/usr/lib/x; echo mount=/; echo mount=/nowhere",
        prefix.display()
    );
    script(good.path(), "toy3", &body);
    let found = find(&[bad.path().to_owned(), good.path().to_owned()]).unwrap();
    assert_eq!(found.version, "3.10.1");
    assert_eq!(found.path, Path::new("/real/toy"));
    assert_eq!(
        found.environment.into_iter().collect::<Vec<_>>(),
        [("TOY_PATH".to_owned(), "/a".to_owned())]
    );
    assert_eq!(found.mounts, [prefix, "/usr/bin".into(), "/usr/lib".into()]);

    let error = find(&[bad.path().to_owned()]).unwrap_err();
    assert!(error.contains("toy3 failed with exit status: 3"), "{error}");
    assert!(
        error.contains("toy is version 3.7.9, which is too old"),
        "{error}"
    );
    assert_eq!(find(&[]).unwrap_err(), "no toy3 or toy found in PATH");
}

#[test]
fn a_candidate_that_hangs_is_killed_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("late");
    let body = format!("(sleep 2; touch {}) & sleep 60", mark.display());
    let toy = script(directory.path(), "toy", &body);
    let path = ["/usr/bin".into(), "/bin".into()];
    let before = Instant::now();
    let error = ask(
        &manifest().detect,
        &toy,
        "",
        &path,
        Duration::from_millis(300),
    )
    .unwrap_err();
    assert!(error.contains("did not answer within"), "{error}");
    assert!(before.elapsed() < Duration::from_secs(2));
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!mark.exists(), "its child outlived it");
}

#[test]
fn a_grandchild_that_keeps_the_pipe_open_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let toy = script(directory.path(), "toy", "echo version=9; sleep 5 &");
    let path = ["/usr/bin".into(), "/bin".into()];
    let before = Instant::now();
    let report = ask(&manifest().detect, &toy, "", &path, Duration::from_secs(4)).unwrap();
    assert_eq!(report, "version=9\n");
    assert!(before.elapsed() < Duration::from_secs(3));
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the functions under test take a child"
)]
fn output_is_read_up_to_a_bound() {
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "exec head -c 40000 /dev/zero"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert!(wait(&mut child, Duration::from_secs(5)).unwrap().success());
    assert_eq!(read(child.stdout.take().unwrap()).unwrap().len(), 40000);
}

#[test]
fn a_report_must_hold_version_and_path() {
    let check = |text: &str, good: bool| assert_eq!(Report::parse(text).is_ok(), good, "{text:?}");
    check("version=1\ninterpreter=/bin/x\n", true);
    check("version=1\ninterpreter=bin/x\n", false);
    check("version=1\n", false);
    check("interpreter=/bin/x\n", false);
    check("", false);
    check("\u{0}\u{fffd}=\n====\n", false);
}

#[test]
fn homes_and_private_directories_are_never_shown() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let inner = data.join("venvs/science");
    let beside = home.path().join("pyenv");
    for directory in [&inner, &beside] {
        fs::create_dir_all(directory).unwrap();
    }
    let check = |place: &Path, shown: bool| {
        let private = [data.clone(), home.path().to_owned()];
        let mounts = Mounts::default().with_places(&[place.to_owned()], &private);
        assert_eq!(mounts.shown.contains(place), shown, "{}", place.display());
    };
    check(home.path(), false);
    check(&data, false);
    check(home.path().parent().unwrap(), false);
    check(Path::new("/"), false);
    check(Path::new("/home"), false);
    check(&inner, true);
    check(&beside, true);
    check(&home.path().join("missing"), false);
}

#[test]
fn nested_places_are_shown_once() {
    let prefix = tempfile::tempdir().unwrap();
    let lib = prefix.path().join("lib");
    fs::create_dir(&lib).unwrap();
    let mounts = Mounts::default().with_places(&[lib, prefix.path().to_owned()], &[]);
    assert_eq!(
        mounts.shown.into_iter().collect::<Vec<_>>(),
        [prefix.path()]
    );
}
