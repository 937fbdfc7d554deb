//! What a file made by user code may be called and served as.
//!
//! Types come from an allow-list of endings, never from the file itself, and
//! none of them lets a browser run anything in this server's name: script and
//! style sheets are plain text here, and whatever a browser could act on is
//! offered for saving only.

use engine::{is_mark, is_visible};

/// How a kind of file is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// Whether a browser may show it instead of saving it.
    pub inline: bool,
}

/// Whatever has no known ending.
const UNKNOWN: Media = saved("application/octet-stream");

/// Plain text, shown as it is.
const TEXT: Media = shown("text/plain; charset=utf-8");

/// Characters of a name that is served; the ending is kept.
const NAME_CHARS: usize = 120;

/// Bytes of it: file systems take 255, and a number may be added.
const NAME_BYTES: usize = 240;

/// The longest ending that is kept when a name is cut, with its dot.
const ENDING_CHARS: usize = 12;

/// Characters of a name inside Markdown.
const LABEL_CHARS: usize = 60;

const fn shown(content_type: &'static str) -> Media {
    Media {
        content_type,
        inline: true,
    }
}

const fn saved(content_type: &'static str) -> Media {
    Media {
        content_type,
        inline: false,
    }
}

impl Media {
    /// The kind of a file by the ending of its name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        match ending.to_ascii_lowercase().as_str() {
            "png" => shown("image/png"),
            "jpg" | "jpeg" => shown("image/jpeg"),
            "gif" => shown("image/gif"),
            "webp" => shown("image/webp"),
            "avif" => shown("image/avif"),
            "bmp" => shown("image/bmp"),
            "txt" | "log" | "md" | "out" | "py" | "sh" | "rs" | "c" | "toml" | "yaml" | "yml"
            | "sql" => TEXT,
            "json" | "ipynb" | "geojson" => shown("application/json"),
            "wav" => shown("audio/wav"),
            "mp3" => shown("audio/mpeg"),
            "ogg" | "oga" => shown("audio/ogg"),
            "flac" => shown("audio/flac"),
            "mp4" => shown("video/mp4"),
            "webm" => shown("video/webm"),
            "csv" => saved("text/csv; charset=utf-8"),
            "tsv" => saved("text/tab-separated-values; charset=utf-8"),
            // As script or style sheet any page of this server could load them.
            "js" | "mjs" | "cjs" | "ts" | "css" => saved("text/plain; charset=utf-8"),
            "html" | "htm" => saved("text/html; charset=utf-8"),
            "svg" => saved("image/svg+xml"),
            "xml" => saved("application/xml"),
            // Browsers' viewers do not work under the policy that files are served with.
            "pdf" => saved("application/pdf"),
            "zip" => saved("application/zip"),
            "gz" | "tgz" => saved("application/gzip"),
            "tar" => saved("application/x-tar"),
            "parquet" => saved("application/vnd.apache.parquet"),
            "docx" => {
                saved("application/vnd.openxmlformats-officedocument.wordprocessingml.document")
            }
            "xlsx" => saved("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            "pptx" => {
                saved("application/vnd.openxmlformats-officedocument.presentationml.presentation")
            }
            _ => UNKNOWN,
        }
    }

    /// The type without its parameters.
    #[must_use]
    pub fn essence(self) -> &'static str {
        self.content_type
            .split_once(';')
            .map_or(self.content_type, |(essence, _)| essence)
    }

    /// Whether it is a picture.
    #[must_use]
    pub fn is_image(self) -> bool {
        self.content_type.starts_with("image/")
    }

    /// Whether it is a film.
    #[must_use]
    pub fn is_video(self) -> bool {
        self.content_type.starts_with("video/")
    }
}

