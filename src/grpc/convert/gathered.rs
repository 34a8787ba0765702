//! What a gather came to, as a ready-made frame or as a message, and gathers for people.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use super::columns::decoded;
use super::sampled::rows;
use crate::engine::{GatherInfo, Gathered, Part};
use crate::grpc::frame::Frame;
use crate::grpc::wire::Fields;
use crate::model::{Dtype, Encoding, Half, ServedRows};
use crate::proto::v1;

const RESPONSE_ROWS: u32 = 1;

/// Bytes that are widened at a time: whole floats.
const WIDENED: usize = 64 << 10;

/// The frame of the answer. The embeddings come last, from where the ranks' requests left them.
pub(in crate::grpc) fn gathered(gathered: &Gathered) -> Frame {
    frame(gathered, pieces(gathered), encoding(gathered.dtype()))
}

/// The frame of the answer with readable numbers.
pub(in crate::grpc) fn readable(gathered: &Gathered) -> Frame {
    let embeddings = match gathered.dtype() {
        Dtype::F32 => pieces(gathered),
        Dtype::Half(_) => widened(gathered),
    };
    frame(gathered, embeddings, Encoding::Floats)
}

/// Memory that a readable answer takes beside what is gathered.
pub(in crate::grpc) fn bytes_of_readable(gathered: &Gathered) -> usize {
    let copied = match gathered.dtype() {
        Dtype::F32 if gathered.is_copied() => gathered.bytes_of_embeddings(),
        Dtype::F32 => 0,
        Dtype::Half(_) => 2 * gathered.bytes_of_embeddings(),
    };
    copied + gathered.bytes_of_columns()
}

/// Gathers for people.
pub(in crate::grpc) fn gathers(gathers: &[GatherInfo]) -> v1::ListGathersResponse {
    let info = |gather: &GatherInfo| v1::GatherInfo {
        group: gather.id.group().to_owned(),
        step: gather.id.step(),
        micro_batch: gather.id.micro_batch(),
        world_size: gather.world_size,
        missing_ranks: gather.missing.clone(),
        finished: gather.finished,
        bytes: gather.bytes as u64,
    };
    v1::ListGathersResponse { gathers: gathers.iter().map(info).collect() }
}

fn frame(gathered: &Gathered, embeddings: Vec<Bytes>, encoding: Encoding) -> Frame {
    let mut response = Fields::message(gathered.bytes_of_columns());
    response.raw(&small(gathered).encode_to_vec());
    let (rows, tail) = rows(served(gathered, embeddings), gathered.dim(), encoding);
    response.length(RESPONSE_ROWS, rows.len() + tail.iter().map(Bytes::len).sum::<usize>());
    response.raw(rows.as_slice());
    Frame::new(response, tail)
}

/// The answer without its rows.
fn small(gathered: &Gathered) -> v1::GatherResponse {
    let missing_ranks: Vec<u32> = gathered.missing().collect();
    let counts = gathered.counts().map(|count| count as u32).collect();
    v1::GatherResponse { rows: None, counts, partial: !missing_ranks.is_empty(), missing_ranks }
}

/// All rows in the order of the ranks. A column that some ranks gave is filled up with nothing.
fn served(gathered: &Gathered, embeddings: Vec<Bytes>) -> ServedRows {
    fn column<T: Copy>(gathered: &Gathered, of: impl Fn(&Part) -> Option<&[Option<T>]>) -> Vec<Option<T>> {
        if !gathered.parts().any(|part| of(part).is_some()) {
            return Vec::new();
        }
        gathered.parts().flat_map(|part| of(part).map_or_else(|| vec![None; part.rows()], <[_]>::to_vec)).collect()
    }
    ServedRows {
        len: gathered.rows(),
        ids: gathered.parts().flat_map(Part::ids).copied().collect(),
        embeddings,
        labels: column(gathered, Part::labels),
        groups: column(gathered, Part::groups),
        ..ServedRows::default()
    }
}

/// The embeddings of the ranks: as they lie, or in one piece where that is many small ones.
fn pieces(gathered: &Gathered) -> Vec<Bytes> {
    let pieces = gathered.parts().map(Part::embeddings).filter(|bytes| !bytes.is_empty());
    if !gathered.is_copied() {
        return pieces.cloned().collect();
    }
    let mut whole = BytesMut::with_capacity(gathered.bytes_of_embeddings());
    pieces.for_each(|piece| whole.extend_from_slice(piece));
    vec![whole.freeze()]
}

