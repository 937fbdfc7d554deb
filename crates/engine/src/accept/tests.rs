//! Tests of the checks on a draft: one row a refusal, and paths by property.

use std::path::{Component, Path};
use std::time::Duration;

use proptest::prelude::{any, proptest};

use super::{accept, check_path};
use crate::config::Bounds;
use crate::job::{Draft, DraftFile, Invalid, Job};
use crate::runtime::{Places, Registry};

/// Small bounds, so that a test can go over each.
fn bounds() -> Bounds {
    Bounds {
        code: 100,
        stdin: 10,
        args: 3,
        env: 3,
        args_bytes: 40,
        files_in: 4,
        files_in_bytes: 20,
        ..Bounds::default()
    }
}

fn try_accept(draft: Draft) -> Result<Job, Invalid> {
    accept_within(draft, &bounds())
}

fn accept_within(draft: Draft, bounds: &Bounds) -> Result<Job, Invalid> {
    let data = tempfile::tempdir().unwrap();
    accept(
        draft,
        bounds,
        &Registry::load(data.path(), Places::default(), None).unwrap(),
    )
}

fn draft() -> Draft {
    Draft {
        code: "print(1)".to_owned(),
        ..Draft::default()
    }
}

fn refused(draft: Draft, field: &str, problem: &str, cure: &str) {
    refused_within(draft, &bounds(), field, problem, cure);
}

fn refused_within(draft: Draft, bounds: &Bounds, field: &str, problem: &str, cure: &str) {
    let shown: String = format!("{draft:?}").chars().take(1000).collect();
    let invalid = accept_within(draft, bounds).expect_err(&shown);
    assert_eq!(invalid.field, field, "{invalid} for {shown}");
    assert!(
        invalid.problem.contains(problem),
        "{problem:?} is not in {invalid}"
    );
    assert!(invalid.cure.contains(cure), "{cure:?} is not in {invalid}");
    assert!(
        invalid.cure.ends_with('.') && !invalid.problem.ends_with('.'),
        "{invalid}"
    );
}

fn files(paths: &[&str]) -> Draft {
    let file = |path: &&str| DraftFile {
        path: (*path).to_owned(),
        content: vec![b'x'],
    };
    Draft {
        files: paths.iter().map(file).collect(),
        ..draft()
    }
}

#[test]
fn defaults_are_filled_in() {
    let job = try_accept(draft()).unwrap();
    assert_eq!(job.language, "python");
    assert_eq!(
        (job.wall_time, job.memory, job.processes),
        (Duration::from_secs(10), 512 << 20, 64)
    );
    let language = Some("NodeJS".to_owned());
    let job = try_accept(Draft {
        language,
        ..draft()
    })
    .unwrap();
    assert_eq!((job.language.as_str(), job.processes), ("javascript", 128));
    let longest = bounds().queue_wait;
    for (asked, expected) in [
        (None, longest),
        (Some(Duration::ZERO), Duration::ZERO),
        (Some(Duration::from_secs(3)), Duration::from_secs(3)),
        (Some(Duration::MAX), longest),
    ] {
        let job = try_accept(Draft {
            queue_wait: asked,
            ..draft()
        });
        assert_eq!(job.unwrap().queue_wait, expected);
    }
    let (first, second) = (try_accept(draft()).unwrap(), try_accept(draft()).unwrap());
    assert!(first.id() < second.id(), "ids sort by time of acceptance");
}

#[test]
fn wrong_code_and_language_are_refused() {
    let code = |code: &str| Draft {
        code: code.to_owned(),
        ..draft()
    };
    refused(code(""), "code", "is empty", "Send the program");
    refused(
        code(" \r\n\t\u{3000}"),
        "code",
        "is empty",
        "Send the program",
    );
    refused(
        code("print(1)\0"),
        "code",
        "NUL character at byte 8",
        "Remove it",
    );
    refused(
        code(&"x".repeat(101)),
        "code",
        "101 bytes long, over the limit of 100",
        "less code",
    );
    assert!(try_accept(code(&"x".repeat(100))).is_ok());
    let language = |word: &str| Draft {
        language: Some(word.to_owned()),
        ..draft()
    };
    refused(
        language("cobol"),
        "language",
        "\"cobol\" is not a known",
        "python",
    );
    refused(
        language("cobol"),
        "language",
        "\"cobol\" is not a known",
        "javascript",
    );
    refused(language(""), "language", "\"\" is not a known", "python");
    refused(language("py\0\n"), "language", "\"py??\" is not", "python");
    refused(
        language(&"x".repeat(10_000)),
        "language",
        "x…\" is not a known",
        "python",
    );
}

