//! All attacks at one rung, and what is looked at around each.

use std::time::{Duration, Instant};

use sandbox::{File, Isolation, Launcher, Step};

use crate::attack::{Attack, Bounds, Door, compiled, corpus};
use crate::census::Census;
use crate::ground::{CANARY, Ground, Tenant};
use crate::run::{Finished, Running, event, limits, python, slowness};

/// Wall time of an attack that names none, in seconds.
const WALL: u64 = 20;
/// How much later than its wall time an answer may come.
const LATE: Duration = Duration::from_millis(1500);

/// Attacks the rung and prints a line for each case: its number, `held` or
/// `open`, the milliseconds, and what was wrong.
#[expect(clippy::print_stdout, reason = "what it found is told so")]
pub(crate) fn attack(rung: Isolation) {
    let ground = Ground::plant();
    let (launcher, support) =
        sandbox::launch(rung..=rung).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(support.isolation, Some(rung), "{support:#?}");
    let mark = format!("escape-{}", std::process::id());
    let here = Here {
        rung,
        tenant: Tenant::new(&launcher).unwrap(),
        ground,
        mark,
        launcher,
    };
    // The first run of all fills pools and caches.
    let first = here.benign();
    assert!(first.is_none(), "{first:?}");
    let mut census = Census::new(&here.launcher, &here.mark);
    let all = corpus(&crate::directory()).unwrap_or_else(|error| panic!("{error}"));
    for attack in all {
        if !attack.is_for(Door::Box) || !crate::is_wanted(&attack.id) {
            continue;
        }
        let started = Instant::now();
        let complaints = here.complaints(&attack, &mut census);
        let word = if complaints.is_empty() {
            "held"
        } else {
            "open"
        };
        let line = format!(
            "{}\t{word}\t{}\t{}",
            attack.id,
            started.elapsed().as_millis(),
            complaints.join("; ").replace(['\t', '\n'], " ")
        );
        println!("{line}");
    }
}

#[derive(Debug)]
struct Here {
    rung: Isolation,
    tenant: Tenant,
    ground: Ground,
    mark: String,
    launcher: Launcher,
}

impl Here {
    /// Runs an attack and says what was wrong with it, and after it.
    fn complaints(&self, attack: &Attack, census: &mut Census) -> Vec<String> {
        let mut complaints = self
            .run(attack)
            .unwrap_or_else(|error| vec![format!("could not be tried: {error}")]);
        complaints.extend(self.benign());
        complaints.extend(census.left());
        complaints.extend(self.ground.disturbed());
        complaints.extend(self.tenant.disturbed());
        if !self.launcher.is_alive() {
            complaints.push("the warden is dead".to_owned());
        }
        complaints
    }

    fn run(&self, attack: &Attack) -> Result<Vec<String>, String> {
        let rung = self.rung.as_str();
        let bounds = attack.bounds(crate::long(), rung);
        let wall = Duration::from_secs(bounds.wall.unwrap_or(WALL)) * slowness();
        let text = attack.text(&self.ground.told(rung, &self.launcher, &self.tenant));
        let files = match &attack.c {
            Some(source) => vec![File {
                path: b"attack".to_vec(),
                content: compiled(source)?,
            }],
            None => Vec::new(),
        };
        let running = Running::new(&self.launcher, limits(&bounds))?;
        let done = running.run(&python(&text, &self.mark, files), wall)?;
        let mut complaints = attack.complaints(rung, done.status, &done.stdout);
        if done.took > wall + LATE * slowness() {
            complaints.push(format!("answered after {:?}", done.took));
        }
        let printed = [&done.stdout, &done.stderr];
        if printed.iter().any(|text| text.contains(CANARY)) {
            complaints.push("a secret was printed".to_owned());
        }
        if let Some(name) = running.holds(CANARY.as_bytes()) {
            complaints.push(format!("a secret is in {name}"));
        }
        complaints.extend(
            attack
                .no_next
                .iter()
                .filter_map(|path| self.next(&running, path)),
        );
        if !complaints.is_empty() {
            complaints.push(said(&done));
        }
        Ok(complaints)
    }

    /// Tries to have the next program's file written through what was planted.
    fn next(&self, running: &Running, path: &str) -> Option<String> {
        let mut next = python("print('ran')", &self.mark, Vec::new());
        next.files[0].path = path.as_bytes().to_vec();
        if let Err(error) = running.sandbox.exec(&next) {
            return Some(format!("{path}: {error}"));
        }
        match event(&running.sandbox) {
            Err(error) if error.step == Step::CopyIn => None,
            other => Some(format!("{path} was written to: {other:?}")),
        }
    }

    /// An ordinary run, which must work as ever.
    fn benign(&self) -> Option<String> {
        let run = || -> Result<Finished, String> {
            let running = Running::new(&self.launcher, limits(&Bounds::default()))?;
            let command = python("print(2 + 2)", &self.mark, Vec::new());
            running.run(&command, Duration::from_secs(20) * slowness())
        };
        match run() {
            Ok(done) if done.stdout == "4\n" && done.stderr.is_empty() => None,
            other => Some(format!("the next run: {other:?}")),
        }
    }
}

/// The end of what a failed attack said.
fn said(done: &Finished) -> String {
    let tail = |text: &str| {
        let from = text.len().saturating_sub(600);
        text.get(from..).unwrap_or_default().trim().to_owned()
    };
    format!("it said {:?} {:?}", tail(&done.stdout), tail(&done.stderr))
}
