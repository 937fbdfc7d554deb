//! How a sentence of ours repeats what a program or a client wrote. Whoever
//! reads the sentence, a model among them, must not take their words for ours:
//! nothing of them makes a line, a link, a picture or an end of the quotation.

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Most characters of a quotation.
const LONGEST: usize = 60;

/// Returns `text` as it may stand between quotation marks in a sentence of
/// ours: at most 60 characters, with `…` for what is cut. Letters and digits of
/// any script, space, `.`, `_`, `-` and `/` stay; any other character becomes
/// `?`.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::new();
    // A mark belongs to a letter; alone it would change what is before it.
    let mut after_letter = false;
    let cut = text.chars().nth(LONGEST).is_some();
    let kept = if cut { LONGEST - 1 } else { LONGEST };
    for c in text.chars().take(kept) {
        let letter = if is_mark(c) {
            after_letter
        } else {
            c.is_alphanumeric()
        };
        after_letter = letter && is_visible(c);
        let plain = matches!(c, ' ' | '.' | '_' | '-' | '/') || after_letter;
        quoted.push(if plain { c } else { '?' });
    }
    if cut {
        quoted.push('…');
    }
    quoted
}

/// Says whether an eye sees `c`, or sees it as the space it is: false of
/// control characters, of spaces other than the plain one, of letters and marks
/// without a shape, and of what Unicode has not given out.
#[must_use]
pub fn is_visible(c: char) -> bool {
    const BLANK_BRAILLE: char = '\u{2800}';
    let hidden = GeneralCategoryGroup::Other.union(GeneralCategoryGroup::Separator);
    c == ' '
        || (c != BLANK_BRAILLE
            && !hidden.contains(category(c))
            && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c))
}

/// Says whether `c` has no place of its own but joins the character before it.
#[must_use]
pub fn is_mark(c: char) -> bool {
    GeneralCategoryGroup::Mark.contains(category(c))
}

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotations_are_short_and_plain() {
        let check = |text: &str, expected: &str| assert_eq!(quote(text), expected, "{text:?}");
        check("", "");
        check("out/plot_1-b.png", "out/plot_1-b.png");
        check("Größe 1.txt", "Größe 1.txt");
        check("図.png", "図.png");
        check("हिन्दी", "हिन्दी");
        check("a\nb\u{1b}[0m", "a?b??0m");
        check("x\" is fine. \"", "x? is fine. ?");
        check(
            "![s](https://evil.example/?q=`1`)",
            "??s??https?//evil.example/?q??1??",
        );
        check("gpj.\u{202e}exe", "gpj.?exe");
        // Letters without a shape, marks alone, a space that is none of ours.
        check("\u{3164}\u{115f}\u{2800}", "???");
        check("\u{301}a\u{301}\u{fe0f}", "?a\u{301}?");
        check("\u{93f}\u{915}\u{93f}", "?\u{915}\u{93f}");
        check("a\u{a0}b", "a?b");
        check(&"x".repeat(60), &"x".repeat(60));
        check(&"x".repeat(61), &format!("{}…", "x".repeat(59)));
    }

    proptest! {
        #[test]
        fn any_text_is_one_plain_line(text in any::<String>()) {
            let quoted = quote(&text);
            prop_assert!(quoted.chars().count() <= LONGEST);
            prop_assert!(quoted.chars().all(is_visible), "{:?}", quoted);
            prop_assert!(!quoted.contains(['"', '\'', '`', '\n', ':', '[', '(', '<']));
        }
    }
}
