//! A generation as bytes, so that a restarted server need not build it again, and back.
//!
//! A section is a tag and the values of one array, or of a part of it, little-endian. The first is the head, the last is empty.

use super::flat_graph::FlatGraph;
use super::frozen::{Frozen, Spot};
use super::generation::{Generation, Taken};
use crate::model::Metric;
use crate::rows::{OutOfMemory, Slab};

const HEAD: u8 = 0;
const CENTRE: u8 = 1;
const SPOTS: u8 = 2;
const NEXT: u8 = 3;
const UNREACHABLE: u8 = 4;
const ROWS: u8 = 5;
const END: u8 = 6;
/// Links of the lowest layer; those of the others follow.
const LINKS: u8 = 7;

/// More layers no graph has: each holds a small share of the nodes of the one below.
const MOST_LAYERS: usize = 64;

/// Values of a section at most.
const PART: usize = 128 << 10;

impl Generation {
    /// Gives `put` the sections, in order.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn save<E>(&self, put: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let (frozen, layers) = (self.frozen(), self.graph().layers());
        let mut head = vec![layers.len() as u64, self.taken().sequence, self.taken().revision];
        head.extend([frozen.len(), frozen.nodes(), frozen.stride()].map(|size| size as u64));
        head.push(metric_number(frozen.metric()));
        self.graph().layers().for_each(|(nodes, degree, _)| head.extend([nodes as u64, degree as u64]));
        let mut give = |tag: u8, bytes: &mut dyn Iterator<Item = u8>| {
            let mut section = vec![tag];
            section.extend(bytes);
            put(&section)
        };
        give(HEAD, &mut head.iter().flat_map(|word| word.to_le_bytes()))?;
        give(CENTRE, &mut frozen.centre().iter().flat_map(|x| x.to_le_bytes()))?;
        for part in frozen.spots().chunks(PART) {
            give(SPOTS, &mut part.iter().flat_map(|spot| encoded(*spot)))?;
        }
        for (tag, words) in [(NEXT, frozen.next()), (UNREACHABLE, self.unreachable())] {
            for part in words.chunks(PART) {
                give(tag, &mut part.iter().flat_map(|word| word.to_le_bytes()))?;
            }
        }
        let rows = frozen.len() * frozen.stride();
        for part in frozen.slab()[..rows].chunks(4 * PART) {
            give(ROWS, &mut part.iter().flat_map(|half| half.to_le_bytes()))?;
        }
        for (tag, (.., links)) in (LINKS..).zip(layers) {
            for part in links.chunks(2 * PART) {
                give(tag, &mut part.iter().flat_map(|link| link.to_le_bytes()))?;
            }
        }
        give(END, &mut std::iter::empty())
    }
}

/// A generation that is being put together from its sections.
#[derive(Debug)]
pub struct Loading {
    metric: Metric,
    dim: usize,
    taken: Taken,
    nodes: usize,
    centre: Vec<f32>,
    spots: Vec<Spot>,
    next: Vec<u32>,
    unreachable: Vec<u32>,
    rows: Filling<u16>,
    layers: Vec<(usize, usize, Filling<u32>)>,
}

/// An array and how much of it is there.
#[derive(Debug)]
struct Filling<T> {
    slab: Slab<T>,
    filled: usize,
}

