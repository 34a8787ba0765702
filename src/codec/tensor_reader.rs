//! Reading a bank from a safetensors file, front to back.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use super::image::Section;
use super::source::Source;
use super::tensor_file::{BANK, EMBEDDINGS, PADDING, VERSION};
use crate::model::{BankSpec, ShardImage};

/// Takes a section as [`Section`] encodes it, or complains of it.
pub type TakeSection<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

/// Turns the bytes of a file, as they come, into the sections that the bank was made of.
#[derive(Debug)]
pub struct TensorReader {
    spec: BankSpec,
    head: Vec<u8>,
    /// Tensors that are not whole yet; `None`: neither is the header.
    left: Option<VecDeque<Tensor>>,
    /// What is there of the first of them.
    current: Vec<u8>,
    /// The others, until embeddings come.
    columns: HashMap<String, Vec<u8>>,
    /// Rows of the present shard that were given.
    rows: u32,
    section: Vec<u8>,
}

#[derive(Debug)]
struct Tensor {
    name: String,
    left: u64,
    /// Of embeddings.
    shard: Option<u32>,
}

#[derive(Deserialize)]
struct Place {
    data_offsets: [u64; 2],
}

/// The header of a bank of 64 shards has about 100 KiB.
const LONGEST_HEADER: usize = 16 << 20;

impl TensorReader {
    /// Nothing was read yet of a bank of these settings.
    pub fn new(spec: BankSpec) -> Self {
        let (head, current, columns) = (Vec::new(), Vec::new(), HashMap::new());
        Self { spec, head, left: None, current, columns, rows: 0, section: Vec::new() }
    }

