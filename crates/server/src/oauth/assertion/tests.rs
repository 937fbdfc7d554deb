//! Assertions, good and bad, signed with keys that are published beside this file.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::json;

use super::*;
use crate::oauth::keys::ClientKeys;

const CLIENT: &str = "https://x.example/client.json";
const ISSUER: &str = "https://s.example";
const ENDPOINT: &str = "https://s.example/oauth/token";

/// Now, in milliseconds and in seconds.
const NOW: i64 = 1_800_000_000_500;
const SECOND: i64 = 1_800_000_000;

/// A client's private key, which is a test's.
pub(crate) enum TestKey {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl TestKey {
    fn read(pem: &str) -> Vec<u8> {
        let lines = pem
            .lines()
            .skip_while(|line| !line.starts_with("-----BEGIN"));
        let body: String = lines.filter(|line| !line.starts_with("-----")).collect();
        STANDARD.decode(body).expect("base64")
    }

    fn rsa(pem: &str) -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(&Self::read(pem)).expect("an RSA key"))
    }

    /// The usual one.
    pub(crate) fn usual() -> Self {
        Self::rsa(include_str!("test-rsa.pem"))
    }

    /// Another of the same kind.
    pub(crate) fn other() -> Self {
        Self::rsa(include_str!("test-other-rsa.pem"))
    }

    fn ec() -> Self {
        let key = Self::read(include_str!("test-ec.pem"));
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        Self::Ec(EcdsaKeyPair::from_pkcs8(kind, &key, &random).expect("a key"))
    }

    /// Its public half with an id.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "kid": id, "n": encode(&public.n), "e": encode(&public.e)})
            }
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encode(x), "y": encode(y)})
            }
        }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.expect("signed");
                signature
            }
            Self::Ec(pair) => {
                let signed = pair.sign(&random, message).expect("signed");
                signed.as_ref().to_vec()
            }
        }
    }

    /// Signs a header and claims as they are written.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let message = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(claims.as_bytes())
        );
        let signature = encode(&self.signature(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": "a"})
}

fn claims() -> Value {
    json!({"iss": CLIENT, "sub": CLIENT, "aud": ISSUER, "exp": SECOND + 300, "iat": SECOND, "jti": "1"})
}

/// All that a client's assertion is asked, but for its repetition.
fn judged(text: &str, set: &Value, algorithm: Algorithm) -> Result<(), &'static str> {
    let assertion = Assertion::read(text)?;
    assertion.check(CLIENT, &[ISSUER, ENDPOINT], NOW)?;
    let document = json!({"jwks": set, "token_endpoint_auth_signing_alg": algorithm.as_str()});
    let keys = ClientKeys::of_document(CLIENT, document.as_object().expect("members"))?;
    let key = keys.named(assertion.key_id());
    assertion.verify(algorithm, key.ok_or("no key")?)
}

fn usual(text: &str) -> Result<(), &'static str> {
    let set = json!({"keys": [TestKey::usual().jwk("a"), TestKey::other().jwk("b")]});
    judged(text, &set, Algorithm::Rs256)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn claims_are_of_the_client_for_this_server_and_now() {
    let key = TestKey::usual();
    let long = "j".repeat(9000);
    let absent = Value::Null;
    for (name, value, expected) in [
        ("x", json!({"y": [1]}), None),
        ("aud", json!(ENDPOINT), None),
        ("aud", json!([ENDPOINT]), None),
        ("aud", json!(["https://o.example", ISSUER]), None),
        ("exp", json!(SECOND + 1), None),
        ("exp", json!(SECOND + 660), None),
        ("exp", json!(1_800_000_030.25), None),
        ("iat", absent.clone(), None),
        ("iat", json!(SECOND + 60), None),
        ("iat", json!(0), None),
        ("nbf", json!(SECOND + 60), None),
        (
            "iss",
            absent.clone(),
            Some("it is not of the client that asks"),
        ),
        (
            "sub",
            absent.clone(),
            Some("it is not of the client that asks"),
        ),
        (
            "iss",
            json!("https://y.example/client.json"),
            Some("it is not of the client that asks"),
        ),
        (
            "sub",
            json!(format!("{CLIENT}/")),
            Some("it is not of the client that asks"),
        ),
        (
            "sub",
            json!([CLIENT]),
            Some("it is not of the client that asks"),
        ),
        ("aud", absent.clone(), Some("it is for another server")),
        ("aud", json!([]), Some("it is for another server")),
        (
            "aud",
            json!("https://o.example"),
            Some("it is for another server"),
        ),
        (
            "aud",
            json!("https://s.example/"),
            Some("it is for another server"),
        ),
        (
            "aud",
            json!("https://s.example/mcp"),
            Some("it is for another server"),
        ),
        ("aud", json!([[ISSUER]]), Some("it is for another server")),
        (
            "aud",
            json!({"x": ISSUER}),
            Some("it is for another server"),
        ),
        ("exp", absent.clone(), Some("it has no end")),
        ("exp", json!("1800000300"), Some("it has no end")),
        ("exp", json!(SECOND), Some("its time is over")),
        ("exp", json!(-1), Some("its time is over")),
        (
            "exp",
            json!(SECOND + 661),
            Some("it is good for longer than 10 minutes"),
        ),
        (
            "exp",
            json!(1e300),
            Some("it is good for longer than 10 minutes"),
        ),
        (
            "exp",
            json!(NOW),
            Some("it is good for longer than 10 minutes"),
        ),
        ("iat", json!(SECOND + 61), Some("its time has not come")),
        ("nbf", json!(SECOND + 61), Some("its time has not come")),
        ("iat", json!("now"), Some("its beginning is no time")),
        ("nbf", json!([0]), Some("its beginning is no time")),
        ("jti", absent.clone(), Some("it has no id")),
        ("jti", json!(""), Some("it has no id")),
        ("jti", json!(1), Some("it has no id")),
        ("jti", json!(long), Some("it is longer than 8 KiB")),
    ] {
        let mut claims = claims();
        match value {
            Value::Null => drop(claims.as_object_mut().expect("claims").remove(name)),
            value => claims[name] = value,
        }
        let text = key.sign(&header().to_string(), &claims.to_string());
        assert_eq!(usual(&text).err(), expected, "{claims}");
    }
}

