//! How long a connection may last, and how long it may take nothing of what it is sent.

use std::future::Future as _;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use super::Config;
use super::sparing::Sparing;
use crate::model::clock;

/// What every connection is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Until one that is old and was asked to end has.
    grace: Duration,
    /// While something can't be written.
    unwritten: Duration,
    /// Until an answer to a keep-alive.
    silence: Duration,
    /// Until the client has closed its side too.
    farewell: Duration,
}

/// How long a client may take to read the last word and close its side, at most.
const FAREWELL: Duration = Duration::from_secs(10);

impl Terms {
    /// Of these settings.
    pub(super) fn of(config: &Config) -> Self {
        // A client that is gone answers no keep-alive. One that lives and reads nothing can't even be told that it is late with its answer:
        // HTTP/2 would wait until that is written.
        let (grace, silence) = (config.drain, config.keepalive_timeout);
        // Half, so that a drain in which all calls have ended ends in time.
        Self { grace, unwritten: config.keepalive + silence, silence, farewell: FAREWELL.min(grace / 2) }
    }
}

/// When a connection is over, whatever its client does.
#[derive(Debug)]
pub(super) struct Lifespan {
    terms: Terms,
    /// When it is asked to end; `None`: never.
    age: Option<Duration>,
    end: Option<Pin<Box<Sleep>>>,
    /// Since something can't be written.
    unwritten: Option<Pin<Box<Sleep>>>,
    /// When the client last said anything.
    heard: Instant,
}

static OLD: Sparing = Sparing::new();
static UNWRITTEN: Sparing = Sparing::new();

impl Lifespan {
    /// Begins now; `age`: after which it is asked to end, by whoever serves it.
    pub(super) fn new(terms: Terms, age: Option<Duration>) -> Self {
        let end = age.map(|age| Box::pin(sleep(age + terms.grace)));
        Self { terms, age, end, unwritten: None, heard: clock::now() }
    }

    /// After how long it is asked to end; `None`: never.
    pub(super) fn age(&self) -> Option<Duration> {
        self.age
    }

    /// True once, when it is over, which is logged; until then the task is woken for it.
    pub(super) fn ends(&mut self, peer: Option<IpAddr>, context: &mut Context<'_>) -> bool {
        if passed(&mut self.end, context) {
            if let Some(untold) = OLD.turn() {
                tracing::info!(
                    ?peer,
                    untold,
                    "a connection was older than server.max_connection_age_seconds, and had a call that took longer than \
                     server.drain_seconds to end: cut"
                );
            }
            return true;
        }
        if passed(&mut self.unwritten, context) {
            if let Some(untold) = UNWRITTEN.turn() {
                let patience = self.terms.unwritten;
                tracing::info!(
                    ?peer,
                    ?patience,
                    untold,
                    "a client took nothing that it was sent (settings server.keepalive_seconds and server.keepalive_timeout_seconds): cut"
                );
            }
            return true;
        }
        false
    }

    /// The client says something.
    pub(super) fn hears(&mut self) {
        self.heard = clock::now();
    }

    /// True if it has said nothing for as long as the answer to a keep-alive may take.
    pub(super) fn is_silent(&self) -> bool {
        clock::now().saturating_duration_since(self.heard) >= self.terms.silence
    }

    /// How long the client may take to read the last word and close its side.
    pub(super) fn farewell(&self) -> Duration {
        self.terms.farewell
    }

    /// Something was to be written.
    pub(super) fn wrote<T>(&mut self, polled: &Poll<T>, context: &mut Context<'_>) {
        if polled.is_ready() {
            self.unwritten = None;
        } else if self.unwritten.is_none() {
            let mut patience = Box::pin(sleep(self.terms.unwritten));
            // So that the task is woken for it.
            if patience.as_mut().poll(context).is_pending() {
                self.unwritten = Some(patience);
            }
        }
    }
}

fn passed(timer: &mut Option<Pin<Box<Sleep>>>, context: &mut Context<'_>) -> bool {
    let passed = timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready());
    if passed {
        *timer = None;
    }
    passed
}
