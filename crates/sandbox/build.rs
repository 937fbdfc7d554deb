//! Turns `src/policies/*.toml` into tables of numbers at build time, so that a
//! misspelt system call or a group without a reason fails the build, and no
//! parser runs where the server's secrets are.
//!
//! Always for every architecture: a call that only the other one has must not
//! be found missing on somebody else's machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    allow: Vec<Group>,
    when: Vec<Conditional>,
    deny: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    reason: String,
    names: Vec<String>,
    errno: Option<String>,
    #[serde(default)]
    from: Rung,
}

/// The rungs that make a difference to the filter, named as in `Isolation`.
#[derive(Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum Rung {
    #[default]
    Uids,
    Namespaces,
    Full,
}

impl Rung {
    fn code(self) -> &'static str {
        match self {
            Self::Uids => "Isolation::Uids",
            Self::Namespaces => "Isolation::Namespaces",
            Self::Full => "Isolation::Full",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conditional {
    name: String,
    reason: String,
    #[serde(default)]
    from: Rung,
    any: Vec<Vec<Condition>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    arg: u8,
    #[serde(default = "all_bits")]
    mask: u32,
    eq: Option<u32>,
    ne: Option<u32>,
    /// Holds by itself from this rung on.
    #[serde(default = "always_asked")]
    below: Option<Rung>,
}

fn always_asked() -> Option<Rung> {
    None
}

fn all_bits() -> u32 {
    u32::MAX
}

fn main() {
    println!("cargo::rerun-if-changed=src/policies");
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let text =
        std::fs::read_to_string("src/policies/default.toml").expect("the policy is readable");
    let policy: Policy = toml::from_str(&text).expect("the policy parses");
    assert!(
        ARCHITECTURES.contains(&arch.as_str()),
        "no system-call table for {arch}: add it to build.rs, and its name to seccomp.rs"
    );
    let mut tables = String::new();
    for arch in ARCHITECTURES {
        let numbers = numbers(arch);
        tables.push_str(&compile(&policy, arch, &numbers));
        tables.push_str(&names(arch, &numbers));
    }
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("policy.rs"), tables).expect("OUT_DIR is writable");
    if arch == "x86_64" {
        adopter(&Path::new(&out).join("adopt.so"));
    }
}

/// Makes the shared object that zygotes load: of `core` alone, for whatever C library
/// their interpreters have.
fn adopter(to: &Path) {
    println!("cargo::rerun-if-changed=src/sys/adopt.rs");
    println!("cargo::rerun-if-changed=src/sys/adopt/message.rs");
    println!("cargo::rerun-if-changed=src/sys/adopt/disguise.rs");
    println!("cargo::rerun-if-changed=src/sys/steps.rs");
    let rustc = std::env::var_os("RUSTC").expect("cargo sets it");
    let target = std::env::var("TARGET").expect("cargo sets it");
    #[expect(
        clippy::disallowed_methods,
        reason = "not the server's: a build script"
    )]
    let mut command = std::process::Command::new(rustc);
    command.args([
        "--edition",
        "2024",
        "--crate-type",
        "cdylib",
        "--crate-name",
        "adopt",
    ]);
    command.args(["--cfg", "adopter", "--check-cfg", "cfg(adopter)"]);
    command.args(["--target", &target]);
    for option in [
        "panic=abort",
        "opt-level=2",
        "strip=symbols",
        "codegen-units=1",
        // A shared object also where programs have their C library inside.
        "target-feature=-crt-static",
        "link-arg=-nostdlib",
        "link-arg=-nostartfiles",
        // It must need nothing of anybody else's, and call none but its own.
        "link-arg=-Wl,--no-undefined,-Bsymbolic",
    ] {
        command.args(["-C", option]);
    }
    // Those of the crate that is built are not for this one.
    command
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.arg("-o").arg(to).arg("src/sys/adopt.rs");
    let made = command.status().expect("rustc runs");
    assert!(made.success(), "src/sys/adopt.rs does not compile: {made}");
}

/// Why writing can't fail.
const TO_STRING: &str = "writing to a string";