impl Loading {
    /// A generation of a bank of this metric and dimension.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(metric: Metric, dim: usize) -> Result<Self, OutOfMemory> {
        Ok(Self {
            metric,
            dim,
            taken: Taken::default(),
            nodes: 0,
            centre: Vec::new(),
            spots: Vec::new(),
            next: Vec::new(),
            unreachable: Vec::new(),
            rows: Filling::new(0)?,
            layers: Vec::new(),
        })
    }

    /// Takes the next section; true if it is the last.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn section(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let Some((&tag, bytes)) = bytes.split_first() else { return Err("a section is empty".to_owned()) };
        match tag {
            HEAD => self.head(&words(bytes).map(u64::from_le_bytes).collect::<Vec<_>>())?,
            CENTRE => self.centre.extend(words(bytes).map(f32::from_le_bytes)),
            SPOTS => self.spots.extend(words(bytes).map(decoded)),
            NEXT => self.next.extend(words(bytes).map(u32::from_le_bytes)),
            UNREACHABLE => self.unreachable.extend(words(bytes).map(u32::from_le_bytes)),
            ROWS => self.rows.fill(words(bytes).map(u16::from_le_bytes))?,
            END => return Ok(true),
            tag => {
                let layer = self.layers.get_mut(usize::from(tag - LINKS)).ok_or("there is no such layer")?;
                layer.2.fill(words(bytes).map(u32::from_le_bytes))?;
            }
        }
        Ok(false)
    }

    /// The generation, once all sections were taken.
    ///
    /// # Errors
    /// Why they do not make one.
    pub fn finish(self) -> Result<Generation, String> {
        let whole = self.rows.is_full() && self.layers.iter().all(|(.., links)| links.is_full());
        let layers = self.layers.into_iter().map(|(nodes, degree, links)| (nodes, degree, links.slab)).collect();
        let frozen = Frozen::restore((self.metric, self.dim), (self.rows.slab, self.spots), self.centre, self.nodes, self.next);
        let generation = frozen.zip(FlatGraph::restore(layers)).filter(|_| whole);
        let generation =
            generation.and_then(|(frozen, graph)| Generation::restore(frozen, graph, self.taken, self.unreachable));
        generation.ok_or_else(|| "its parts do not belong together".to_owned())
    }

    fn head(&mut self, words: &[u64]) -> Result<(), String> {
        let Some((&[layers, sequence, revision, entries, nodes, stride, metric], sizes)) = words.split_first_chunk() else {
            return Err("its head is cut short".to_owned());
        };
        if metric != metric_number(self.metric) || stride != crate::kernels::bf16::stride(self.dim) as u64 {
            return Err("it is of rows of another kind".to_owned());
        }
        let (pairs, rest) = sizes.as_chunks::<2>();
        if pairs.len() as u64 != layers || !rest.is_empty() || pairs.len() > MOST_LAYERS {
            return Err("its head does not tell of its layers".to_owned());
        }
        let room = |a: u64, b: u64| a.checked_mul(b).and_then(|room| usize::try_from(room).ok()).ok_or("its sizes are none");
        self.taken = Taken { sequence, revision };
        self.nodes = room(nodes, 1)?;
        let memory = |refused: OutOfMemory| refused.to_string();
        self.rows = Filling::new(room(entries, stride)?).map_err(memory)?;
        self.layers.clear();
        for &[nodes, degree] in pairs {
            let links = Filling::new(room(nodes, degree)?).map_err(memory)?;
            self.layers.push((room(nodes, 1)?, room(degree, 1)?, links));
        }
        Ok(())
    }
}

impl<T: bytemuck::Pod> Filling<T> {
    fn new(len: usize) -> Result<Self, OutOfMemory> {
        Ok(Self { slab: Slab::new(len)?, filled: 0 })
    }

    fn fill(&mut self, values: impl ExactSizeIterator<Item = T>) -> Result<(), String> {
        let end = self.filled + values.len();
        let room = self.slab.as_mut_slice().get_mut(self.filled..end).ok_or("it holds more than its head says")?;
        room.iter_mut().zip(values).for_each(|(to, value)| *to = value);
        self.filled = end;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.filled == self.slab.as_slice().len()
    }
}

fn words<const WIDTH: usize>(bytes: &[u8]) -> impl ExactSizeIterator<Item = [u8; WIDTH]> {
    bytes.as_chunks().0.iter().copied()
}

fn encoded(Spot { shard, slot, occupied_at }: Spot) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&shard.to_le_bytes());
    bytes[4..8].copy_from_slice(&slot.to_le_bytes());
    bytes[8..].copy_from_slice(&occupied_at.to_le_bytes());
    bytes
}

fn decoded(bytes: [u8; 16]) -> Spot {
    let word = u128::from_le_bytes(bytes);
    Spot { shard: word as u32, slot: (word >> 32) as u32, occupied_at: (word >> 64) as u64 }
}

