//! From a [`Job`] to what is put into a box and run there.
//!
//! Pure: no clock, no file system, no environment. The same job, manifest and
//! interpreter always give the same plan.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use sandbox::{CHANNEL, Mount, Spec};

use crate::config::Bounds;
use crate::job::Job;
use crate::runtime::manifest::Packages;
use crate::runtime::{Interpreter, Manifest, PackageSet, Runtime};
use crate::zygote::ZygotePlan;

/// All that an executor needs to know of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The job's id.
    pub(crate) id: String,
    /// When the job was accepted.
    pub(crate) started: SystemTime,
    /// Canonical name of the language.
    pub(crate) language: String,
    /// Version of the interpreter.
    pub(crate) version: String,
    /// Host paths seen read-only at the same place in the box.
    pub(crate) mounts: Vec<PathBuf>,
    /// Symbolic links the box needs: where, and what they say.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Host directory of the support files, and where the box sees it read-only.
    pub(crate) support: (PathBuf, PathBuf),
    /// Host directory of the package set, and where the box sees it read-only.
    pub(crate) packages: Option<(PathBuf, PathBuf)>,
    /// Files of the workspace, paths relative to it: the source first.
    pub(crate) files: Vec<PlanFile>,
    /// Names of files and directories, at any depth, that are not collected.
    pub(crate) ignored: Vec<String>,
    /// The stages in order; a failed one ends the job. Never empty.
    pub(crate) stages: Vec<Stage>,
    /// Wall time of all stages together.
    pub(crate) wall_time: Duration,
    /// Whether to tell which system calls were denied.
    pub(crate) explain: bool,
    /// Whether its program may have been started ahead, and waits.
    pub(crate) waits: bool,
    /// What a zygote should have loaded that its program is forked from; `None` where it
    /// can't be forked.
    pub(crate) profile: Option<String>,
}

/// A file put into the workspace before the first stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlanFile {
    /// Relative to the workspace, `/`-separated, without `.` and `..`.
    pub(crate) path: String,
    /// The contents.
    pub(crate) content: Vec<u8>,
}

/// One command and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    /// Such as `run`.
    pub(crate) name: String,
    /// The command; the first word is an absolute path in the box.
    pub(crate) argv: Vec<String>,
    /// The whole environment, sorted by name.
    pub(crate) env: Vec<(String, String)>,
    /// Standard input: the caller's for the last stage, empty for those before it.
    pub(crate) stdin: Vec<u8>,
    /// Memory in bytes.
    pub(crate) memory: u64,
    /// Processes and threads.
    pub(crate) processes: u32,
    /// CPU in thousandths of a core.
    pub(crate) cpu_millis: u32,
}

/// Plans a job.
pub(crate) fn plan(
    job: Job,
    runtime: &Runtime,
    interpreter: &Interpreter,
    packages: Option<&PackageSet>,
    bounds: &Bounds,
) -> Plan {
    let manifest = &runtime.manifest;
    let apart = hides_modules(manifest, &job);
    let profile = profile(manifest, &job).filter(|_| !apart);
    let lent = lent(runtime, packages);
    let mut words = Words::of(runtime, interpreter, lent);
    words.args = job.draft.args;
    let recipe = lent.map(|(_, recipe)| recipe);
    let env = environment(manifest, recipe, interpreter, &words, job.draft.env);

    let mut stages: Vec<Stage> = manifest
        .stages
        .iter()
        .map(|template| Stage {
            name: template.name.clone(),
            argv: words.command(&template.argv),
            env: env.clone(),
            stdin: Vec::new(),
            memory: job.memory,
            processes: job.processes,
            cpu_millis: bounds.cpu_millis,
        })
        .collect();
    if let Some(last) = stages.last_mut() {
        last.stdin = job.draft.stdin;
    }
    let source = PlanFile {
        path: manifest.source.clone(),
        content: job.draft.code.into_bytes(),
    };
    let inputs = job.draft.files.into_iter().map(|file| PlanFile {
        path: file.path,
        content: file.content,
    });
    Plan {
        id: job.id,
        started: job.started,
        language: job.language,
        version: interpreter.version.clone(),
        mounts: interpreter.mounts.clone(),
        links: interpreter.links.clone(),
        support: (runtime.support.clone(), manifest.support_dir().into()),
        packages: lent.map(|(set, recipe)| (set.tree(), recipe.at.clone().into())),
        files: std::iter::once(source).chain(inputs).collect(),
        ignored: manifest.ignored.clone(),
        stages,
        wall_time: job.wall_time,
        explain: job.draft.explain,
        waits: manifest.waits && manifest.stages.len() == 1 && !job.draft.explain && !apart,
        profile,
    }
}

