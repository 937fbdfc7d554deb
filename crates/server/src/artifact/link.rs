//! Signed, expiring links to artifacts.
//!
//! A signature is HMAC-SHA256 over the artifact's id, its name and the second
//! at which the link ends, with a key of this server alone. The key is made
//! once, kept in a file of mode 0600 in the data directory, and never logged.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::data_dir;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Id, OpenError};
use crate::media::percent;

/// Name of the key's file in the data directory.
const KEY_FILE: &str = "artifact.key";

/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// Characters of a signature.
const SIGNATURE_CHARS: usize = 43;

/// Digits of a time that a link may name; enough for thousands of years.
const DIGITS: usize = 12;

/// What is signed begins with this, so that no other use of the key can ever
/// make a signature that is good here.
const PURPOSE: &[u8] = b"codex-server artifact link 1\0";

/// The server's own signing key. Never shows itself.
#[derive(Clone)]
pub(super) struct SigningKey([u8; KEY_BYTES]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// What the query of a link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// When the link ends, in seconds since 1970.
    pub expires: u64,
    bytes: Vec<u8>,
}

/// Why a link opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadLink {
    /// This server never signed it for this file.
    Forged,
    /// It was good once.
    Expired,
}

impl Signature {
    /// Reads `expires=SECONDS&signature=TEXT`, in either order, however it is
    /// percent-encoded, and among whatever chats and mails add to links: that is not
    /// signed, and says nothing. `None` for what this server would never write.
    #[must_use]
    pub fn parse(query: &str) -> Option<Self> {
        let (mut expires, mut signature) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            // Copied out of HTML, the second name keeps the end of `&amp;`.
            let slot = match name.strip_prefix("amp;").unwrap_or(&name) {
                "expires" => &mut expires,
                "signature" => &mut signature,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let (expires, signature) = (expires?, signature?);
        let plain = (1..=DIGITS).contains(&expires.len())
            && expires.bytes().all(|b| b.is_ascii_digit())
            && !expires.starts_with('0');
        if !plain || signature.len() != SIGNATURE_CHARS {
            return None;
        }
        Some(Self {
            expires: expires.parse().ok()?,
            bytes: URL_SAFE_NO_PAD.decode(signature.as_bytes()).ok()?,
        })
    }
}

impl SigningKey {
    /// Not secret: what is signed with it opens nothing anywhere.
    #[cfg(any(test, fuzzing))]
    pub(super) fn fixed() -> Self {
        Self([7; KEY_BYTES])
    }

    /// The key in `home`, made there the first time.
    pub(super) fn open(home: &Path) -> Result<Self, OpenError> {
        let path = home.join(KEY_FILE);
        let failed = |step| {
            let path = path.clone();
            move |source| OpenError { step, path, source }
        };
        match data_dir::open(&path, OpenOptions::new().read(true)) {
            Ok(file) => read(&file).map_err(failed("read the signing key")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(home, &path).map_err(failed("make the signing key"))
            }
            Err(error) => Err(failed("open the signing key")(error)),
        }
    }

    fn mac(&self, id: Id, name: &str, expires: u64) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(PURPOSE);
        // Of fixed length, so no two different triples make the same bytes.
        mac.update(id.to_string().as_bytes());
        mac.update(&expires.to_be_bytes());
        mac.update(name.as_bytes());
        mac
    }

    /// Returns what the key makes of data for another purpose, which must be
    /// nobody else's.
    pub(super) fn derive(&self, purpose: &[u8], data: &[u8]) -> [u8; KEY_BYTES] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(purpose);
        mac.update(data);
        mac.finalize().into_bytes().into()
    }

    /// The path and query of a link, beginning with a slash.
    pub(super) fn link(&self, id: Id, name: &str, expires: u64) -> String {
        let signature = self.mac(id, name, expires).finalize().into_bytes();
        format!(
            "/artifacts/{id}/{}?expires={expires}&signature={}",
            percent(name),
            URL_SAFE_NO_PAD.encode(signature)
        )
    }

    /// Checks a link in constant time; `now` in seconds since 1970. That a
    /// link has ended is told only of one that was good.
    pub(super) fn check(
        &self,
        id: Id,
        name: &str,
        signature: &Signature,
        now: u64,
    ) -> Result<(), BadLink> {
        let mac = self.mac(id, name, signature.expires);
        mac.verify_slice(&signature.bytes)
            .map_err(|_| BadLink::Forged)?;
        if now >= signature.expires {
            return Err(BadLink::Expired);
        }
        Ok(())
    }
}

fn read(file: &File) -> io::Result<SigningKey> {
    data_dir::make_private(file)?;
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let key = bytes.try_into().map_err(|_| {
        io::Error::other("it is not a key of 32 bytes; remove it, and a new one is made")
    })?;
    Ok(SigningKey(key))
}

