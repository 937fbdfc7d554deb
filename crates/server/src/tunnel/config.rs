//! What it takes to open a tunnel, and the rules for what an operator gives.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;

use super::key::Key;

/// The control plane unless another is named.
pub const DEFAULT_URL: &str = "https://api.openai.com";

/// A tunnel that is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Its id.
    pub id: String,
    /// The control plane, to which alone the key goes.
    pub url: Url,
    /// The organization that it belongs to, where the control plane asks.
    pub organization: Option<String>,
    /// The key.
    pub key: Key,
}

/// What an operator said of a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its id; without one no tunnel is opened.
    pub id: Option<String>,
    /// The control plane, where it is not OpenAI's.
    pub url: Option<Url>,
    /// The organization that it belongs to.
    pub organization: Option<String>,
    /// The file with its key.
    pub key_file: Option<PathBuf>,
    /// The file that holds it where none is named.
    pub usual_key_file: PathBuf,
    /// The key of the environment, or what is wrong with it.
    pub key: Option<Result<Key, String>>,
}

impl Wanted {
    /// Returns what it takes to open the tunnel, if one is wanted.
    ///
    /// # Errors
    /// When its key is missing or cannot be read; the message has the cure.
    pub fn bounds(&self) -> Result<Option<Bounds>, String> {
        let Some(id) = self.id.clone() else {
            return Ok(None);
        };
        let key = match (&self.key, &self.key_file) {
            (Some(key), _) => key
                .clone()
                .map_err(|why| format!("CODEX_TUNNEL_KEY: {why}"))?,
            (None, Some(file)) => Key::of_file(file)?,
            // A link that leads nowhere is refused as every link is.
            (None, None) if self.usual_key_file.symlink_metadata().is_ok() => {
                Key::of_file(&self.usual_key_file)?
            }
            (None, None) => {
                return Err(format!(
                    "the tunnel has no key: put it into {}, a file of mode 0600, as `codex-server connect chatgpt` does; or name another file in tunnel_key_file; or put it into the variable CODEX_TUNNEL_KEY",
                    self.usual_key_file.display()
                ));
            }
        };
        let url = match &self.url {
            Some(url) => url.clone(),
            None => control_plane(DEFAULT_URL)?,
        };
        Ok(Some(Bounds {
            id,
            url,
            organization: self.organization.clone(),
            key,
        }))
    }
}

/// Checks a tunnel's id.
///
/// # Errors
/// With the words that follow the text in a message.
pub fn id(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match text.strip_prefix("tunnel_") {
        Some(rest) if rest.len() == 32 && rest.bytes().all(plain) => Ok(text.to_owned()),
        _ => Err(
            "is no tunnel's id: copy it from the console, tunnel_ and 32 letters and digits"
                .to_owned(),
        ),
    }
}

/// Reads the address of a control plane.
///
/// # Errors
/// With the words that follow the text in a message.
pub fn control_plane(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "is no URL".to_owned())?;
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    let safe = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    if !safe || host.is_empty() {
        return Err(
            "must be https, since the key goes there; http only for this very machine".to_owned(),
        );
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err("must have neither a user name nor anything after its path".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_copied_whole() {
        let good = format!("tunnel_{}", "a1".repeat(16));
        assert_eq!(id(&good), Ok(good.clone()));
        for bad in [
            &good[1..],
            &good[..38],
            "tunnel_",
            &good.to_uppercase(),
            &format!("{good}a"),
            "../x",
        ] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_key_goes_only_where_it_is_safe() {
        for (text, good) in [
            ("https://api.example", true),
            ("https://api.example/prefix", true),
            ("http://127.0.0.1:9", true),
            ("http://localhost:9", true),
            ("http://[::1]:9", true),
            ("http://api.example", false),
            ("http://127.0.0.1.example", false),
            ("https://user@api.example", false),
            ("https://api.example/?x", false),
            ("ftp://127.0.0.1", false),
            ("api.example", false),
        ] {
            assert_eq!(control_plane(text).is_ok(), good, "{text}");
        }
    }
}