#[test]
fn times_and_sizes_out_of_range_are_refused() {
    let time = |seconds: f64| Draft {
        wall_time: Some(Duration::from_secs_f64(seconds)),
        ..draft()
    };
    refused(time(0.0), "timeout", "0 s is out of range", "from 1 to 30");
    refused(
        time(0.999),
        "timeout",
        "0.999 s is out of range",
        "from 1 to 30",
    );
    refused(
        time(31.0),
        "timeout",
        "31 s is out of range",
        "from 1 to 30",
    );
    refused(time(1e18), "timeout", "out of range", "from 1 to 30");
    assert_eq!(
        try_accept(time(1.0)).unwrap().wall_time(),
        Duration::from_secs(1)
    );
    assert_eq!(
        try_accept(time(30.0)).unwrap().wall_time(),
        Duration::from_secs(30)
    );
    let memory = |bytes: u64| Draft {
        memory: Some(bytes),
        ..draft()
    };
    refused(
        memory(0),
        "memory_mb",
        "0 MiB is out of range",
        "from 16 to 4096",
    );
    refused(
        memory((16 << 20) - 1),
        "memory_mb",
        "15 MiB",
        "from 16 to 4096",
    );
    refused(
        memory(u64::MAX),
        "memory_mb",
        "out of range",
        "from 16 to 4096",
    );
    assert_eq!(try_accept(memory(16 << 20)).unwrap().memory, 16 << 20);
    assert_eq!(try_accept(memory(4096 << 20)).unwrap().memory, 4096 << 20);
    refused(
        Draft {
            stdin: vec![0; 11],
            ..draft()
        },
        "stdin",
        "11 bytes long",
        "less input",
    );
    assert!(
        try_accept(Draft {
            stdin: vec![0; 10],
            ..draft()
        })
        .is_ok()
    );
}

#[test]
fn wrong_arguments_and_variables_are_refused() {
    let args = |args: &[&str]| Draft {
        args: args.iter().map(ToString::to_string).collect(),
        ..draft()
    };
    assert!(try_accept(args(&["-c", "a\nb", "'\""])).is_ok());
    refused(
        args(&["a"; 4]),
        "args",
        "4 arguments, over the limit of 3",
        "fewer",
    );
    refused(args(&["a", "b\0"]), "args[1]", "NUL", "Remove it");
    refused(
        args(&[&"x".repeat(40)]),
        "args",
        "41 bytes in all, over the limit of 40",
        "less",
    );
    let env = |env: &[(&str, &str)]| Draft {
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..draft()
    };
    assert!(try_accept(env(&[("LD_PRELOAD", "/x.so"), ("_", "")])).is_ok());
    refused(
        env(&[("", "x")]),
        "env.",
        "not a variable's name",
        "letters",
    );
    refused(
        env(&[("A", "1"), ("A=B", "x")]),
        "env.A?B",
        "not a variable's name",
        "letters",
    );
    refused(
        env(&[("A\0", "x")]),
        "env.A?",
        "not a variable's name",
        "letters",
    );
    refused(env(&[("A", "x\0")]), "env.A", "NUL", "Remove it");
    refused(
        env(&[("A", "1"), ("A", "2")]),
        "env.A",
        "given twice",
        "once",
    );
    refused(
        env(&[("A", "1"), ("B", "1"), ("C", "1"), ("D", "1")]),
        "env",
        "4 variables",
        "fewer",
    );
    refused(
        env(&[("A", &"x".repeat(38))]),
        "env",
        "41 bytes in all",
        "less",
    );
}

