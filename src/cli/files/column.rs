//! A column of a file.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use half::{bf16, f16};

/// What a column is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Name {
    Embeddings,
    Ids,
    Labels,
    HasLabel,
    Groups,
    HasGroup,
    Weights,
    Steps,
    /// Order of arrival.
    Stamps,
}

impl Name {
    /// Every one but the embeddings.
    pub(in crate::cli) const SMALL: [Self; 8] =
        [Self::Ids, Self::Labels, Self::Groups, Self::Steps, Self::Stamps, Self::Weights, Self::HasLabel, Self::HasGroup];

    /// As files name it.
    pub(in crate::cli) const fn text(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::Ids => "ids",
            Self::Labels => "labels",
            Self::HasLabel => "has_label",
            Self::Groups => "groups",
            Self::HasGroup => "has_group",
            Self::Weights => "weights",
            Self::Steps => "steps",
            Self::Stamps => "stamps",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// How a column's values are written, always little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    U64,
    I64,
    U32,
    I32,
    U8,
}

impl Dtype {
    pub(super) const ALL: [Self; 9] =
        [Self::F64, Self::F32, Self::F16, Self::Bf16, Self::U64, Self::I64, Self::U32, Self::I32, Self::U8];

    /// Bytes of a value.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::U64 | Self::I64 => 8,
            Self::F32 | Self::U32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }
}

/// A column that can be read from anywhere: `rows` times `width` values from byte `at` on.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) at: u64,
    pub(super) dtype: Dtype,
    pub(super) rows: usize,
    pub(super) width: usize,
}

impl Column {
    /// Checks that the file is as long as it must be.
    pub(super) fn whole(self) -> Result<Self, String> {
        let bytes =
            (self.rows as u64).checked_mul(self.width as u64).and_then(|values| values.checked_mul(self.dtype.bytes() as u64));
        let end = bytes.and_then(|bytes| bytes.checked_add(self.at));
        let len = self.file.metadata().map_err(|fault| self.fault(&fault.to_string()))?.len();
        match end {
            Some(end) if end <= len => Ok(self),
            _ => Err(self.fault(&format!("{} rows of {} values are more than its {len} bytes hold", self.rows, self.width))),
        }
    }

    /// The bytes of some rows, in the order in which they are asked for.
    pub(super) fn bytes(&self, rows: &[u32]) -> Result<Vec<u8>, String> {
        let width = self.width * self.dtype.bytes();
        let mut bytes = vec![0; rows.len() * width];
        let mut rest = bytes.as_mut_slice();
        // Rows that lie one after the other are read at once.
        for run in rows.chunk_by(|row, next| row.checked_add(1) == Some(*next)) {
            let Some((&first, (part, others))) = run.first().zip(rest.split_at_mut_checked(run.len() * width)) else { break };
            let read = self.file.read_exact_at(part, self.at + u64::from(first) * width as u64);
            read.map_err(|fault: io::Error| self.fault(&fault.to_string()))?;
            rest = others;
        }
        Ok(bytes)
    }

    /// Whole numbers of at least 0.
    pub(super) fn unsigned(&self, rows: &[u32]) -> Result<Vec<u64>, String> {
        let values = self.whole_numbers(rows)?;
        values.into_iter().map(|value| u64::try_from(value).map_err(|_| self.fault(&format!("{value} is below 0")))).collect()
    }

    /// Whole numbers.
    pub(super) fn signed(&self, rows: &[u32]) -> Result<Vec<i64>, String> {
        let values = self.whole_numbers(rows)?;
        let fits = |value| i64::try_from(value).map_err(|_| self.fault(&format!("{value} is above {}", i64::MAX)));
        values.into_iter().map(fits).collect()
    }

    /// Single floats.
    pub(super) fn floats(&self, rows: &[u32]) -> Result<Vec<f32>, String> {
        let bytes = self.bytes(rows)?;
        Ok(match self.dtype {
            Dtype::F64 => words(&bytes).map(|word| f64::from_le_bytes(word) as f32).collect(),
            Dtype::F32 => words(&bytes).map(f32::from_le_bytes).collect(),
            Dtype::F16 => words(&bytes).map(|word| f16::from_le_bytes(word).to_f32()).collect(),
            Dtype::Bf16 => words(&bytes).map(|word| bf16::from_le_bytes(word).to_f32()).collect(),
            _ => self.whole_numbers(rows)?.into_iter().map(|value| value as f32).collect(),
        })
    }

    fn whole_numbers(&self, rows: &[u32]) -> Result<Vec<i128>, String> {
        let bytes = self.bytes(rows)?;
        Ok(match self.dtype {
            Dtype::U64 => words(&bytes).map(|word| u64::from_le_bytes(word).into()).collect(),
            Dtype::I64 => words(&bytes).map(|word| i64::from_le_bytes(word).into()).collect(),
            Dtype::U32 => words(&bytes).map(|word| u32::from_le_bytes(word).into()).collect(),
            Dtype::I32 => words(&bytes).map(|word| i32::from_le_bytes(word).into()).collect(),
            Dtype::U8 => bytes.into_iter().map(i128::from).collect(),
            _ => return Err(self.fault(&format!("{:?} is not a type of whole numbers", self.dtype))),
        })
    }

    pub(super) fn fault(&self, what: &str) -> String {
        format!("{}: {}: {what}", self.path.display(), self.name)
    }
}

fn words<const WIDTH: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; WIDTH]> {
    bytes.as_chunks().0.iter().copied()
}
