//! A file that a bank is written to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Seek as _, Write};
use std::path::{Path, PathBuf};

use super::column::{Dtype, Name};
use super::input::beside;
use super::safetensors::Told;
use super::{Format, npy, safetensors};
use crate::client::ScanColumns;

/// Columns that are being written. Embeddings go to the file as they come; the others, some forty bytes a row, are kept until the end.
/// Nothing has the name that was asked for before it is whole.
#[derive(Debug)]
pub(in crate::cli) struct Output {
    format: Format,
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    dtype: Dtype,
    dim: usize,
    rows: usize,
    small: BTreeMap<Name, Vec<u8>>,
}

impl Output {
    /// Files that lie where it would be written, or its columns would.
    pub(in crate::cli) fn there(path: &Path) -> Result<Vec<PathBuf>, String> {
        let columns = match Format::of(path)? {
            Format::Safetensors => Vec::new(),
            Format::Npy => Name::SMALL.into_iter().map(|name| beside(path, name)).collect(),
        };
        Ok(std::iter::once(path.to_owned()).chain(columns).filter(|path| path.exists()).collect())
    }

    /// Begins a file of embeddings of this type and dimension.
    pub(in crate::cli) fn create(path: &Path, dtype: Dtype, dim: usize) -> Result<Self, String> {
        let format = Format::of(path)?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|fault| format!("{}: {fault}", partial.display()))?;
        let small = Name::SMALL.into_iter().map(|name| (name, Vec::new())).collect();
        let mut output = Self {
            format,
            path: path.to_owned(),
            partial,
            file: BufWriter::with_capacity(1 << 20, file),
            dtype,
            dim,
            rows: 0,
            small,
        };
        let room = match format {
            Format::Safetensors => safetensors::HEAD,
            Format::Npy => npy::HEAD,
        };
        output.write(&vec![0; room])?;
        Ok(output)
    }

    /// Adds a chunk of rows.
    pub(in crate::cli) fn put(&mut self, chunk: &ScanColumns) -> Result<(), String> {
        let Some(rows) = &chunk.rows else { return Ok(()) };
        if let Some(embeddings) = &rows.embeddings {
            self.write(&embeddings.data)?;
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

    fn finish_tensors(mut self, metadata: &BTreeMap<&str, String>) -> Result<Vec<PathBuf>, String> {
        let width = self.dim * self.dtype.bytes();
        let bytes = (self.rows * width) as u64;
        let mut told = vec![Told { name: Name::Embeddings, dtype: self.dtype, shape: vec![self.rows, self.dim], bytes }];
        for (name, column) in std::mem::take(&mut self.small) {
            told.push(Told { name, dtype: dtype(name), shape: vec![self.rows], bytes: column.len() as u64 });
            self.write(&column)?;
        }
        self.settle(&safetensors::head(&told, metadata)?)?;
        Ok(vec![self.path.clone()])
    }

    fn finish_arrays(mut self) -> Result<Vec<PathBuf>, String> {
        let mut paths = vec![self.path.clone()];
        // Columns of another bank's export would be taken for this one's. While they are changed there are no embeddings beside them.
        for old in Self::there(&self.path)? {
            fs::remove_file(&old).map_err(|fault| format!("{}: {fault}", old.display()))?;
        }
        for (name, column) in std::mem::take(&mut self.small) {
            let path = beside(&self.path, name);
            let head = npy::head(dtype(name), self.rows, None)?;
            let written = fs::write(&path, [&head, column.as_slice()].concat());
            written.map_err(|fault| format!("{}: {fault}", path.display()))?;
            paths.push(path);
        }
        self.settle(&npy::head(self.dtype, self.rows, Some(self.dim))?)?;
        Ok(paths)
    }

    fn settle(&mut self, head: &[u8]) -> Result<(), String> {
        let settled = self.file.rewind().and_then(|()| {
            self.file.write_all(head)?;
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            fs::rename(&self.partial, &self.path)
        });
        settled.map_err(|fault| format!("{}: {fault}", self.path.display()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.file.write_all(bytes).map_err(|fault| format!("{}: {fault}", self.partial.display()))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Finished, there is no such file any more.
        let _gone = fs::remove_file(&self.partial);
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