/// A name without anything that a header, a file system, a terminal or an eye
/// could be fooled by, never empty, of at most 120 characters and 240 bytes: what user code
/// called `..\n"x".html` is served as `.._x_.html`.
#[must_use]
pub fn tidy_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut tame = String::with_capacity(last.len());
    let mut nothing_to_join = true;
    for c in last.chars() {
        let alone = nothing_to_join && is_mark(c);
        let odd = alone || is_odd(c);
        // A mark may join a letter or another mark, but no dot, space or sign.
        nothing_to_join = odd || !(c.is_alphanumeric() || is_mark(c));
        tame.push(if odd { '_' } else { c });
    }
    let tame = trim(&tame);
    let ending = tame.rfind('.').map_or("", |dot| &tame[dot..]);
    let ending = if ending.chars().count() > ENDING_CHARS {
        ""
    } else {
        ending
    };
    let cut = if fits(tame) {
        tame.to_owned()
    } else {
        let mut stem = String::new();
        for c in tame.chars() {
            stem.push(c);
            if !fits(&format!("{stem}{ending}")) {
                stem.pop();
                break;
            }
        }
        stem + ending
    };
    match trim(&cut) {
        "" => "file".to_owned(),
        name => name.to_owned(),
    }
}

fn fits(name: &str) -> bool {
    name.len() <= NAME_BYTES && name.chars().count() <= NAME_CHARS
}

/// Without dots and blanks at either end, and without a hyphen that would make
/// an option of it.
fn trim(name: &str) -> &str {
    name.trim_start_matches([' ', '.', '-'])
        .trim_end_matches([' ', '.'])
}

/// Says whether `c` means something in headers, shells or paths, or turns the
/// direction of text, or cannot be seen.
fn is_odd(c: char) -> bool {
    !is_visible(c)
        || matches!(
            c,
            '"' | '\'' | '\\' | '/' | ':' | '*' | '?' | '<' | '>' | '|' | '`' | '$' | '%' | ';'
        )
        // Placeholders: of an object that is not there, and of what was no text.
        || matches!(c, '\u{fffc}' | '\u{fffd}')
}

/// The `Content-Disposition` of a file (RFC 6266): a plain name for old
/// clients, and the real one as RFC 8187 writes it.
#[must_use]
pub fn disposition(media: Media, name: &str) -> String {
    let kind = if media.inline { "inline" } else { "attachment" };
    let name = tidy_name(name);
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!(
        "{kind}; filename=\"{plain}\"; filename*=UTF-8''{}",
        percent(&name)
    )
}