/// Returns the name of the profile that suits a job's program best; `None` where it
/// can't be forked, since its interpreter would begin another way.
fn profile(manifest: &Manifest, job: &Job) -> Option<String> {
    let zygote = manifest.zygote.as_ref()?;
    zygote
        .suits(&job.draft.env)
        .then(|| zygote.profile_of(&job.draft.code).name.clone())
}

/// Whether a job brings modules of its own, which may hide some that packages need, and
/// its program seems to import packages that are loaded ahead. Some of these can't be
/// loaded again with other modules, so its interpreter starts by itself.
fn hides_modules(manifest: &Manifest, job: &Job) -> bool {
    let Some(zygote) = &manifest.zygote else {
        return false;
    };
    let is_module = |path: &str| {
        let name = path.rsplit_once('.');
        name.is_some_and(|(_, ending)| manifest.extensions.iter().any(|own| own == ending))
    };
    let special = zygote.profile_of(&job.draft.code) != zygote.usual();
    special && job.draft.files.iter().any(|file| is_module(&file.path))
}

/// Plans the zygotes of a language, one a profile, for programs with the environment
/// `env` in boxes of `spec`.
pub(crate) fn zygotes(
    runtime: &Runtime,
    interpreter: &Interpreter,
    spec: &Spec,
    env: &[(String, String)],
) -> Vec<ZygotePlan> {
    let Some(zygote) = &runtime.manifest.zygote else {
        return Vec::new();
    };
    let words = Words::of(runtime, interpreter, None);
    let files = zygote.files.iter().map(|(target, name)| Mount {
        source: runtime.support.join(name),
        target: target.into(),
    });
    let mut spec = spec.clone();
    spec.mounts.extend(files);
    let profiles = zygote.profiles.iter();
    profiles
        .map(|profile| {
            let mut own: BTreeMap<String, String> = env.iter().cloned().collect();
            for (name, value) in &zygote.environment {
                own.insert(name.clone(), words.fill(value));
            }
            own.insert(zygote.modules.clone(), profile.modules.join(" "));
            ZygotePlan {
                profile: profile.name.clone(),
                spec: spec.clone(),
                argv: words.command(&zygote.argv),
                env: own.into_iter().collect(),
            }
        })
        .collect()
}

/// How the interpreter of a session's context is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelPlan {
    /// The command; the first word is an absolute path in the box.
    pub(crate) argv: Vec<String>,
    /// The whole environment, sorted by name.
    pub(crate) env: Vec<(String, String)>,
}

/// Plans the interpreter of a context, with variables of the session's; `None` for a
/// language that has no sessions.
pub(crate) fn kernel(
    runtime: &Runtime,
    interpreter: &Interpreter,
    packages: Option<&PackageSet>,
    given: Vec<(String, String)>,
) -> Option<KernelPlan> {
    let manifest = &runtime.manifest;
    let lent = lent(runtime, packages);
    let words = Words::of(runtime, interpreter, lent);
    let recipe = lent.map(|(_, recipe)| recipe);
    Some(KernelPlan {
        argv: words.command(manifest.kernel.as_ref()?),
        env: environment(manifest, recipe, interpreter, &words, given),
    })
}

