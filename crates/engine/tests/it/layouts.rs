//! Interpreters in odd places: under a home that is closed to others, behind
//! links, shims and wrappers, in venvs, and several versions side by side. All
//! are made of this machine's own, in a directory of the test's.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use engine::{Bounds, Call, Config, Draft, Engine, Isolation, Reply};

/// Where Debian and Ubuntu have it; its library lies in `/usr/lib`.
const PYTHON: &str = "/usr/bin/python3";

/// One layout, and what must come of a program that uses it.
struct Layout {
    name: &'static str,
    /// Directories of the search path, below the root of the layouts.
    path: &'static [&'static str],
    /// Files that the operator names, below that root.
    named: &'static [(&'static str, &'static str)],
    /// Whether the places of version switchers are looked at, too.
    switchers: bool,
    language: &'static str,
    code: &'static str,
    /// What the program prints; `{root}` is the root of the layouts.
    prints: &'static str,
    /// Whether the interpreter is out of reach of other users: where it lies,
    /// or wherever it is lent.
    closed: Closed,
}

#[derive(Clone, Copy, PartialEq)]
enum Closed {
    Open,
    /// Behind a closed directory, which a box with a root of its own does not have.
    Behind,
    /// In itself.
    Itself,
}

const PLAIN: Layout = Layout {
    name: "",
    path: &[],
    named: &[],
    switchers: false,
    language: "python",
    code: "import sys, ssl, sqlite3, ctypes\nprint(sys.executable)",
    prints: "",
    closed: Closed::Open,
};

const LAYOUTS: &[Layout] = &[
    Layout {
        name: "a prefix of its own",
        path: &["opt/py-1/bin"],
        prints: "{root}/opt/py-1/bin/python3\n",
        ..PLAIN
    },
    Layout {
        name: "a prefix behind a link",
        path: &["opt/py/bin"],
        prints: "{root}/opt/py/bin/python3\n",
        ..PLAIN
    },
    Layout {
        name: "a link to a link to it",
        path: &["links"],
        prints: "{root}/links/python3\n",
        ..PLAIN
    },
    Layout {
        name: "a wrapper",
        path: &["wrap"],
        prints: "{root}/opt/py-1/bin/python3\n",
        ..PLAIN
    },
    Layout {
        name: "a venv of a linked prefix",
        path: &["venv/bin"],
        code: "import sys, toy\nprint(sys.prefix, toy.answer)",
        prints: "{root}/venv 42\n",
        ..PLAIN
    },
    Layout {
        name: "a venv of the system's, in a closed home",
        path: &["home/project/.venv/bin"],
        code: "import sys, toy\nprint(sys.prefix, toy.answer)",
        prints: "{root}/home/project/.venv 42\n",
        closed: Closed::Behind,
        ..PLAIN
    },
    Layout {
        name: "a shim in a closed home",
        path: &["home/.pyenv/shims"],
        prints: "{root}/home/.pyenv/versions/3.99.1/bin/python3\n",
        closed: Closed::Behind,
        ..PLAIN
    },
    Layout {
        name: "the place of a version switcher",
        switchers: true,
        prints: "{root}/home/.pyenv/versions/3.99.1/bin/python3\n",
        closed: Closed::Behind,
        ..PLAIN
    },
    Layout {
        name: "one that is closed in itself",
        path: &["closed/bin"],
        prints: "{root}/closed/bin/python3\n",
        closed: Closed::Itself,
        ..PLAIN
    },
    Layout {
        name: "one that the operator named",
        path: &["wrap"],
        named: &[("python", "opt/py/bin/python3")],
        prints: "{root}/opt/py/bin/python3\n",
        ..PLAIN
    },
    Layout {
        name: "another version beside it",
        path: &["opt/py-1/bin", "versions"],
        language: "python3.98",
        code: "import os\nprint(os.path.basename(__file__))",
        prints: "main.py\n",
        ..PLAIN
    },
    Layout {
        name: "the same by its short name",
        path: &["opt/py-1/bin", "versions"],
        language: "PY3.98",
        code: "print(2 + 2)",
        prints: "4\n",
        ..PLAIN
    },
    Layout {
        name: "node of a version switcher",
        switchers: true,
        language: "javascript",
        code: "console.log(process.execPath, require('toy'))",
        prints: "{root}/home/.nvm/versions/node/v99.1.0/bin/node 42\n",
        closed: Closed::Behind,
        ..PLAIN
    },
    Layout {
        name: "node behind links",
        path: &["links"],
        language: "javascript",
        code: "console.log(process.execPath)",
        prints: "{root}/home/.nvm/versions/node/v99.1.0/bin/node\n",
        closed: Closed::Behind,
        ..PLAIN
    },
];

/// The engines for the layouts, which must start before there is any thread.
pub(crate) struct Layouts {
    root: tempfile::TempDir,
    engines: Vec<Engine>,
    _data: Vec<tempfile::TempDir>,
}

impl Layouts {
    /// Makes the layouts and starts an engine for each.
    pub(crate) fn new(rungs: &std::ops::RangeInclusive<Isolation>, node: &Path) -> Self {
        let root = tempfile::tempdir().expect("a scratch directory can be made");
        build(root.path(), node).expect("the layouts can be made");
        let mut layouts = Self {
            root,
            engines: Vec::new(),
            _data: Vec::new(),
        };
        for layout in LAYOUTS {
            let data = tempfile::tempdir().expect("a scratch directory can be made");
            let at = |path: &&str| layouts.root.path().join(path);
            let named = layout.named.iter();
            let engine = Engine::start(Config {
                data_dir: data.path().to_owned(),
                search_path: layout.path.iter().map(at).collect(),
                switchers: layout.switchers.then(|| at(&"home")),
                interpreters: named
                    .map(|(language, file)| ((*language).to_owned(), at(file)))
                    .collect(),
                isolation: rungs.clone(),
                bounds: Bounds::default(),
            });
            layouts.engines.push(engine.expect("an engine starts here"));
            layouts._data.push(data);
        }
        layouts
    }

