//! What the committer applied together: one record of the log.

use super::pieces::Pieces;
use super::sink::Sink;
use super::source::{Source, Unreadable};
use crate::model::{BankKind, BankSpec, Ids, Invalid, Matrix, Mutation, Origin, StageAt, WriteBatch};

pub(super) const VERSION: u8 = 1;

const WRITE: u8 = 1;
const STAGE: u8 = 2;
const REMOVE: u8 = 3;

/// Mutations of one bank as a record.
pub fn encode_group<'a>(mutations: impl ExactSizeIterator<Item = &'a Mutation>) -> Pieces<'a> {
    let mut pieces = Pieces::default();
    let mut sink = pieces.sink();
    sink.u8(VERSION);
    sink.u64(mutations.len() as u64);
    for mutation in mutations {
        let mut sink = pieces.sink();
        match mutation {
            Mutation::Write(write) => {
                sink.u8(WRITE);
                batch(write, &mut pieces);
            }
            Mutation::Stage(at, batches) => {
                sink.u8(STAGE);
                sink.u64(at.step);
                sink.u32(at.micro_batch);
                sink.u64(batches.len() as u64);
                batches.iter().for_each(|of_rank| batch(of_rank, &mut pieces));
            }
            Mutation::Remove(ids) => {
                sink.u8(REMOVE);
                sink.u64(ids.len() as u64);
                sink.u64s(ids);
            }
        }
    }
    pieces
}

/// The mutations of a bank with these settings.
///
/// # Errors
/// [`Unreadable`], also for what [`WriteBatch`] would refuse.
pub fn decode_group(spec: &BankSpec, bytes: &[u8]) -> Result<Vec<Mutation>, Unreadable> {
    let mut source = Source::new(bytes);
    let version = source.u8()?;
    if version != VERSION {
        return Err(source.complain(format!("version {version} of the log's records; this program reads {VERSION}")));
    }
    let count = source.count(9)?;
    let mut mutations = Vec::with_capacity(count);
    for _ in 0..count {
        mutations.push(match source.u8()? {
            WRITE => Mutation::Write(read_batch(spec, &mut source)?),
            STAGE => {
                let at = StageAt { step: source.u64()?, micro_batch: source.u32()? };
                let ranks = source.count(8)?;
                let batches: Result<Vec<_>, _> = (0..ranks).map(|_| read_batch(spec, &mut source)).collect();
                Mutation::Stage(at, batches?.into())
            }
            REMOVE => {
                let ids = source.count(8)?;
                Mutation::Remove(source.u64s(ids)?)
            }
            other => return Err(source.complain(format!("{other} is no kind of mutation"))),
        });
    }
    source.end()?;
    Ok(mutations)
}

fn batch<'a>(batch: &'a WriteBatch, pieces: &mut Pieces<'a>) {
    let (columns, mut sink) = (batch.columns(), pieces.sink());
    sink.u64(batch.rows() as u64);
    sink.f32(batch.momentum());
    sink.optional(batch.step());
    sink.u8(batch.origin().is_some().into());
    if let Some(origin) = batch.origin() {
        sink.bytes(origin.writer.name.as_bytes());
        sink.u64(origin.writer.incarnation);
        sink.u64(origin.number);
    }
    sink.u8(columns.ids.is_some().into());
    sink.u64s(columns.ids.unwrap_or_default());
    column(columns.labels, |label| label as u64, &mut sink);
    column(columns.groups, |group| group, &mut sink);
    sink.u8(columns.weights.is_some().into());
    sink.f32s(columns.weights.unwrap_or_default());
    pieces.f32s(batch.embeddings().values());
}

/// A presence byte and, if there is such a column, a byte for each row that has a value, then the values.
fn column<T: Copy + Default>(column: Option<&[Option<T>]>, word: impl Fn(T) -> u64, sink: &mut Sink<'_>) {
    sink.u8(column.is_some().into());
    let column = column.unwrap_or_default();
    column.iter().for_each(|value| sink.u8(value.is_some().into()));
    column.iter().for_each(|value| sink.u64(word(value.unwrap_or_default())));
}

fn read_batch(spec: &BankSpec, source: &mut Source<'_>) -> Result<WriteBatch, Unreadable> {
    let rows = source.count(spec.dim().saturating_mul(4))?;
    let momentum = source.f32()?;
    let step = source.optional()?;
    let origin = source.flag()?.then(|| read_origin(source)).transpose()?;
    let ids = source.flag()?.then(|| source.u64s(rows)).transpose()?.map_or(Ids::Assigned, Ids::Given);
    let labels = read_column(rows, |word| word as i64, source)?;
    let groups = read_column(rows, |word| word, source)?;
    let weights = source.flag()?.then(|| source.f32s(rows)).transpose()?;
    let values = source.f32s(rows.saturating_mul(spec.dim()))?;
    let momentum = matches!(spec.kind(), BankKind::Keyed { .. }).then_some(momentum);
    let batch = || -> Result<WriteBatch, Invalid> {
        let embeddings = Matrix::new("embeddings", spec.dim(), spec.metric(), values)?;
        let batch = WriteBatch::new(spec, ids, embeddings, labels, groups, step, momentum)?.with_origin(origin);
        weights.map_or(Ok(batch.clone()), |weights| batch.with_weights(weights))
    };
    batch().map_err(|refused| source.complain(format!("a batch that the bank would refuse: {refused}")))
}