/// Plans what runs the commands of a session, but for their text; `None` for a language
/// that is no shell.
pub(crate) fn shell(
    runtime: &Runtime,
    interpreter: &Interpreter,
    given: Vec<(String, String)>,
) -> Option<KernelPlan> {
    let manifest = &runtime.manifest;
    let words = Words::of(runtime, interpreter, None);
    Some(KernelPlan {
        argv: words.command(manifest.command.as_ref()?),
        env: environment(manifest, None, interpreter, &words, given),
    })
}

/// What a box that serves a language has to see of the host: each path, and where.
pub(crate) fn seen(
    runtime: &Runtime,
    interpreter: &Interpreter,
    packages: Option<&PackageSet>,
) -> Vec<(PathBuf, PathBuf)> {
    let links = interpreter.links.iter().map(|(link, _)| link);
    let same = interpreter.mounts.iter().chain(links);
    let same = same.map(|path| (path.clone(), path.clone()));
    let support = runtime.manifest.support_dir().into();
    let lent = lent(runtime, packages);
    same.chain([(runtime.support.clone(), support)])
        .chain(lent.map(|(set, recipe)| (set.tree(), recipe.at.clone().into())))
        .collect()
}

/// A package set with the recipe that it was made by, where both are there.
fn lent<'a>(
    runtime: &'a Runtime,
    packages: Option<&'a PackageSet>,
) -> Option<(&'a PackageSet, &'a Packages)> {
    Some((packages?, runtime.manifest.packages.as_ref()?))
}

/// Returns the whole environment of a job: the language's, the packages', the
/// interpreter's and the caller's, each over those before.
fn environment(
    manifest: &Manifest,
    packages: Option<&Packages>,
    interpreter: &Interpreter,
    words: &Words,
    given: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut env = BTreeMap::new();
    let of_packages = packages.map(|recipe| &recipe.environment);
    for (name, value) in manifest
        .environment
        .iter()
        .chain(of_packages.into_iter().flatten())
    {
        env.insert(name.clone(), words.fill(value));
    }
    env.extend(interpreter.environment.clone());
    env.extend(given);
    for (name, value) in &manifest.search_paths {
        let value = words.fill(value);
        let value = match env.get(name).filter(|given| !given.is_empty()) {
            Some(given) => format!("{value}:{given}"),
            None => value,
        };
        env.insert(name.clone(), value);
    }
    env.into_iter().collect()
}

/// What the placeholders of a manifest stand for.
struct Words {
    interpreter: String,
    bin: String,
    support: String,
    packages: String,
    source: String,
    args: Vec<String>,
}

impl Words {
    fn of(
        runtime: &Runtime,
        interpreter: &Interpreter,
        lent: Option<(&PackageSet, &Packages)>,
    ) -> Self {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let path = &interpreter.path;
        Self {
            interpreter: text(path),
            bin: text(path.parent().unwrap_or(path)),
            support: text(&runtime.support_seen()),
            packages: lent.map_or_else(String::new, |(set, recipe)| {
                text(&runtime.seen(&set.tree(), &recipe.at))
            }),
            source: runtime.manifest.source.clone(),
            args: Vec::new(),
        }
    }

    fn command(&self, template: &[String]) -> Vec<String> {
        let mut argv = Vec::new();
        for word in template {
            if word == "{args}" {
                argv.extend(self.args.iter().cloned());
            } else {
                argv.push(self.fill(word));
            }
        }
        argv
    }

    /// Fills a manifest's word. Never given a caller's text, which is not to be expanded.
    fn fill(&self, word: &str) -> String {
        let known = [
            ("{interpreter}", &self.interpreter),
            ("{bin}", &self.bin),
            ("{support}", &self.support),
            ("{packages}", &self.packages),
            ("{source}", &self.source),
            ("{channel}", &CHANNEL.to_string()),
        ];
        let mut filled = String::new();
        let mut rest = word;
        while let Some((at, (name, value))) = known
            .iter()
            .filter_map(|placeholder| rest.find(placeholder.0).map(|at| (at, placeholder)))
            .min_by_key(|(at, _)| *at)
        {
            filled.push_str(&rest[..at]);
            filled.push_str(value);
            rest = &rest[at + name.len()..];
        }
        filled + rest
    }
}

#[cfg(test)]
mod tests;