/// Every architecture that the server is made for, as Rust names it.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Names and numbers of an architecture's system calls.
fn numbers(arch: &str) -> BTreeMap<String, u32> {
    fn table<S: std::fmt::Display>(named: fn(usize) -> Option<S>) -> BTreeMap<String, u32> {
        // Not Sysno::iter(), which leaves out the last call.
        (0..2048_u32)
            .filter_map(|number| Some((named(number as usize)?.to_string(), number)))
            .collect()
    }
    match arch {
        "x86_64" => table(syscalls::x86_64::Sysno::new),
        "aarch64" => table(syscalls::aarch64::Sysno::new),
        other => panic!("no system-call table for {other}: add it to build.rs"),
    }
}

/// What tests look calls up in.
fn names(arch: &str, numbers: &BTreeMap<String, u32>) -> String {
    let mut out = format!(
        "#[cfg(test)]\nstatic {}_NAMES: &[(&str, u32)] = &[\n",
        arch.to_uppercase()
    );
    for (name, number) in numbers {
        writeln!(out, "    (\"{name}\", {number}),").expect(TO_STRING);
    }
    out.push_str("];\n");
    out
}

fn compile(policy: &Policy, arch: &str, numbers: &BTreeMap<String, u32>) -> String {
    let mut rules: BTreeMap<u32, (String, String)> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut add = |name: &str, reason: &str, rule: String| {
        assert!(reason.len() > 3, "{name} has no reason");
        assert!(
            seen.insert(name.to_owned()),
            "{name} stands in the policy twice"
        );
        // A call of another architecture has no number here; that is no error,
        // but one that no table knows is a misspelling.
        match numbers.get(name) {
            Some(number) => drop(rules.insert(*number, (rule, format!("({name:?}, {reason:?})")))),
            None => assert!(known_elsewhere(name), "{name} is no system call"),
        }
    };
    for group in &policy.allow {
        for name in &group.names {
            let rule = format!("Rule::Allow({})", group.from.code());
            add(name, &group.reason, rule);
        }
    }
    for group in &policy.deny {
        let errno = group.errno.as_deref().unwrap_or("EPERM");
        assert!(
            matches!(errno, "EPERM" | "ENOSYS"),
            "errno {errno} is not known here"
        );
        for name in &group.names {
            add(name, &group.reason, format!("Rule::Deny(libc::{errno})"));
        }
    }
    for conditional in &policy.when {
        add(
            &conditional.name,
            &conditional.reason,
            alternatives(conditional),
        );
    }
    for name in numbers.keys() {
        assert!(
            seen.contains(name),
            "{name} of {arch} is in no group of the policy"
        );
    }
    let compiled_for = format!("#[cfg(any(test, target_arch = \"{arch}\"))]\n");
    let mut out = format!(
        "{compiled_for}static {}: &[(u32, Rule)] = &[\n",
        arch.to_uppercase()
    );
    for (number, (rule, _)) in &rules {
        writeln!(out, "    ({number}, {rule}),").expect(TO_STRING);
    }
    // In the same order: what is told of a call that was denied.
    let arch = arch.to_uppercase();
    write!(
        out,
        "];\n{compiled_for}static {arch}_ABOUT: [(&str, &str); {}] = [\n",
        rules.len()
    )
    .expect(TO_STRING);
    for (_, about) in rules.values() {
        writeln!(out, "    {about},").expect(TO_STRING);
    }
    out.push_str("];\n");
    out
}

fn alternatives(conditional: &Conditional) -> String {
    let mut out = format!("Rule::AllowIf({}, &[", conditional.from.code());
    for all in &conditional.any {
        out.push_str("&[");
        for condition in all {
            let (value, equal) = match (condition.eq, condition.ne) {
                (Some(value), None) => (value, true),
                (None, Some(value)) => (value, false),
                _ => panic!(
                    "{}: a condition has exactly one of eq and ne",
                    conditional.name
                ),
            };
            assert!(
                condition.arg < 6,
                "{}: there are six arguments",
                conditional.name
            );
            let below = match condition.below {
                Some(rung) => format!("Some({})", rung.code()),
                None => "None".to_owned(),
            };
            write!(
                out,
                "Condition {{ arg: {}, mask: {}, value: {value}, equal: {equal}, below: {below} }}, ",
                condition.arg, condition.mask
            )
            .expect(TO_STRING);
        }
        out.push_str("], ");
    }
    out.push_str("])");
    out
}

fn known_elsewhere(name: &str) -> bool {
    ARCHITECTURES
        .iter()
        .any(|arch| numbers(arch).contains_key(name))
}
