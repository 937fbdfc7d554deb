//! The text that a client signs to show that it is the one: a JWT (RFC 7519) of the
//! profile that RFC 7523 gives it. Pure. What it says of its own signature is never
//! believed: the client's document says how it signs and whose keys count.

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::keys::{Algorithm, PublicKey, decode};

/// The kind of an assertion, as a request names it (RFC 7523, 2.2).
pub(crate) const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Bytes of an assertion.
const BYTES: usize = 8 * 1024;

/// How far the client's clock may be from this server's, in milliseconds.
const SKEW: i64 = 60 * 1000;

/// How long an assertion may be good, in milliseconds.
const LONGEST: i64 = 10 * 60 * 1000;

/// How long an assertion is remembered: none is good for longer.
pub(crate) const REMEMBERED: i64 = LONGEST + SKEW;

/// An assertion, read but not checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assertion<'a> {
    /// What was signed.
    message: &'a str,
    algorithm: Algorithm,
    key_id: Option<String>,
    claims: Map<String, Value>,
    signature: Vec<u8>,
}

impl<'a> Assertion<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// In words for the log, when it is none, or wants what is not given here.
    pub(crate) fn read(text: &'a str) -> Result<Self, &'static str> {
        if text.len() > BYTES {
            return Err("it is longer than 8 KiB");
        }
        let (message, signature) = text.rsplit_once('.').ok_or("it has no signature")?;
        let (header, claims) = message.split_once('.').ok_or("it has no header")?;
        let header = members(header).ok_or("its header cannot be read")?;
        let claims = members(claims).ok_or("its claims cannot be read")?;
        let signature = decode(signature).ok_or("its signature cannot be read")?;
        let algorithm = header.get("alg").and_then(Algorithm::read);
        let algorithm = algorithm.ok_or("its algorithm is not RS256 or ES256")?;
        if header.contains_key("crit") {
            return Err("it has extensions that must be understood");
        }
        let is_jwt = |kind: &Value| {
            kind.as_str()
                .is_some_and(|text| text.eq_ignore_ascii_case("JWT"))
        };
        if !header.get("typ").is_none_or(is_jwt) {
            return Err("it is another kind of token");
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(id) => Some(id.as_str().ok_or("its kid is no text")?.to_owned()),
        };
        Ok(Self {
            message,
            algorithm,
            key_id,
            claims,
            signature,
        })
    }

    /// Returns the client that it says it is of.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }

    /// Returns the id of the key that it says it was signed with.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Checks what it says, but for its signature: that it is a client's, for one of
    /// some audiences, and good at a time, in milliseconds since 1970. Returns its id.
    ///
    /// # Errors
    /// In words for the log.
    pub(super) fn check(
        &self,
        client: &str,
        audiences: &[&str],
        now: i64,
    ) -> Result<&str, &'static str> {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(client) || text("sub") != Some(client) {
            return Err("it is not of the client that asks");
        }
        let is_us = |one: &Value| audiences.iter().any(|audience| one == audience);
        let for_us = match self.claims.get("aud") {
            Some(Value::Array(several)) => several.iter().any(is_us),
            Some(one) => is_us(one),
            None => false,
        };
        if !for_us {
            return Err("it is for another server");
        }
        let now = seconds(now);
        let ends = self.claims.get("exp").and_then(Value::as_f64);
        let ends = ends.ok_or("it has no end")?;
        if ends <= now {
            return Err("its time is over");
        }
        if ends > now + seconds(REMEMBERED) {
            return Err("it is good for longer than 10 minutes");
        }
        for begins in ["iat", "nbf"] {
            let Some(begins) = self.claims.get(begins) else {
                continue;
            };
            let begins = begins.as_f64().ok_or("its beginning is no time")?;
            if begins > now + seconds(SKEW) {
                return Err("its time has not come");
            }
        }
        let id = text("jti").filter(|id| !id.is_empty());
        id.ok_or("it has no id")
    }

    /// Checks its signature with a key of the client that asks, which signs by an
    /// algorithm and no other.
    ///
    /// # Errors
    /// In words for the log.
    pub(super) fn verify(&self, algorithm: Algorithm, key: &PublicKey) -> Result<(), &'static str> {
        if self.algorithm != algorithm {
            return Err("its algorithm is not the one of the client's document");
        }
        if !key.verifies(algorithm, self.message.as_bytes(), &self.signature) {
            return Err("its signature is not good");
        }
        Ok(())
    }
}

/// Returns milliseconds as seconds, in which assertions count.
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// Reads a part that is a JSON object with each name once: two readers could choose
/// different ones.
fn members(part: &str) -> Option<Map<String, Value>> {
    let read: Members = serde_json::from_slice(&decode(part)?).ok()?;
    Some(read.0)
}

/// The members of an object whose names differ.
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut read: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = read.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name comes twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        reader.deserialize_map(Once)
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
pub(super) mod tests;
