//! Packages for programs, installed from files that the tests make: what can
//! go wrong on the way, and that it never reaches a program.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

mod gallery;
mod plots;

use crate::server::{wait_until, wait_within};
use crate::support::{Done, Home, Server, finish};

/// Makes `NAME-VERSION-py3-none-any.whl` of one module with that text, and
/// prints its hash.
const WHEEL: &str = r#"
import base64, hashlib, sys, zipfile
name, version, text, needs, directory = sys.argv[1:]
needs = f"Requires-Dist: {needs}\n" if needs else ""
info = f"{name}-{version}.dist-info"
files = {
    f"{name}/__init__.py": text,
    f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
record = ""
for path, content in files.items():
    digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
    record += f"{path},sha256={digest},{len(content.encode())}\n"
files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
wheel = f"{directory}/{name}-{version}-py3-none-any.whl"
with zipfile.ZipFile(wheel, "w") as file:
    for path, content in files.items():
        file.writestr(path, content)
print(hashlib.sha256(open(wheel, "rb").read()).hexdigest())
"#;

/// A data directory whose Python packages are pinned to a tiny set.
struct Shop {
    home: Home,
    wheels: tempfile::TempDir,
}

impl Shop {
    /// With a `numpy` of one line, which is all that is pinned.
    fn new() -> Self {
        let shop = Self::empty();
        let hash = shop.wheel("numpy", "1.0", "answer = 42\n");
        shop.pin(&[("numpy", "1.0", &hash)]);
        shop
    }

    fn empty() -> Self {
        Self {
            home: Home::new(),
            wheels: tempfile::tempdir().unwrap(),
        }
    }

    fn shelf(&self) -> PathBuf {
        self.home.path().join("packages/python")
    }

    fn wheel(&self, name: &str, version: &str, text: &str) -> String {
        self.wheel_that_needs(name, version, text, "")
    }

    /// A wheel that asks for another package.
    #[expect(clippy::disallowed_methods, reason = "Python writes zip files")]
    fn wheel_that_needs(&self, name: &str, version: &str, text: &str, needs: &str) -> String {
        let mut python = Command::new("/usr/bin/env");
        python
            .args(["python3", "-c", WHEEL, name, version, text, needs])
            .arg(self.wheels.path());
        finish(&mut python).out().trim().to_owned()
    }

    fn pin(&self, packages: &[(&str, &str, &str)]) {
        fs::create_dir_all(self.shelf()).unwrap();
        let line = |(name, version, hash): &(&str, &str, &str)| {
            format!("{name}=={version} \\\n    --hash=sha256:{hash}\n")
        };
        let lock: String = packages.iter().map(line).collect();
        fs::write(self.shelf().join("packages.lock"), lock).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(args);
        command
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", self.wheels.path())
            // Nobody answers there, and at once.
            .env("npm_config_registry", "http://127.0.0.1:9")
            .env("npm_config_fetch_retries", "0");
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        finish(&mut self.command(args))
    }

    fn up(&self) -> Server {
        Server::listen(self.command(&["up"]).args(["--port", "0"]))
    }

    fn install(&self) -> Done {
        self.run(&["packages", "install", "--language", "python"])
    }

    /// What a program prints.
    fn program(&self, code: &str) -> Done {
        self.run(&["run", "-c", code])
    }

    fn listed(&self) -> Value {
        let done = self.run(&["packages", "list", "--language", "py", "--json"]);
        serde_json::from_str::<Value>(done.out()).unwrap()["python"].take()
    }

    /// Directories of half-built and of whole sets.
    fn directories(&self) -> (usize, usize) {
        let names: Vec<String> = fs::read_dir(self.shelf())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let count = |start: &str| names.iter().filter(|name| name.starts_with(start)).count();
        (count(".building-"), count("set-"))
    }
}

/// How long an installation beside a server may take, which gives way to all
/// else that this machine does.
const INSTALLATION: Duration = Duration::from_secs(300);

const ANSWER: &str = "import numpy; print(numpy.answer, numpy.__file__)";
const SEEN: &str = "42 /opt/codex/packages/python/lib/python3";

#[test]
fn programs_see_what_was_installed_and_added() {
    let shop = Shop::new();
    assert_eq!(shop.listed()["state"], "absent");
    shop.program(ANSWER).refused(1, "No module named 'numpy'");
    let installed = shop.install();
    assert_eq!(installed.code, Some(0), "{installed:?}");
    assert!(installed.stderr.contains("Python: ready, 1 packages"));
    assert!(shop.program(ANSWER).out().starts_with(SEEN));
    let again = shop.install();
    assert!(again.stderr.contains("installed already"), "{again:?}");

    shop.wheel("extra", "1.0", "import numpy\n");
    shop.wheel("extra", "2.0", "import numpy\nword = 'two'\n");
    let added = shop.run(&["packages", "add", "extra==2.0"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    let both = "import extra, numpy, subprocess, sys; print(extra.word, numpy.answer); \
        subprocess.run([sys.executable, '-c', 'import extra; print(extra.word)'])";
    assert_eq!(shop.program(both).out(), "two 42\ntwo\n");
    let listed = shop.listed();
    assert_eq!(listed["state"], "ready");
    assert_eq!(listed["added"], serde_json::json!(["extra==2.0"]));
    assert_eq!(listed["installed"][0]["name"], "extra");
    assert_eq!(shop.directories(), (0, 1), "the old set is gone");

    let removed = shop.run(&["packages", "remove", "Extra"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    shop.program("import extra").refused(1, "No module named");
    assert!(shop.program(ANSWER).out().starts_with(SEEN));
}

#[test]
fn what_cannot_be_added_changes_nothing() {
    let shop = Shop::new();
    assert_eq!(shop.install().code, Some(0));
    shop.wheel("broken", "1.0", "raise RuntimeError('no screen')\n");
    let check = |spec: &str, code: i32, words: &str| {
        let done = shop.run(&["packages", "add", "--", spec]);
        done.refused(code, words);
        assert_eq!(shop.listed()["added"], serde_json::json!([]));
        assert!(shop.program(ANSWER).out().starts_with(SEEN));
        assert_eq!(shop.directories(), (0, 1));
    };
    check(
        "no-such-package",
        1,
        "there is no package no-such-package that fits",
    );
    check("numpy==2.0", 1, "does not go with the pinned packages");
    check(
        "broken",
        1,
        "packages cannot be loaded: broken: RuntimeError: no screen",
    );
    check("--index-url=http://127.0.0.1", 2, "looks like an option");
    check("git+https://127.0.0.1/x", 2, "addresses, paths and spaces");
    check("./dir", 2, "is a path");
    check(
        "sklearn",
        2,
        "sklearn is imported by that name, but the package is scikit-learn: codex-server packages add scikit-learn",
    );
    check("pil==1.0", 2, "codex-server packages add pillow");
    check("json", 2, "json comes with Python itself");
    shop.run(&["packages", "remove", "numpy"])
        .refused(1, "is one of the pinned packages");
    shop.run(&["packages", "remove", "other"])
        .refused(1, "was not added, nor was any other");
    shop.run(&["packages", "add", "x", "--language", "cobol"])
        .refused(2, "there are for: python, javascript");
    shop.run(&["packages", "add", "fs", "--language", "js"])
        .refused(2, "fs comes with JavaScript itself");
}

/// What is no wheel is built by code of its own, which would run on this machine.
#[test]
fn a_wheel_that_asks_for_other_than_wheels_runs_nothing() {
    let shop = Shop::new();
    assert_eq!(shop.install().code, Some(0));
    let source = shop.wheels.path().join("payload");
    let mark = shop.wheels.path().join("ran");
    fs::create_dir(&source).unwrap();
    let setup = format!("open({:?}, 'w').write('here')\n", mark.to_str().unwrap());
    fs::write(source.join("backend.py"), setup).unwrap();
    let how = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n";
    fs::write(source.join("pyproject.toml"), how).unwrap();
    let git = shop.wheels.path().join("bin/git");
    fs::create_dir(git.parent().unwrap()).unwrap();
    fs::write(&git, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", git.parent().unwrap().display());
    for (name, needs) in [
        ("one", format!("payload @ file://{}", source.display())),
        ("two", "payload @ git+https://127.0.0.1:9/x".to_owned()),
    ] {
        shop.wheel_that_needs(name, "1.0", "", &needs);
        let done = finish(shop.command(&["packages", "add", name]).env("PATH", &path));
        assert!(!mark.exists(), "{needs} ran code: {done:?}");
        done.refused(1, "does not come as a wheel");
        assert_eq!(shop.listed()["added"], serde_json::json!([]));
    }
}

/// npm prepares what it gets from git by code that comes along, and takes the very
/// program that it calls git from there, whatever it was told of scripts.
#[test]
fn an_npm_package_that_asks_for_git_runs_nothing() {
    let home = Home::new();
    let shelf = home.path().join("packages/javascript");
    fs::create_dir_all(&shelf).unwrap();
    let (mark, git) = (home.path().join("ran"), home.path().join("git"));
    fs::write(&git, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).unwrap();
    let own = serde_json::json!({ "name": "codex-packages" });
    let lock = serde_json::json!({ "name": "codex-packages", "lockfileVersion": 3, "packages": { "": {} } });
    fs::write(shelf.join("package.json"), own.to_string()).unwrap();
    fs::write(shelf.join("package-lock.json"), lock.to_string()).unwrap();
    let registry = registry();
    let mut add = home.command(&["packages", "add", "asks", "--language", "js"]);
    let done = finish(
        add.env("npm_config_registry", registry)
            .env("npm_config_git", &git)
            .env("npm_config_fetch_retries", "0"),
    );
    assert!(!mark.exists(), "npm started a program: {done:?}");
    done.refused(1, "needs a package from git");
}

/// A registry whose every package asks for another from git.
fn registry() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let version = serde_json::json!({
        "name": "asks", "version": "1.0.0",
        "dependencies": { "outer": "git+file:///nowhere/outer" },
        "dist": { "tarball": format!("{url}/asks-1.0.0.tgz") },
    });
    let about = serde_json::json!({ "name": "asks", "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } });
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut asked = [0; 4096];
            let _ = connection.read(&mut asked).unwrap();
            let about = about.to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            write!(
                connection,
                "{head}\r\nContent-Length: {}\r\n\r\n{about}",
                about.len()
            )
            .unwrap();
        }
    });
    url
}

#[test]
fn a_package_that_is_not_the_pinned_one_is_never_used() {
    let shop = Shop::new();
    shop.wheel("numpy", "1.0", "answer = 'evil'\n");
    let done = shop.install();
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("its hash is another"), "{done:?}");
    let listed = shop.listed();
    assert_eq!(listed["state"], "failed");
    let message = listed["message"].as_str().unwrap();
    assert!(message.contains("its hash is another"), "{message}");
    shop.program(ANSWER).refused(1, "No module named 'numpy'");
    assert_eq!(shop.directories(), (0, 0));
    let doctor = shop.run(&["doctor", "--port", "0"]);
    assert!(
        doctor.stdout.contains("the installation failed"),
        "{doctor:?}"
    );

    // A file that was changed where it is kept is fetched again.
    let hash = shop.wheel("numpy", "1.0", "answer = 42\n");
    shop.pin(&[("numpy", "1.0", &hash)]);
    let cache = shop.shelf().join("cache");
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("numpy-1.0-py3-none-any.whl"), "half of it").unwrap();
    assert_eq!(shop.install().code, Some(0));
    assert!(shop.program(ANSWER).out().starts_with(SEEN));
}

#[test]
fn without_a_network_it_says_so() {
    let shop = Shop::new();
    let mut command = shop
        .home
        .command(&["packages", "install", "--language", "python"]);
    let done = finish(command.env("PIP_INDEX_URL", "http://127.0.0.1:9/simple"));
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stderr.contains("the package index cannot be reached"),
        "{done:?}"
    );
    assert_eq!(shop.install().code, Some(0));
}

#[test]
fn half_of_a_set_is_none() {
    let shop = Shop::new();
    assert_eq!(shop.install().code, Some(0));
    let current = shop.shelf().join("current");
    let set = shop.shelf().join(fs::read_link(&current).unwrap());
    let check = |spoil: &dyn Fn(&Path)| {
        spoil(&set);
        shop.program("import numpy")
            .refused(1, "No module named 'numpy'");
        assert_eq!(shop.install().code, Some(0));
        assert!(shop.program(ANSWER).out().starts_with(SEEN));
    };
    check(&|set| fs::remove_file(set.join("ready.toml")).unwrap());
    check(&|_| {
        fs::remove_file(&current).unwrap();
        fs::create_dir(shop.shelf().join("set-half")).unwrap();
        std::os::unix::fs::symlink("set-half", &current).unwrap();
    });
    assert_eq!(shop.directories(), (0, 1));
}

#[test]
fn killed_at_any_moment_it_ends_whole_the_next_time() {
    let shop = Shop::new();
    // What is there when the installation is killed.
    let moments: [(&str, &dyn Fn() -> bool); 5] = [
        ("the lock", &|| shop.shelf().join("install.lock").exists()),
        ("a staging directory", &|| shop.directories().0 > 0),
        ("a part of the lock", &|| staged(&shop, "work/part-0.txt")),
        ("all parts of the lock", &|| staged(&shop, "work/all.txt")),
        ("a tree", &|| staged(&shop, "tree")),
    ];
    for (what, is_there) in moments {
        let mut child = shop
            .command(&["packages", "install", "--language", "python"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(what, is_there);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(shop.directories().1, 0, "{what}: nothing is whole yet");
        // The installer follows the process that started it.
        wait_until("the installer's end", || !somebody_works_in(&shop.shelf()));
    }
    shop.program("import numpy")
        .refused(1, "No module named 'numpy'");
    assert_eq!(shop.install().code, Some(0));
    assert!(shop.program(ANSWER).out().starts_with(SEEN));
    assert_eq!(shop.directories(), (0, 1));
}

/// Whether a set that is being built has that file.
fn staged(shop: &Shop, path: &str) -> bool {
    let entries = fs::read_dir(shop.shelf()).unwrap().flatten();
    let staging = entries.map(|entry| entry.path());
    staging
        .filter(|entry| entry.to_string_lossy().contains(".building-"))
        .any(|entry| entry.join(path).exists())
}

/// Whether a process has its working directory below that one.
fn somebody_works_in(directory: &Path) -> bool {
    let directory = fs::canonicalize(directory).unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read_link(process.path().join("cwd")).ok())
        .any(|cwd| cwd.starts_with(&directory))
}

#[test]
fn up_answers_while_it_installs_and_needs_no_restart() {
    let shop = Shop::new();
    // Nobody reads its log, and a full pipe would hold it up.
    shop.home
        .configure("open = true\nrate_limit = \"6000/minute\"");
    let server = shop.up();
    let get = |path: &str| server.call("GET", path, None, "").1;
    let run = |code: &str| {
        let body = serde_json::json!({ "code": code }).to_string();
        server.call("POST", "/execute", None, &body).1
    };
    let hello = run("print('hello')");
    assert!(hello.contains("hello\\n"), "{hello}");
    let ready = || {
        let languages = get("/languages");
        let python = languages.split("\"javascript\"").next().unwrap();
        python.contains("\"state\":\"ready\"")
    };
    wait_within(INSTALLATION, "the packages", ready);
    let found = run("import numpy; print(numpy.answer)");
    assert!(found.contains("42\\n"), "{found}");
    let told = get("/actions/openapi.json");
    assert!(told.contains("Installed for Python: numpy."), "{told}");
    // The next set is seen at once as well.
    shop.wheel("extra", "1.0", "word = 'more'\n");
    assert_eq!(shop.run(&["packages", "add", "extra"]).code, Some(0));
    let found = run("import extra; print(extra.word)");
    assert!(found.contains("more\\n"), "{found}");
    wait_until("the old set to go", || shop.directories() == (0, 1));
}

#[test]
fn the_first_answer_says_that_packages_are_coming() {
    let shop = Shop::new();
    shop.home.configure("open = true");
    let server = shop.up();
    let told = server.call("GET", "/languages", None, "").1;
    let told: Value = serde_json::from_str(&told).unwrap();
    let state = &told["languages"][0]["packages"]["state"];
    assert!(
        ["installing", "ready"].map(Value::from).contains(state),
        "{told}"
    );
}

#[test]
fn packages_are_made_for_the_interpreters_of_the_running_server() {
    let shop = Shop::new();
    shop.home.configure("open = true");
    let elsewhere = || {
        let mut install = shop.command(&["packages", "install", "--language", "python"]);
        install.env("PATH", "/nowhere").env("HOME", "/nowhere");
        finish(&mut install)
    };
    elsewhere().refused(1, "Install Python");
    let server = Server::listen(shop.command(&["serve"]).args(["--port", "0"]));
    let done = elsewhere();
    assert_eq!(done.code, Some(0), "{done:?}");
    let told = server.call("GET", "/languages", None, "").1;
    assert!(told.contains("\"state\":\"ready\""), "{told}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "Python makes venvs")]
fn a_venv_finds_them_as_well() {
    let shop = Shop::new();
    let venv = shop.wheels.path().join("my venv");
    let mut python = Command::new("/usr/bin/env");
    python
        .args(["python3", "-m", "venv", "--without-pip"])
        .arg(&venv);
    assert_eq!(finish(&mut python).code, Some(0));
    let interpreter = format!("python={}", venv.join("bin/python3").display());
    let run = |words: &[&str]| {
        let mut command = shop.command(words);
        command.args(["--interpreter", &interpreter]);
        finish(&mut command)
    };
    let installed = run(&["packages", "install", "--language", "python"]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let found = run(&[
        "run",
        "-c",
        &format!("import sys; print(sys.prefix); {ANSWER}"),
    ]);
    let expected = format!("{}\n{SEEN}", venv.display());
    assert!(found.out().starts_with(&expected), "{found:?}");
}

#[test]
fn minimal_installs_nothing() {
    let shop = Shop::new();
    shop.home.configure("open = true\nminimal = true");
    let server = shop.up();
    let languages = server.call("GET", "/languages", None, "").1;
    assert!(languages.contains("\"state\":\"minimal\""), "{languages}");
    std::thread::sleep(Duration::from_millis(200));
    assert!(!shop.shelf().join("install.lock").exists());
}

#[test]
fn javascript_finds_packages_by_require_and_import() {
    let home = Home::new();
    let shelf = home.path().join("packages/javascript");
    fs::create_dir_all(&shelf).unwrap();
    let tarball = pack(home.path().parent().unwrap());
    let lock = |integrity: &str| {
        let spec = format!("file:{}", tarball.display());
        let root =
            serde_json::json!({ "name": "codex-packages", "dependencies": { "lodash": spec } });
        let lock = serde_json::json!({
            "name": "codex-packages", "lockfileVersion": 3, "requires": true,
            "packages": { "": root, "node_modules/lodash": { "version": "9.0.0", "resolved": spec, "integrity": integrity } },
        });
        fs::write(shelf.join("package.json"), root.to_string()).unwrap();
        fs::write(shelf.join("package-lock.json"), lock.to_string()).unwrap();
    };
    let install = || home.run(&["packages", "install", "--language", "js"]);
    lock("sha512-AAAA");
    let refused = install();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("its hash is another"),
        "{refused:?}"
    );
    lock(&integrity(&tarball));
    let done = install();
    assert_eq!(done.code, Some(0), "{done:?}");
    for code in [
        "console.log(require('lodash').answer)",
        "import lodash from 'lodash'; console.log(lodash.answer)",
        "console.log((await import('lodash')).default.answer)",
    ] {
        let done = home.run(&["run", "--language", "js", "-c", code]);
        assert_eq!(done.out(), "42\n", "{code}");
    }
}

/// A package as a registry would send it.
#[expect(clippy::disallowed_methods, reason = "tar writes tarballs")]
fn pack(directory: &Path) -> PathBuf {
    let package = directory.join("package");
    fs::create_dir(&package).unwrap();
    fs::write(
        package.join("package.json"),
        r#"{"name": "lodash", "version": "9.0.0"}"#,
    )
    .unwrap();
    fs::write(package.join("index.js"), "exports.answer = 42;").unwrap();
    let mut tar = Command::new("tar");
    finish(
        tar.current_dir(directory)
            .args(["-czf", "lodash.tgz", "package"]),
    )
    .out();
    directory.join("lodash.tgz")
}

#[expect(clippy::disallowed_methods, reason = "Python knows this hash")]
fn integrity(file: &Path) -> String {
    const HASH: &str = "import base64, hashlib, sys\nprint('sha512-' + base64.b64encode(hashlib.sha512(open(sys.argv[1], 'rb').read()).digest()).decode())";
    let mut python = Command::new("/usr/bin/env");
    finish(python.args(["python3", "-c", HASH]).arg(file))
        .out()
        .trim()
        .to_owned()
}
