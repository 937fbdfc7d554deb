//! Tests of the shelf: bounds, ends, restarts, and what lies about in its folder.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const BOUNDS: Bounds = Bounds {
    lifetime: Duration::from_secs(60),
    bytes: 10,
    count: 3,
};

fn open(home: &Path, bounds: Bounds) -> Artifacts {
    Artifacts::open(home, bounds).expect("a folder of our own")
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch directory")
}

fn content(artifacts: &Artifacts, kept: &Kept) -> Option<Vec<u8>> {
    let found = artifacts.find(kept.id, &kept.name)?;
    let size = usize::try_from(found.size).ok()?;
    artifacts.part(&found, 0, size).ok()
}

fn names(home: &Path) -> Vec<String> {
    let entries = fs::read_dir(home.join(FOLDER)).expect("the folder");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

#[test]
fn ids_are_read_as_they_are_written_and_no_other_way() {
    let id = Id::random().expect("random");
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_ne!(id, Id::random().expect("random"));
    for text in [
        "",
        "..",
        "0",
        &"g".repeat(32),
        &"A".repeat(32),
        &"0".repeat(33),
        "+0000000000000000000000000000001",
    ] {
        assert_eq!(text.parse::<Id>(), Err(()), "{text}");
    }
}

#[test]
fn a_file_is_kept_under_a_name_of_ours() {
    let home = home();
    let artifacts = open(home.path(), BOUNDS);
    let kept = artifacts
        .keep("me", "../../etc/x\n.txt", b"abc")
        .expect("kept");
    assert_eq!(
        (kept.name.as_str(), kept.owner.as_str(), kept.size),
        ("x_.txt", "me", 3)
    );
    assert_eq!(names(home.path()), [kept.id.to_string()]);
    assert_eq!(content(&artifacts, &kept).as_deref(), Some(&b"abc"[..]));
    assert_eq!(artifacts.find(kept.id, "y.txt"), None);
    let mode = |path: PathBuf| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(home.path().join(FOLDER)), 0o700);
    assert_eq!(mode(artifacts.path(kept.id)), 0o600);
    let (count, bytes) = on_disk(home.path()).expect("counted");
    assert!(count == 1 && bytes > 3, "{count} {bytes}");
    assert!(artifacts.remove(kept.id) && !artifacts.remove(kept.id));
    assert_eq!(on_disk(home.path()).expect("counted"), (0, 0));
    let nowhere = home.path().join("nowhere");
    assert_eq!(on_disk(&nowhere).expect("nothing yet"), (0, 0));
    assert!(names(home.path()).is_empty());
}

#[test]
fn at_a_bound_the_oldest_goes() {
    let check = |sizes: &[usize], left: &[usize]| {
        let home = home();
        let artifacts = open(home.path(), BOUNDS);
        let keep = |size: &usize| artifacts.keep("me", "a", &vec![b'x'; *size]).expect("kept");
        let kept: Vec<Kept> = sizes.iter().map(keep).collect();
        let there = |at: &usize| artifacts.find(kept[*at].id, "a").is_some();
        let found: Vec<usize> = (0..sizes.len()).filter(there).collect();
        assert_eq!(found, left, "{sizes:?}");
        assert_eq!(names(home.path()).len(), left.len());
        let sum: usize = left.iter().map(|at| sizes[*at]).sum();
        assert_eq!(artifacts.shelf().sum().bytes, sum as u64);
        artifacts.shelf().check();
    };
    check(&[10], &[0]);
    check(&[5, 5], &[0, 1]);
    check(&[5, 5, 1], &[1, 2]);
    check(&[5, 5, 10], &[2]);
    check(&[1, 1, 1, 1], &[1, 2, 3]);
    check(&[0, 0, 0, 0], &[1, 2, 3]);
}

/// Who keeps what size, one after the other, and the files that are left.
#[test]
fn at_a_bound_the_oldest_of_who_holds_most_goes() {
    let check = |files: &[(&str, usize)], left: &[usize]| {
        let home = home();
        let artifacts = open(home.path(), BOUNDS);
        let keep = |(owner, size): &(&str, usize)| artifacts.keep(owner, "a", &vec![b'x'; *size]);
        let kept: Vec<_> = files.iter().map(keep).collect();
        let there = |at: &usize| {
            let kept = kept[*at].as_ref();
            kept.is_ok_and(|kept| artifacts.find(kept.id, "a").is_some())
        };
        let found: Vec<usize> = (0..files.len()).filter(there).collect();
        assert_eq!(found, left, "{files:?}");
        assert_eq!(names(home.path()), artifacts.shelf().check());
    };
    // By bytes: 10 are kept.
    check(&[("a", 2), ("b", 5), ("b", 5)], &[0, 2]);
    check(&[("b", 5), ("a", 2), ("b", 5)], &[1, 2]);
    check(&[("b", 5), ("b", 5), ("a", 2)], &[1, 2]);
    check(&[("a", 5), ("b", 5), ("c", 1)], &[1, 2]);
    // A file that is larger than its key's share drives nobody out.
    check(&[("a", 4), ("b", 8)], &[0]);
    check(&[("a", 4), ("b", 2), ("b", 8)], &[0, 1]);
    check(&[("a", 4), ("b", 10)], &[0]);
    // By number: 3 are kept.
    check(&[("a", 1), ("b", 1), ("b", 1), ("b", 1)], &[0, 2, 3]);
    check(&[("b", 0), ("b", 0), ("b", 0), ("a", 9)], &[1, 2, 3]);
    check(&[("a", 0), ("b", 0), ("c", 0), ("d", 0)], &[1, 2, 3]);
    // What is short decides, bytes first.
    check(&[("a", 9), ("b", 0), ("b", 0), ("b", 2)], &[1, 2, 3]);
}

