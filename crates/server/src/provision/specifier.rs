//! What may be asked for with `packages add`: a name, or a name and a version.
//!
//! Anything that an installer could take for an option, a path, an address or
//! another registry is refused before any installer sees it, and so is what is
//! no whole specifier: nothing is fetched for a slip of the pen.

/// Longest specifier, in bytes.
const LONGEST: usize = 200;

/// Endings by which installers tell files from names.
const FILES: [&str; 12] = [
    ".whl", ".tgz", ".tar", ".gz", ".bz2", ".xz", ".zip", ".tbz", ".txz", ".tlz", ".lz", ".lzma",
];

/// Whether a specifier may be given to an installer.
///
/// # Errors
/// What is wrong with it and what to give instead, a sentence.
pub fn check(spec: &str) -> Result<(), String> {
    let wrong = |why: &str| {
        Err(format!(
            "{spec:?} {why}. Give the name of a package, or a name and a version, such as polars or polars==1.9.0"
        ))
    };
    if spec.is_empty() || spec.len() > LONGEST {
        return wrong("is empty or too long");
    }
    if spec.starts_with('-') {
        return wrong("looks like an option");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@/[],<>=!~^*+".contains(c);
    if spec.contains([':', '\\']) || !spec.chars().all(allowed) {
        return wrong("is no package's name: addresses, paths and spaces are not taken");
    }
    let name = name(spec);
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let sound = match parts.as_slice() {
        [single] => plain(single),
        // A scope, as npm has them.
        [scope, inner] => scope.strip_prefix('@').is_some_and(plain) && plain(inner),
        _ => false,
    };
    let lower = spec.to_ascii_lowercase();
    if !sound || FILES.iter().any(|end| lower.ends_with(end)) {
        return wrong("is a path or a file, or no package's name");
    }
    let rest = &spec[name.len()..];
    let scoped = parts.len() == 2;
    let sound = match rest.strip_prefix('@') {
        Some(range) => is_range(range),
        None if scoped => rest.is_empty(),
        None => after_extras(rest).is_some_and(are_clauses),
    };
    if !sound {
        return wrong("has something else than extras and versions after the name");
    }
    Ok(())
}

/// Comparisons as pip has them, the longer before those that they begin with.
const COMPARISONS: [&str; 8] = ["===", "==", "~=", "!=", "<=", ">=", "<", ">"];
/// What may stand before a version for npm.
const RANGES: [&str; 7] = ["^", "~", ">=", "<=", ">", "<", "="];

/// Returns what follows `[one,two]`, which may be left out; `None` where that
/// is begun and is no list of extras.
fn after_extras(rest: &str) -> Option<&str> {
    let Some(list) = rest.strip_prefix('[') else {
        return Some(rest);
    };
    let (extras, rest) = list.split_once(']')?;
    extras.split(',').all(is_word).then_some(rest)
}

/// Says whether this is nothing, or comparisons such as `>=2,<4`.
fn are_clauses(rest: &str) -> bool {
    rest.is_empty()
        || rest.split(',').all(|clause| {
            let version = COMPARISONS
                .iter()
                .find_map(|sign| clause.strip_prefix(sign));
            version.is_some_and(is_version)
        })
}

/// Says whether this is a version, a tag, or one with a sign such as `^1`.
fn is_range(range: &str) -> bool {
    let version = RANGES.iter().find_map(|sign| range.strip_prefix(sign));
    is_version(version.unwrap_or(range))
}

/// Says whether this is a version such as `1.9.0`, `2!1.0rc1+cpu` or `1.*`.
fn is_version(version: &str) -> bool {
    is_word(version.strip_suffix(".*").unwrap_or(version))
}

/// Says whether this is letters and digits with single signs between them: it
/// begins with no hyphen or dot, and is not empty.
fn is_word(word: &str) -> bool {
    let mut parts = word.split(['.', '_', '-', '+', '!']);
    parts.all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The name in a specifier: what stands before extras and versions.
#[must_use]
pub fn name(spec: &str) -> &str {
    let after = usize::from(spec.starts_with('@'));
    let end = spec[after..].find(['[', '<', '>', '=', '!', '~', '^', '*', '@', '+', ',']);
    end.map_or(spec, |at| &spec[..after + at])
}

/// By what two names are the same package: case, dots and underscores do not tell.
#[must_use]
pub fn key(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_versions_are_taken() {
        for (spec, expected) in [
            ("polars", "polars"),
            ("polars==1.9.0", "polars"),
            ("Flask[async]>=2,<4", "Flask"),
            ("zope.interface~=6.0", "zope.interface"),
            ("left-pad@1.3.0", "left-pad"),
            ("left-pad@^1", "left-pad"),
            ("@types/node@latest", "@types/node"),
            ("@types/node", "@types/node"),
            ("x==1.0+cpu", "x"),
            ("x[a,b-c]", "x"),
            ("x!=2!1.0rc1,===3", "x"),
            ("x==1.*", "x"),
            ("x@>=1.2.3-beta.1", "x"),
            ("@a/b@~1.x", "@a/b"),
        ] {
            check(spec).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(name(spec), expected);
        }
        assert_eq!(key("Zope.Interface_x"), "zope-interface-x");
    }

    #[test]
    fn everything_else_is_refused() {
        for spec in [
            "",
            "-r",
            "--index-url=x",
            "-e.",
            ".",
            "..",
            "./dir",
            "/etc",
            "../x",
            "a/b",
            "user/repo@1",
            "a@b/c",
            "@a/b/c",
            "@a/b@c/d",
            "@/b",
            "@a/",
            "@a",
            "git+https://example.com/x",
            "https://example.com/x.whl",
            "file:x",
            "a@npm:b",
            "a @ b",
            "a@.",
            "a@..",
            "a@.x",
            "@a/b@.",
            "a==.",
            "x.tar.bz2",
            "x.tbz",
            "x.TLZ",
            "x.tar.lzma",
            "a b",
            "a;b",
            "a\nb",
            "a\0",
            "a$(id)",
            "ä",
            "x.whl",
            "x.tar.gz",
            "X.TGZ",
            "==1.0",
            "a\\b",
            &"a".repeat(201),
        ] {
            refuse(spec);
        }
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        for spec in [
            "a.", "a-", "a*", "a,", "a[", "a]", "a[]", "a[b", "a[b,]", "a[-b]", "a[b]c", "a[b]@1",
            "a@^", "a@", "a@-g", "a@*", "a@1@2", "a^1", "a+b", "a,--pre", "a>=1,-r", "a>=1,",
            "a>=1,,<2", "a>=", "a=1", "a==--x", "a==-x", "a==1-", "a==1..2", "a==1.*.*", "a==*",
            "@a/b==1", "@a/b[c]",
        ] {
            refuse(spec);
        }
    }

    #[track_caller]
    fn refuse(spec: &str) {
        let refused = check(spec).expect_err(spec);
        assert!(refused.contains("Give the name of a package"), "{refused}");
    }

    proptest! {
        #[test]
        fn nothing_that_passes_can_be_an_option_a_path_or_an_address(spec in ".{0,40}") {
            if check(&spec).is_ok() {
                prop_assert!(!spec.starts_with(['-', '.', '/', '=']));
                prop_assert!(!spec.contains([' ', ':', '\n', '\\', '#', ';', '"', '\'']));
                prop_assert!(!spec.contains('/') || spec.starts_with('@'));
                prop_assert!(spec.starts_with(name(&spec)));
                prop_assert!(!name(&spec).is_empty());
            }
        }

        #[test]
        fn no_part_of_what_passes_is_an_option(spec in "[ab1@\\[\\],<>=!~^*+._-]{1,12}") {
            if check(&spec).is_ok() {
                let parts = spec.split([',', '<', '>', '=', '~', '^', '@', '[', ']']);
                for part in parts {
                    prop_assert!(!part.starts_with(['-', '.', '*', '+']), "{}", spec);
                }
                let last = spec.strip_suffix(']').or(spec.strip_suffix(".*")).unwrap_or(&spec);
                prop_assert!(last.ends_with(|c: char| c.is_ascii_alphanumeric()), "{}", spec);
            }
        }
    }
}
