//! Tests of the shelf: bounds, ends, restarts, and what lies about in its folder.

use std::io::{Read as _, Seek as _, SeekFrom};

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
    let (mut file, at) = artifacts.content(&found).ok()?;
    file.seek(SeekFrom::Start(at)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(bytes)
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
        assert_eq!(artifacts.shelf().bytes, sum as u64);
        assert_eq!(artifacts.shelf().writing, (0, 0));
    };
    check(&[10], &[0]);
    check(&[5, 5], &[0, 1]);
    check(&[5, 5, 1], &[1, 2]);
    check(&[5, 5, 10], &[2]);
    check(&[1, 1, 1, 1], &[1, 2, 3]);
    check(&[0, 0, 0, 0], &[1, 2, 3]);
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
    assert_eq!(artifacts.shelf().writing, (0, 0));
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
    assert_eq!(artifacts.shelf().bytes, 0);
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
    assert_eq!(artifacts.shelf().bytes, 3);
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
                    // Refused where others are writing all that fits.
                    drop(artifacts.keep("me", "a", &vec![b'x'; at % 5]));
                    let shelf = artifacts.shelf();
                    assert!(shelf.bytes <= BOUNDS.bytes, "{}", shelf.bytes);
                    assert!(shelf.kept.len() + shelf.writing.0 <= BOUNDS.count);
                }
            });
        }
    });
    artifacts
        .keep("me", "a", b"last")
        .expect("nobody else is writing");
    let shelf = artifacts.shelf();
    let bytes: u64 = shelf.kept.values().map(|kept| kept.size).sum();
    assert_eq!((shelf.bytes, shelf.writing), (bytes, (0, 0)));
    assert_eq!(shelf.order.len(), shelf.kept.len());
    let mut kept: Vec<String> = shelf.kept.keys().map(Id::to_string).collect();
    kept.sort();
    assert_eq!(
        names(home.path()),
        kept,
        "no file without its entry, no entry without its file"
    );
}
