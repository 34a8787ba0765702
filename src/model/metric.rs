//! How closeness is scored.

/// A metric; a higher score is always closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Dot product of unit vectors. Rows are normalised when written, anchors when read.
    Cosine,
    /// Dot product.
    Dot,
    /// Minus the squared Euclidean distance.
    L2,
}
