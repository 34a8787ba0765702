//! Clients that don't read what they asked for, or don't say what they want, and hold memory meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::connection::Line;
use super::outbound::Held;
use super::sparing::Sparing;
use crate::model::clock;
use crate::telemetry::Metrics;

/// Everybody who is being answered, and everybody who has not yet said a word. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Readers(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    readings: Vec<Weak<Reading>>,
    silent: Vec<(Instant, Line)>,
}

/// An answer that is being read. It lives until its last byte is sent, or its connection is cut.
#[derive(Debug)]
pub(super) struct Reading {
    line: Line,
    /// What the answer takes, where that was accounted for.
    held: Option<Held>,
    began: Instant,
    /// Pieces that HTTP/2 has taken and not sent yet.
    unsent: AtomicUsize,
    moved: Mutex<Instant>,
}

impl Reading {
    /// HTTP/2 takes a piece.
    pub(super) fn taken(&self) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
        self.touch();
    }

    /// It has sent one.
    pub(super) fn sent(&self) {
        self.unsent.fetch_sub(1, Ordering::Relaxed);
        self.touch();
    }

    fn touch(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = clock::now();
    }

    /// True if something is to be read, and nobody has read for `patience`, or not to its end what takes memory.
    fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        let stands = now.saturating_duration_since(*self.moved.lock().unwrap_or_else(PoisonError::into_inner)) >= patience;
        let drips = self.held.is_some() && now.saturating_duration_since(self.began) >= patience * WHOLE;
        (stands || drips) && self.unsent.load(Ordering::Relaxed) > 0
    }
}

/// An answer that takes memory is to be read within so many times what a piece of it may take: else one who reads a piece now and then could
/// hold it for hours. At the defaults 64 MiB within ten minutes, which a line of 1 Mbit/s can do.
const WHOLE: u32 = 10;

/// A client that has not said by then that it speaks HTTP/2 is let go of.
const SILENCE: Duration = Duration::from_secs(10);

static UNREAD: Sparing = Sparing::new();
static SILENT: Sparing = Sparing::new();

impl Readers {
    /// Watches an answer.
    pub(super) fn reading(&self, line: Line, held: Option<Held>) -> Arc<Reading> {
        let (unsent, moved) = (AtomicUsize::new(0), Mutex::new(clock::now()));
        let reading = Arc::new(Reading { line, held, began: clock::now(), unsent, moved });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).readings.push(Arc::downgrade(&reading));
        reading
    }

    /// Watches a new connection.
    pub(super) fn connected(&self, line: &Line) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).silent.push((clock::now(), line.clone()));
    }

    /// Cuts the connections of those who have read nothing for `patience`, or too little for long, for as long as it is polled.
    pub(super) async fn watch(self, patience: Duration, metrics: Metrics) {
        let every = (patience / 8).clamp(Duration::from_millis(20), Duration::from_secs(1));
        loop {
            tokio::time::sleep(every).await;
            for line in self.stuck(clock::now(), patience) {
                // One connection may leave a thousand answers unread.
                if line.cut.is_done() {
                    continue;
                }
                metrics.reader_cut();
                if let Some(untold) = UNREAD.turn() {
                    let peer = line.peer;
                    tracing::warn!(
                        ?peer,
                        ?patience,
                        untold,
                        "a client did not read its answer in time (setting server.answer_seconds): cut"
                    );
                }
                line.cut.cut();
            }
        }
    }

    fn stuck(&self, now: Instant, patience: Duration) -> Vec<Line> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.silent.retain(|(since, line)| {
            let late = now.saturating_duration_since(*since) > SILENCE;
            if late && !line.cut.has_spoken() && Arc::strong_count(&line.cut) > 1 {
                if let Some(untold) = SILENT.turn() {
                    tracing::info!(peer = ?line.peer, patience = ?SILENCE, untold, "a client connected and said nothing: cut");
                }
                line.cut.cut();
            }
            !late && !line.cut.has_spoken()
        });
        let mut stuck = Vec::new();
        watched.readings.retain(|reading| {
            let Some(reading) = reading.upgrade() else { return false };
            let is_stuck = reading.is_stuck(now, patience);
            if is_stuck {
                stuck.push(reading.line.clone());
            }
            !is_stuck
        });
        stuck
    }
}
