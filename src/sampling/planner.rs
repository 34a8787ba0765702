//! Which way of searching costs least.

use std::time::Duration;

use super::learnt::Learnt;

/// What scans and walks cost in this bank on this machine, learnt from those that were made.
#[derive(Debug)]
pub(super) struct Planner {
    /// Nanoseconds for a row and an anchor, by the logarithm of the number of anchors that are searched for together.
    scan: [Learnt; BATCHES],
    /// Nanoseconds for a distance in a walk over the graph's copy of the rows.
    step: Learnt,
    /// How many times as long one to a row as it is takes.
    live: Learnt,
    /// Distances for each entry that a walk keeps (ef) and each doubling of the entries; second, those of walks through what is not wanted.
    steps: [Learnt; 2],
}

/// What there is to search for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub(super) anchors: usize,
    /// Entries of the bank.
    pub(super) entries: usize,
    /// Entries that are scanned beside a walk.
    pub(super) beside: usize,
    pub(super) ef: usize,
    /// Whether a walk would be over the rows as they are.
    pub(super) is_live: bool,
    /// Whether what lies nearest is not wanted: a walk goes through it all the same.
    pub(super) is_barred: bool,
}

/// Batches of 1, 2, 4, ... 64 anchors and more.
const BATCHES: usize = 7;

/// What is supposed before anything was measured: rows of 128 floats on one AVX-512 core. [`super::calibrate`] measures.
const SCAN_NS: [f32; BATCHES] = [20.0, 12.0, 6.0, 5.0, 4.0, 3.5, 3.0];
const STEP_NS: f32 = 30.0;
const LIVE: f32 = 1.5;
const STEPS: f32 = 0.6;

impl Default for Planner {
    fn default() -> Self {
        Self {
            scan: SCAN_NS.map(Learnt::new),
            step: Learnt::new(STEP_NS),
            live: Learnt::new(LIVE),
            steps: [STEPS; 2].map(Learnt::new),
        }
    }
}

impl Planner {
    /// Microseconds that a scan would take.
    pub(super) fn scan_us(&self, anchors: usize, entries: usize) -> f64 {
        self.scan[batch(anchors)].get() * anchors as f64 * entries as f64 / 1e3
    }

    /// Microseconds that walks through the graph would take, with the scan of what it doesn't know.
    pub(super) fn graph_us(&self, task: Task) -> f64 {
        let steps = self.steps[usize::from(task.is_barred)].get() * task.ef as f64 * doublings(task.entries);
        // Rows that are listed are copied before they are scanned.
        steps * self.step_ns(task) * task.anchors as f64 / 1e3 + 2.0 * self.scan_us(task.anchors, task.beside)
    }

    /// Distances after which one anchor's walk costs more than a scan for it.
    pub(super) fn most_steps(&self, task: Task) -> usize {
        let scan = self.scan_us(task.anchors, task.entries) / task.anchors.max(1) as f64;
        ((scan * 1e3 / self.step_ns(task)) as usize).max(FEWEST_STEPS)
    }

    fn step_ns(&self, task: Task) -> f64 {
        self.step.get() * if task.is_live { self.live.get() } else { 1.0 }
    }

    pub(super) fn scanned(&self, task: Task, took: Duration) {
        let pairs = task.anchors * task.entries;
        if pairs >= LEAST_TOLD {
            self.scan[batch(task.anchors)].learn(took.as_nanos() as f64 / pairs as f64);
        }
    }

    pub(super) fn walked(&self, task: Task, computed: usize, took: Duration) {
        if computed > 0 && task.anchors > 0 {
            let each = took.as_nanos() as f64 / computed as f64;
            if task.is_live {
                self.live.learn(each / self.step.get());
            } else {
                self.step.learn(each);
            }
            let kept = (task.ef * task.anchors) as f64 * doublings(task.entries);
            self.steps[usize::from(task.is_barred)].learn(computed as f64 / kept);
        }
    }
}

/// A walk is never cut short before.
const FEWEST_STEPS: usize = 4_096;

/// Smaller scans tell more of everything else than of scanning.
const LEAST_TOLD: usize = 16_384;

fn batch(anchors: usize) -> usize {
    (anchors.max(1).ilog2() as usize).min(BATCHES - 1)
}

fn doublings(entries: usize) -> f64 {
    (entries.max(2) as f64).log2()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Planner, Task};

    const LARGE: Task = Task { anchors: 1, entries: 1_000_000, beside: 0, ef: 128, is_live: false, is_barred: false };

    #[test]
    fn large_banks_are_walked_and_small_ones_scanned() {
        let planner = Planner::default();
        assert!(planner.graph_us(LARGE) < planner.scan_us(1, 1_000_000) / 10.0);
        let small = Task { entries: 500, ..LARGE };
        assert!(planner.graph_us(small) > planner.scan_us(1, 500));
        let much_beside = Task { beside: 600_000, ..LARGE };
        assert!(planner.graph_us(much_beside) > planner.scan_us(1, 1_000_000));
    }

    #[test]
    fn costs_are_learnt_and_one_slow_search_changes_little() {
        let planner = Planner::default();
        (0..16).for_each(|_| planner.scanned(LARGE, Duration::from_millis(20)));
        let before = planner.scan_us(1, 1_000_000);
        planner.scanned(LARGE, Duration::from_secs(100));
        assert!(planner.scan_us(1, 1_000_000) < before * 1.2);
        for _ in 0..100 {
            planner.scanned(LARGE, Duration::from_millis(2));
            planner.walked(LARGE, 1_000, Duration::from_millis(1));
        }
        assert!((planner.scan_us(1, 1_000_000) - 2_000.0).abs() < 100.0);
        assert!((planner.graph_us(LARGE) - 1_000.0).abs() < 50.0);
        let barred = Task { is_barred: true, ..LARGE };
        (0..100).for_each(|_| planner.walked(barred, 4_000, Duration::from_millis(4)));
        assert!((planner.graph_us(barred) - 4_000.0).abs() < 200.0 && (planner.graph_us(LARGE) - 1_000.0).abs() < 50.0);
        let live = Task { is_live: true, ..LARGE };
        assert!((planner.graph_us(live) - 1_500.0).abs() < 80.0, "as is supposed of a row as it is");
        (0..100).for_each(|_| planner.walked(live, 1_000, Duration::from_millis(3)));
        assert!((planner.graph_us(live) - 3_000.0).abs() < 150.0 && (planner.graph_us(LARGE) - 1_000.0).abs() < 50.0);
    }
}
