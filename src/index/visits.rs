//! In which order a scan visits the rows of a bank.

/// Slots of a shard that lie one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Shard's number.
    pub shard: u32,
    /// First slot.
    pub start: u32,
    /// Slot after the last.
    pub end: u32,
}

/// The slots of all shards, in stretches of the same length but for the last one of each shard.
#[derive(Debug, Clone)]
pub struct Visits {
    length: u32,
    /// Of each shard its slots, and how many stretches those before it have.
    shards: Vec<(u32, usize)>,
    stretches: usize,
    /// From one visit to the next.
    step: usize,
    made: usize,
    /// Number of the next stretch.
    next: usize,
}

/// (sqrt(5) - 1) / 2.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// Steps that are tried on either side of it.
const TRIED: usize = 32;

impl Visits {
    /// Stretches of `length`, in their order; `slots` are how many each shard has.
    pub fn in_order(slots: impl Iterator<Item = u32>, length: u32) -> Self {
        let (mut shards, mut stretches) = (Vec::new(), 0);
        for slots in slots {
            shards.push((slots, stretches));
            stretches += slots.div_ceil(length) as usize;
        }
        Self { length, shards, stretches, step: 1, made: 0, next: 0 }
    }

    /// The same stretches spread out: at any time about the same share was visited of every part of the bank, whatever order its rows came
    /// in. Multiples of the golden ratio fill a circle most evenly (Knuth, The Art of Computer Programming, section 6.4, theorem S), and
    /// those of fractions the more so the smaller the quotients that they are continued by; the ratio's own are all one.
    pub fn spread(slots: impl Iterator<Item = u32>, length: u32) -> Self {
        let mut visits = Self::in_order(slots, length);
        let stretches = visits.stretches;
        let near = (stretches as f64 * GOLDEN) as usize;
        let steps = near.saturating_sub(TRIED)..near + TRIED;
        let best = steps.filter_map(|step| Some((largest_quotient(step, stretches)?, step))).min();
        visits.step = best.map_or(1, |(_, step)| step);
        visits
    }

    /// All of the slots.
    pub fn rows(&self) -> usize {
        self.shards.iter().map(|&(slots, _)| slots as usize).sum()
    }

    fn stretch(&self, number: usize) -> Stretch {
        // A shard without slots has no stretch: of those that begin with one number the last has it.
        let shard = self.shards.partition_point(|&(_, before)| before <= number).saturating_sub(1);
        let (slots, before) = self.shards[shard];
        let start = (number - before) as u32 * self.length;
        Stretch { shard: shard as u32, start, end: slots.min(start.saturating_add(self.length)) }
    }
}

impl Iterator for Visits {
    type Item = Stretch;

    fn next(&mut self) -> Option<Stretch> {
        if self.made == self.stretches {
            return None;
        }
        let stretch = self.stretch(self.next);
        self.made += 1;
        self.next = (self.next + self.step) % self.stretches;
        Some(stretch)
    }
}

/// The largest quotient of the continued fraction of `step / stretches`, below one; `None` if such steps don't come everywhere.
fn largest_quotient(step: usize, stretches: usize) -> Option<usize> {
    let (mut of, mut by, mut largest) = (stretches, step, 0);
    while by > 0 {
        largest = largest.max(of / by);
        (of, by) = (by, of % by);
    }
    (of == 1 && step < stretches).then_some(largest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Stretch, Visits};

    proptest! {
        #[test]
        fn each_slot_is_visited_once(slots in prop::collection::vec(0u32..3_000, 0..6), length in 1u32..700) {
            for mut visits in [Visits::in_order(slots.iter().copied(), length), Visits::spread(slots.iter().copied(), length)] {
                prop_assert_eq!(visits.rows(), slots.iter().map(|&slots| slots as usize).sum::<usize>());
                let mut seen: Vec<Vec<bool>> = slots.iter().map(|&slots| vec![false; slots as usize]).collect();
                for Stretch { shard, start, end } in &mut visits {
                    prop_assert!(start < end && end - start <= length);
                    for slot in start..end {
                        prop_assert!(!std::mem::replace(&mut seen[shard as usize][slot as usize], true));
                    }
                }
                prop_assert!(seen.iter().flatten().all(|&seen| seen));
                prop_assert_eq!(visits.next(), None);
            }
        }

        /// Of every tenth of the bank about as much has been seen as of the whole, whenever one stops.
        #[test]
        fn visits_are_spread_evenly(stretches in 100u32..2_000, part in 0u32..10) {
            let (slots, length) = (stretches * 7, 7);
            let tenth = part * stretches / 10..(part + 1) * stretches / 10;
            let mut inside = 0;
            for (made, stretch) in (1u32..).zip(Visits::spread([slots].into_iter(), length)) {
                inside += u32::from(tenth.contains(&(stretch.start / length)));
                let expected = f64::from(made) * f64::from(tenth.len() as u32) / f64::from(stretches);
                prop_assert!((f64::from(inside) - expected).abs() < 4.0, "{inside} of {expected} after {made}");
            }
        }
    }

    #[test]
    fn one_after_the_other_in_order() {
        let visits: Vec<Stretch> = Visits::in_order([0, 5, 0, 3].into_iter(), 3).collect();
        let stretch = |shard, start, end| Stretch { shard, start, end };
        assert_eq!(visits, [stretch(1, 0, 3), stretch(1, 3, 5), stretch(3, 0, 3)]);
    }
}