#[test]
fn wrong_files_are_refused() {
    let path = "files[0].path";
    refused(files(&[""]), path, "is empty", "relative");
    refused(files(&["/etc/passwd"]), path, "absolute", "relative");
    refused(files(&["../x"]), path, "..", "relative");
    refused(files(&["a/../x"]), path, "..", "relative");
    refused(files(&["./x"]), path, "component", "relative");
    refused(files(&["a//x"]), path, "component", "relative");
    refused(files(&["a/"]), path, "component", "relative");
    refused(files(&["a\0b"]), path, "control character", "Remove it");
    refused(files(&["a\nb"]), path, "control character", "Remove it");
    refused(files(&["a\u{85}b"]), path, "control character", "Remove it");
    refused(
        files(&[&"x".repeat(256)]),
        path,
        "name of 256 bytes",
        "shorter",
    );
    refused(
        files(&[&"x/".repeat(513)]),
        path,
        "1026 bytes long",
        "shorter",
    );
    let deep = |folders: usize| format!("{}x", "d/".repeat(folders));
    refused(
        files(&[&deep(33)]),
        path,
        "33 folders deep, over the limit of 32",
        "fewer folders",
    );
    assert!(try_accept(files(&[&deep(32)])).is_ok());
    refused(
        files(&["main.py"]),
        path,
        "program's own file",
        "another name",
    );
    refused(
        files(&["main.py/x"]),
        path,
        "a file and a directory",
        "Rename",
    );
    refused(files(&["a", "a"]), "files[1].path", "given twice", "once");
    refused(
        files(&["a", "a/b"]),
        "files[1].path",
        "a file and a directory",
        "Rename",
    );
    refused(
        files(&["a/b/c", "a/b"]),
        "files[1].path",
        "a file and a directory",
        "Rename",
    );
    refused(
        files(&["1", "2", "3", "4", "5"]),
        "files",
        "5 files, over the limit of 4",
        "fewer",
    );
    let mut big = files(&["a"]);
    big.files[0].content = vec![0; 21];
    refused(
        big,
        "files",
        "21 bytes in all, over the limit of 20",
        "less",
    );
    let mut module = files(&["main.mjs"]);
    assert!(try_accept(module.clone()).is_ok());
    module.language = Some("js".to_owned());
    refused(module, path, "program's own file", "another name");
    let good = ["a/b", "a/c", "ab", r"back\slash …'$( ~"];
    assert!(try_accept(files(&good)).is_ok());
}

#[test]
fn the_kernels_own_limits_are_told_before_it_meets_them() {
    let bounds = Bounds {
        args_bytes: 1 << 20,
        ..Bounds::default()
    };
    let most = 128 * 1024 - 1;
    let args = |length: usize| Draft {
        args: vec!["short".to_owned(), "x".repeat(length)],
        ..draft()
    };
    assert!(accept_within(args(most), &bounds).is_ok());
    let problem = "131072 bytes long, over the kernel's limit of 131071";
    refused_within(args(most + 1), &bounds, "args[1]", problem, "a file");
    let env = |length: usize| Draft {
        env: vec![("AB".to_owned(), "x".repeat(length))],
        ..draft()
    };
    assert!(accept_within(env(most - 3), &bounds).is_ok());
    refused_within(
        env(most - 2),
        &bounds,
        "env.AB",
        "131072 bytes long with its name",
        "a file",
    );
}

#[test]
fn inputs_that_the_workspace_cannot_hold_are_refused() {
    let bounds = Bounds {
        workspace: 8 * 4096,
        inodes: 20,
        ..Bounds::default()
    };
    // A page for the program, one for each file, however little is in it.
    let paths: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    let some = |count: usize| {
        let paths: Vec<&str> = paths.iter().take(count).map(String::as_str).collect();
        files(&paths)
    };
    assert!(accept_within(some(7), &bounds).is_ok());
    refused_within(some(8), &bounds, "files", "which has 32768", "less data");
    let code = Draft {
        code: "x".repeat(8 * 4096 + 1),
        ..draft()
    };
    refused_within(code, &bounds, "code", "which has 32768", "less data");

    // Eight are taken; a folder that two share counts once.
    let deep = |first: usize| {
        let path = format!("{}x", "d/".repeat(first));
        files(&[&path, "d/y"])
    };
    assert!(accept_within(deep(10), &bounds).is_ok());
    refused_within(deep(11), &bounds, "files", "21 files and folders", "fewer");
}

