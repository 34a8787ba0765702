//! A file that a bank is written to.

mod draft;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::draft::{Draft, place, place_together};
use super::column::{Dtype, Name};
use super::input::beside;
use super::safetensors::Told;
use super::{Format, npy, safetensors};
use crate::client::ScanColumns;

/// Columns that are being written. Embeddings go to the file as they come; the others, some forty bytes a row, are kept until the end.
/// Nothing has the name that was asked for before all of it is whole.
#[derive(Debug)]
pub(in crate::cli) struct Output {
    format: Format,
    path: PathBuf,
    replace: bool,
    draft: Draft,
    dtype: Dtype,
    dim: usize,
    rows: usize,
    small: BTreeMap<Name, Vec<u8>>,
}

impl Output {
    /// Files that lie where it would be written, or its columns would.
    fn there(path: &Path) -> Result<Vec<PathBuf>, String> {
        let columns = match Format::of(path)? {
            Format::Safetensors => Vec::new(),
            Format::Npy => Name::SMALL.into_iter().map(|name| beside(path, name)).collect(),
        };
        Ok(std::iter::once(path.to_owned()).chain(columns).filter(|path| path.exists()).collect())
    }

    /// The same, if they may be replaced.
    pub(in crate::cli) fn to_replace(path: &Path, replace: bool) -> Result<Vec<PathBuf>, String> {
        let there = Self::there(path)?;
        match there.first().filter(|_| !replace) {
            Some(first) => Err(format!("{} is there already; --replace takes its place", first.display())),
            None => Ok(there),
        }
    }

    /// Begins a file of embeddings of this type and dimension; `replace`: files that are there may be replaced.
    pub(in crate::cli) fn create(path: &Path, replace: bool, dtype: Dtype, dim: usize) -> Result<Self, String> {
        let format = Format::of(path)?;
        let mut draft = Draft::create(path)?;
        let room = match format {
            Format::Safetensors => safetensors::HEAD,
            Format::Npy => npy::HEAD,
        };
        draft.write(&vec![0; room])?;
        let small = Name::SMALL.into_iter().map(|name| (name, Vec::new())).collect();
        Ok(Self { format, path: path.to_owned(), replace, draft, dtype, dim, rows: 0, small })
    }

    /// Adds a chunk of rows.
    pub(in crate::cli) fn put(&mut self, chunk: &ScanColumns) -> Result<(), String> {
        let Some(rows) = &chunk.rows else { return Ok(()) };
        if let Some(embeddings) = &rows.embeddings {
            self.draft.write(&embeddings.data)?;
        }
        self.rows += rows.ids.len() / 8;
        for (name, bytes) in [
            (Name::Ids, &rows.ids),
            (Name::Labels, &rows.labels),
            (Name::HasLabel, &rows.has_label),
            (Name::Groups, &rows.groups),
            (Name::HasGroup, &rows.has_group),
            (Name::Weights, &rows.weights),
            (Name::Steps, &rows.steps),
            (Name::Stamps, &chunk.stamps),
        ] {
            self.small.entry(name).or_default().extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Rows so far.
    pub(in crate::cli) fn rows(&self) -> usize {
        self.rows
    }

    /// Gives the files their names and returns these. A column that no entry has a value in is left out, and so is the mask of one that
    /// all have.
    pub(in crate::cli) fn finish(mut self, metadata: &BTreeMap<&str, String>) -> Result<Vec<PathBuf>, String> {
        for (name, mask) in [(Name::Labels, Name::HasLabel), (Name::Groups, Name::HasGroup)] {
            let present = self.small.get(&mask).map_or(0, |mask| mask.iter().filter(|&&has| has > 0).count());
            if present == 0 {
                self.small.remove(&name);
            }
            if present == 0 || present == self.rows {
                self.small.remove(&mask);
            }
        }
        match self.format {
            Format::Safetensors => self.finish_tensors(metadata),
            Format::Npy => self.finish_arrays(),
        }
    }

    fn finish_tensors(self, metadata: &BTreeMap<&str, String>) -> Result<Vec<PathBuf>, String> {
        let Self { mut draft, rows, dim, .. } = self;
        let bytes = (rows * dim * self.dtype.bytes()) as u64;
        let mut told = vec![Told { name: Name::Embeddings, dtype: self.dtype, shape: vec![rows, dim], bytes }];
        for (name, column) in self.small {
            told.push(Told { name, dtype: dtype(name), shape: vec![rows], bytes: column.len() as u64 });
            draft.write(&column)?;
        }
        draft.write_head(&safetensors::head(&told, metadata)?)?;
        Ok(vec![place(draft, || Self::to_replace(&self.path, self.replace))?])
    }

    fn finish_arrays(self) -> Result<Vec<PathBuf>, String> {
        let Self { mut draft, rows, dim, .. } = self;
        draft.write_head(&npy::head(self.dtype, rows, Some(dim))?)?;
        let mut columns = Vec::new();
        for (name, values) in self.small {
            let mut column = Draft::create(&beside(&self.path, name))?;
            column.write(&npy::head(dtype(name), rows, None)?)?;
            column.write(&values)?;
            columns.push(column);
        }
        // Columns of another bank's export would be taken for this one's.
        place_together(draft, columns, || Self::to_replace(&self.path, self.replace))
    }
}

fn dtype(name: Name) -> Dtype {
    match name {
        Name::Ids | Name::Groups | Name::Steps | Name::Stamps => Dtype::U64,
        Name::Labels => Dtype::I64,
        Name::Weights | Name::Embeddings => Dtype::F32,
        Name::HasLabel | Name::HasGroup => Dtype::U8,
    }
}
