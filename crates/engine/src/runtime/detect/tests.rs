//! Tests of detection: real processes, but of `/bin/sh` scripts made here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ask::ask_all;
use super::candidates::candidates;
use super::places::{Mounts, Way};
use super::{Reach, Report, Search, detect};
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

fn search(directories: &[PathBuf]) -> Search<'_> {
    Search {
        named: &[],
        path: directories,
        home: None,
        private: &[],
        reach: Reach::Own,
    }
}

fn find(directories: &[PathBuf]) -> Result<super::Interpreter, String> {
    let found = detect(&manifest(), "the program", search(directories));
    found
        .usable
        .into_iter()
        .next()
        .ok_or_else(|| found.passed_over.join("; "))
}

fn ask(toy: &Path, patience: Duration) -> Result<String, String> {
    let path = ["/usr/bin".into(), "/bin".into()];
    ask_all(&manifest().detect, &[toy], "", &path, patience).remove(0)
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
    let found = candidates(&manifest().detect, search(&path));
    let files: Vec<PathBuf> = found.into_iter().map(|found| found.file).collect();
    assert_eq!(
        files,
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
    fs::write(prefix.join("toy"), "").unwrap();
    let body = format!(
        "test \"$1 $2\" = '-c the program' || exit 1; test -z \"$CARGO\" || exit 1; test $PWD = / || exit 1
         echo noise; echo version=3.10.1; echo interpreter={}/toy; echo env.TOY_PATH=/a; echo env.9=no
         echo mount={}; echo mount=/usr; echo mount=/usr/lib/x; echo mount=/; echo mount=/nowhere",
        prefix.display(),
        prefix.display()
    );
    script(good.path(), "toy3", &body);
    let found = find(&[bad.path().to_owned(), good.path().to_owned()]).unwrap();
    assert_eq!(found.version, "3.10.1");
    assert_eq!(found.path, prefix.join("toy"));
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
    let before = Instant::now();
    let error = ask(&toy, Duration::from_millis(300)).unwrap_err();
    assert!(error.contains("did not answer within"), "{error}");
    assert!(before.elapsed() < Duration::from_secs(2));
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!mark.exists(), "its child outlived it");
}

#[test]
fn a_grandchild_that_keeps_the_pipe_open_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let toy = script(directory.path(), "toy", "echo version=9; sleep 5 &");
    let before = Instant::now();
    let report = ask(&toy, Duration::from_secs(4)).unwrap();
    assert_eq!(report, "version=9\n");
    assert!(before.elapsed() < Duration::from_secs(3));
}

#[test]
fn output_is_read_up_to_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let toy = script(directory.path(), "toy", "exec head -c 40000 /dev/zero");
    assert_eq!(ask(&toy, Duration::from_secs(5)).unwrap().len(), 40000);
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

/// [`manifest`] with versions that have names.
fn versioned() -> Manifest {
    let mut manifest = manifest();
    let system = System::parse("mounts = ['/usr/bin']\n[environment]\n").unwrap();
    let text = r#"
name = "toy"
title = "Toy"
extensions = ["toy"]
source = "main.toy"
[detect]
candidates = ["toy3", "toy"]
argv = ["{candidate}"]
program = "detect.toy"
minimum = "3.8"
cure = "Install it."
[detect.versions]
name = "toy{major}.{minor}"
title = "Toy {major}.{minor}"
files = ["toy{major}.{minor}"]
places = ["~/.toys/*/bin"]
[[stages]]
name = "run"
argv = ["{interpreter}"]
"#;
    manifest.detect = Manifest::parse("toy", text, &system).unwrap().detect;
    manifest
}

/// A toy of that version, which leaves a mark when it is asked.
fn toy(directory: &Path, name: &str, version: &str) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join(name);
    let body = format!(
        "echo >> {0}.asked; echo version={version}; echo interpreter={0}",
        path.display()
    );
    script(directory, name, &body)
}

