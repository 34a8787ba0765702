//! Files that a bank is filled from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::column::{Column, Dtype, Name};
use super::{Format, npy, safetensors};
use crate::client::messages as v1;

/// Columns of one length, of one file or of several.
#[derive(Debug)]
pub(in crate::cli) struct Input {
    embeddings: Column,
    small: BTreeMap<Name, Column>,
}

impl Input {
    /// Opens a file: the columns of a safetensors file under their names, or the embeddings of an .npy file, whose other columns lie
    /// beside it (`x.ids.npy` beside `x.npy`). What `given` names is taken from there instead, from .npy files.
    pub(in crate::cli) fn open(path: &Path, given: &[(Name, &Path)]) -> Result<Self, String> {
        let columns = match Format::of(path)? {
            Format::Safetensors => safetensors::open(path)?,
            Format::Npy => {
                let beside = Name::SMALL.into_iter().map(|name| (name, beside(path, name))).filter(|(_, path)| path.exists());
                let mut columns = vec![npy::open(path, Name::Embeddings)?];
                for (name, path) in beside {
                    columns.push(npy::open(&path, name)?);
                }
                columns
            }
        };
        let mut columns: BTreeMap<Name, Column> = columns.into_iter().map(|column| (column.name, column)).collect();
        for &(name, path) in given {
            columns.insert(name, npy::open(path, name)?);
        }
        let none = || format!("{}: it has no tensor \"embeddings\" of N rows", path.display());
        let embeddings = columns.remove(&Name::Embeddings).ok_or_else(none)?;
        if !matches!(embeddings.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
            return Err(embeddings.fault(&format!("{:?} is not a type of floats", embeddings.dtype)));
        }
        if let Some(other) = columns.values().find(|column| column.rows != embeddings.rows) {
            return Err(other.fault(&format!("it has {} rows, and the embeddings have {}", other.rows, embeddings.rows)));
        }
        if u32::try_from(embeddings.rows).is_err() {
            return Err(embeddings.fault(&format!("{} rows are more than can be read at once, {}", embeddings.rows, u32::MAX)));
        }
        Ok(Self { embeddings, small: columns })
    }

    pub(in crate::cli) fn rows(&self) -> usize {
        self.embeddings.rows
    }

    /// Floats in an embedding.
    pub(in crate::cli) fn dim(&self) -> usize {
        self.embeddings.width
    }

    /// Bytes of an embedding.
    pub(in crate::cli) fn row_bytes(&self) -> usize {
        self.embeddings.width * self.embeddings.dtype.bytes()
    }

    /// Every column with the file that it is of.
    pub(in crate::cli) fn sources(&self) -> Vec<(Name, &Path)> {
        let all = [&self.embeddings].into_iter().chain(self.small.values());
        all.map(|column| (column.name, column.path.as_path())).collect()
    }

    /// The rows in the order in which they are to be written, each with the training step that it carries: those of a queue as they
    /// arrived, those of a keyed bank by step, since a write carries one; rows that are alike as they stand in the file.
    pub(in crate::cli) fn order(&self, queue: bool) -> Result<Vec<(u32, Option<u64>)>, String> {
        let all: Vec<u32> = (0..self.rows() as u32).collect();
        let column = |name| self.small.get(&name).map(|column| column.unsigned(&all)).transpose();
        let steps = column(Name::Steps)?;
        let stamps = if queue { column(Name::Stamps)? } else { None };
        let step_of = |row: u32| steps.as_ref().and_then(|steps| steps.get(row as usize)).copied().filter(|&step| step > 0);
        let mut order: Vec<(u32, Option<u64>)> = all.iter().map(|&row| (row, step_of(row))).collect();
        match stamps {
            Some(stamps) => order.sort_by_key(|&(row, _)| stamps.get(row as usize).copied()),
            None if !queue => order.sort_by_key(|&(_, step)| step),
            None => {}
        }
        Ok(order)
    }

    /// A write of these rows, without a bank's name.
    pub(in crate::cli) fn batch(&self, rows: &[u32], queue: bool) -> Result<v1::WriteRequest, String> {
        let Self { embeddings, small } = self;
        let (dtype, data) = match embeddings.dtype {
            Dtype::F16 => (v1::Dtype::F16, embeddings.bytes(rows)?),
            Dtype::Bf16 => (v1::Dtype::Bf16, embeddings.bytes(rows)?),
            Dtype::F32 => (v1::Dtype::F32, embeddings.bytes(rows)?),
            _ => (v1::Dtype::F32, embeddings.floats(rows)?.into_iter().flat_map(f32::to_le_bytes).collect()),
        };
        let unsigned = |name| small.get(&name).map(|column| column.unsigned(rows)).transpose();
        let mask = |name| small.get(&name).map(|column| column.unsigned(rows)).transpose().map(Option::unwrap_or_default);
        let ids = match unsigned(Name::Ids)? {
            Some(ids) => ids,
            None if queue => Vec::new(),
            None => rows.iter().map(|&row| row.into()).collect(),
        };
        Ok(v1::WriteRequest {
            embeddings: Some(v1::Matrix {
                data: data.into(),
                dim: self.dim() as u32,
                dtype: dtype.into(),
                ..v1::Matrix::default()
            }),
            ids,
            labels: small.get(&Name::Labels).map(|column| column.signed(rows)).transpose()?.unwrap_or_default(),
            has_label: flags(mask(Name::HasLabel)?),
            groups: unsigned(Name::Groups)?.unwrap_or_default(),
            has_group: flags(mask(Name::HasGroup)?),
            weights: small.get(&Name::Weights).map(|column| column.floats(rows)).transpose()?.unwrap_or_default(),
            ..v1::WriteRequest::default()
        })
    }
}

fn flags(mask: Vec<u64>) -> bytes::Bytes {
    mask.into_iter().map(|flag| u8::from(flag > 0)).collect()
}

/// Where a column of an .npy file lies: `x.ids.npy` beside `x.npy`.
pub(super) fn beside(path: &Path, name: Name) -> PathBuf {
    path.with_extension(format!("{name}.npy"))
}
