//! Files as people have them: links, modes, copies.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A folder with what was done to a file in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        let name = |entry: io::Result<fs::DirEntry>| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("there").permissions().mode() & 0o777
}

#[test]
fn a_new_file_is_private_and_nothing_is_left_beside_it() {
    let home = Home::new();
    let path = home.path("a/b/mcp.json");
    let file = ClientFile::read(&path).expect("read");
    assert_eq!((file.text(), file.is_for_others()), (None, false));
    assert_eq!(file.write("{}").expect("written"), None);
    assert_eq!(fs::read_to_string(&path).expect("there"), "{}");
    assert_eq!((mode(&path), mode(&home.path("a"))), (0o600, 0o700));
    let left = fs::read_dir(home.path("a/b")).expect("a folder").count();
    assert_eq!(left, 1);
    // Somebody else made it meanwhile.
    let error = file.write("mine").expect_err("changed");
    assert!(error.to_string().contains("by somebody else"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("there"), "{}");
}

#[test]
fn the_file_as_it_was_is_kept_each_time() {
    let home = Home::new();
    let path = home.put("mcp.json", "one", 0o640);
    for (text, name) in [
        ("two", "mcp.json.before-codex"),
        ("three", "mcp.json.before-codex-2"),
        ("two", "mcp.json.before-codex-3"),
        // The same as the second copy.
        ("four", "mcp.json.before-codex-2"),
    ] {
        let file = ClientFile::read(&path).expect("read");
        let before = file.text().expect("a text").to_owned();
        let copy = file.write(text).expect("written").expect("a copy");
        assert_eq!(
            copy,
            path.canonicalize().expect("there").with_file_name(name)
        );
        assert_eq!(fs::read_to_string(&copy).expect("there"), before);
        assert_eq!((mode(&copy), mode(&path)), (0o600, 0o640));
    }
    assert_eq!(home.names().len(), 4, "{:?}", home.names());
    assert!(ClientFile::read(&path).expect("read").is_for_others());
}

#[test]
fn links_stay_links() {
    let home = Home::new();
    let real = home.put("dotfiles.json", "one", 0o600);
    let link = home.path("mcp.json");
    symlink("dotfiles.json", &link).expect("a link");
    let file = ClientFile::read(&link).expect("read");
    file.write("two").expect("written");
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&real).expect("there"), "two");
    assert_eq!(
        home.names(),
        ["dotfiles.json", "dotfiles.json.before-codex", "mcp.json"]
    );
}

#[test]
fn what_must_not_be_written_over_is_refused() {
    let home = Home::new();
    symlink("nowhere", home.path("dangling")).expect("a link");
    fs::create_dir(home.path("folder")).expect("a folder");
    fs::write(home.path("bytes"), [0xff, 0xfe]).expect("written");
    let check = |name: &str, expected: &str| {
        let error = ClientFile::read(&home.path(name)).expect_err(name);
        assert!(error.to_string().contains(expected), "{name}: {error}");
    };
    check("dangling", "a link to a file that is not there");
    check("folder", "no plain file");
    check("bytes", "not UTF-8");
    let large = File::create(home.path("large")).expect("a file");
    large.set_len(LARGEST + 1).expect("a length");
    check("large", "more than");

    home.put("fixed", "one", 0o444);
    check("fixed", "is read-only");
    let path = home.put("changing", "one", 0o600);
    let file = ClientFile::read(&path).expect("read");
    fs::write(&path, "theirs").expect("written");
    let error = file.write("two").expect_err("changed");
    assert!(error.to_string().contains("by somebody else"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("there"), "theirs");
    assert!(
        !home.names().iter().any(|name| name.contains(".new-")),
        "{:?}",
        home.names()
    );
}

#[test]
fn what_is_another_users_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // Only root can make a file another's; for others every file of root's is one.
        let error = ClientFile::read(Path::new("/etc/passwd")).expect_err("root's");
        assert!(error.to_string().contains("not yours"), "{error}");
        return;
    }
    let home = Home::new();
    let path = home.put("mcp.json", "{}", 0o600);
    std::os::unix::fs::chown(&path, Some(12345), Some(12345)).expect("given away");
    let error = ClientFile::read(&path).expect_err("another's");
    assert!(error.to_string().contains("sudo -u '#12345'"), "{error}");
    // Nor is anything made in another's folder.
    let folder = home.path("theirs");
    fs::create_dir(&folder).expect("a folder");
    std::os::unix::fs::chown(&folder, Some(12345), Some(12345)).expect("given away");
    for name in ["mcp.json", "new/mcp.json"] {
        let error = ClientFile::read(&folder.join(name)).expect_err("another's");
        assert!(error.to_string().contains("not yours"), "{error}");
    }
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
}

#[test]
fn a_pipe_is_no_file() {
    let home = Home::new();
    let path = home.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).expect("a pipe");
    let error = ClientFile::read(&path).expect_err("a pipe");
    assert!(error.to_string().contains("no plain file"), "{error}");
}