fn metric_number(metric: Metric) -> u64 {
    match metric {
        Metric::Cosine => 1,
        Metric::Dot => 2,
        Metric::L2 => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::Loading;
    use crate::index::flat_graph::Reach;
    use crate::index::frozen::{Freezer, Spot};
    use crate::index::generation::{Candidate, Generation, Taken};
    use crate::index::hnsw::BuildConfig;
    use crate::model::{Metric, Seed};

    const DIM: usize = 10;

    fn rows() -> Vec<[f32; DIM]> {
        let mut stream = Seed(3).stream(0, 0);
        // Some rows come twice and thrice.
        let distinct: Vec<[f32; DIM]> = (0..900).map(|_| std::array::from_fn(|_| stream.gumbel() as f32)).collect();
        (0..1_200).map(|row| distinct[row % 900 % 700]).collect()
    }

    fn built(metric: Metric) -> Generation {
        let rows = rows();
        let mut freezer = Freezer::new(metric, DIM, rows.len(), &[0.5; DIM]).unwrap();
        for (slot, row) in (0u32..).zip(&rows) {
            freezer.add(Spot { shard: slot % 3, slot: slot / 3, occupied_at: u64::from(slot) + (7 << 40) }, row);
        }
        let config = BuildConfig { m: 6, ef_construction: 50, threads: 1 };
        Generation::build(freezer.finish(), Taken { sequence: 70, revision: 1 << 50 }, config, &|_, _| Ok(())).unwrap()
    }

    fn sections(generation: &Generation) -> Vec<Vec<u8>> {
        let mut sections = Vec::new();
        let saved: Result<(), ()> = generation.save(&mut |section| {
            sections.push(section.to_vec());
            Ok(())
        });
        saved.unwrap();
        sections
    }

    fn loaded(metric: Metric, dim: usize, sections: &[Vec<u8>]) -> Result<Generation, String> {
        let mut loading = Loading::new(metric, dim).unwrap();
        for section in sections {
            loading.section(section)?;
        }
        loading.finish()
    }

    fn found(generation: &Generation, anchor: &[f32]) -> Vec<Candidate> {
        let mut found = Vec::new();
        generation.search(
            anchor,
            Reach { ef: 50, most: usize::MAX },
            &mut |spot: Spot| !spot.slot.is_multiple_of(5),
            &mut found,
        );
        found
    }

    #[test]
    fn what_is_loaded_finds_what_was_found() {
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            let before = built(metric);
            let after = loaded(metric, DIM, &sections(&before)).unwrap();
            assert_eq!((after.taken(), after.unreachable()), (before.taken(), before.unreachable()));
            assert_eq!((after.frozen().len(), after.entry(2, 100)), (1_200, before.entry(2, 100)));
            assert!(before.frozen().nodes() < 1_200);
            for anchor in rows().iter().step_by(40) {
                assert!(found(&after, anchor) == found(&before, anchor));
                let (mut one, mut other) = (Vec::new(), Vec::new());
                let similar =
                    (after.frozen().similarity(9, anchor, &mut one), before.frozen().similarity(9, anchor, &mut other));
                assert!(similar.0 == similar.1);
            }
        }
    }

    #[test]
    fn what_is_no_generation_is_refused() {
        let whole = sections(&built(Metric::L2));
        assert!(loaded(Metric::Dot, DIM, &whole).is_err() && loaded(Metric::L2, 40, &whole).is_err());
        for missing in 0..whole.len() - 1 {
            let mut cut = whole.clone();
            cut.remove(missing);
            let nothing_was_lost = whole[missing].len() == 1 || whole[missing][0] == super::UNREACHABLE;
            assert!(loaded(Metric::L2, DIM, &cut).is_err() || nothing_was_lost, "section {missing}");
        }
        // A link or an entry that leads nowhere.
        for tag in [super::NEXT, super::LINKS] {
            let mut wrong = whole.clone();
            let section = wrong.iter_mut().find(|section| section[0] == tag).unwrap();
            section[1..5].copy_from_slice(&5_000u32.to_le_bytes());
            assert!(loaded(Metric::L2, DIM, &wrong).is_err(), "tag {tag}");
        }
        let mut loading = Loading::new(Metric::L2, DIM).unwrap();
        assert!(loading.section(&[]).is_err() && loading.section(&[200, 1]).is_err() && loading.finish().is_err());
    }
}
