//! The key that opens the tunnel: from a file of ours or a variable, shown to
//! the control plane alone.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use axum::http::HeaderValue;

/// Bytes of the longest key that is taken.
const LONGEST: u64 = 4096;

/// A key. Never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Reads a key as somebody gave it.
    ///
    /// # Errors
    /// When it is empty, or no text that a header may hold. The key is not
    /// repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || !plain {
            return Err("the tunnel's key is empty or has characters that no key has".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads the key out of a file that nobody else may read.
    ///
    /// # Errors
    /// Names what is wrong with the file and the cure.
    pub fn of_file(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let io = |error: std::io::Error| {
            format!(
                "failed to read the tunnel's key in {shown}: {error}. Name a file of yours in tunnel_key_file, not a link"
            )
        };
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(flags)
            .open(path)
            .map_err(io)?;
        let found = file.metadata().map_err(io)?;
        let own = rustix::process::geteuid().as_raw();
        if !found.is_file() || found.uid() != own || found.mode() & 0o077 != 0 {
            return Err(format!(
                "the tunnel's key in {shown} can be read by others, or is not a file of this user: chown {own} {shown}; chmod 600 {shown}"
            ));
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(io)?;
        Self::parse(&text).map_err(|problem| format!("{problem}: {shown}"))
    }

    /// Puts the key into a new file that only this user may read.
    ///
    /// # Errors
    /// When there is such a file, or it cannot be written.
    pub fn keep(&self, path: &Path) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let written = writeln!(file, "{}", self.0).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half a key would only be refused later, with a worse reason.
            std::fs::remove_file(path)?;
        }
        written
    }

    /// Returns the header that shows the key.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_key_file_is_ours_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        let allow = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&file, mode).expect("chmod");
        };
        std::fs::write(&file, " sk-secret\n").expect("write");
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o644, false),
        ] {
            allow(mode);
            let read = Key::of_file(&file);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            assert!(!format!("{read:?}").contains("secret"));
        }
        allow(0o600);
        let link = folder.path().join("link");
        symlink(&file, &link).expect("a link");
        assert!(Key::of_file(&link).is_err());
        assert!(Key::of_file(folder.path()).is_err());
        std::fs::write(&file, "\n").expect("write");
        assert!(Key::of_file(&file).is_err());
    }

    #[test]
    fn what_is_kept_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        let key = Key::parse("sk-a").expect("a key");
        key.keep(&file).expect("kept");
        assert_eq!(Key::of_file(&file), Ok(key.clone()));
        assert!(key.keep(&file).is_err(), "what is there is left");
    }

    #[test]
    fn keys_are_plain_words() {
        for (text, good) in [
            ("sk-a_b", true),
            (" x \n", true),
            ("", false),
            ("a b", false),
            ("é", false),
            ("a\nb", false),
        ] {
            assert_eq!(Key::parse(text).is_ok(), good, "{text:?}");
        }
    }
}
