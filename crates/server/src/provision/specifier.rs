//! What may be asked for with `packages add`: a name, or a name and a version.
//!
//! Anything that an installer could take for an option, a path, an address or
//! another registry is refused before any installer sees it.

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
    // To npm `a@.` is a directory.
    let version = spec[name.len()..].trim_start_matches(['@', '=', '<', '>', '~', '^', '!']);
    if version.starts_with('.') {
        return wrong("names a path for a version");
    }
    let lower = spec.to_ascii_lowercase();
    if !sound || spec[name.len()..].contains('/') || FILES.iter().any(|end| lower.ends_with(end)) {
        return wrong("is a path or a file, or no package's name");
    }
    Ok(())
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
            let refused = check(spec).expect_err(spec);
            assert!(refused.contains("Give the name of a package"), "{refused}");
        }
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
    }
}