/// Halves as f32.
fn widened(gathered: &Gathered) -> Vec<Bytes> {
    let mut whole = BytesMut::with_capacity(2 * gathered.bytes_of_embeddings());
    for halves in gathered.parts().flat_map(|part| part.embeddings().chunks(WIDENED)) {
        decoded(halves, gathered.dtype()).into_iter().for_each(|x| whole.put_f32_le(x));
    }
    if whole.is_empty() { Vec::new() } else { vec![whole.freeze()] }
}

fn encoding(dtype: Dtype) -> Encoding {
    match dtype {
        Dtype::F32 => Encoding::F32,
        Dtype::Half(Half::F16) => Encoding::F16,
        Dtype::Half(Half::Bf16) => Encoding::Bf16,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use prost::Message as _;

    use super::{bytes_of_readable, gathered, readable};
    use crate::engine::{Config, Contribution, Engine, GatherId, Gathered, Part, Seat};
    use crate::model::clock::Deadline;
    use crate::model::{Dtype, Invalid};
    use crate::proto::v1;

    /// What three ranks of four come to: one with labels, one without rows, and one with groups.
    async fn came_to(bytes: usize) -> Arc<Gathered> {
        let engine = Engine::start(Config { threads: 1, ..Config::default() }).unwrap();
        let data = |byte: u8| Bytes::from(vec![byte; bytes]);
        let ids = |first: u64| (first..).take(bytes / 4).collect::<Vec<u64>>();
        let mut groups = vec![Some(6); bytes / 4];
        groups[0] = None;
        let bring = |rank, part: Result<Part, Invalid>| {
            let (id, seat) = (GatherId::new("g", 1, 0).unwrap(), Seat::new(rank, 4).unwrap());
            let from = Contribution { id, seat, part: part.unwrap(), held: 0, wait: Some(Duration::from_millis(300)) };
            engine.gather(from, Deadline::after(Duration::from_secs(20)))
        };
        let (_, _, last) = tokio::join!(
            bring(0, Part::new((2, Dtype::F16, data(60)), ids(1), Some(vec![Some(-5); bytes / 4]), None)),
            bring(1, Part::new((2, Dtype::F16, Bytes::new()), Vec::new(), None, None)),
            bring(2, Part::new((2, Dtype::F16, data(61)), ids(1_000_000), None, Some(groups))),
        );
        last.unwrap()
    }

    /// Small ranks are sent in one piece, large ones from where they lie.
    #[tokio::test]
    async fn a_frame_is_the_message_that_prost_would_have_made() {
        for bytes in [8, Part::WORTH_A_PIECE * 2] {
            let rows = bytes / 4;
            let came_to = came_to(bytes).await;
            let frame = gathered(&came_to);
            let answer = v1::GatherResponse::decode(frame.message().as_slice()).unwrap();
            let of = answer.rows.clone().unwrap();
            assert_eq!(
                (answer.counts, answer.partial, answer.missing_ranks),
                (vec![rows as u32, 0, rows as u32, 0], true, vec![3])
            );
            assert_eq!((of.ids[0], of.ids[rows], of.ids.len()), (1, 1_000_000, 2 * rows));
            assert_eq!(
                (of.labels[0], of.labels[rows], &of.has_label[..]),
                (-5, 0, &[vec![1; rows], vec![0; rows]].concat()[..])
            );
            assert_eq!((of.groups[0], of.groups[rows], of.groups[rows + 1]), (0, 0, 6));
            let matrix = of.embeddings.unwrap();
            assert_eq!((matrix.dim, matrix.dtype()), (2, v1::Dtype::F16));
            assert_eq!(matrix.data, [vec![60; bytes], vec![61; bytes]].concat());
            let pieces = frame.into_pieces();
            assert_eq!(pieces.len(), if bytes == 8 { 2 } else { 3 });
            let lies = came_to.part(2).unwrap().embeddings().as_ptr();
            assert_eq!(pieces.last().unwrap().as_ptr() == lies, bytes > 8);

            let frame = readable(&came_to);
            let copied = frame.bytes();
            assert!(copied <= bytes_of_readable(&came_to), "{copied} bytes were not taken before");
            let readable = v1::GatherResponse::decode(frame.message().as_slice()).unwrap();
            let values = readable.rows.clone().unwrap().embeddings.unwrap().values;
            assert_eq!((values.len(), values[0]), (4 * rows, half::f16::from_le_bytes([60, 60]).to_f32()));
            assert_eq!(
                v1::Rows { embeddings: None, ..readable.rows.unwrap() },
                v1::Rows { embeddings: None, ..answer.rows.unwrap() }
            );
        }
    }
}
