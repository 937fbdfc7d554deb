//! `install.sh` beside the tarballs: `packaging/install.sh` with the release that
//! it comes with. What it does is tried here by shells, with made-up releases.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process;

/// What the script is called beside the tarballs.
pub(super) const NAME: &str = "install.sh";
const SOURCE: &str = "packaging/install.sh";

/// Writes the script for a release into `output`, and returns where. `address`
/// is where the release will be fetched from, with `{version}` in place of the
/// version; empty where that is not known.
pub(super) fn write(output: &Path, version: &str, address: &str) -> Result<PathBuf> {
    let text = fs::read_to_string(process::root().join(SOURCE))
        .with_context(|| format!("failed to read {SOURCE}"))?;
    let to = output.join(NAME);
    fs::write(&to, filled(&text, version, address)?)
        .with_context(|| format!("failed to write {}", to.display()))?;
    Ok(to)
}

/// The text with both lines filled in.
fn filled(text: &str, version: &str, address: &str) -> Result<String> {
    let mut text = text.to_owned();
    for (name, value) in [("release", version), ("address", address)] {
        let plain = |c: char| c.is_ascii_graphic() && !"'\"\\`$".contains(c);
        ensure!(
            value.chars().all(plain),
            "{value:?} can't stand in a shell's quotes: give --address as a plain address"
        );
        let empty = format!("\n{name}=''\n");
        ensure!(
            text.matches(&empty).count() == 1,
            "{SOURCE} has no single line {name}=''"
        );
        text = text.replace(&empty, &format!("\n{name}='{value}'\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Output;

    use super::super::tarball;
    use super::*;

    /// A release whose server says its version and `word`, and a place to install it.
    struct Scene {
        scratch: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let scratch = tempfile::tempdir().expect("a directory");
            let scene = Self { scratch };
            scene.release("1.2.3", "codex-server 1.2.3", "first");
            scene
        }

        fn path(&self, name: &str) -> PathBuf {
            self.scratch.path().join(name)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap_or_default()
        }

        fn release(&self, version: &str, says: &str, word: &str) {
            for arch in ["x86_64", "aarch64"] {
                let name = format!("codex-server-{version}-{arch}-linux");
                let tree = self.path("trees").join(name);
                for folder in ["man/man1", "completions"] {
                    fs::create_dir_all(tree.join(folder)).expect("made");
                }
                let server = format!("#!/bin/sh\n# {word}\necho '{says}'\n");
                fs::write(tree.join("codex-server"), server).expect("written");
                for file in ["man/man1/codex-server.1", "completions/codex-server.bash"] {
                    fs::write(tree.join(file), word).expect("written");
                }
                tarball::pack(&tree, &self.path("dist")).expect("packed");
            }
            write(&self.path("dist"), "1.2.3", "").expect("written");
            tarball::sums(&self.path("dist")).expect("summed");
        }

        /// Programs by which those of the system are hidden; all others are there.
        fn shadow(&self, programs: &[(&str, &str)]) {
            for (name, text) in programs {
                let to = self.path("shadow").join(name);
                fs::create_dir_all(self.path("shadow")).expect("made");
                fs::write(&to, text).expect("written");
                let all = fs::Permissions::from_mode(0o755);
                fs::set_permissions(&to, all).expect("set");
            }
        }

        fn run(&self, path: &str, arguments: &[&str]) -> Output {
            let mut shell = process::command("/bin/sh");
            shell
                .env_clear()
                .env("PATH", path)
                .env("HOME", self.path("home"))
                .current_dir(self.scratch.path())
                .arg(self.path("dist/install.sh"))
                .args(arguments);
            shell.output().expect("a shell starts")
        }

        /// Runs it, which must end well or not, and say all of these.
        #[track_caller]
        fn says(&self, arguments: &[&str], well: bool, words: &[&str]) {
            let path = format!("{}:/usr/bin:/bin", self.path("shadow").display());
            let ended = self.run(&path, arguments);
            let out = String::from_utf8_lossy(&ended.stdout).into_owned();
            let said = out + &String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.success(), well, "{arguments:?}: {said}");
            for word in words {
                assert!(said.contains(word), "{arguments:?}: no {word:?} in {said}");
            }
        }

        /// Everything below the home, sorted.
        fn installed(&self) -> Vec<String> {
            let mut find = process::command("find");
            find.arg(self.path("home"))
                .args(["-type", "f", "-printf", "%P\n"]);
            fs::create_dir_all(self.path("home")).expect("made");
            let found = process::capture("list", &mut find).expect("lists");
            let mut found: Vec<String> = found.lines().map(str::to_owned).collect();
            found.sort();
            found
        }
    }

    const INSTALLED: [&str; 3] = [
        ".local/bin/codex-server",
        ".local/share/bash-completion/completions/codex-server",
        ".local/share/man/man1/codex-server.1",
    ];

    #[test]
    fn a_release_is_installed_again_and_removed() {
        let scene = Scene::new();
        scene.says(&["--dry-run"], true, &["nothing was done"]);
        assert!(scene.installed().is_empty());
        let fresh = [
            "codex-server 1.2.3 for ",
            "checksum agrees",
            "not in your PATH",
        ];
        scene.says(&[], true, &fresh);
        assert_eq!(scene.installed(), INSTALLED);
        let server = scene.path("home/.local/bin/codex-server");
        let running = fs::File::open(&server).expect("there");
        scene.release("1.2.3", "codex-server 1.2.3", "second");
        scene.says(&[], true, &["goes on with the one before"]);
        assert_eq!(scene.installed(), INSTALLED);
        assert!(
            scene
                .read("home/.local/bin/codex-server")
                .contains("second")
        );
        let kept = std::io::read_to_string(running).expect("still readable");
        assert!(kept.contains("first"), "a running one keeps its file");
        let data = scene.path("home/.local/share/codex-server/state.db");
        fs::create_dir_all(data.parent().expect("a folder")).expect("made");
        fs::write(&data, "").expect("written");
        scene.says(&["--uninstall", "--dry-run"], true, &["would remove"]);
        assert_eq!(scene.installed().len(), 4);
        scene.says(&["--uninstall"], true, &["removed", "packages are left"]);
        assert_eq!(scene.installed(), [".local/share/codex-server/state.db"]);
        scene.says(&["--uninstall"], true, &["is not installed"]);
    }

    #[test]
    fn where_from_and_where_to_can_be_said() {
        let scene = Scene::new();
        scene.release("1.3.0-rc.1", "codex-server 1.3.0-rc.1", "newer");
        symlink(scene.path("dist"), scene.path("v1.3.0-rc.1")).expect("made");
        let base = format!("file://{}/v{{version}}/", scene.scratch.path().display());
        let newer = [
            "--from",
            &base,
            "--version",
            "v1.3.0-rc.1",
            "--prefix",
            "own",
        ];
        scene.says(&newer, true, &["installed: ", "/own/bin/codex-server"]);
        assert!(scene.read("own/bin/codex-server").contains("newer"));
        assert!(scene.installed().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_is_installed() {
        let scene = Scene::new();
        let check = |arguments: &[&str], words: &str| {
            scene.says(arguments, false, &[words]);
            assert!(scene.installed().is_empty(), "{words}");
        };
        check(
            &["--version", "9"],
            "its SHA256SUMS names: codex-server-1.2.3",
        );
        check(&["--version", "../x"], "is no version");
        check(&["--version"], "takes a value");
        check(&["--from", "/nowhere"], "there is no directory /nowhere");
        check(
            &["--from", "ftp://x"],
            "no address that this can fetch from",
        );
        check(
            &["--from", "http://127.0.0.1:9"],
            "could not fetch http://127.0.0.1:9/SHA256SUMS",
        );
        check(&["--force"], "--force is no option");
        scene.release("2.0.0", "something else", "odd");
        check(&["--version", "2.0.0"], "calls itself \"something else\"");
        scene.release("2.0.1", "codex-server 2.0.1", "changed");
        for arch in ["x86_64", "aarch64"] {
            let name = format!("dist/codex-server-2.0.1-{arch}-linux.tar.gz");
            let mut bytes = fs::read(scene.path(&name)).expect("there");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(scene.path(&name), bytes).expect("written");
        }
        check(&["--version", "2.0.1"], "nothing was installed");
        let odd = |name: &str| format!("#!/bin/sh\n[ \"$1\" = -s ] && echo Linux || echo {name}\n");
        scene.shadow(&[("uname", &odd("riscv64"))]);
        check(&[], "no codex-server for the processor riscv64");
        scene.shadow(&[("uname", "#!/bin/sh\necho Darwin\n")]);
        check(&[], "runs on Linux, and this is Darwin");
    }

    #[test]
    fn without_curl_and_wget_the_cure_is_told() {
        let scene = Scene::new();
        fs::create_dir(scene.path("few")).expect("made");
        for name in ["uname", "sed", "dirname"] {
            let found = process::find(name).expect("the system has it");
            symlink(found, scene.path("few").join(name)).expect("made");
        }
        let few = scene.path("few");
        let ended = scene.run(&few.to_string_lossy(), &["--from", "http://127.0.0.1:9"]);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            !ended.status.success() && said.contains("neither curl nor wget"),
            "{said}"
        );
    }

    #[test]
    fn the_script_knows_its_release() {
        let text = fs::read_to_string(process::root().join(SOURCE)).expect("readable");
        let check = |address: &str, good: bool| {
            let done = filled(&text, "0.1.0", address);
            assert_eq!(done.is_ok(), good, "{address}");
            let line = format!("\naddress='{address}'\n");
            assert_eq!(
                done.is_ok_and(|done| done.contains(&line)),
                good,
                "{address}"
            );
        };
        check("https://x.example/v{version}", true);
        check("", true);
        check("'; echo '", false);
        check("https://x.example/$(id)", false);
        assert!(filled("release=''\n", "1", "").is_err());
    }
}