    /// Takes the next bytes, and gives the sections that they complete.
    ///
    /// # Errors
    /// What is wrong with them, or what `section` complained of.
    pub fn push(&mut self, mut bytes: &[u8], section: TakeSection<'_>) -> Result<(), String> {
        if self.left.is_none() {
            self.head.extend_from_slice(bytes);
            let Some((header, rest)) = header(&self.head)? else { return Ok(()) };
            let (tensors, rest) = (self.tensors(header)?, rest.to_vec());
            (self.left, self.head) = (Some(tensors), Vec::new());
            return self.push(&rest, section);
        }
        let row_bytes = self.spec.dim() * self.spec.dtype().bytes();
        loop {
            let Some(tensor) = self.left.as_mut().and_then(VecDeque::front_mut) else {
                return if bytes.is_empty() { Ok(()) } else { Err("there are bytes after the last tensor".into()) };
            };
            let shard = tensor.shard;
            if shard == Some(0) && !self.columns.is_empty() {
                self.columns(section)?;
                continue;
            }
            let most = if shard.is_some() { Section::ROWS * row_bytes - self.current.len() } else { usize::MAX };
            let taken = bytes.len().min(most).min(usize::try_from(tensor.left).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(taken);
            self.current.extend_from_slice(now);
            tensor.left -= taken as u64;
            bytes = later;
            let whole = tensor.left == 0;
            if let Some(shard) = shard
                && !self.current.is_empty()
                && (whole || self.current.len() == Section::ROWS * row_bytes)
            {
                self.section.clear();
                Section::encode_rows(shard, &mut self.section, |raw| {
                    raw.extend_from_slice(&self.current);
                    Ok::<_, String>(Some(self.rows))
                })?;
                section(&self.section)?;
                self.rows += (self.current.len() / row_bytes) as u32;
                self.current.clear();
            }
            if whole && let Some(done) = self.left.as_mut().and_then(VecDeque::pop_front) {
                self.rows = 0;
                if done.shard.is_none() {
                    self.columns.insert(done.name, std::mem::take(&mut self.current));
                }
            } else if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Checks that nothing is missing.
    ///
    /// # Errors
    /// What is.
    pub fn finish(&self) -> Result<(), String> {
        match &self.left {
            Some(left) if left.is_empty() => Ok(()),
            Some(left) => Err(format!("it ends before {}", left.front().map_or("its end", |tensor| &tensor.name))),
            None => Err("it ends within its header".into()),
        }
    }

    /// The tensors in the order of their bytes.
    fn tensors(&self, header: &[u8]) -> Result<VecDeque<Tensor>, String> {
        let mut header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(header).map_err(|fault| format!("its header is no JSON: {fault}"))?;
        let version = header.remove("__metadata__").and_then(|metadata| metadata.get("negbank").cloned());
        if version.as_ref().and_then(serde_json::Value::as_str) != Some(VERSION) {
            return Err(format!("its tensors are not those of a bank, version {VERSION}"));
        }
        let mut places = Vec::new();
        for (name, place) in header {
            let Place { data_offsets: [from, to] } =
                serde_json::from_value(place).map_err(|fault| format!("tensor {name}: {fault}"))?;
            let left = to.checked_sub(from).ok_or_else(|| format!("tensor {name} ends before it begins"))?;
            let shard = name.strip_prefix(EMBEDDINGS).and_then(|rest| rest.strip_prefix('.')).and_then(|of| of.parse().ok());
            places.push((from, to, Tensor { name, left, shard }));
        }
        // Of those without a byte, shards in their order: they all begin where the next does.
        places.sort_by_key(|(from, to, tensor)| (*from, *to, tensor.shard));
        let mut at = 0;
        for (from, to, tensor) in &places {
            if *from != at {
                return Err(format!("tensor {} does not begin where the one before it ends", tensor.name));
            }
            at = *to;
        }
        let shards: Vec<u32> = places.iter().filter_map(|(_, _, tensor)| tensor.shard).collect();
        let last = places.iter().rev().take(shards.len()).all(|(_, _, tensor)| tensor.shard.is_some());
        if !shards.iter().copied().eq(0..self.spec.shards() as u32) || !last {
            return Err("its embeddings are not those of all shards, in order, at the end".into());
        }
        Ok(places.into_iter().map(|(_, _, tensor)| tensor).collect())
    }

    /// Gives everything but the embeddings.
    fn columns(&mut self, section: TakeSection<'_>) -> Result<(), String> {
        self.columns.remove(PADDING);
        let bank = self.columns.remove(BANK).ok_or("tensor bank is missing")?;
        section(&bank)?;
        for shard in 0..self.spec.shards() {
            let image = self.shard(shard)?;
            self.section.clear();
            Section::encode_shard(&image, &mut self.section);
            section(&self.section)?;
        }
        match self.columns.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("tensor {name} is none of a bank's")),
        }
    }

    fn shard(&mut self, shard: usize) -> Result<ShardImage, String> {
        let mut take = |name: &str| {
            let name = format!("{name}.{shard}");
            self.columns.remove(&name).ok_or_else(|| format!("tensor {name} is missing"))
        };
        Ok(ShardImage {
            ids: numbers(&take("ids")?, u64::from_le_bytes)?,
            labels: numbers(&take("labels")?, i64::from_le_bytes)?,
            groups: numbers(&take("groups")?, u64::from_le_bytes)?,
            weights: numbers(&take("weights")?, f32::from_le_bytes)?,
            steps: numbers(&take("steps")?, u64::from_le_bytes)?,
            occupied_at: numbers(&take("occupied_at")?, u64::from_le_bytes)?,
            revisions: numbers(&take("revisions")?, u64::from_le_bytes)?,
            present: take("present")?,
            in_roster: numbers(&take("in_roster")?, u32::from_le_bytes)?,
            in_label: numbers(&take("in_label")?, u32::from_le_bytes)?,
            in_group: numbers(&take("in_group")?, u32::from_le_bytes)?,
            in_weight: numbers(&take("in_weight")?, u32::from_le_bytes)?,
            free: numbers(&take("free")?, u32::from_le_bytes)?,
            largest_norm: Source::new(&take("largest_norm")?).u64().map(f64::from_bits).map_err(|fault| fault.to_string())?,
        })
    }
}

/// A header, and what comes after it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The header, if all of it is there.
fn header(bytes: &[u8]) -> Result<Option<Split<'_>>, String> {
    let Some((len, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let len = usize::try_from(u64::from_le_bytes(*len)).ok().filter(|&len| len <= LONGEST_HEADER);
    let len = len.ok_or("it is no safetensors file: its header would be too long")?;
    Ok(rest.split_at_checked(len))
}

fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
    let (cells, rest) = bytes.as_chunks::<N>();
    if rest.is_empty() {
        Ok(cells.iter().map(|&cell| number(cell)).collect())
    } else {
        Err("a column ends within a number".into())
    }
}