#[test]
fn headers_choose_neither_algorithm_nor_key() {
    let (key, own) = (TestKey::usual(), TestKey::other().jwk("a"));
    let absent = Value::Null;
    for (name, value, expected) in [
        ("typ", absent.clone(), None),
        ("typ", json!("jwt"), None),
        ("cty", json!("x"), None),
        // Whose keys count, the header does not say.
        ("jwk", own, None),
        ("jku", json!("https://evil.example/keys.json"), None),
        ("kid", json!("b"), Some("its signature is not good")),
        ("kid", json!("c"), Some("no key")),
        ("kid", absent.clone(), Some("no key")),
        ("kid", json!(1), Some("its kid is no text")),
        ("alg", absent, Some("its algorithm is not RS256 or ES256")),
        (
            "alg",
            json!("none"),
            Some("its algorithm is not RS256 or ES256"),
        ),
        (
            "alg",
            json!("HS256"),
            Some("its algorithm is not RS256 or ES256"),
        ),
        (
            "alg",
            json!("RS384"),
            Some("its algorithm is not RS256 or ES256"),
        ),
        (
            "alg",
            json!("PS256"),
            Some("its algorithm is not RS256 or ES256"),
        ),
        (
            "alg",
            json!("rs256"),
            Some("its algorithm is not RS256 or ES256"),
        ),
        (
            "alg",
            json!(["RS256"]),
            Some("its algorithm is not RS256 or ES256"),
        ),
        (
            "alg",
            json!("ES256"),
            Some("its algorithm is not the one of the client's document"),
        ),
        ("typ", json!("at+jwt"), Some("it is another kind of token")),
        ("typ", json!(1), Some("it is another kind of token")),
        (
            "crit",
            json!(["b64"]),
            Some("it has extensions that must be understood"),
        ),
        (
            "crit",
            json!([]),
            Some("it has extensions that must be understood"),
        ),
    ] {
        let mut header = header();
        match value {
            Value::Null => drop(header.as_object_mut().expect("a header").remove(name)),
            value => header[name] = value,
        }
        let text = key.sign(&header.to_string(), &claims().to_string());
        assert_eq!(usual(&text).err(), expected, "{header}");
    }
}

