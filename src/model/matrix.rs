//! A matrix of floats.

use std::ops::Range;

use super::{Invalid, Metric};

/// Rows of `dim` finite floats each, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    dim: usize,
    data: Vec<f32>,
}

impl Matrix {
    /// Largest norm of a row of a dot or l2 bank: beyond it a score could overflow f32.
    pub const MAX_NORM: f64 = 1e18;

    /// Checks `data` as rows of a bank of this dimension and metric.
    ///
    /// # Errors
    /// [`Invalid`] on `field[row]` for NaN or infinity, zero norm (cosine) or a norm above [`Self::MAX_NORM`] (dot, l2), and
    /// on `field` for a length that is no multiple of `dim`.
    pub fn new(field: &str, dim: usize, metric: Metric, data: Vec<f32>) -> Result<Self, Invalid> {
        if dim == 0 || !data.len().is_multiple_of(dim) {
            return Err(Invalid::one(field, format!("{} floats do not make whole rows of dimension {dim}", data.len())));
        }
        let mut invalid = Invalid::default();
        for (at, row) in data.chunks_exact(dim).enumerate() {
            if let Err(reason) = check_row(row, metric) {
                invalid.push(format!("{field}[{at}]"), reason);
                if invalid.is_full() {
                    break;
                }
            }
        }
        invalid.or(Self { dim, data })
    }

    /// Some rows as a matrix.
    pub fn only(&self, rows: Range<usize>) -> Self {
        Self { dim: self.dim, data: self.data[rows.start * self.dim..rows.end * self.dim].to_vec() }
    }

    /// All rows, one after another.
    pub fn values(&self) -> &[f32] {
        &self.data
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Floats in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// One row.
    pub fn row(&self, at: usize) -> &[f32] {
        &self.data[at * self.dim..(at + 1) * self.dim]
    }
}

/// The sum of the squares, in several sums: one would wait for each addition.
fn square(row: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (chunks, rest) = row.as_chunks::<8>();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    let rest: f64 = rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    sums.iter().sum::<f64>() + rest
}

fn check_row(row: &[f32], metric: Metric) -> Result<(), String> {
    // f64 holds every sum of squares of f32: an infinite or NaN sum means that a value was.
    let square = square(row);
    if !square.is_finite() {
        let column = row.iter().position(|x| !x.is_finite()).unwrap_or_default();
        return Err(format!("column {column} is {}: every value must be finite", row[column]));
    }
    match metric {
        Metric::Cosine if square == 0.0 => Err("has norm zero: a cosine bank cannot normalise it".to_owned()),
        Metric::Dot | Metric::L2 if square > Matrix::MAX_NORM * Matrix::MAX_NORM => {
            Err(format!("has norm {:e}, above {:e}: scores would overflow f32", square.sqrt(), Matrix::MAX_NORM))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::Matrix;
    use crate::model::Metric;

    #[test]
    fn faults_name_the_row_and_the_column() {
        let refused = Matrix::new("embeddings", 2, Metric::Cosine, vec![1.0, 0.0, 0.0, f32::NAN, 0.0, 0.0]).unwrap_err();
        assert_eq!(refused.violations[0].field, "embeddings[1]");
        assert!(refused.violations[0].reason.contains("column 1 is NaN"));
        assert_eq!(refused.violations[1].field, "embeddings[2]");
        assert!(refused.violations[1].reason.contains("norm zero"));
    }

    #[test]
    fn tiny_rows_have_a_norm_and_huge_ones_only_fit_cosine() {
        assert!(Matrix::new("e", 1, Metric::Cosine, vec![1e-45]).is_ok());
        assert!(Matrix::new("e", 1, Metric::Cosine, vec![3e38]).is_ok());
        assert!(Matrix::new("e", 1, Metric::Dot, vec![3e38]).is_err());
        assert!(Matrix::new("e", 1, Metric::L2, vec![0.0]).is_ok());
    }
}
