//! Random order.

use crate::model::Stream;

/// `0..len` in random order, one at a time: Fisher and Yates's shuffle that stores only the positions it has moved.
#[derive(Debug)]
pub(super) struct Permutation<'s> {
    len: usize,
    next: usize,
    moved: Moved,
    stream: &'s mut Stream,
}

/// Where the shuffle has put another number than the position's own: an open-addressed table that forgets nothing, since a position
/// that was passed is never asked for again.
#[derive(Debug)]
struct Moved {
    /// Position plus 1 (0: empty) and the number there; a power of two of them, at most half of them used.
    cells: Vec<(usize, usize)>,
    used: usize,
}

impl<'s> Permutation<'s> {
    pub(super) fn new(len: usize, stream: &'s mut Stream) -> Self {
        Self { len, next: 0, moved: Moved { cells: vec![(0, 0); Moved::FIRST_CELLS], used: 0 }, stream }
    }
}

impl Iterator for Permutation<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next >= self.len {
            return None;
        }
        let front = self.moved.get(self.next);
        let at = self.next + self.stream.below((self.len - self.next) as u64) as usize;
        let picked = if at == self.next { front } else { self.moved.replace(at, front) };
        self.next += 1;
        Some(picked)
    }
}

impl Moved {
    const FIRST_CELLS: usize = 256;

    /// The number at a position.
    fn get(&self, position: usize) -> usize {
        match self.cells[self.cell(position)] {
            (0, _) => position,
            (_, number) => number,
        }
    }

    /// Puts `number` at a position and returns what was there.
    fn replace(&mut self, position: usize, number: usize) -> usize {
        let at = self.cell(position);
        let (key, before) = std::mem::replace(&mut self.cells[at], (position + 1, number));
        if key != 0 {
            return before;
        }
        self.used += 1;
        if self.used * 2 > self.cells.len() {
            self.grow();
        }
        position
    }

    /// The cell of a position: its own, or the empty one where it belongs.
    fn cell(&self, position: usize) -> usize {
        let mask = self.cells.len() - 1;
        let mut at = (position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) & mask;
        while self.cells[at].0 != 0 && self.cells[at].0 != position + 1 {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let larger = vec![(0, 0); self.cells.len() * 4];
        let smaller = std::mem::replace(&mut self.cells, larger);
        for (key, number) in smaller.into_iter().filter(|(key, _)| *key != 0) {
            let at = self.cell(key - 1);
            self.cells[at] = (key, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::Permutation;
    use crate::model::Seed;

    #[test]
    fn a_long_walk_meets_every_number_once() {
        for len in [0, 1, 255, 256, 5_000] {
            let mut order: Vec<usize> = Permutation::new(len, &mut Seed(len as u64).stream(0, 0)).collect();
            assert!(len < 200 || !order.is_sorted());
            order.sort_unstable();
            assert!(order.into_iter().eq(0..len));
        }
    }

    #[test]
    fn every_permutation_is_equally_likely() {
        let mut seen: HashMap<Vec<usize>, u32> = HashMap::new();
        let runs = 24_000;
        for seed in 0..runs {
            let order: Vec<usize> = Permutation::new(4, &mut Seed(seed).stream(0, 0)).collect();
            *seen.entry(order).or_default() += 1;
        }
        let expected = runs as f64 / 24.0;
        let chi2: f64 = seen.values().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        assert_eq!(seen.len(), 24);
        assert!(chi2 < 49.7, "chi-square {chi2} over 23 degrees of freedom is past the 99.9 % point");
    }
}