/// Makes the key whole under another name first: a crash leaves no half of it.
fn make(home: &Path, path: &Path) -> io::Result<SigningKey> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let draft = home.join(format!("{KEY_FILE}.new"));
    if let Err(error) = std::fs::remove_file(&draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = data_dir::open(&draft, OpenOptions::new().write(true).create_new(true))?;
    file.write_all(&key)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    Ok(SigningKey(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    const KEY: SigningKey = SigningKey([7; KEY_BYTES]);
    const ID: Id = Id([1; 16]);

    fn signature_of(link: &str) -> Signature {
        let (_, query) = link.split_once('?').expect("a query");
        Signature::parse(query).expect("our own link")
    }

    #[test]
    fn a_link_opens_its_own_file_for_its_own_time() {
        let link = KEY.link(ID, "plot 1.png", 2_000);
        assert!(link.starts_with(
            "/artifacts/01010101010101010101010101010101/plot%201.png?expires=2000&signature="
        ));
        let good = signature_of(&link);
        let later = Signature {
            expires: 9_000,
            ..good.clone()
        };
        let mut bent = good.clone();
        bent.bytes[0] ^= 1;
        let short = Signature {
            bytes: good.bytes[..31].to_vec(),
            ..good.clone()
        };
        let empty = Signature {
            bytes: Vec::new(),
            ..good.clone()
        };
        let other = SigningKey([8; KEY_BYTES]);
        let forged = Err(BadLink::Forged);
        for (key, id, name, signature, now, expected) in [
            (&KEY, ID, "plot 1.png", &good, 1_999, Ok(())),
            (&KEY, ID, "plot 1.png", &good, 2_000, Err(BadLink::Expired)),
            (&KEY, ID, "plot 1.png", &later, 1_999, forged),
            (&KEY, ID, "plot 1.png", &bent, 1_999, forged),
            (&KEY, ID, "plot 1.png", &bent, 3_000, forged),
            (&KEY, ID, "plot 1.png", &short, 1_999, forged),
            (&KEY, ID, "plot 1.png", &empty, 1_999, forged),
            (&KEY, ID, "plot 2.png", &good, 1_999, forged),
            (&KEY, ID, "", &good, 1_999, forged),
            (&KEY, Id([2; 16]), "plot 1.png", &good, 1_999, forged),
            (&other, ID, "plot 1.png", &good, 1_999, forged),
        ] {
            assert_eq!(
                key.check(id, name, signature, now),
                expected,
                "{name} {now}"
            );
        }
    }

    #[test]
    fn only_queries_of_our_own_making_are_read() {
        let text = "A".repeat(SIGNATURE_CHARS);
        let check = |query: &str, good: bool| {
            assert_eq!(Signature::parse(query).is_some(), good, "{query}");
        };
        check(&format!("expires=2000&signature={text}"), true);
        check(&format!("signature={text}&expires=2000"), true);
        for more in [
            "&x=1",
            "&",
            "&&",
            "&utm_source=chatgpt.com",
            "&fbclid=IwAR0",
            "&x",
            "&=",
            "#a",
        ] {
            let good = more != "#a";
            check(&format!("expires=2000&signature={text}{more}"), good);
            check(
                &format!(
                    "{}&expires=2000&signature={text}",
                    more.trim_start_matches('&')
                ),
                true,
            );
        }
        check(&format!("expires=2000&amp;signature={text}"), true);
        check(
            &format!("expires=2000&signature={}", text.replace('A', "%41")),
            true,
        );
        check(&format!("%65xpires=2000&signature={text}"), true);
        check(
            &format!("expires=2000&signature={text}&amp;signature={text}"),
            false,
        );
        check(
            &format!("expires=2000&expires=2000&signature={text}"),
            false,
        );
        check(&format!("expires=02000&signature={text}"), false);
        check(&format!("expires=%32000&signature={text}"), true);
        check(&format!("expires=+2000&signature={text}"), false);
        check(&format!("expires=-1&signature={text}"), false);
        check(&format!("expires=&signature={text}"), false);
        check(
            &format!("expires=99999999999999999999&signature={text}"),
            false,
        );
        check(&format!("expires=2000&signature={text}A"), false);
        check(
            &format!("expires=2000&signature={}", "=".repeat(SIGNATURE_CHARS)),
            false,
        );
        check(&format!("signature={text}"), false);
        check("expires=2000", false);
        check("", false);
    }

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let home = tempfile::tempdir().expect("a directory");
        let first = SigningKey::open(home.path()).expect("made");
        let again = SigningKey::open(home.path()).expect("read");
        assert_eq!(first.0, again.0);
        assert_ne!(first.0, [0; KEY_BYTES]);
        let path = home.path().join(KEY_FILE);
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(format!("{first:?}"), "SigningKey(…)");
        std::fs::write(&path, b"short").expect("written");
        let error = SigningKey::open(home.path()).expect_err("no key");
        assert!(error.source.to_string().contains("remove it"), "{error}");
    }

    proptest! {
        #[test]
        fn no_query_panics_or_opens_anything(query in "[a-z=&0-9A-Z_%.-]{0,90}") {
            if let Some(signature) = Signature::parse(&query) {
                prop_assert_eq!(KEY.check(ID, "a", &signature, 0), Err(BadLink::Forged));
            }
        }
    }
}
