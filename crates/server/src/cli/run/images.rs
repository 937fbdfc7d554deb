//! Images in the terminal, where it can show them.
//!
//! A terminal gets an image only as Base64 inside of a sequence of our own,
//! and only when the bytes begin as a real image of a sane size: no byte of
//! the file reaches the terminal as it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::ValueEnum;

use crate::config::Env;
use crate::output;

/// Largest file that is shown.
const BYTES: usize = 4 * 1024 * 1024;
/// Largest width and height in pixels: a small file can unfold to gigabytes.
const SIDE: u32 = 10_000;
/// Base64 characters of one piece, in kitty's protocol.
const PIECE: usize = 4096;

/// How images are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Images {
    /// As the terminal's environment says it can
    #[default]
    Auto,
    /// Not at all; they are saved and named as all files
    Never,
    /// By kitty's protocol (kitty, Ghostty)
    Kitty,
    /// By iTerm2's protocol (iTerm2, WezTerm)
    Iterm2,
}

impl Images {
    /// What holds for this terminal. Multiplexers swallow both protocols.
    pub(in crate::cli) fn resolve(self, env: &Env) -> Self {
        if self != Self::Auto {
            return self;
        }
        let get = |name: &str| env.get(name).unwrap_or_default();
        let (term, program) = (get("TERM"), get("TERM_PROGRAM"));
        let multiplexed = !get("TMUX").is_empty()
            || !get("STY").is_empty()
            || term.starts_with("screen")
            || term.starts_with("tmux");
        if multiplexed || !output::errors_are_terminal() {
            Self::Never
        } else if term == "xterm-kitty" || term == "xterm-ghostty" || program == "ghostty" {
            Self::Kitty
        } else if matches!(program, "iTerm.app" | "WezTerm") || get("LC_TERMINAL") == "iTerm2" {
            Self::Iterm2
        } else {
            Self::Never
        }
    }

    /// What to write so that this file is seen; `None` when it is no image
    /// that the terminal should be given.
    pub(in crate::cli) fn show(self, content: &[u8]) -> Option<String> {
        let (kind, width, height) = dimensions(content)?;
        let sane = |side: u32| (1..=SIDE).contains(&side);
        if content.len() > BYTES || !sane(width) || !sane(height) {
            return None;
        }
        match (self, kind) {
            (Self::Kitty, Kind::Png) => Some(kitty(&BASE64.encode(content))),
            (Self::Iterm2, _) => Some(format!(
                "\x1b]1337;File=inline=1;preserveAspectRatio=1;size={}:{}\x07\n",
                content.len(),
                BASE64.encode(content)
            )),
            _ => None,
        }
    }
}

fn kitty(encoded: &str) -> String {
    let mut out = String::with_capacity(encoded.len() + encoded.len() / 64);
    let pieces = encoded.len().div_ceil(PIECE);
    for at in 0..pieces {
        let piece = &encoded[at * PIECE..encoded.len().min((at + 1) * PIECE)];
        let more = u8::from(at + 1 < pieces);
        // q=2: the terminal's answer would be read as if a person had typed it.
        let head = if at == 0 { "a=T,f=100,q=2," } else { "" };
        out.push_str(&format!("\x1b_G{head}m={more};{piece}\x1b\\"));
    }
    out.push('\n');
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Png,
    Gif,
    Jpeg,
}

