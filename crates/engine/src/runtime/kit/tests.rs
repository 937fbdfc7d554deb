//! Builds without an installer: what stages hold, and what becomes of them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::{PackageKit, is_locked};
use crate::runtime::packages::Package;
use crate::runtime::{Places, Registry};

/// The kit of Python, for an interpreter that is not there.
fn kit(data: &Path) -> PackageKit {
    let mut registry = Registry::load(data, Places::default(), None).unwrap();
    registry.pretend("python", "3.11.2", "cpython-311");
    registry.find("python").unwrap().kit().unwrap().unwrap()
}

fn package() -> Vec<Package> {
    vec![Package {
        name: "numpy".to_owned(),
        version: "1".to_owned(),
    }]
}

#[test]
fn a_finished_stage_is_what_programs_see() {
    let data = tempfile::tempdir().unwrap();
    let kit = kit(data.path());
    let lock = kit.lock(false).unwrap();
    assert!(is_locked(&kit.directory));
    let refused = kit.lock(false).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    let added = vec!["polars".to_owned()];
    let stage = kit.stage(&lock, &added).unwrap();
    assert!(stage.work().join("packages.lock").exists());
    assert_eq!(
        fs::read_to_string(stage.work().join("added.txt")).unwrap(),
        "polars\n"
    );
    assert!(
        stage.argv.iter().all(|word| !word.contains('{')),
        "{:?}",
        stage.argv
    );
    assert!(kit.shelf.current().is_none());
    fs::create_dir(stage.tree()).unwrap();
    stage.finish(package()).unwrap();
    let set = kit.shelf.current().unwrap();
    assert_eq!(set.marker.key, kit.key(&added));
    assert_eq!(set.marker.packages, package());
    let mode = fs::metadata(set.tree()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(kit.added().unwrap(), added);
    assert_ne!(kit.key(&[]), kit.key(&added));
    drop(lock);
    assert!(!is_locked(&kit.directory));
}

#[test]
fn a_stage_that_is_given_up_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let kit = kit(data.path());
    let lock = kit.lock(false).unwrap();
    let stage = kit.stage(&lock, &[]).unwrap();
    let directory = stage.directory.clone();
    drop(stage);
    assert!(!directory.exists());
    // A build that made no tree becomes no set either.
    let stage = kit.stage(&lock, &[]).unwrap();
    stage.finish(package()).unwrap_err();
    kit.sweep(&lock);
    assert!(kit.shelf.current().is_none());
}

#[test]
fn the_check_can_only_add_plain_files() {
    let data = tempfile::tempdir().unwrap();
    let kit = kit(data.path());
    let lock = kit.lock(false).unwrap();
    let stage = kit.stage(&lock, &[]).unwrap();
    fs::create_dir(stage.tree()).unwrap();
    stage.keep("warm/fonts/list", b"fonts").unwrap();
    let kept = stage.tree().join("warm/fonts/list");
    assert_eq!(fs::read(kept).unwrap(), b"fonts");
    symlink(data.path(), stage.tree().join("out")).unwrap();
    for path in ["../x", "/etc/x", "warm/../../x", "out/x", "warm/fonts/list"] {
        assert!(stage.keep(path, b"").is_err(), "{path}");
    }
    assert!(!data.path().join("x").exists());
}

#[test]
fn a_lock_of_the_operator_takes_the_place_of_ours() {
    let data = tempfile::tempdir().unwrap();
    let before = kit(data.path());
    fs::create_dir_all(&before.directory).unwrap();
    fs::write(before.directory.join("packages.lock"), "mine==1\n").unwrap();
    // The installer itself cannot be replaced.
    fs::write(before.directory.join("install.py"), "evil").unwrap();
    let after = kit(data.path());
    assert_ne!(before.key(&[]), after.key(&[]));
    let text = |name: &str| {
        after
            .files
            .iter()
            .find(|file| file.0 == name)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(text("packages.lock"), "mine==1\n");
    assert_ne!(text("install.py"), "evil");
}
