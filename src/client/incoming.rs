//! An answer on its way in.

use bytes::{Buf as _, Bytes, BytesMut};
use tonic::Status;

use super::large_field::{Search, find};
use super::rope::Rope;

/// Bytes before a message: a flag that says whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// A field of fewer bytes isn't worth the search.
const LARGE: usize = 32 << 10;

/// The pieces of one message. Its large field is copied into memory of its own while it arrives, so that the transport's buffers
/// are free again at once and the copying is done when the last piece is there.
pub(super) struct Incoming {
    /// Path of the large field; empty: none.
    path: &'static [u32],
    limit: usize,
    /// Length of the message, once its prefix is here.
    len: Option<usize>,
    /// The message up to its large field; all of it where none was found.
    head: BytesMut,
    large: Option<Large>,
    tail: BytesMut,
}

struct Large {
    bytes: Vec<u8>,
    len: usize,
}

impl Incoming {
    /// A message of at most `limit` bytes, with a large field under `path`.
    pub(super) fn new(path: &'static [u32], limit: usize) -> Self {
        Self { path, limit, len: None, head: BytesMut::new(), large: None, tail: BytesMut::new() }
    }

    /// Takes the next piece; refuses a message that is too large as soon as it says so.
    pub(super) fn push(&mut self, mut piece: Bytes) -> Result<(), Status> {
        if self.large.is_none() {
            self.head.extend_from_slice(&piece);
            piece.clear();
            let Some(len) = self.len()? else { return Ok(()) };
            self.look_for_large(len);
        }
        if let Some(large) = &mut self.large {
            let taken = piece.split_to(piece.len().min(large.len - large.bytes.len()));
            large.bytes.extend_from_slice(&taken);
            self.tail.extend_from_slice(&piece);
        }
        match self.len {
            Some(len) if self.arrived() > len => Err(Status::internal("the answer goes on after its end")),
            _ => Ok(()),
        }
    }

    /// The message, once all of it is here.
    pub(super) fn message(self) -> Result<Rope, Status> {
        if self.len != Some(self.arrived()) {
            return Err(Status::internal("the answer ended before its end"));
        }
        let mut rope = Rope::default();
        rope.push(self.head.freeze());
        rope.push(self.large.map(|large| large.bytes).unwrap_or_default().into());
        rope.push(self.tail.freeze());
        Ok(rope)
    }

    fn arrived(&self) -> usize {
        self.head.len() + self.large.as_ref().map_or(0, |large| large.bytes.len()) + self.tail.len()
    }

    /// The message's length, read off its prefix.
    fn len(&mut self) -> Result<Option<usize>, Status> {
        if self.len.is_none() && self.head.len() >= PREFIX {
            let compressed = self.head.get_u8();
            if compressed != 0 {
                return Err(Status::internal(format!("the answer has compression flag {compressed}: none was agreed on")));
            }
            let (len, limit) = (self.head.get_u32() as usize, self.limit);
            if len > limit {
                return Err(Status::out_of_range(format!("the answer has {len} bytes, over the limit of {limit}")));
            }
            self.len = Some(len);
        }
        Ok(self.len)
    }

    /// Begins the large field once its place is known, with what of it is in the head.
    fn look_for_large(&mut self, message: usize) {
        match find(&self.head, message, self.path) {
            Search::Found { at, len } if len >= LARGE && at <= self.head.len() => {
                let mut begun = self.head.split_off(at);
                self.tail = begun.split_off(begun.len().min(len));
                let mut bytes = Vec::with_capacity(len);
                bytes.extend_from_slice(&begun);
                self.large = Some(Large { bytes, len });
            }
            Search::NotYet => {}
            Search::Found { .. } | Search::Absent => self.path = &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;
    use tonic::Code;

    use super::{Incoming, LARGE};
    use crate::client::{FloatColumn, RowColumns};

    const EMBEDDINGS: &[u32] = &[2, 1];

    fn sent(message: &impl Message) -> Vec<u8> {
        let body = message.encode_to_vec();
        [&[0u8][..], &(body.len() as u32).to_be_bytes(), &body].concat()
    }

    /// Columns before and behind the embeddings, of `len` bytes.
    fn rows(len: usize) -> RowColumns {
        let data: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let embeddings = Some(FloatColumn { data: data.into(), dim: 4, dtype: 1 });
        RowColumns { ids: vec![7; 800].into(), embeddings, steps: vec![9; 1_600].into(), ..RowColumns::default() }
    }

    fn received(whole: &[u8], piece: usize) -> RowColumns {
        let mut incoming = Incoming::new(EMBEDDINGS, whole.len());
        for part in whole.chunks(piece) {
            incoming.push(Bytes::copy_from_slice(part)).unwrap();
        }
        RowColumns::decode(incoming.message().unwrap()).unwrap()
    }

    #[test]
    fn a_message_is_the_same_in_whatever_pieces_it_comes() {
        for len in [0, 1, LARGE - 1, LARGE, 3 * LARGE + 5] {
            let whole = sent(&rows(len));
            for piece in [1, 2, 3, 7, 1_000, 1 << 14, whole.len()] {
                assert_eq!(received(&whole, piece), rows(len), "{len} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn the_large_field_is_handed_over_where_it_was_copied_to() {
        let whole = sent(&rows(5 * LARGE));
        let mut incoming = Incoming::new(EMBEDDINGS, whole.len());
        for part in whole.chunks(10_000) {
            incoming.push(Bytes::copy_from_slice(part)).unwrap();
        }
        let lies = incoming.large.as_ref().unwrap().bytes.as_ptr();
        let answer = RowColumns::decode(incoming.message().unwrap()).unwrap();
        let taken = Vec::from(answer.embeddings.unwrap().data);
        assert_eq!((taken.as_ptr(), taken.len()), (lies, 5 * LARGE));
        assert_eq!(lies.align_offset(8), 0);
    }

    #[test]
    fn a_message_that_is_too_large_is_refused_by_its_prefix() {
        let prefix = || Bytes::from_static(&[0, 0, 0, 0, 101]);
        let refused = Incoming::new(&[], 100).push(prefix()).unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
        assert!(refused.message().contains("101 bytes, over the limit of 100"), "{}", refused.message());
        Incoming::new(&[], 101).push(prefix()).unwrap();
    }

    #[test]
    fn a_message_that_is_cut_short_or_goes_on_is_refused() {
        let whole = sent(&rows(2 * LARGE));
        for kept in [0, 3, 5, 2_000, LARGE, whole.len() - 1] {
            let mut incoming = Incoming::new(EMBEDDINGS, whole.len());
            incoming.push(Bytes::copy_from_slice(&whole[..kept])).unwrap();
            assert_eq!(incoming.message().unwrap_err().code(), Code::Internal, "{kept} bytes");
        }
        let mut longer = Incoming::new(EMBEDDINGS, whole.len());
        longer.push(Bytes::from(whole)).unwrap();
        assert_eq!(longer.push(Bytes::from_static(b"x")).unwrap_err().code(), Code::Internal);
        assert_eq!(Incoming::new(&[], 9).push(Bytes::from_static(&[1, 0, 0, 0, 0])).unwrap_err().code(), Code::Internal);
    }
}