#[test]
fn each_algorithm_takes_its_own_keys_alone() {
    let (rsa, ec) = (TestKey::usual(), TestKey::ec());
    let set = json!({"keys": [rsa.jwk("rsa"), ec.jwk("ec")]});
    let (rs, es) = (Algorithm::Rs256, Algorithm::Es256);
    for (key, id, said, asked, good) in [
        (&rsa, "rsa", "RS256", rs, true),
        (&ec, "ec", "ES256", es, true),
        (&rsa, "rsa", "RS256", es, false),
        (&ec, "ec", "ES256", rs, false),
        (&ec, "ec", "RS256", rs, false),
        (&rsa, "rsa", "ES256", es, false),
        (&ec, "rsa", "RS256", rs, false),
        (&rsa, "ec", "ES256", es, false),
    ] {
        let header = json!({"alg": said, "kid": id}).to_string();
        let judged = judged(&key.sign(&header, &claims().to_string()), &set, asked);
        assert_eq!(judged.is_ok(), good, "{id} {said} {asked:?}: {judged:?}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn texts_have_one_spelling() {
    let (key, header, claims) = (TestKey::usual(), header().to_string(), claims().to_string());
    let good = key.sign(&header, &claims);
    assert_eq!(usual(&good), Ok(()));
    let (message, signature) = good.rsplit_once('.').expect("a signature");
    let hmac = |secret: &[u8]| {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"a"}"#);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(&claims));
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).expect("any length");
        mac.update(message.as_bytes());
        format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        )
    };
    let TestKey::Rsa(pair) = &key else {
        unreachable!("it is an RSA key")
    };
    let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
    let spaced = good.replacen('.', ". ", 1);
    let repeated = |text: &str, more: &str| text.replacen('{', &format!("{{{more},"), 1);
    for (what, bad) in [
        ("nothing", String::new()),
        ("no parts", "..".to_owned()),
        ("no signature", format!("{message}.")),
        ("two parts", message.to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("padding", format!("{good}==")),
        ("a line end", format!("{good}\n")),
        ("a space", spaced),
        (
            "plain base64",
            format!(
                "{message}.{}",
                STANDARD.encode(key.signature(message.as_bytes()))
            ),
        ),
        ("a longer signature", format!("{message}.{signature}AAAA")),
        (
            "another's signature",
            format!(
                "{message}.{}",
                TestKey::other()
                    .sign("", "")
                    .rsplit_once('.')
                    .expect("one")
                    .1
            ),
        ),
        ("the public key as a secret", hmac(&public.n)),
        (
            "the key's text as a secret",
            hmac(key.jwk("a").to_string().as_bytes()),
        ),
        (
            "two algorithms",
            key.sign(&repeated(&header, r#""alg":"none""#), &claims),
        ),
        (
            "two of one algorithm",
            key.sign(&repeated(&header, r#""alg":"RS256""#), &claims),
        ),
        (
            "two subjects",
            key.sign(&header, &repeated(&claims, r#""sub":"x""#)),
        ),
        (
            "two ids by escapes",
            key.sign(&header, &repeated(&claims, r#""j\u0074i":"2""#)),
        ),
        ("a list as a header", key.sign("[]", &claims)),
        ("a text as claims", key.sign(&header, "\"x\"")),
        (
            "more behind the claims",
            key.sign(&header, &format!("{claims}{{}}")),
        ),
        ("claims of half the truth", key.sign(&header, &claims[..20])),
        (
            "deep claims",
            key.sign(&header, &format!("{}{}", r#"{"x":"#, "[".repeat(3000))),
        ),
    ] {
        assert!(usual(&bad).is_err(), "{what}: {bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[A-Za-z0-9_=-]{0,40}[.]?[A-Za-z0-9_-]{0,40}[.]?\\PC{0,40}") {
        prop_assert!(usual(&text).is_err());
    }

    #[test]
    fn nothing_but_what_was_signed_is_good(at in 0usize..10_000, byte in 0x20u8..0x7f) {
        let good = TestKey::usual().sign(&header().to_string(), &claims().to_string());
        let mut changed = good.clone().into_bytes();
        let at = at % changed.len();
        changed[at] = byte;
        let changed = String::from_utf8(changed).expect("ASCII");
        prop_assert_eq!(usual(&changed).is_ok(), changed == good);
    }

    #[test]
    fn any_times_are_judged(name in "exp|iat|nbf", value in "-?[0-9]{1,40}([.][0-9]{1,9})?(e-?[0-9]{1,4})?") {
        let mut claims = claims().as_object().expect("claims").clone();
        claims.remove(&name);
        let rest = Value::Object(claims).to_string();
        let text = rest.replacen('{', &format!("{{\"{name}\":{value},"), 1);
        let judged = usual(&TestKey::usual().sign(&header().to_string(), &text));
        let at: f64 = value.parse().expect("a number");
        let (least, most) = if name == "exp" { (seconds(NOW), seconds(NOW + REMEMBERED)) } else { (f64::MIN, seconds(NOW + SKEW)) };
        let is_good = at.is_finite() && at <= most && (name != "exp" || at > least);
        // JSON has no number with zeros before it.
        let digits = value.trim_start_matches('-');
        let is_json = !(digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()));
        prop_assert_eq!(judged.is_ok(), is_good && is_json, "{}", text);
    }
}
