//! What is given out once and kept as a hash alone: codes, tokens, secrets and
//! ids. A prefix tells the kinds from each other and from the server's own tokens.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Random bytes.
const BYTES: usize = 32;

/// The kind of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opens `/mcp` for a while.
    Access,
    /// Gives the next access token.
    Refresh,
    /// Is exchanged for tokens once.
    Code,
    /// Shows that a client is the one.
    ClientSecret,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Access => "codex_at_",
            Self::Refresh => "codex_rt_",
            Self::Code => "codex_ac_",
            Self::ClientSecret => "codex_cs_",
        }
    }
}

/// A secret. Never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Makes a new one.
    ///
    /// # Errors
    /// When the kernel gives no randomness.
    pub(crate) fn generate(kind: Kind) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self::of(kind, &bytes))
    }

    /// Returns the one of a kind that has these bytes.
    pub(crate) fn of(kind: Kind, bytes: &[u8; BYTES]) -> Self {
        Self(format!(
            "{}{}",
            kind.prefix(),
            URL_SAFE_NO_PAD.encode(bytes)
        ))
    }

    /// Returns the secret itself, to be sent once.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns its hash.
    pub(crate) fn hash(&self) -> String {
        hash(&self.0)
    }
}

/// Says whether a text can be a secret of a kind.
pub(crate) fn is(kind: Kind, text: &str) -> bool {
    let rest = text.strip_prefix(kind.prefix());
    rest.is_some_and(|rest| rest.len() == 43 && rest.bytes().all(is_base64url))
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Returns what is kept of a secret: SHA-256 in lower-case hex.
pub(crate) fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns S256 of a verifier of PKCE (RFC 7636, 4.2).
pub(crate) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// Says whether a text can be a challenge that S256 made.
pub(crate) fn is_challenge(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(is_base64url)
}

/// Says whether a text can be a verifier (RFC 7636, 4.1).
pub(crate) fn is_verifier(text: &str) -> bool {
    let good = |byte: u8| is_base64url(byte) || matches!(byte, b'.' | b'~');
    (43..=128).contains(&text.len()) && text.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_never_pass_as_another() {
        let kinds = [Kind::Access, Kind::Refresh, Kind::Code, Kind::ClientSecret];
        for one in kinds {
            let secret = Secret::generate(one).expect("randomness");
            for other in kinds {
                assert_eq!(is(other, secret.reveal()), one == other);
            }
            assert_eq!(crate::auth::Token::parse(secret.reveal()), None);
            assert!(!format!("{secret:?}").contains(secret.reveal()));
            assert_eq!(secret.hash().len(), 64);
        }
        assert!(!is(Kind::Access, "codex_at_x") && !is(Kind::Access, ""));
    }

    #[test]
    fn pkce_is_that_of_its_specification() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let expected = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(challenge(verifier), expected);
        assert!(is_challenge(expected) && is_verifier(verifier));
        for bad in [
            "",
            &"a".repeat(42),
            &"a".repeat(129),
            &format!("{}=", "a".repeat(43)),
        ] {
            assert!(!is_verifier(bad), "{bad}");
        }
        for bad in ["", &"a".repeat(44), &format!("{}=", "a".repeat(42))] {
            assert!(!is_challenge(bad), "{bad}");
        }
    }
}
