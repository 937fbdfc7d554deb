//! The contexts that a session has: found, made, started afresh and ended.

use std::sync::Arc;

use tokio::time::timeout;

use super::cell::KILL;
use super::context::{Context, Kernel};
use super::live::{Session, State};
use crate::boxes::STEP_TIMEOUT;
use crate::config::Bounds;
use crate::error::Error;
use crate::job::Invalid;

impl Session {
    /// The context of that name; without one, that of the language, which is made
    /// where there is none yet.
    ///
    /// # Errors
    /// [`Error::NoContext`], [`Error::Invalid`] where there can be no more.
    pub(crate) fn context(
        &self,
        name: Option<&str>,
        language: &str,
    ) -> Result<Arc<Context>, Error> {
        let mut state = self.state();
        if let Some(found) = state.contexts.get(name.unwrap_or(language)) {
            return Ok(Arc::clone(found));
        }
        if let Some(name) = name {
            return Err(Error::NoContext {
                name: name.to_owned(),
                known: state.contexts.keys().cloned().collect(),
            });
        }
        self.add(&mut state, language, language)
    }

    /// The language of a context.
    pub(crate) fn language_of(&self, context: &str) -> Option<String> {
        let state = self.state();
        Some(state.contexts.get(context)?.language().to_owned())
    }

    /// The language of cells that name none: of the only context, else `None`.
    pub(crate) fn only_language(&self) -> Option<String> {
        let state = self.state();
        let mut contexts = state.contexts.values();
        let first = contexts.next()?;
        let same = contexts.all(|other| other.language() == first.language());
        same.then(|| first.language().to_owned())
    }

    /// Makes a context; without a name it gets one of its language and a number.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the name is taken, or there can be no more.
    pub(crate) fn add_context(
        &self,
        name: Option<String>,
        language: &str,
    ) -> Result<Arc<Context>, Error> {
        let mut state = self.state();
        let name = name.unwrap_or_else(|| {
            let numbered = (2..).map(|number| format!("{language}-{number}"));
            std::iter::once(language.to_owned())
                .chain(numbered)
                .find(|name| !state.contexts.contains_key(name))
                .unwrap_or_default()
        });
        if name != language && self.terms.languages.contains_key(&name) {
            let problem = "is the name of another language";
            return Err(invalid("name", problem, "Choose another name.").into());
        }
        if state.contexts.contains_key(&name) {
            let problem = "is the name of another context of this session";
            return Err(invalid("name", problem, "Choose another name.").into());
        }
        self.add(&mut state, &name, language)
    }

    fn add(&self, state: &mut State, name: &str, language: &str) -> Result<Arc<Context>, Error> {
        if !self.terms.languages.contains_key(language) {
            let problem = "is no language of this session";
            let known: Vec<&str> = self.terms.languages.keys().map(String::as_str).collect();
            let cure = format!("It has: {}.", known.join(", "));
            return Err(invalid("language", problem, &cure).into());
        }
        if state.contexts.len() >= Bounds::CONTEXTS {
            let problem = format!("there are {} contexts already", Bounds::CONTEXTS);
            return Err(invalid("context", &problem, "End one first.").into());
        }
        let context = Arc::new(Context::new(name, language));
        let before = state.contexts.insert(name.to_owned(), Arc::clone(&context));
        debug_assert!(before.is_none(), "looked for above");
        Ok(context)
    }

    /// Takes a context out of the session: this one, and no other that has its name
    /// by now.
    pub(crate) fn remove_context(&self, context: &Arc<Context>) {
        let mut state = self.state();
        let found = state.contexts.get(context.name());
        if found.is_some_and(|found| Arc::ptr_eq(found, context)) {
            state.contexts.remove(context.name());
        }
        drop(state);
        context.over.cancel();
    }

    /// The context of that name, or all of them.
    ///
    /// # Errors
    /// [`Error::NoContext`].
    pub(crate) fn named(&self, name: Option<&str>) -> Result<Vec<Arc<Context>>, Error> {
        let state = self.state();
        let Some(name) = name else {
            return Ok(state.contexts.values().cloned().collect());
        };
        match state.contexts.get(name) {
            Some(found) => Ok(vec![Arc::clone(found)]),
            None => {
                drop(state);
                Err(self.no_context(name))
            }
        }
    }

    /// The error of who names a context that there is not.
    pub(super) fn no_context(&self, name: &str) -> Error {
        Error::NoContext {
            name: name.to_owned(),
            known: self.state().contexts.keys().cloned().collect(),
        }
    }

    /// Ends the interpreter of a context, after the cell that runs was interrupted.
    ///
    /// # Errors
    /// [`Error::NoSession`], [`Error::Sandbox`].
    pub(crate) async fn restart(self: &Arc<Self>, context: &Context) -> Result<(), Error> {
        let _in_use = self.enter()?;
        context.interrupt();
        let mut turn = context.turn.lock().await;
        if let Some(mut kernel) = turn.take() {
            self.end_kernel(&mut kernel).await?;
        }
        context.forget();
        Ok(())
    }

    /// Ends an interpreter, and waits for that.
    pub(super) async fn end_kernel(&self, kernel: &mut Kernel) -> Result<(), Error> {
        self.home.doors.sandbox.signal(kernel.program, KILL)?;
        timeout(STEP_TIMEOUT, &mut kernel.ended).await.ok();
        Ok(())
    }
}

pub(super) fn invalid(field: &str, problem: &str, cure: &str) -> Invalid {
    Invalid {
        field: field.to_owned(),
        problem: problem.to_owned(),
        cure: cure.to_owned(),
    }
}