#[test]
fn who_says_how_many_processes() {
    let check = |operator: Option<u32>, language: &str, expected: u32| {
        let bounds = Bounds {
            processes: operator,
            ..Bounds::default()
        };
        let draft = Draft {
            language: Some(language.to_owned()),
            ..draft()
        };
        let job = accept_within(draft, &bounds).unwrap();
        assert_eq!(job.processes, expected, "{operator:?} {language}");
    };
    check(None, "python", 64);
    check(None, "javascript", 128);
    check(Some(32), "python", 32);
    check(Some(32), "javascript", 32);
    check(Some(500), "javascript", 500);
}

proptest! {
    #[test]
    fn a_path_is_refused_or_stays_inside(path in r"([a./\\\x00\n]|\.\./|é){0,12}") {
        if check_path(&path).is_ok() {
            let parts: Vec<Component<'_>> = Path::new(&path).components().collect();
            assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
            let rejoined: Vec<_> = parts.iter().map(|part| part.as_os_str().to_str().unwrap()).collect();
            assert_eq!(rejoined.join("/"), path, "a path means what it says");
        }
    }

    #[test]
    fn any_draft_is_answered(path in ".{0,40}", word in ".{0,80}", name in ".{0,20}", value in ".{0,20}") {
        let draft = Draft {
            language: Some(word),
            env: vec![(name, value)],
            ..files(&[&path])
        };
        if let Err(invalid) = try_accept(draft) {
            assert!(!invalid.to_string().contains(char::is_control), "{invalid:?}");
            assert!(invalid.to_string().len() < 1000, "{invalid:?}");
        }
    }

    /// Whatever is asked for and whatever the operator allows.
    #[test]
    fn limits_stay_within_bounds(
        asked in (any::<u64>(), any::<u64>()),
        allowed in (any::<u32>(), any::<u64>()),
        default in (any::<u32>(), any::<u64>()),
    ) {
        let bounds = Bounds {
            wall_time: Duration::from_millis(default.0.into()),
            wall_time_max: Duration::from_millis(allowed.0.into()),
            memory: default.1,
            memory_max: allowed.1,
            ..Bounds::default()
        };
        for asks in [false, true] {
            let draft = Draft {
                wall_time: asks.then(|| Duration::from_nanos(asked.0)),
                memory: asks.then_some(asked.1),
                ..draft()
            };
            match accept_within(draft, &bounds) {
                Ok(job) => {
                    assert!(job.wall_time <= bounds.wall_time_max);
                    assert!(job.memory <= bounds.memory_max);
                }
                Err(invalid) => assert!(["timeout", "memory_mb"].contains(&&*invalid.field)),
            }
        }
    }

    /// What is accepted fits, page by page and inode by inode.
    #[test]
    fn what_is_accepted_fits(
        sizes in proptest::collection::vec(0..20_000_usize, 0..6),
        workspace in 0..100_000_u64,
        inodes in 0..30_u64,
    ) {
        let bounds = Bounds { workspace, inodes, ..Bounds::default() };
        let files = sizes.iter().enumerate().map(|(number, size)| DraftFile {
            path: format!("{number}/x"),
            content: vec![b'x'; *size],
        });
        let draft = Draft { files: files.collect(), ..draft() };
        let page = rustix::param::page_size();
        let pages: usize = sizes.iter().map(|size| size.div_ceil(page)).sum();
        if accept_within(draft, &bounds).is_ok() {
            assert!(((pages + 1) * page) as u64 <= workspace);
            assert!(2 * sizes.len() as u64 <= inodes);
        }
    }
}
