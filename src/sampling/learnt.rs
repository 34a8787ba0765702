//! What was measured again and again.

use std::sync::atomic::{AtomicU64, Ordering};

/// A mean of which the last values weigh most, shared by whoever learns and whoever asks.
#[derive(Debug)]
pub struct Learnt(
    /// How many values there were, and the mean's bits.
    AtomicU64,
);

impl Learnt {
    /// As many values as the mean remembers.
    const REMEMBERED: u64 = 16;
    /// A thread that was put to sleep meanwhile tells nothing: what looks so much slower counts only as that.
    const WORST: f64 = 4.0;

    /// What is supposed before anything was measured.
    pub fn new(first: f32) -> Self {
        Self(AtomicU64::new(first.to_bits().into()))
    }

    /// The mean.
    pub fn get(&self) -> f64 {
        f64::from(f32::from_bits(self.0.load(Ordering::Relaxed) as u32))
    }

    /// Takes in one more value.
    pub fn learn(&self, value: f64) {
        let (mean, count) = (self.get(), (self.0.load(Ordering::Relaxed) >> 32).min(Self::REMEMBERED - 1) + 1);
        let value = if count == 1 { value } else { value.min(mean * Self::WORST) };
        let now = mean + (value - mean) / count as f64;
        // Of two threads that learn at once one may be forgotten.
        self.0.store(count << 32 | u64::from((now as f32).to_bits()), Ordering::Relaxed);
    }
}