/// Text as one segment of a path, or as an RFC 8187 value: all but letters,
/// digits, dot, hyphen, underscore and tilde is escaped.
#[must_use]
pub fn percent(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// A name that can stand between the brackets of a Markdown link.
#[must_use]
pub fn label(name: &str) -> String {
    let tame = tidy_name(name);
    let plain = tame.chars().map(|c| match c {
        '[' | ']' | '(' | ')' | '!' | '_' | '#' | '~' | '&' | '{' | '}' | '@' => ' ',
        c => c,
    });
    plain
        .take(LABEL_CHARS)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn endings_decide_and_nothing_active_is_shown() {
        for (name, content_type, inline) in [
            ("plot.png", "image/png", true),
            ("PLOT.JPEG", "image/jpeg", true),
            ("notes.txt", "text/plain; charset=utf-8", true),
            ("data.csv", "text/csv; charset=utf-8", false),
            ("page.html", "text/html; charset=utf-8", false),
            ("page.htm", "text/html; charset=utf-8", false),
            ("picture.svg", "image/svg+xml", false),
            ("feed.xml", "application/xml", false),
            ("code.js", "text/plain; charset=utf-8", false),
            ("style.css", "text/plain; charset=utf-8", false),
            ("paper.pdf", "application/pdf", false),
            ("page.xhtml", "application/octet-stream", false),
            ("worker.wasm", "application/octet-stream", false),
            ("plot.png.html", "text/html; charset=utf-8", false),
            ("noending", "application/octet-stream", false),
            ("html", "application/octet-stream", false),
            (".png", "image/png", true),
            ("", "application/octet-stream", false),
        ] {
            let media = Media::of(name);
            assert_eq!(
                (media.content_type, media.inline),
                (content_type, inline),
                "{name}"
            );
        }
        assert_eq!(Media::of("a.txt").essence(), "text/plain");
    }

    #[test]
    fn hostile_names_are_tamed() {
        for (name, expected) in [
            ("plot.png", "plot.png"),
            ("Größe 1.txt", "Größe 1.txt"),
            ("図.png", "図.png"),
            ("a\"b\\c.html", "c.html"),
            ("a\"; filename=evil.exe", "a__ filename=evil.exe"),
            ("a\r\nSet-Cookie: x=1", "a__Set-Cookie_ x=1"),
            ("../../etc/passwd", "passwd"),
            ("..", "file"),
            ("", "file"),
            (" . ", "file"),
            ("-rf", "rf"),
            (".bashrc", "bashrc"),
            ("gpj.\u{202e}exe", "gpj._exe"),
            ("%0a%22.txt", "_0a_22.txt"),
            ("\u{7f}\u{80}x", "__x"),
            // Letters without a shape, blanks, what picks a shape, what joins nothing.
            ("\u{3164}\u{115f}.txt", "__.txt"),
            ("\u{1160}\u{ffa0}\u{2800}", "___"),
            ("a\u{a0}b\u{3000}c\u{2003}d", "a_b_c_d"),
            ("a\u{fe0f}b\u{e0100}c\u{180b}", "a_b_c_"),
            ("a\u{34f}b\u{17b4}c\u{ad}d", "a_b_c_d"),
            ("\u{301}\u{302}x", "__x"),
            ("x.\u{301}txt", "x._txt"),
            ("e\u{301}t\u{e9}.txt", "e\u{301}t\u{e9}.txt"),
            ("हिन्दी.txt", "हिन्दी.txt"),
            ("\u{e000}\u{fffd}\u{378}", "___"),
        ] {
            assert_eq!(tidy_name(name), expected, "{name:?}");
        }
        let wide = tidy_name(&format!("{}.csv", "\u{1f600}".repeat(100)));
        assert!(
            wide.ends_with("\u{1f600}.csv") && wide.len() == NAME_BYTES,
            "{wide}"
        );
        let long = format!("{}.tar.gz", "x".repeat(300));
        let tidy = tidy_name(&long);
        assert!(
            tidy.ends_with(".gz") && tidy.chars().count() == NAME_CHARS,
            "{tidy}"
        );
    }

    #[test]
    fn dispositions_name_the_file_in_both_ways() {
        for (name, expected) in [
            (
                "plot.png",
                "inline; filename=\"plot.png\"; filename*=UTF-8''plot.png",
            ),
            (
                "a b.html",
                "attachment; filename=\"a b.html\"; filename*=UTF-8''a%20b.html",
            ),
            (
                "é\".txt",
                "inline; filename=\"__.txt\"; filename*=UTF-8''%C3%A9_.txt",
            ),
        ] {
            assert_eq!(disposition(Media::of(name), name), expected);
        }
    }

    #[test]
    fn labels_cannot_break_out_of_a_link() {
        assert_eq!(label("plot.png"), "plot.png");
        assert_eq!(
            label("a](https://evil.example)![.png"),
            "evil.example   .png"
        );
    }

    proptest! {
        #[test]
        fn any_name_makes_one_plain_header_line(name in any::<String>()) {
            let tidy = tidy_name(&name);
            prop_assert!(!tidy.is_empty() && fits(&tidy));
            prop_assert!(tidy != "." && tidy != ".." && !tidy.contains('/'));
            prop_assert_eq!(tidy_name(&tidy), tidy.clone());
            let header = disposition(Media::of(&tidy), &name);
            prop_assert!(header.bytes().all(|b| (0x20..0x7f).contains(&b)), "{}", header);
            prop_assert_eq!(header.matches('"').count(), 2);
            prop_assert!(percent(&tidy).is_ascii());
        }
    }
}
