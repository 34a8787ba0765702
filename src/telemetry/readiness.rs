//! Whether calls are taken now, and what whoever asks should know.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How what is served stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Banks that are not served yet.
    pub recovering: usize,
    /// What should be known, one a line.
    pub lines: Vec<String>,
}

/// What `/readyz` answers. Cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    draining: Arc<AtomicBool>,
    ask: Arc<dyn Fn() -> Told + Send + Sync>,
}

impl Readiness {
    /// Asks `ask`, which waits for nothing.
    pub fn new(ask: impl Fn() -> Told + Send + Sync + 'static) -> Self {
        Self { draining: Arc::default(), ask: Arc::new(ask) }
    }

    /// From now on no new calls are taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is ready, and the words.
    pub(super) fn answer(&self) -> (bool, String) {
        if self.draining.load(Ordering::Relaxed) {
            return (false, "draining: no new calls are taken\n".to_owned());
        }
        let Told { recovering, lines } = (self.ask)();
        let first = match recovering {
            0 => "ok\n".to_owned(),
            1 => "recovering: a bank is not served yet\n".to_owned(),
            banks => format!("recovering: {banks} banks are not served yet\n"),
        };
        (recovering == 0, lines.iter().fold(first, |told, line| told + line + "\n"))
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("draining", &self.draining).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{Arc, Readiness, Told};

    #[test]
    fn a_server_is_ready_between_its_recovery_and_its_drain() {
        let told = Arc::new(Mutex::new(Told { recovering: 2, lines: vec!["bank b: 40 % read".to_owned()] }));
        let asked = Arc::clone(&told);
        let readiness = Readiness::new(move || asked.lock().unwrap().clone());
        let answer = "recovering: 2 banks are not served yet\nbank b: 40 % read\n";
        assert_eq!(readiness.answer(), (false, answer.to_owned()));
        *told.lock().unwrap() = Told { recovering: 0, lines: vec!["bank c is refused".to_owned()] };
        assert_eq!(readiness.answer(), (true, "ok\nbank c is refused\n".to_owned()));
        readiness.drain();
        assert!(!readiness.clone().answer().0);
    }
}