#[test]
fn a_removed_file_is_read_no_further() {
    let home = home();
    let artifacts = open(home.path(), BOUNDS);
    let kept = artifacts.keep("me", "a", b"abcdef").expect("kept");
    assert_eq!(artifacts.part(&kept, 1, 2).expect("there"), b"bc");
    assert!(artifacts.part(&kept, 5, 2).is_err(), "only whole parts");
    assert!(artifacts.part(&kept, u64::MAX, 1).is_err());
    artifacts.remove(kept.id);
    let gone = artifacts.part(&kept, 1, 2).expect_err("gone");
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[test]
fn what_cannot_be_kept_is_refused_and_leaves_nothing() {
    let home = home();
    let artifacts = open(home.path(), BOUNDS);
    let small = artifacts.keep("me", "a", b"abc").expect("kept");
    let refused = artifacts.keep("me", "a", &[0; 11]);
    assert!(matches!(refused, Err(KeepError::TooLarge)));
    assert!(
        artifacts.find(small.id, "a").is_some(),
        "nobody went for it"
    );
    for off in [Bounds { bytes: 0, ..BOUNDS }, Bounds { count: 0, ..BOUNDS }] {
        let refused = open(home.path(), off).keep("me", "a", b"");
        assert!(matches!(refused, Err(KeepError::Off)));
    }
    fs::remove_dir_all(home.path().join(FOLDER)).expect("removed");
    let refused = artifacts.keep("me", "a", b"abc");
    assert!(matches!(refused, Err(KeepError::Io { .. })));
    artifacts.shelf().check();
}

#[test]
fn a_file_ends() {
    let home = home();
    let bounds = Bounds {
        lifetime: Duration::ZERO,
        ..BOUNDS
    };
    let artifacts = open(home.path(), bounds);
    let kept = artifacts.keep("me", "a", b"abc").expect("kept");
    assert_eq!(artifacts.find(kept.id, "a"), None);
    let (_, query) = artifacts
        .link(&kept)
        .split_once('?')
        .map(|(p, q)| (p.to_owned(), q.to_owned()))
        .expect("a query");
    let signature = Signature::parse(&query).expect("our own");
    assert_eq!(
        artifacts.check(kept.id, "a", &signature),
        Err(BadLink::Expired)
    );
    assert_eq!(names(home.path()).len(), 1, "until it is swept");
    artifacts.sweep();
    assert!(names(home.path()).is_empty());
    assert_eq!(artifacts.shelf().sum().bytes, 0);
}

#[test]
fn a_restart_keeps_what_is_good_and_removes_the_rest() {
    let home = home();
    let folder = home.path().join(FOLDER);
    let artifacts = open(home.path(), BOUNDS);
    let good = artifacts.keep("me", "good.txt", b"abc").expect("kept");
    let cut = artifacts.keep("me", "cut.txt", b"abc").expect("kept");
    let link = artifacts.link(&good);
    let length = artifacts.path(cut.id).metadata().expect("there").len();
    let file = OpenOptions::new().write(true).open(artifacts.path(cut.id));
    file.and_then(|file| file.set_len(length - 1)).expect("cut");
    drop(artifacts);
    let spare = "0".repeat(32);
    fs::write(folder.join(&spare), b"not ours at all").expect("written");
    fs::write(folder.join(format!("{spare}.part")), b"half").expect("written");
    fs::write(folder.join("README"), b"somebody's").expect("written");
    let secret = home.path().join("secret");
    fs::write(&secret, b"secret").expect("written");
    std::os::unix::fs::symlink(&secret, folder.join("1".repeat(32))).expect("linked");

    let artifacts = open(home.path(), BOUNDS);
    let mut expected = vec![good.id.to_string(), "README".to_owned()];
    expected.sort();
    assert_eq!(names(home.path()), expected);
    assert_eq!(content(&artifacts, &good).as_deref(), Some(&b"abc"[..]));
    assert_eq!(artifacts.link(&good), link, "the key is still the same");
    assert_eq!(artifacts.shelf().sum().bytes, 3);
    assert!(secret.exists(), "a link is removed, not what it leads to");

    let tight = Bounds { bytes: 2, ..BOUNDS };
    let artifacts = open(home.path(), tight);
    assert_eq!(
        artifacts.find(good.id, "good.txt"),
        None,
        "the bound was lowered"
    );
    assert_eq!(names(home.path()), ["README"]);
}

#[test]
fn many_at_once_keep_to_the_bounds() {
    let home = home();
    let artifacts = open(home.path(), BOUNDS);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for at in 0..50 {
                    let owner = ["me", "you", "they"][at % 3];
                    // Refused where others are writing all that fits.
                    drop(artifacts.keep(owner, "a", &vec![b'x'; at % 5]));
                    let sum = artifacts.shelf().sum();
                    assert!(sum.bytes <= BOUNDS.bytes, "{sum:?}");
                    assert!(sum.files <= BOUNDS.count, "{sum:?}");
                }
            });
        }
    });
    artifacts
        .keep("me", "a", b"")
        .expect("nobody else is writing");
    let kept = artifacts.shelf().check();
    assert_eq!(
        names(home.path()),
        kept,
        "no file without its entry, no entry without its file"
    );
}