    /// What is wrong, layout by layout.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (layout, engine) in LAYOUTS.iter().zip(&self.engines) {
            if let Err(why) = self.check(layout, engine).await {
                complaints.push(format!("{}: {why}", layout.name));
            }
        }
        complaints
    }

    async fn check(&self, layout: &Layout, engine: &Engine) -> Result<(), String> {
        let root = self.root.path().to_string_lossy();
        let refused = match layout.closed {
            Closed::Open => false,
            Closed::Behind => engine.isolation() == Isolation::Uids,
            // An ordinary user's programs are that user's own.
            Closed::Itself => rustix::process::geteuid().is_root(),
        };
        if refused {
            let languages = engine.languages();
            let language = languages.iter().find(|found| found.name == layout.language);
            let found = language.ok_or("the language is not known")?;
            let told = found.passed_over.join("; ");
            return match !found.available && told.contains("is not for all to enter") {
                true => Ok(()),
                false => Err(format!("not refused: {found:?}")),
            };
        }
        let draft = Draft {
            code: layout.code.to_owned(),
            language: Some(layout.language.to_owned()),
            ..Draft::default()
        };
        let job = engine.accept(draft).map_err(|error| error.to_string())?;
        let Reply::Outcome(outcome) = engine
            .call(Call::Execute(Box::new(job)))
            .await
            .map_err(|error| format!("{error:?}"))?
        else {
            return Err("no outcome".to_owned());
        };
        let printed = String::from_utf8_lossy(&outcome.last().stdout.bytes).into_owned();
        match printed == layout.prints.replace("{root}", &root) {
            true => Ok(()),
            false => Err(format!("{outcome:?}")),
        }
    }
}

fn build(root: &Path, node: &Path) -> std::io::Result<()> {
    let root = root.canonicalize()?;
    let at = |path: &str| root.join(path);
    let mode = |path: &str, mode| fs::set_permissions(at(path), fs::Permissions::from_mode(mode));
    mode("", 0o755)?;
    prefix(&at("opt/py-1"))?;
    prefix(&at("closed"))?;
    prefix(&at("home/.pyenv/versions/3.99.1"))?;
    symlink("py-1", at("opt/py"))?;
    fs::create_dir(at("links"))?;
    fs::create_dir(at("alternatives"))?;
    symlink("../alternatives/python3", at("links/python3"))?;
    symlink(at("opt/py/bin/python3"), at("alternatives/python3"))?;
    script(&at("wrap/python3"), &at("opt/py-1/bin/python3"))?;
    let pyenv = at("home/.pyenv/versions/3.99.1/bin/python3");
    script(&at("home/.pyenv/shims/python3"), &pyenv)?;
    venv(&at("venv"), &at("opt/py/bin"))?;
    venv(&at("home/project/.venv"), Path::new("/usr/bin"))?;
    // A version that nobody has yet: its report is that of the real one but for the number.
    let sed = "#!/bin/sh\n/usr/bin/python3 \"$@\" | /bin/sed 's/^version=.*/version=3.98.2/'\n";
    executable(&at("versions/python3.98"), sed)?;
    let nvm = "home/.nvm/versions/node/v99.1.0";
    fs::create_dir_all(at(nvm).join("bin"))?;
    fs::copy(node, at(nvm).join("bin/node"))?;
    fs::create_dir_all(at(nvm).join("lib/node_modules/toy"))?;
    let module = at(nvm).join("lib/node_modules/toy/index.js");
    fs::write(module, "module.exports = 42;\n")?;
    symlink("../alternatives/node", at("links/node"))?;
    symlink(at(nvm).join("bin/node"), at("alternatives/node"))?;
    mode("home", 0o700)?;
    mode("closed/bin", 0o700)
}

/// The system's Python as if it had been unpacked elsewhere.
fn prefix(at: &Path) -> std::io::Result<()> {
    let real = fs::canonicalize(PYTHON)?;
    let name = real.file_name().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(at.join("bin"))?;
    fs::create_dir_all(at.join("lib"))?;
    fs::copy(&real, at.join("bin").join(&name))?;
    symlink(&name, at.join("bin/python3"))?;
    symlink(
        Path::new("/usr/lib").join(&name),
        at.join("lib").join(&name),
    )
}

/// What `python3 -m venv` makes, which not every system has.
fn venv(at: &Path, home: &Path) -> std::io::Result<()> {
    let real = fs::canonicalize(PYTHON)?;
    let name = real.file_name().map(PathBuf::from).unwrap_or_default();
    let site = at.join("lib").join(name).join("site-packages");
    fs::create_dir_all(at.join("bin"))?;
    fs::create_dir_all(&site)?;
    fs::write(
        at.join("pyvenv.cfg"),
        format!("home = {}\n", home.display()),
    )?;
    fs::write(site.join("toy.py"), "answer = 42\n")?;
    symlink(home.join("python3"), at.join("bin/python3"))
}

fn script(at: &Path, program: &Path) -> std::io::Result<()> {
    executable(
        at,
        &format!("#!/bin/sh\nexec {} \"$@\"\n", program.display()),
    )
}

fn executable(at: &Path, text: &str) -> std::io::Result<()> {
    fs::create_dir_all(at.parent().unwrap_or(at))?;
    fs::write(at, text)?;
    fs::set_permissions(at, fs::Permissions::from_mode(0o755))
}
