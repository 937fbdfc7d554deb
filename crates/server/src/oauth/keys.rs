//! The public keys with which a client by document signs. Pure: reads them out of
//! documents and key sets, and checks signatures with them. What a key set says of
//! itself is a stranger's word; a key that is not clearly good counts as not there.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::clients::address;

/// Keys of a client that are good.
const MOST: usize = 16;

/// Bytes of a key's id.
const ID_BYTES: usize = 256;

/// Bits of an RSA modulus, at least and at most.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Bytes of an RSA exponent, and of a coordinate on P-256.
const EXPONENT_BYTES: usize = 4;
const COORDINATE_BYTES: usize = 32;

/// The way in which a client signs: what its document says, never what it signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Algorithm {
    /// RSA of PKCS #1 1.5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
}

impl Algorithm {
    /// All, the usual one first.
    pub(crate) const ALL: [Self; 2] = [Self::Rs256, Self::Es256];

    /// Returns its word in the protocol.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    /// Reads its word.
    pub(super) fn read(word: &Value) -> Option<Self> {
        Self::ALL.into_iter().find(|one| word == one.as_str())
    }
}

/// The keys of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientKeys {
    /// How it signs.
    pub(super) algorithm: Algorithm,
    /// Where its key set is; nothing where its document holds it.
    pub(super) address: Option<String>,
    /// The key set as it was last read.
    pub(super) set: Vec<PublicKey>,
    /// Until when the set is good without being fetched again, in milliseconds since
    /// 1970.
    pub(super) fresh_until: i64,
}

