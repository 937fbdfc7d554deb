//! Who is calling: bearer tokens against the store. Never logs a token.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::Owner;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

/// A caller that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The id of the key: what the caller has and uses is counted by it. A
    /// name would not do, since it can be used again.
    pub id: Owner,
    /// The name of the key, for people and logs; `open` in open mode.
    pub name: String,
    /// What the caller may do.
    pub scopes: Vec<Scope>,
}

impl Principal {
    /// Returns the one caller of open mode, who stands for all. No key can
    /// have its id or its name.
    #[must_use]
    pub fn open() -> Self {
        Self {
            id: Owner::new(OPEN),
            name: OPEN.to_owned(),
            scopes: Scope::DEFAULT.to_vec(),
        }
    }

    /// Returns whoever started this very process, and speaks to it by its
    /// standard input. No key can have its id.
    #[must_use]
    pub fn local() -> Self {
        Self {
            id: Owner::new("local"),
            name: "local".to_owned(),
            scopes: Scope::DEFAULT.to_vec(),
        }
    }

    /// Returns a member of a group that shares the caller's key: what members
    /// have and use is counted apart.
    #[must_use]
    pub fn member(mut self, id: &str) -> Self {
        self.id = Owner::new(&format!("{}/{id}", self.key()));
        self
    }

    /// Returns the id of the key, by which it is found and revoked.
    #[must_use]
    pub fn key(&self) -> &str {
        let id = self.id.as_str();
        id.split_once('/').map_or(id, |(key, _)| key)
    }

    /// Checks that the caller has a scope.
    ///
    /// # Errors
    /// [`Denied::Forbidden`] when it has not.
    pub fn check(&self, scope: Scope) -> Result<(), Denied> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Denied::Forbidden { scope })
    }
}

/// Why a caller was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// No `Authorization: Bearer …` header.
    Missing,
    /// The token is unknown or revoked.
    Unknown,
    /// The token exists but may not do this.
    Forbidden {
        /// The scope that is missing.
        scope: Scope,
    },
}

/// What a token may do. No scope includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Run code and read the files that it left.
    Execute,
    /// Keep programs and files between runs.
    Sessions,
    /// Delete files, and change those of a session.
    Files,
    /// Run code in the background.
    Jobs,
    /// Have others told of runs.
    Hooks,
    /// Read what ran before.
    History,
    /// Read the server's metrics.
    Metrics,
    /// Whatever concerns other people's keys.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 8] = [
        Self::Execute,
        Self::Sessions,
        Self::Files,
        Self::Jobs,
        Self::Hooks,
        Self::History,
        Self::Metrics,
        Self::Admin,
    ];

    /// The scopes of a new token: all but `admin`.
    pub const DEFAULT: [Self; 7] = [
        Self::Execute,
        Self::Sessions,
        Self::Files,
        Self::Jobs,
        Self::Hooks,
        Self::History,
        Self::Metrics,
    ];

    /// Returns the word on the command line and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Sessions => "sessions",
            Self::Files => "files",
            Self::Jobs => "jobs",
            Self::Hooks => "hooks",
            Self::History => "history",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == word)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join(", ");
                format!("unknown scope {word:?}; use one of {known}")
            })
    }
}

/// The name that stands for everybody in open mode.
const OPEN: &str = "open";
/// What every token begins with, so that secret scanners and people know it.
const MARK: &str = "codex_";
/// Random bytes in a token.
const SECRET: usize = 32;
/// Length of their base64url form.
const SECRET_TEXT: usize = 43;
/// Characters of a token that are kept to tell tokens apart.
const PREFIX: usize = MARK.len() + 4;
/// Longest key name.
const NAME_LIMIT: usize = 64;

