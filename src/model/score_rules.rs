//! Which scores are kept.

use super::Invalid;

/// Score rules of a draw, as a caller states them; all given ones must pass. p is the anchor's smallest positive score.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ScoreRules {
    /// `s >= min_score`
    pub min_score: Option<f32>,
    /// `s <= max_score`
    pub max_score: Option<f32>,
    /// f of `s <= p - |p| * (1 - f)` (NV-Retriever 2024; this form is safe for p < 0).
    pub max_positive_fraction: Option<f32>,
    /// m of `s <= p - m`
    pub margin: Option<f32>,
    /// w of `s > p - w`
    pub within: Option<f32>,
}

/// The scores that one anchor keeps: `floor <= s <= ceiling` and `s > above`. Bounds are f64, so that each rule is
/// computed without rounding a second time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRange {
    /// Smallest score kept.
    pub floor: f64,
    /// Every score kept is above this.
    pub above: f64,
    /// Largest score kept.
    pub ceiling: f64,
}

impl ScoreRules {
    /// No rule.
    pub const NONE: Self = Self { min_score: None, max_score: None, max_positive_fraction: None, margin: None, within: None };

    /// Checks the rules.
    ///
    /// # Errors
    /// [`Invalid`] on `field.rule` for NaN or infinity, a fraction outside (0, 1], or an empty range.
    pub fn check(&self, field: &str) -> Result<(), Invalid> {
        let mut invalid = Invalid::default();
        let named = [
            ("min_score", self.min_score),
            ("max_score", self.max_score),
            ("max_positive_fraction", self.max_positive_fraction),
            ("margin", self.margin),
            ("within", self.within),
        ];
        for (name, value) in named {
            if let Some(value) = value
                && !value.is_finite()
            {
                invalid.push(format!("{field}.{name}"), format!("is {value}: it must be finite"));
            }
        }
        if let Some(fraction) = self.max_positive_fraction
            && !(fraction > 0.0 && fraction <= 1.0)
            && fraction.is_finite()
        {
            invalid.push(format!("{field}.max_positive_fraction"), format!("{fraction} is outside (0, 1]"));
        }
        if let (Some(min), Some(max)) = (self.min_score, self.max_score)
            && min > max
        {
            invalid.push(format!("{field}.min_score"), format!("{min} is above max_score {max}: no score passes"));
        }
        invalid.or(())
    }

    /// True if no rule is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True if a rule is relative to the anchor's positive.
    pub fn need_positive(&self) -> bool {
        self.max_positive_fraction.is_some() || self.margin.is_some() || self.within.is_some()
    }

    /// The range kept for an anchor whose smallest positive score is `positive`.
    pub fn range(&self, positive: Option<f32>) -> ScoreRange {
        let mut range = ScoreRange::ALL;
        range.floor = self.min_score.map_or(range.floor, f64::from);
        range.ceiling = self.max_score.map_or(range.ceiling, f64::from);
        if let Some(p) = positive.map(f64::from) {
            if let Some(fraction) = self.max_positive_fraction {
                range.ceiling = range.ceiling.min(p - p.abs() * (1.0 - f64::from(fraction)));
            }
            if let Some(margin) = self.margin {
                range.ceiling = range.ceiling.min(p - f64::from(margin));
            }
            if let Some(within) = self.within {
                range.above = p - f64::from(within);
            }
        }
        range
    }
}

impl ScoreRules {
    /// True if low scores are left out.
    pub fn has_floor(&self) -> bool {
        self.min_score.is_some() || self.within.is_some()
    }
}

impl ScoreRange {
    /// Keeps every score.
    pub const ALL: Self = Self { floor: f64::NEG_INFINITY, above: f64::NEG_INFINITY, ceiling: f64::INFINITY };

    /// True if the score passes.
    pub fn keeps(&self, score: f32) -> bool {
        let score = f64::from(score);
        score >= self.floor && score > self.above && score <= self.ceiling
    }
}

#[cfg(test)]
mod tests {
    use super::ScoreRules;

    #[test]
    fn a_fraction_tightens_for_negative_positives_too() {
        let rules = ScoreRules { max_positive_fraction: Some(0.5), ..ScoreRules::default() };
        assert_eq!(rules.range(Some(0.8)).ceiling, f64::from(0.8f32) * 0.5);
        assert_eq!(rules.range(Some(-0.5)).ceiling, -0.75);
    }

    #[test]
    fn semi_hard_is_margin_zero_within_the_margin() {
        let rules = ScoreRules { margin: Some(0.0), within: Some(0.25), ..ScoreRules::default() };
        let range = rules.range(Some(0.5));
        assert!(range.keeps(0.5) && range.keeps(0.2501));
        assert!(!range.keeps(0.25) && !range.keeps(0.5001));
    }

    #[test]
    fn nan_and_empty_ranges_are_refused() {
        let rules = ScoreRules { margin: Some(f32::NAN), max_positive_fraction: Some(1.5), ..ScoreRules::default() };
        assert_eq!(rules.check("rules").unwrap_err().violations.len(), 2);
        let empty = ScoreRules { min_score: Some(0.5), max_score: Some(0.4), ..ScoreRules::default() };
        assert!(empty.check("rules").is_err());
    }
}
