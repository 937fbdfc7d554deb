//! What an engine makes ahead: which boxes there should be, and what is forked into them.

use std::sync::{Arc, LazyLock, PoisonError};

use sandbox::Mount;

use super::{Engine, Inner};
use crate::accept::accept;
use crate::boxes::Kept;
use crate::executor;
use crate::job::Draft;
use crate::outcome::Isolation;
use crate::plan::{plan, zygotes};
use crate::ready::{Blank, Idle, Next};
use crate::runtime::{PackageSet, Runtime};
use crate::session::Warm;
use crate::zygote::{NoZygote, Zygote, ZygotePlan};

/// How many runs may go on at once without waiting for each other. The count is read from
/// files, so it is taken once.
static PROCESSORS: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// Whether programs of a kind can be forked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmth {
    /// Human name of the language.
    pub title: String,
    /// What programs would have loaded: the name of a profile.
    pub profile: String,
    /// Why they can't be forked, where they can't.
    pub obstacle: Option<String>,
}

impl Engine {
    /// Starts what programs are forked from, once, and says what came of it: nothing of
    /// languages whose programs are never forked, and nothing at all at a rung, or with
    /// settings, where none are.
    pub async fn try_warm(&self) -> Vec<Warmth> {
        let inner = &self.inner;
        if inner.boxes.bounds.ready == 0 {
            return Vec::new();
        }
        let mut tried = Vec::new();
        for runtime in inner.registry.runtimes() {
            for plan in inner
                .blanks(runtime)
                .iter()
                .filter_map(|one| one.zygote.as_deref())
            {
                let obstacle = match Zygote::start(&inner.boxes, plan).await {
                    Ok(_) => None,
                    Err(NoZygote::Unfit(why)) => Some(why),
                    Err(NoZygote::Failed(error)) => Some(error.with_causes()),
                };
                tried.push(Warmth {
                    title: runtime.manifest.title.clone(),
                    profile: plan.profile.clone(),
                    obstacle,
                });
            }
        }
        tried
    }
}

impl Inner {
    /// Makes a ready box, if one is lacking and the processors have nothing better to do.
    pub(super) async fn fill_pool(&self) -> Next {
        self.stock_pool();
        let idle = || {
            let load = self.admission.load();
            match load.running {
                0 if load.waiting == 0 => Idle::Wholly,
                running if load.waiting == 0 && running < *PROCESSORS => Idle::Partly,
                _ => Idle::No,
            }
        };
        self.pool.fill(&self.boxes, idle).await
    }

    /// Tells the pool which boxes there should be, where that is not what it was told last:
    /// it changes with the packages alone.
    fn stock_pool(&self) {
        let runtimes = self.registry.runtimes();
        let sets: Vec<_> = runtimes.map(Runtime::packages).collect();
        let mut stocked = self.stocked.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |set: &Option<Arc<PackageSet>>| set.as_ref().map(Arc::as_ptr);
        let is_it = |before: &Vec<_>| before.iter().map(place).eq(sets.iter().map(place));
        if stocked.as_ref().is_some_and(is_it) {
            return;
        }
        let runtimes = self.registry.runtimes();
        self.pool
            .stock(runtimes.flat_map(|runtime| self.blanks(runtime)).collect());
        *stocked = Some(sets);
    }

    /// What the ready boxes of a language are: one kind for each profile of its zygotes.
    fn blanks(&self, runtime: &Runtime) -> Vec<Blank> {
        let Some(usual) = self.blank(runtime) else {
            return Vec::new();
        };
        let forks = self.boxes.isolation != Isolation::Uids && sandbox::ADOPTER.is_some();
        let mut zygotes = match runtime.interpreter() {
            Ok(found) if forks => zygotes(runtime, found, &usual.spec, &usual.env),
            _ => Vec::new(),
        };
        // What is loaded of packages is code that runs in the zygote: that of the pinned
        // set may, what somebody added may not, and could be anything by any name.
        if let Some(set) = usual.packages.as_deref()
            && !runtime.is_pinned(set)
        {
            zygotes.truncate(1);
        }
        if zygotes.is_empty() {
            // Nothing is loaded ahead.
            return vec![Blank {
                profile: None,
                ..usual
            }];
        }
        let of = |zygote: ZygotePlan| Blank {
            profile: Some(zygote.profile.clone()),
            zygote: Some(Arc::new(zygote)),
            ..usual.clone()
        };
        zygotes.into_iter().map(of).collect()
    }

    /// What a ready box is for a language: what a job that asks for nothing special sees.
    fn blank(&self, runtime: &Runtime) -> Option<Blank> {
        if !runtime.manifest.waits || runtime.is_another_version() {
            return None;
        }
        let interpreter = runtime.interpreter().ok()?;
        let bounds = &self.boxes.bounds;
        let draft = Draft {
            code: "0".to_owned(),
            language: Some(runtime.manifest.name.clone()),
            ..Draft::default()
        };
        let job = accept(draft, bounds, &self.registry).ok()?;
        let packages = runtime.packages();
        let plan = plan(job, runtime, interpreter, packages.as_deref(), bounds);
        let kept = Kept {
            _packages: packages.into_iter().collect(),
            ..Kept::default()
        };
        executor::blank(&plan, &executor::spec(&plan, bounds), &kept)
    }

    /// What the first interpreter of a session may be forked from, whose box sees
    /// `mounts`: that of the language named, or of the one that is used without a name.
    pub(super) fn warm(
        &self,
        first: Option<&str>,
        mounts: &[Mount],
        env: &[(String, String)],
    ) -> Option<Warm> {
        let named = |runtime: &&Runtime| match first {
            Some(name) => runtime.manifest.name == name,
            None => runtime.manifest.default,
        };
        let runtime = self.registry.runtimes().find(named)?;
        let zygote = runtime.manifest.zygote.as_ref()?;
        if !zygote.suits(env) {
            return None;
        }
        let language = runtime.manifest.name.clone();
        let zygote = self
            .pool
            .zygote_of(
                &language,
                &zygote.usual().name,
                runtime.packages().as_ref(),
                mounts,
            )
            .filter(|zygote| zygote.suits_sessions())?;
        Some(Warm { language, zygote })
    }
}