fn read_origin(source: &mut Source<'_>) -> Result<Origin, Unreadable> {
    let (name, incarnation, number) = (source.text()?, source.u64()?, source.u64()?);
    Origin::new(name, incarnation, number).map_err(|refused| source.complain(refused.to_string()))
}

fn read_column<T>(
    rows: usize,
    value: impl Fn(u64) -> T,
    source: &mut Source<'_>,
) -> Result<Option<Vec<Option<T>>>, Unreadable> {
    if !source.flag()? {
        return Ok(None);
    }
    let present: Result<Vec<bool>, _> = (0..rows).map(|_| source.flag()).collect();
    let words = source.u64s(rows)?;
    Ok(Some(present?.into_iter().zip(words).map(|(there, word)| there.then(|| value(word))).collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode_group, encode_group};
    use crate::model::{BankKind, BankSpec, Dtype, Ids, Matrix, Metric, Mutation, Origin, StageAt, WriteBatch};

    fn spec(queue: bool) -> BankSpec {
        let kind = if queue { BankKind::Queue { capacity: 9 } } else { BankKind::Keyed { momentum: 0.5, capacity: None } };
        BankSpec::new(3, Metric::Dot, kind, 2).unwrap().with_dtype(Dtype::F32).unwrap()
    }

    fn batches(queue: bool) -> impl Strategy<Value = WriteBatch> {
        (1usize..5).prop_flat_map(move |rows| {
            let values = prop::collection::vec(-9.0f32..9.0, rows * 3);
            let ids = prop::option::of(prop::collection::vec(any::<u64>(), rows));
            let labels = prop::option::of(prop::collection::vec(prop::option::of(any::<i64>()), rows));
            let groups = prop::option::of(prop::collection::vec(prop::option::of(any::<u64>()), rows));
            let weights = prop::option::of(prop::collection::vec(0.0f32..9.0, rows));
            let origin = prop::option::of(("[a-z/é]{1,9}", any::<u64>(), 1u64..99));
            let (step, momentum) = (prop::option::of(any::<u64>()), prop::option::of(0.0f32..1.0));
            (values, ids, labels, groups, weights, origin, step, momentum).prop_map(
                move |(values, ids, labels, groups, weights, origin, step, momentum)| {
                    let ids = match (ids, queue) {
                        (Some(ids), _) => Ids::Given(ids),
                        (None, true) => Ids::Assigned,
                        (None, false) => Ids::Given(vec![7; rows]),
                    };
                    let matrix = Matrix::new("x", 3, Metric::Dot, values).unwrap();
                    let momentum = momentum.filter(|_| !queue);
                    let batch = WriteBatch::new(&spec(queue), ids, matrix, labels, groups, step, momentum).unwrap();
                    let origin = origin.map(|(name, incarnation, number)| Origin::new(&name, incarnation, number).unwrap());
                    let batch = batch.with_origin(origin);
                    weights.map_or(batch.clone(), |weights| batch.with_weights(weights).unwrap())
                },
            )
        })
    }

    fn mutations(queue: bool) -> impl Strategy<Value = Mutation> {
        let stage = (any::<u64>(), any::<u32>(), prop::collection::vec(batches(queue), 1..4))
            .prop_map(|(step, micro_batch, batches)| Mutation::Stage(StageAt { step, micro_batch }, batches.into()));
        let remove = prop::collection::vec(any::<u64>(), 0..4).prop_map(Mutation::Remove);
        prop_oneof![batches(queue).prop_map(Mutation::Write), stage, remove]
    }

    fn groups() -> impl Strategy<Value = (bool, Vec<Mutation>)> {
        any::<bool>().prop_flat_map(|queue| (Just(queue), prop::collection::vec(mutations(queue), 0..5)))
    }

    proptest! {
        #[test]
        fn what_was_written_is_read((queue, group) in groups()) {
            let bytes = encode_group(group.iter()).to_vec();
            prop_assert_eq!(decode_group(&spec(queue), &bytes), Ok(group));
            for end in 0..bytes.len() {
                prop_assert!(decode_group(&spec(queue), &bytes[..end]).is_err(), "the first {} bytes", end);
            }
        }

        #[test]
        fn whatever_is_read_nothing_breaks(bytes in prop::collection::vec(any::<u8>(), 0..99), at in 0usize..99, byte in any::<u8>(),
                                           (queue, group) in groups()) {
            let _unreadable = decode_group(&spec(queue), &bytes);
            let mut damaged = encode_group(group.iter()).to_vec();
            let at = at % damaged.len();
            damaged[at] = byte;
            let _perhaps = decode_group(&spec(queue), &damaged);
        }
    }
}
