//! Sets that come, go and are spoilt.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CURRENT, MARKER, Marker, Package, SET, STAGING, Shelf, TREE, sweep};

const ABI: &str = "cpython-311";

/// Makes a set with one package of that name, and lets programs see it.
fn put(shelf: &Path, name: &str, abi: &str) -> PathBuf {
    let directory = shelf.join(format!("{SET}{name}"));
    fs::create_dir_all(directory.join(TREE)).unwrap();
    let marker = Marker {
        key: name.to_owned(),
        abi: abi.to_owned(),
        packages: vec![Package {
            name: name.to_owned(),
            version: "1".to_owned(),
        }],
    };
    fs::write(directory.join(MARKER), toml::to_string(&marker).unwrap()).unwrap();
    point(shelf, &format!("{SET}{name}"));
    directory
}

fn point(shelf: &Path, to: &str) {
    let aside = shelf.join("aside");
    symlink(to, &aside).unwrap();
    fs::rename(aside, shelf.join(CURRENT)).unwrap();
}

fn key(shelf: &Shelf) -> Option<String> {
    Some(shelf.current()?.marker.key.clone())
}

/// Removal is another thread's work.
fn gone(directory: &Path) -> bool {
    let begun = Instant::now();
    while directory.exists() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
    !directory.exists()
}

#[test]
fn a_running_server_follows_the_link() {
    let root = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(root.path().to_owned(), ABI.to_owned());
    assert_eq!(key(&shelf), None);
    let first = put(root.path(), "a", ABI);
    assert_eq!(key(&shelf).as_deref(), Some("a"));
    let run = shelf.current().unwrap();
    let second = put(root.path(), "b", ABI);
    assert_eq!(key(&shelf).as_deref(), Some("b"));
    sweep(root.path());
    assert!(first.exists(), "a run uses it");
    drop(run);
    assert!(gone(&first), "its last user removes it");
    assert!(second.exists());
}

#[test]
fn the_current_set_outlives_its_users() {
    let root = tempfile::tempdir().unwrap();
    let set = put(root.path(), "a", ABI);
    let shelf = Shelf::new(root.path().to_owned(), ABI.to_owned());
    assert!(shelf.current().is_some());
    drop(shelf);
    sweep(root.path());
    assert!(set.join(MARKER).exists());
}

#[test]
fn what_is_no_set_is_not_seen() {
    let check = |spoil: &dyn Fn(&Path, &Path)| {
        let root = tempfile::tempdir().unwrap();
        let set = put(root.path(), "a", ABI);
        spoil(root.path(), &set);
        let shelf = Shelf::new(root.path().to_owned(), ABI.to_owned());
        assert_eq!(key(&shelf), None);
        // A better one is seen all the same.
        put(root.path(), "b", ABI);
        assert_eq!(key(&shelf).as_deref(), Some("b"));
    };
    check(&|_, set| fs::remove_file(set.join(MARKER)).unwrap());
    check(&|_, set| fs::write(set.join(MARKER), "key = ").unwrap());
    check(&|_, set| fs::write(set.join(MARKER), [0xff, 0xfe]).unwrap());
    check(&|_, set| fs::remove_dir(set.join(TREE)).unwrap());
    check(&|root, _| drop(put(root, "a", "cpython-312")));
    check(&|root, _| point(root, "set-none"));
    check(&|root, _| point(root, "../set-a"));
    check(&|root, _| point(root, "set-a/../../../etc"));
    check(&|root, _| point(root, "/etc"));
    check(&|root, set| {
        let staging = root.join(".building-a");
        fs::rename(set, &staging).unwrap();
        point(root, ".building-a");
    });
}

#[test]
fn a_sweep_takes_what_nobody_uses() {
    let root = tempfile::tempdir().unwrap();
    let old = put(root.path(), "old", ABI);
    let used = put(root.path(), "used", ABI);
    let shelf = Shelf::new(root.path().to_owned(), ABI.to_owned());
    let run = shelf.current().unwrap();
    let new = put(root.path(), "new", ABI);
    let half = root.path().join(format!("{STAGING}x"));
    let other = root.path().join("cache");
    for directory in [&half, &other] {
        fs::create_dir(directory).unwrap();
    }
    sweep(root.path());
    let there = [&old, &used, &new, &half, &other].map(|path| path.exists());
    assert_eq!(there, [false, true, true, false, true]);
    drop(run);
    shelf.release();
    sweep(root.path());
    assert!(gone(&used));
}

#[test]
fn runs_that_meet_a_switch_all_see_a_set() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "0", ABI);
    let shelf = Arc::new(Shelf::new(root.path().to_owned(), ABI.to_owned()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let set = shelf.current().expect("one is there all the time");
                    assert!(set.tree().is_dir());
                }
            });
        }
        for number in 1..50 {
            put(root.path(), &number.to_string(), ABI);
        }
    });
    assert_eq!(key(&shelf).as_deref(), Some("49"));
}

#[test]
fn a_set_fits_while_directories_are_as_it_saw_them() {
    let root = tempfile::tempdir().unwrap();
    let fonts = root.path().join("fonts");
    let absent = root.path().join("absent");
    fs::create_dir(&fonts).unwrap();
    let tree = put(root.path(), "a", ABI).join(TREE);
    let shelf = Shelf::new(root.path().to_owned(), ABI.to_owned());
    let set = shelf.current().unwrap();
    assert!(set.fits_machine(), "it noted nothing");
    fs::create_dir(tree.join("kept")).unwrap();
    let time = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec())
    };
    let note = |lines: &str| fs::write(tree.join("kept/seen"), lines).unwrap();
    note(&format!(
        "{} {}\n0 {}\n",
        time(&fonts),
        fonts.display(),
        absent.display()
    ));
    assert!(set.fits_machine());
    fs::create_dir(&absent).unwrap();
    assert!(!set.fits_machine(), "a directory came");
    fs::remove_dir(&absent).unwrap();
    assert!(set.fits_machine());
    fs::write(fonts.join("new.ttf"), "").unwrap();
    assert!(!set.fits_machine(), "a font came");
    for junk in [
        "x",
        "1",
        "1 ",
        "\u{1}",
        "99999999999999999999999999999999999999999 /",
    ] {
        note(junk);
        assert!(!set.fits_machine(), "{junk}");
    }
}