impl ClientKeys {
    /// Reads what a client's document says of its keys. A key set that is elsewhere
    /// is empty until it is fetched.
    ///
    /// # Errors
    /// In words, when it has no keys that this server could use.
    pub(super) fn of_document(
        id: &str,
        members: &Map<String, Value>,
    ) -> Result<Self, &'static str> {
        let algorithm = match members.get("token_endpoint_auth_signing_alg") {
            None | Some(Value::Null) => Algorithm::Rs256,
            Some(word) => Algorithm::read(word)
                .ok_or("token_endpoint_auth_signing_alg must be RS256 or ES256")?,
        };
        let (address, set) = match (members.get("jwks_uri"), members.get("jwks")) {
            (Some(uri), None) => (Some(beside(id, uri)?), Vec::new()),
            (None, Some(jwks)) => (None, read_set(jwks, algorithm)?),
            _ => return Err("a client that signs has either jwks_uri or jwks"),
        };
        if address.is_none() && set.is_empty() {
            return Err("jwks holds no key for token_endpoint_auth_signing_alg");
        }
        Ok(Self {
            algorithm,
            address,
            set,
            fresh_until: 0,
        })
    }

    /// Takes over what was fetched before, where the key set is at the same address.
    pub(super) fn carry_over(&mut self, old: Self) {
        let same = self.algorithm == old.algorithm && self.address == old.address;
        if same && self.address.is_some() {
            *self = old;
        }
    }

    /// Returns the key of an id: the first, where two have it. Who names none means
    /// the only one that there is.
    pub(super) fn named(&self, id: Option<&str>) -> Option<&PublicKey> {
        match (id, self.set.as_slice()) {
            (Some(_), set) => set.iter().find(|key| key.id.as_deref() == id),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

/// Reads the address of a key set, which must be on the host of the document: nobody
/// else says who the client is.
fn beside(id: &str, uri: &Value) -> Result<String, &'static str> {
    let uri = uri.as_str().ok_or("jwks_uri is no text")?;
    address(uri)
        .map_err(|_| "jwks_uri must be https, at a host name, with a path and nothing else")?;
    // Each has one spelling, so that their beginnings are all there is to compare.
    let origin = Url::parse(id).map(|id| id.origin().ascii_serialization());
    let rest = origin.ok().and_then(|origin| uri.strip_prefix(&origin));
    if !rest.is_some_and(|rest| rest.starts_with('/')) {
        return Err("jwks_uri must have the origin of the document");
    }
    Ok(uri.to_owned())
}

/// Reads the keys of a key set that are good for an algorithm.
///
/// # Errors
/// In words, when it is none, or holds too many.
pub(super) fn read_set(jwks: &Value, algorithm: Algorithm) -> Result<Vec<PublicKey>, &'static str> {
    let keys = jwks.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or("a key set must hold keys")?;
    let good = keys
        .iter()
        .filter_map(|key| PublicKey::read(key, algorithm));
    let good: Vec<PublicKey> = good.take(MOST + 1).collect();
    if good.len() > MOST {
        return Err("a key set must hold at most 16 keys for signatures");
    }
    Ok(good)
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublicKey {
    id: Option<String>,
    /// Modulus and exponent, or the two coordinates, as the key set writes them.
    parts: [String; 2],
}

impl PublicKey {
    /// Reads a JWK (RFC 7517); nothing where it is not good for an algorithm.
    fn read(jwk: &Value, algorithm: Algorithm) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let absent_or = |name: &str, word: &str| jwk.get(name).is_none_or(|value| value == word);
        let operations = jwk.get("key_ops").and_then(Value::as_array);
        let verifies = jwk.get("key_ops").is_none()
            || operations.is_some_and(|words| words.iter().any(|word| word == "verify"));
        // Whoever can read the other half can sign as well.
        let is_public = jwk.get("d").is_none();
        if !absent_or("alg", algorithm.as_str())
            || !absent_or("use", "sig")
            || !verifies
            || !is_public
        {
            return None;
        }
        let (kind, names) = match algorithm {
            Algorithm::Rs256 => ("RSA", ["n", "e"]),
            Algorithm::Es256 => ("EC", ["x", "y"]),
        };
        if text("kty") != Some(kind) {
            return None;
        }
        let [first, second] = names.map(|name| text(name).unwrap_or_default());
        let lengths = (decode(first)?, decode(second)?);
        let is_good = match (algorithm, &lengths) {
            (Algorithm::Rs256, (modulus, exponent)) => {
                RSA_BITS.contains(&bits(modulus)) && (1..=EXPONENT_BYTES).contains(&exponent.len())
            }
            (Algorithm::Es256, (x, y)) => {
                text("crv") == Some("P-256")
                    && x.len() == COORDINATE_BYTES
                    && y.len() == COORDINATE_BYTES
            }
        };
        let id = match jwk.get("kid") {
            None => None,
            Some(id) => Some(id.as_str().filter(|id| id.len() <= ID_BYTES)?.to_owned()),
        };
        is_good.then(|| Self {
            id,
            parts: [first.to_owned(), second.to_owned()],
        })
    }

    /// Says whether the key's owner signed a message.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let [first, second] = self.parts.each_ref().map(|part| decode(part));
        let (Some(first), Some(second)) = (first, second) else {
            return false;
        };
        let verified = match algorithm {
            Algorithm::Rs256 => {
                let key = RsaPublicKeyComponents {
                    n: &first,
                    e: &second,
                };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Algorithm::Es256 => {
                // A point that is not compressed (SEC 1, 2.3.3).
                let point = [&[4], first.as_slice(), &second].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

/// Reads base64url in its one spelling, without padding.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Returns how many bits a number has; none where zeros stand before it.
fn bits(number: &[u8]) -> usize {
    match number.first() {
        None | Some(0) => 0,
        Some(first) => number.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "https://x.example/client.json";

    fn number(bytes: usize, first: u8) -> String {
        let mut number = vec![0xff; bytes];
        number[0] = first;
        URL_SAFE_NO_PAD.encode(number)
    }

    #[test]
    fn keys_are_good_or_not_there() {
        let rsa = json!({"kty": "RSA", "kid": "a", "n": number(256, 0x80), "e": "AQAB"});
        let ec = json!({"kty": "EC", "crv": "P-256", "kid": "a", "x": number(32, 0), "y": number(32, 1)});
        let check = |algorithm, whole: &Value, name: &str, value: Value, good: bool| {
            let mut key = whole.clone();
            key[name] = value;
            let read = read_set(&json!({"keys": [key]}), algorithm).expect("a set");
            assert_eq!(read.len(), usize::from(good), "{name} of {key}");
        };
        for (name, value, good) in [
            ("x", json!(1), true),
            ("use", json!("sig"), true),
            ("alg", json!("RS256"), true),
            ("key_ops", json!(["sign", "verify"]), true),
            ("n", json!(number(1024, 0xff)), true),
            ("use", json!("enc"), false),
            ("alg", json!("RS512"), false),
            ("alg", json!("ES256"), false),
            ("alg", json!(null), false),
            ("key_ops", json!(["encrypt"]), false),
            ("key_ops", json!("verify"), false),
            ("kty", json!("oct"), false),
            ("kid", json!(1), false),
            ("kid", json!("k".repeat(257)), false),
            ("d", json!("AQAB"), false),
            // 2047 bits, zeros before it, 8200 bits.
            ("n", json!(number(256, 0x7f)), false),
            ("n", json!(number(257, 0)), false),
            ("n", json!(number(1025, 0xff)), false),
            ("n", json!(""), false),
            ("n", json!(format!("{}=", number(256, 0x80))), false),
            ("n", json!(7), false),
            ("e", json!(""), false),
            ("e", json!("AQABAQAB"), false),
        ] {
            check(Algorithm::Rs256, &rsa, name, value, good);
        }
        for (name, value, good) in [
            ("alg", json!("ES256"), true),
            ("alg", json!("RS256"), false),
            ("crv", json!("P-384"), false),
            ("x", json!(number(31, 1)), false),
            ("y", json!(number(33, 1)), false),
            ("kty", json!("RSA"), false),
        ] {
            check(Algorithm::Es256, &ec, name, value, good);
        }
        let many = |count| read_set(&json!({"keys": vec![rsa.clone(); count]}), Algorithm::Rs256);
        assert_eq!(many(16).map(|set| set.len()), Ok(16));
        assert!(many(17).is_err());
        for none in [json!([]), json!({}), json!({"keys": {}}), json!("keys")] {
            assert!(read_set(&none, Algorithm::Rs256).is_err(), "{none}");
        }
    }

    #[test]
    fn keys_are_where_the_document_is() {
        let jwk = json!({"kty": "RSA", "n": number(256, 0x80), "e": "AQAB"});
        let set = json!({"keys": [jwk]});
        for (members, good) in [
            (json!({"jwks_uri": "https://x.example/keys.json"}), true),
            (json!({"jwks": set}), true),
            (
                json!({"jwks": set, "token_endpoint_auth_signing_alg": "RS256"}),
                true,
            ),
            (
                json!({"jwks": set, "token_endpoint_auth_signing_alg": "ES256"}),
                false,
            ),
            (
                json!({"jwks": set, "token_endpoint_auth_signing_alg": "none"}),
                false,
            ),
            (
                json!({"jwks": set, "token_endpoint_auth_signing_alg": "HS256"}),
                false,
            ),
            (
                json!({"jwks": set, "token_endpoint_auth_signing_alg": ["RS256"]}),
                false,
            ),
            (
                json!({"jwks": set, "jwks_uri": "https://x.example/keys.json"}),
                false,
            ),
            (json!({"jwks": {"keys": []}}), false),
            (json!({"jwks": "https://x.example/keys.json"}), false),
            (json!({}), false),
            (json!({"jwks_uri": null}), false),
            (json!({"jwks_uri": "https://y.example/keys.json"}), false),
            (
                json!({"jwks_uri": "https://x.example.y.example/keys.json"}),
                false,
            ),
            (json!({"jwks_uri": "http://x.example/keys.json"}), false),
            (
                json!({"jwks_uri": "https://x.example:8443/keys.json"}),
                false,
            ),
            (json!({"jwks_uri": "https://x.example/keys.json?a"}), false),
            (
                json!({"jwks_uri": "https://x.example/a/../keys.json"}),
                false,
            ),
            (json!({"jwks_uri": "https://u@x.example/keys.json"}), false),
            (
                json!({"jwks_uri": "https://x.example@y.example/keys.json"}),
                false,
            ),
            (
                json!({"jwks_uri": "https://x.example\\@y.example/k"}),
                false,
            ),
            (json!({"jwks_uri": "/keys.json"}), false),
        ] {
            let read = ClientKeys::of_document(ID, members.as_object().expect("members"));
            assert_eq!(read.is_ok(), good, "{members}: {read:?}");
        }
    }

    #[test]
    fn one_key_need_not_be_named() {
        let key = |id: Option<&str>, part: &str| PublicKey {
            id: id.map(str::to_owned),
            parts: [part.to_owned(), String::new()],
        };
        let keys = |set: &[PublicKey]| ClientKeys {
            algorithm: Algorithm::Rs256,
            address: None,
            set: set.to_vec(),
            fresh_until: 0,
        };
        let (a, b, other, nameless) = (
            key(Some("a"), "1"),
            key(Some("b"), "2"),
            key(Some("a"), "3"),
            key(None, "4"),
        );
        for (set, id, expected) in [
            (vec![a.clone(), b.clone()], Some("b"), Some(&b)),
            (vec![a.clone(), other], Some("a"), Some(&a)),
            (vec![a.clone(), b.clone()], Some("c"), None),
            (vec![a.clone(), b.clone()], None, None),
            (vec![a.clone()], None, Some(&a)),
            (vec![nameless.clone()], None, Some(&nameless)),
            (vec![nameless.clone()], Some("a"), None),
            (vec![], None, None),
        ] {
            assert_eq!(keys(&set).named(id), expected, "{id:?} of {set:?}");
        }
    }
}
