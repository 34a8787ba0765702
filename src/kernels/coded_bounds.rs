//! What codes tell of scores, and which rows are therefore of interest.

use super::LANES;
use super::coded::{CodedHit, CodedRows};
use super::quantise::Quantised;

/// Which rows sixteen anchors want to hear of: `sum * scale + error * reach >= low`, and `sum * scale - error * reach <= high`,
/// all in steps of the anchor's own scale.
#[derive(Debug, Clone)]
pub struct CodedBounds {
    /// What a row's error counts for.
    pub(super) reach: [f32; LANES],
    pub(super) low: [f32; LANES],
    pub(super) high: [f32; LANES],
    /// The anchors' scales.
    steps: [f32; LANES],
    /// What a score may be off for other reasons than the row's error, once the anchor's residual is added.
    slack: [f32; LANES],
}

/// An anchor that became codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coded {
    scale: f64,
    /// At least the length of the anchor as it is read from its codes.
    length: f64,
    /// What a score with a unit row may be off for other reasons than the row's error: the anchor's own, and the score's d + 2
    /// roundings (Higham, Accuracy and Stability, section 3.1).
    own_error: f64,
    /// The same once the anchor's residual, as codes of its own, is added.
    finer_error: f64,
}

impl CodedBounds {
    /// What the first sixteen of `anchors` must hear of; see [`super::coded::CodedAnchors::bounds`].
    ///
    /// With anchor a = s q + x and row v = t c + y, both rotated, where |x| and |y| are the errors, what the rotation loses among them:
    /// a.v = st(q.c) + sq.y + x.v, so a.v is st(q.c) give or take (|a| + |x|)|y| + |x||v| (Cauchy-Schwarz, and |sq| <= |a| + |x|).
    ///
    /// Of a hit, s2 (q2.c), q2 being the codes of x by a scale s2, is added: then what x lacks of them stands in x's place.
    ///
    /// Tests and intervals are computed in f32: at most eight roundings, each of at most u = 2^-24 of the magnitudes; 2^-20 of
    /// them is taken off.
    pub(super) fn new(anchors: &[Coded], cuts: impl Iterator<Item = (f64, f64)>, (stride, largest_norm): (usize, f64)) -> Self {
        let mut bounds = Self {
            reach: [0.0; LANES],
            low: [f32::INFINITY; LANES],
            high: [f32::INFINITY; LANES],
            steps: [0.0; LANES],
            slack: [0.0; LANES],
        };
        // A row's error: at most its norm, or half a step, of a 127th of the norm, in each dimension.
        let largest_row = largest_norm * (1.01 + (stride as f64).sqrt() / 250.0);
        for (lane, ((low, high), anchor)) in cuts.zip(anchors).take(LANES).enumerate() {
            let (scale, reach) = (anchor.scale, anchor.length / anchor.scale);
            let rounding = reach * largest_row * 2f64.powi(-20);
            let slack = off(anchor.own_error, largest_norm) / scale + rounding;
            bounds.steps[lane] = scale as f32;
            let finer = off(anchor.finer_error, largest_norm) + rounding * scale;
            bounds.slack[lane] = (finer as f32).next_up();
            bounds.reach[lane] = (reach as f32).next_up();
            bounds.low[lane] = ((low / scale - slack) as f32).next_down();
            bounds.high[lane] = ((high / scale + slack) as f32).next_up();
        }
        bounds
    }

    #[inline(always)]
    pub(super) fn take(&self, lane: usize, sum: i32, scale: f32, error: f32) -> bool {
        let (middle, spread) = (sum as f32 * scale, error * self.reach[lane]);
        middle + spread >= self.low[lane] && middle - spread <= self.high[lane]
    }

    /// Between which values the score of a hit in this lane lies, whose sum lacks `lacks`.
    #[inline(always)]
    pub(super) fn interval(&self, lane: usize, (hit, lacks): (CodedHit, f32), rows: CodedRows<'_>) -> (f32, f32) {
        let row = hit.row as usize;
        let (middle, spread) = ((hit.sum as f32 + lacks) * rows.scales[row], rows.errors[row] * self.reach[lane]);
        let (step, slack) = (self.steps[lane], self.slack[lane]);
        ((middle - spread) * step - slack, (middle + spread) * step + slack)
    }

    /// True if some anchor has a largest score of interest.
    pub(super) fn is_ceiled(&self) -> bool {
        self.high.iter().any(|&high| high < f32::INFINITY)
    }
}

impl Coded {
    /// An anchor of this norm, rotated but for `lost`, and read so; `lacking` is what its residual's codes lack of that.
    pub(super) fn new((norm, lost): (f64, f64), read: Quantised, lacking: f64, stride: usize) -> Self {
        let (error, lacking) = (f64::from(read.error) + lost, lacking + lost);
        let roundings = (stride + 2) as f64 * f64::from(f32::EPSILON) / 2.0;
        let rounded = norm * roundings / (1.0 - roundings);
        // A millionth more covers what is rounded here.
        Self {
            scale: f64::from(read.scale),
            length: (norm + error) * 1.000_001,
            own_error: (error + rounded) * 1.000_001,
            finer_error: (lacking + rounded) * 1.000_001,
        }
    }
}

/// What a score may be off with a row of at most this norm. One f32 minimum covers underflow.
fn off(error: f64, largest_norm: f64) -> f64 {
    error * largest_norm + f64::from(f32::MIN_POSITIVE)
}
