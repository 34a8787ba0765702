//! Weights that can be drawn by, and changed.

/// A binary tree of sums over weights: an item is drawn, and a weight changed, in the logarithm of their number.
#[derive(Debug)]
pub(super) struct SumTree {
    /// A power of two, at least the number of weights.
    leaves: usize,
    /// The sum of node i is that of nodes 2i and 2i + 1; node 1 is the root, and the leaves come last.
    sums: Vec<f64>,
}

impl SumTree {
    /// A tree of weights of at least 0.
    pub(super) fn new(weights: impl ExactSizeIterator<Item = f64>) -> Self {
        let leaves = weights.len().next_power_of_two();
        let mut sums = vec![0.0; 2 * leaves];
        sums[leaves..].iter_mut().zip(weights).for_each(|(leaf, weight)| *leaf = weight);
        for node in (1..leaves).rev() {
            sums[node] = sums[2 * node] + sums[2 * node + 1];
        }
        Self { leaves, sums }
    }

    /// The sum of all weights.
    pub(super) fn total(&self) -> f64 {
        self.sums[1]
    }

    /// The item at `point`, 0 to below 1, of the way from the first to the last; never one of weight 0. The total must be above 0.
    pub(super) fn at(&self, point: f64) -> usize {
        let mut left = point * self.total();
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            // Rounding may lead past the last weight that is not 0.
            if left >= self.sums[node] && self.sums[node + 1] > 0.0 {
                left -= self.sums[node];
                node += 1;
            }
        }
        node - self.leaves
    }

    /// Makes an item's weight 0.
    pub(super) fn clear(&mut self, item: usize) {
        let mut node = self.leaves + item;
        self.sums[node] = 0.0;
        while node > 1 {
            node /= 2;
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SumTree;

    #[test]
    fn items_lie_one_after_the_other_and_what_is_cleared_is_never_met() {
        let weights = [0.0, 1.0, 0.0, 2.0, 0.5, 0.5, 0.0];
        let mut tree = SumTree::new(weights.into_iter());
        assert_eq!(tree.total(), 4.0);
        let of = |tree: &SumTree| [0.0, 0.2, 0.25, 0.74, 0.75, 0.9, 1.0 - f64::EPSILON].map(|point| tree.at(point));
        assert_eq!(of(&tree), [1, 1, 3, 3, 4, 5, 5]);
        tree.clear(3);
        tree.clear(5);
        assert_eq!((tree.total(), tree.at(0.5), tree.at(0.7), tree.at(1.0)), (1.5, 1, 4, 4));
    }
}
