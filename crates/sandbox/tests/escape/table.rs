//! What SECURITY.md tells of the corpus: made from the same data that the
//! tests hold to be true. `UPDATE_DOCS=1` writes it anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;

use crate::attack::{Attack, CLASSES, class};
use crate::{RUNGS, directory};

const BEGIN: &str = "<!-- corpus: begin -->\n";
const END: &str = "<!-- corpus: end -->";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../SECURITY.md")
}

/// The page holds the table as the data has it, and every reason.
pub(crate) fn is_told() -> Result<(), Failed> {
    let text = fs::read_to_string(page())?;
    let (before, rest) = text.split_once(BEGIN).ok_or("SECURITY.md has no table")?;
    let (told, after) = rest.split_once(END).ok_or("its table has no end")?;
    let wanted = table()?;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(page(), format!("{before}{BEGIN}{wanted}{END}{after}"))?;
    } else if told != wanted {
        let cure = "UPDATE_DOCS=1 cargo test -p sandbox --test escape -- security_md";
        return Err(format!("the table in SECURITY.md is not that of the corpus: {cure}").into());
    }
    let by_hand = one_line(&format!("{before}{after}"));
    for name in CLASSES {
        for attack in class(&directory(), name)? {
            for (rung, at) in &attack.at {
                let reason = at.reason.as_deref().unwrap_or_default();
                if !by_hand.contains(&one_line(reason)) {
                    return Err(format!(
                        "SECURITY.md does not say why {} is open at {rung}: {reason:?}",
                        attack.id
                    )
                    .into());
                }
            }
        }
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn table() -> Result<String, Failed> {
    let mut text = String::from("\n|  | case |");
    for (rung, _) in RUNGS {
        write!(text, " `{rung}` |")?;
    }
    text.push_str("\n|---|---|---|---|---|\n");
    let mut notes = Vec::new();
    for name in CLASSES {
        for attack in class(&directory(), name)? {
            write!(text, "| {} | {} |", attack.id, attack.name)?;
            for (rung, _) in RUNGS {
                write!(text, " {} |", cell(&attack, rung.as_str(), &mut notes))?;
            }
            text.push('\n');
        }
    }
    text.push('\n');
    for (number, note) in (1..).zip(notes) {
        writeln!(text, "{number}. {note}")?;
    }
    text.push('\n');
    Ok(text)
}

/// How an attack ends, or what of it gets through.
fn cell(attack: &Attack, rung: &str, notes: &mut Vec<String>) -> String {
    let (open, sometimes) = attack.open(rung);
    if open.is_empty() {
        return format!("held: {}", attack.status(rung).join(" or "));
    }
    let reason = attack.at.get(rung).and_then(|at| at.reason.clone());
    let names: Vec<&str> = open.into_iter().collect();
    let often = if sometimes { "at times" } else { "always" };
    let note = format!(
        "{} ({often}): {}",
        names.join(", "),
        one_line(&reason.unwrap_or_default())
    );
    let at = notes.iter().position(|known| *known == note);
    let number = at.unwrap_or_else(|| {
        notes.push(note);
        notes.len() - 1
    });
    format!("open, see {}", number + 1)
}