/// A bearer token. Shows itself only to who asks with [`Token::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one from the kernel's randomness.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET];
        getrandom::fill(&mut secret)?;
        Ok(Self(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(secret))))
    }

    /// The token in what a client sent; `None` when it cannot be one, which
    /// spares the database the noise of the internet.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let secret = text.strip_prefix(MARK)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (secret.len() == SECRET_TEXT && secret.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    /// The token itself, to be shown once or sent.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is shown to tell tokens apart: the mark and four characters.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0[..PREFIX]
    }

    /// What is stored: SHA-256 in lower-case hex. A token has 256 random
    /// bits, so a slow hash would add nothing but load.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(self.0.as_bytes()) {
            write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        }
        hex
    }

    /// Whether this token has that hash, in constant time.
    #[must_use]
    pub fn matches(&self, hash: &str) -> bool {
        self.hash().as_bytes().ct_eq(hash.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}…)", self.prefix())
    }
}

/// Checks the name of a key: it stands in log lines and tables.
///
/// # Errors
/// Says what a name may be.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let begins_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !begins_well || name.len() > NAME_LIMIT || !name.bytes().all(plain) {
        return Err(format!(
            "{name:?} cannot name a token: use 1 to {NAME_LIMIT} letters, digits, dots, hyphens and underscores, beginning with a letter or digit"
        ));
    }
    if name == OPEN {
        return Err(format!(
            "{OPEN:?} is the name that logs give to callers without a token; choose another"
        ));
    }
    if name.starts_with(MARK) {
        return Err(
            "this looks like a token, not like a name; choose a name such as laptop or chatgpt"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_are_long_and_different() {
        let (a, b) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.reveal().len(), MARK.len() + SECRET_TEXT);
        assert_eq!(Token::parse(a.reveal()), Some(a.clone()));
        assert!(a.matches(&a.hash()) && !a.matches(&b.hash()) && !a.matches(""));
        assert_eq!(a.hash().len(), 64);
        assert!(!format!("{a:?}").contains(a.reveal()));
    }

    #[test]
    fn scopes_have_one_word_each() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        let unknown = "root".parse::<Scope>().expect_err("no such scope");
        assert!(unknown.contains("execute, sessions, files"), "{unknown}");
        let mut expected = Scope::ALL.to_vec();
        expected.retain(|scope| *scope != Scope::Admin);
        assert_eq!(Scope::DEFAULT.to_vec(), expected);
    }

    #[test]
    fn a_caller_may_what_its_scopes_say() {
        let open = Principal::open();
        assert_eq!(open.check(Scope::Execute), Ok(()));
        let scope = Scope::Admin;
        assert_eq!(open.check(scope), Err(Denied::Forbidden { scope }));
    }

    #[test]
    fn the_hash_is_sha_256() {
        let token = Token(String::from("abc"));
        assert_eq!(
            token.hash(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn what_is_no_token() {
        let check = |text: &str| assert_eq!(Token::parse(text), None, "{text}");
        let secret = "A".repeat(SECRET_TEXT);
        check("");
        check("codex_");
        check(&secret);
        check(&format!("codex_{secret}A"));
        check(&format!("codex_{}", "A".repeat(SECRET_TEXT - 1)));
        check(&format!("codex_{}é", "A".repeat(SECRET_TEXT - 2)));
        check(&format!(" codex_{secret}"));
        check(&format!("CODEX_{secret}"));
    }

    #[test]
    fn names() {
        let check = |name: &str, good: bool| assert_eq!(check_name(name).is_ok(), good, "{name}");
        check("default", true);
        check("chatgpt-2.prod_x", true);
        check("7", true);
        check(&"a".repeat(64), true);
        for wrong in [
            "",
            "-x",
            ".x",
            "a b",
            "a\nb",
            "é",
            "open",
            "codex_abc",
            "../x",
            "a;b",
        ] {
            check(wrong, false);
        }
        check(&"a".repeat(65), false);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            if let Some(token) = Token::parse(&text) {
                prop_assert!(!token.prefix().is_empty());
            }
            if check_name(&text).is_ok() {
                prop_assert!(text.is_ascii() && (1..=NAME_LIMIT).contains(&text.len()));
            }
        }
    }
}
