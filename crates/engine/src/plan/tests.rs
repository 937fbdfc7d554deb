//! Golden plans of each embedded language.

use std::fmt::Write;
use std::path::Path;
use std::time::SystemTime;

use super::{Plan, plan};
use crate::accept::accept;
use crate::config::Bounds;
use crate::job::{Draft, DraftFile};
use crate::runtime::{Interpreter, PackageSet, Places, Registry};

fn planned(language: &str, interpreter: &str) -> Plan {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::load(data.path(), Places::default(), None).unwrap();
    let draft = Draft {
        code: "the program".to_owned(),
        language: Some(language.to_owned()),
        stdin: b"typed".to_vec(),
        args: vec!["{source}".to_owned(), "two words".to_owned()],
        env: vec![
            ("LANG".to_owned(), "de_DE.UTF-8".to_owned()),
            ("MINE".to_owned(), "{bin}".to_owned()),
        ],
        files: vec![DraftFile {
            path: "data/in.csv".to_owned(),
            content: b"1,2".to_vec(),
        }],
        ..Draft::default()
    };
    let bounds = Bounds::default();
    let mut job = accept(draft, &bounds, &registry).unwrap();
    job.id = "the id".to_owned();
    job.started = SystemTime::UNIX_EPOCH;
    let mut runtime = registry.find(language).unwrap().clone();
    runtime.support = format!("/data/runtimes/{language}-0123").into();
    let found = Interpreter {
        version: "1.2.3".to_owned(),
        path: interpreter.into(),
        mounts: vec!["/usr/bin".into(), "/usr/lib".into()],
        links: vec![("/bin".into(), "usr/bin".into())],
        abi: "abi".to_owned(),
        environment: [("NODE_PATH".to_owned(), "/found".to_owned())].into(),
    };
    let packages = PackageSet::staged(Path::new("/data/packages/set-0123"));
    plan(job, &runtime, &found, Some(&packages), &bounds)
}

/// A plan as a reader wants it: one fact a line, bytes as text.
fn shown(plan: &Plan) -> String {
    let mut text = format!(
        "{} {} for {:?}\n",
        plan.language, plan.version, plan.wall_time
    );
    let mut line = |key: &str, value: String| {
        writeln!(text, "{key}: {value}").unwrap();
    };
    let bytes = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    for mount in &plan.mounts {
        line("mount", mount.display().to_string());
    }
    for (at, target) in &plan.links {
        line("link", format!("{} -> {}", at.display(), target.display()));
    }
    line(
        "support",
        format!(
            "{} at {}",
            plan.support.0.display(),
            plan.support.1.display()
        ),
    );
    if let Some((tree, at)) = &plan.packages {
        line(
            "packages",
            format!("{} at {}", tree.display(), at.display()),
        );
    }
    for file in &plan.files {
        line(
            "file",
            format!("{} = {:?}", file.path, bytes(&file.content)),
        );
    }
    line("ignored", plan.ignored.join(" "));
    for stage in &plan.stages {
        line("stage", stage.name.clone());
        for word in &stage.argv {
            line("  word", word.clone());
        }
        for (name, value) in &stage.env {
            line("  env", format!("{name}={value}"));
        }
        line("  stdin", format!("{:?}", bytes(&stage.stdin)));
        line("  memory", stage.memory.to_string());
        line("  processes", stage.processes.to_string());
        line("  cpu", stage.cpu_millis.to_string());
    }
    text
}

#[test]
fn python() {
    insta::assert_snapshot!(shown(&planned("python", "/opt/py/bin/python3.11")));
}

#[test]
fn javascript() {
    insta::assert_snapshot!(shown(&planned("javascript", "/usr/bin/node")));
}

#[test]
fn bash() {
    insta::assert_snapshot!(shown(&planned("bash", "/usr/bin/bash")));
}

#[test]
fn the_same_job_gives_the_same_plan() {
    assert_eq!(
        planned("python", "/usr/bin/python3"),
        planned("python", "/usr/bin/python3")
    );
}

#[test]
fn every_command_starts_with_an_absolute_path() {
    for language in ["python", "bash", "javascript"] {
        for stage in planned(language, "/usr/bin/x").stages {
            assert!(Path::new(&stage.argv[0]).is_absolute(), "{stage:?}");
        }
    }
}