/// What kind of image the bytes begin, with width and height.
fn dimensions(content: &[u8]) -> Option<(Kind, u32, u32)> {
    let big = |at: usize| {
        Some(u32::from_be_bytes(
            content.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    if content.starts_with(b"\x89PNG\r\n\x1a\n") && content.get(12..16)? == b"IHDR" {
        return Some((Kind::Png, big(16)?, big(20)?));
    }
    if content.starts_with(b"GIF87a") || content.starts_with(b"GIF89a") {
        let side = |at: usize| {
            Some(u16::from_le_bytes([
                *content.get(at)?,
                *content.get(at + 1)?,
            ]))
        };
        return Some((Kind::Gif, side(6)?.into(), side(8)?.into()));
    }
    jpeg(content)
}

/// Walks the segments of a JPEG to the one that tells its size.
fn jpeg(content: &[u8]) -> Option<(Kind, u32, u32)> {
    let word = |at: usize| {
        Some(u16::from_be_bytes([
            *content.get(at)?,
            *content.get(at + 1)?,
        ]))
    };
    if word(0)? != 0xffd8 {
        return None;
    }
    let mut at = 2;
    loop {
        let marker = word(at)?;
        let length = usize::from(word(at + 2)?);
        match marker {
            // Start of a frame; the others of the range are tables.
            0xffc0..=0xffcf if !matches!(marker, 0xffc4 | 0xffc8 | 0xffcc) => {
                return Some((Kind::Jpeg, word(at + 7)?.into(), word(at + 5)?.into()));
            }
            0xff01..=0xfffe if length >= 2 && marker != 0xffda => at += 2 + length,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes
    }

    #[test]
    fn only_images_of_a_sane_size_are_shown() {
        let check = |content: &[u8], found: Option<(Kind, u32, u32)>, kitty: bool, iterm2: bool| {
            assert_eq!(dimensions(content), found, "{content:?}");
            assert_eq!(Images::Kitty.show(content).is_some(), kitty, "{content:?}");
            assert_eq!(
                Images::Iterm2.show(content).is_some(),
                iterm2,
                "{content:?}"
            );
            assert_eq!(Images::Never.show(content), None);
        };
        check(&png(640, 480), Some((Kind::Png, 640, 480)), true, true);
        check(&png(60_000, 1), Some((Kind::Png, 60_000, 1)), false, false);
        check(&png(0, 1), Some((Kind::Png, 0, 1)), false, false);
        check(
            b"GIF89a\x02\x00\x03\x00",
            Some((Kind::Gif, 2, 3)),
            false,
            true,
        );
        let jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x05\x00\x07";
        check(jpeg, Some((Kind::Jpeg, 7, 5)), false, true);
        check(b"\xff\xd8\xff\xe0\x00\x00", None, false, false);
        check(b"\x1b]52;c;cm0=\x07", None, false, false);
        check(b"\x89PNG\r\n\x1a\n", None, false, false);
        check(b"", None, false, false);
        let mut large = png(10, 10);
        large.resize(BYTES + 1, 0);
        check(&large, Some((Kind::Png, 10, 10)), false, false);
    }

    #[test]
    fn pieces_are_marked() {
        let mut image = png(1, 1);
        image.resize(6000, 0x1b);
        let shown = Images::Kitty.show(&image).unwrap();
        assert!(shown.starts_with("\x1b_Ga=T,f=100,q=2,m=1;"), "{shown:?}");
        assert_eq!(shown.matches("\x1b_G").count(), 2);
        assert!(shown.contains("\x1b_Gm=0;") && shown.ends_with("\x1b\\\n"));
        let small = Images::Kitty.show(&png(1, 1)).unwrap();
        assert!(small.starts_with("\x1b_Ga=T,f=100,q=2,m=0;"));
    }

    #[test]
    fn terminals_are_known_by_their_environment() {
        // Tests have no terminal, so nothing is ever shown by itself.
        let env = [("TERM", "xterm-kitty")].into_iter().collect();
        assert_eq!(Images::Auto.resolve(&env), Images::Never);
        assert_eq!(Images::Iterm2.resolve(&env), Images::Iterm2);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_none_get_through(bytes in proptest::collection::vec(any::<u8>(), 0..64), head in 0..4_usize) {
            let heads: [&[u8]; 4] = [b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01", b"\xff\xd8", b"GIF89a"];
            let content = [heads[head], bytes.as_slice()].concat();
            for images in [Images::Kitty, Images::Iterm2] {
                if let Some(shown) = images.show(&content) {
                    let inside = shown.trim_start_matches("\x1b_G").trim_start_matches("\x1b]1337;");
                    let inside = inside.trim_end_matches('\n').trim_end_matches("\x1b\\").trim_end_matches('\x07');
                    assert!(!inside.contains(char::is_control), "{shown:?}");
                }
            }
        }
    }
}
