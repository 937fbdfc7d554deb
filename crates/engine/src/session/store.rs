//! The sessions there are: who has which, how many, and what became of the others.
//!
//! Bounded in number, shared by owner. Knows of boxes only that a session has one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SessionEnd;
use super::live::Session;
use crate::config::Bounds;
use crate::error::Error;
use crate::owner::Owner;

/// Ended sessions that are remembered, so that their owners learn why.
const REMEMBERED: usize = 1000;
/// Letters of the part of an id that names this start of the server.
const START_LETTERS: usize = 8;

/// All sessions of this server.
#[derive(Debug)]
pub(crate) struct Sessions {
    shelf: Arc<Mutex<Shelf>>,
    /// What ids of this start of the server have in common.
    start: String,
}

#[derive(Debug)]
struct Shelf {
    live: BTreeMap<String, Arc<Session>>,
    /// Sessions of each owner, with those that are being made and those whose boxes
    /// are not dead yet.
    held: HashMap<Owner, usize>,
    ended: VecDeque<(String, Owner, SessionEnd)>,
    closed: bool,
}

/// The right to have one session more, given back on drop.
#[derive(Debug)]
pub(crate) struct Seat {
    shelf: Arc<Mutex<Shelf>>,
    owner: Owner,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shelf = lock(&self.shelf);
        if let Some(held) = shelf.held.get_mut(&self.owner) {
            *held -= 1;
            if *held == 0 {
                shelf.held.remove(&self.owner);
            }
        }
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // Whole between any two statements, whoever panicked.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    pub(crate) fn new() -> Self {
        let mut start = uuid::Uuid::new_v4().simple().to_string();
        start.truncate(START_LETTERS);
        Self {
            shelf: Arc::new(Mutex::new(Shelf {
                live: BTreeMap::new(),
                held: HashMap::new(),
                ended: VecDeque::new(),
                closed: false,
            })),
            start,
        }
    }

    /// Returns an id that nobody can guess.
    pub(crate) fn new_id(&self) -> String {
        format!("ses_{}{}", self.start, uuid::Uuid::new_v4().simple())
    }

    /// Takes a seat. Where all are taken, a paused session of the owner who has most
    /// makes way for one who has fewer.
    ///
    /// # Errors
    /// [`Error::TooManySessions`], [`Error::Draining`].
    pub(crate) fn seat(&self, owner: &Owner, bounds: &Bounds) -> Result<Seat, Error> {
        let mut shelf = lock(&self.shelf);
        if shelf.closed {
            return Err(Error::Draining);
        }
        let own = shelf.held.get(owner).copied().unwrap_or_default();
        if own >= bounds.sessions_each {
            return Err(Error::TooManySessions {
                limit: bounds.sessions_each,
                own: true,
            });
        }
        let all: usize = shelf.held.values().sum();
        if all >= bounds.sessions {
            let Some(evicted) = shelf.makes_way(own) else {
                return Err(Error::TooManySessions {
                    limit: bounds.sessions,
                    own: false,
                });
            };
            // Its own seat is free once its box is dead; until then there is one more.
            evicted.end(SessionEnd::Evicted);
        }
        *shelf.held.entry(owner.clone()).or_default() += 1;
        drop(shelf);
        Ok(Seat {
            shelf: Arc::clone(&self.shelf),
            owner: owner.clone(),
        })
    }

    /// Puts a session where it is found. Ends it where the server stops meanwhile.
    pub(crate) fn put(&self, session: Arc<Session>) {
        let mut shelf = lock(&self.shelf);
        if shelf.closed {
            session.end(SessionEnd::Stopped);
        }
        shelf.live.insert(session.id().to_owned(), session);
    }

    /// Takes a session that has ended from where it is found.
    pub(crate) fn remove(&self, session: &Session, end: SessionEnd) {
        let mut shelf = lock(&self.shelf);
        let removed = shelf.live.remove(session.id());
        if shelf.ended.len() == REMEMBERED {
            shelf.ended.pop_front();
        }
        let ended = (session.id().to_owned(), session.owner().clone(), end);
        shelf.ended.push_back(ended);
        drop(shelf);
        // Outside of the lock: with the last one its box is killed.
        drop(removed);
    }

    /// Finds an owner's session.
    ///
    /// # Errors
    /// [`Error::NoSession`] says why there is none; of others' no more than of those
    /// that never were.
    pub(crate) fn find(&self, owner: &Owner, id: &str) -> Result<Arc<Session>, Error> {
        let shelf = lock(&self.shelf);
        let end = match shelf.live.get(id) {
            Some(session) if session.owner() == owner => match session.ended() {
                None => return Ok(Arc::clone(session)),
                Some(end) => end,
            },
            Some(_) => SessionEnd::Unknown,
            None => shelf.why_not(owner, id, &self.start),
        };
        Err(Error::NoSession {
            id: id.to_owned(),
            end,
        })
    }

    /// Returns an owner's sessions, by id.
    pub(crate) fn of(&self, owner: &Owner) -> Vec<Arc<Session>> {
        let shelf = lock(&self.shelf);
        let own = shelf.live.values();
        own.filter(|session| session.owner() == owner && session.ended().is_none())
            .cloned()
            .collect()
    }

    /// Returns how many sessions there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.shelf).live.len()
    }

    /// Takes in no more, and ends those in which no cell runs; the others with their cell.
    pub(crate) fn close(&self) {
        let mut shelf = lock(&self.shelf);
        shelf.closed = true;
        for session in shelf.live.values() {
            session.end_when_idle();
        }
    }

    /// Ends all that are left.
    pub(crate) fn end_all(&self) {
        for session in lock(&self.shelf).live.values() {
            session.end(SessionEnd::Stopped);
        }
    }
}

impl Shelf {
    /// The session that makes way for an owner who has `own`: paused, of the owner who
    /// has most, and the one that was not used for longest.
    fn makes_way(&self, own: usize) -> Option<&Arc<Session>> {
        let of = |session: &Arc<Session>| self.held.get(session.owner()).copied();
        let most = self.held.values().copied().max()?;
        if most <= own + 1 {
            return None;
        }
        let paused = self.live.values().filter(|session| {
            session.is_paused() && session.ended().is_none() && of(session) == Some(most)
        });
        paused.min_by_key(|session| session.last_used())
    }

    fn why_not(&self, owner: &Owner, id: &str, start: &str) -> SessionEnd {
        let known = self.ended.iter().rev().find(|(ended, _, _)| ended == id);
        if let Some((_, whose, end)) = known {
            return if whose == owner {
                *end
            } else {
                SessionEnd::Unknown
            };
        }
        let of_another_start = id.strip_prefix("ses_").is_some_and(|rest| {
            let letters = rest.bytes().all(|byte| byte.is_ascii_hexdigit());
            letters && rest.len() == START_LETTERS + 32 && !rest.starts_with(start)
        });
        if of_another_start {
            SessionEnd::Lost
        } else {
            SessionEnd::Unknown
        }
    }
}