#[test]
fn every_version_is_found_once() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let first = toy(&at("first"), "toy3", "3.11.2");
    std::os::unix::fs::symlink("toy3", at("first/toy")).unwrap();
    std::os::unix::fs::symlink("toy3", at("first/toy3.11")).unwrap();
    let second = toy(&at("second"), "toy", "3.10.1");
    let newer = toy(&at("second"), "toy3.12", "3.12.0");
    // Nobody needs these: a shim for what is there, one that is too old, the same again.
    let shim = toy(&at("second"), "toy3.10", "3.10.1");
    let old = toy(&at("second"), "toy3.7", "3.7.1");
    let again = toy(&at("third"), "toy3", "3.11.9");
    let kept = toy(&at("home/.toys/3.9.1/bin"), "toy", "3.9.1");
    let newest = toy(&at("home/.toys/v3.9.18/bin"), "toy3", "3.9.18");
    let older = toy(&at("home/.toys/toy-3.6.1-x/bin"), "toy3", "3.6.1");
    let path = ["first", "second", "third"].map(at);
    let home = at("home");
    let search = Search {
        home: Some(&home),
        ..search(&path)
    };
    let found = detect(&versioned(), "", search);
    let files: Vec<_> = found.usable.iter().map(|found| &found.path).collect();
    assert_eq!(files, [&first, &newer, &second, &newest], "{found:?}");
    assert!(found.passed_over.is_empty(), "{found:?}");
    let check = |toy: &Path, times: usize| {
        let marks = fs::read(format!("{}.asked", toy.display())).unwrap_or_default();
        assert_eq!(marks.len(), times, "{}", toy.display());
    };
    check(&first, 1);
    check(&second, 1);
    check(&again, 1);
    check(&kept, 1);
    for unneeded in [&shim, &old, &older] {
        check(unneeded, 0);
    }
    // What the operator names takes the place of all of it.
    let named = [at("third/toy3"), at("first/toy3"), at("home/none")];
    let search = Search {
        named: &named,
        ..search
    };
    let found = detect(&versioned(), "", search);
    let files: Vec<_> = found.usable.iter().map(|found| &found.path).collect();
    assert_eq!(files, [&again]);
    assert_eq!(found.passed_over.len(), 1);
    assert!(found.passed_over[0].contains("does not start"), "{found:?}");
}

#[test]
fn a_shim_is_asked_where_it_alone_stands_for_a_version() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    script(root.path(), "toy3", "exit 1");
    let second = toy(root.path(), "toy", "3.9.0");
    let shim = toy(&at("shims"), "toy3.13", "3.13.0");
    let found = detect(&versioned(), "", search(&[at(""), at("shims")]));
    let files: Vec<_> = found.usable.iter().map(|found| &found.path).collect();
    assert_eq!(files, [&second, &shim], "{found:?}");
    assert_eq!(found.passed_over.len(), 1, "{found:?}");
}

#[test]
fn a_way_is_followed_as_the_kernel_does() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let at = |path: &str| root.join(path);
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, at(from)).unwrap();
    fs::create_dir_all(at("opt/py-1/bin")).unwrap();
    fs::create_dir(at("bin")).unwrap();
    fs::write(at("opt/py-1/bin/py"), "").unwrap();
    link("py-1", "opt/py");
    link("../opt/py/bin/py", "bin/py");
    link("loop", "loop");
    link("nothing", "dangling");
    let check = |path: &str, expected: Option<(&str, &[&str])>| {
        let way = Way::to(&at(path));
        let found = way.as_ref().map(|way| {
            let links: Vec<PathBuf> = way.links.iter().map(|(at, _)| at.clone()).collect();
            (way.real.clone(), links)
        });
        let expected =
            expected.map(|(real, links)| (at(real), links.iter().map(|link| at(link)).collect()));
        assert_eq!(found, expected, "{path}");
    };
    check("opt/py-1/bin/py", Some(("opt/py-1/bin/py", &[])));
    check("opt/py/bin", Some(("opt/py-1/bin", &["opt/py"])));
    check("bin/py", Some(("opt/py-1/bin/py", &["bin/py", "opt/py"])));
    check("opt/py/../py/bin", Some(("opt/py-1/bin", &["opt/py"])));
    check("loop", None);
    check("dangling", None);
    check("opt/missing", None);
    assert_eq!(Way::to(Path::new("bin")), None);
    // What the box is shown: the real directory, and the links to it.
    let mounts = Mounts::default().with_places(&[at("opt/py"), at("bin/py")], &[]);
    assert_eq!(
        mounts.shown.into_iter().collect::<Vec<_>>(),
        [at("opt/py-1")]
    );
    let links: Vec<PathBuf> = mounts.links.into_iter().map(|(at, _)| at).collect();
    assert_eq!(links, [at("opt/py"), at("bin/py")]);
    // A link to a home shows no more of it than the home would.
    link("../..", "bin/up");
    let mounts = Mounts::default().with_places(&[at("bin/up")], std::slice::from_ref(&root));
    assert!(mounts.shown.is_empty(), "{mounts:?}");
}
