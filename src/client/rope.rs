//! A message in the pieces in which it arrived.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// Pieces of memory, read as one. A `bytes` field that is decoded from it is copied, once, into memory of its own, which turns
/// into a `Vec<u8>` without another copy.
#[derive(Debug, Default)]
pub(super) struct Rope {
    front: Bytes,
    rest: VecDeque<Bytes>,
    len: usize,
}

impl Rope {
    /// Appends a piece.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if self.front.is_empty() {
            self.front = piece;
        } else if !piece.is_empty() {
            self.rest.push_back(piece);
        }
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        &self.front
    }

    /// Panics past the end, as `Buf` asks.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advanced by {count} of {}", self.len);
        self.len -= count;
        while count >= self.front.len() && !self.rest.is_empty() {
            count -= self.front.len();
            self.front = self.rest.pop_front().unwrap_or_default();
        }
        self.front.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};

    use super::Rope;

    fn rope(pieces: &[&[u8]]) -> Rope {
        let mut rope = Rope::default();
        for piece in pieces {
            rope.push(Bytes::copy_from_slice(piece));
        }
        rope
    }

    #[test]
    fn pieces_read_as_one() {
        let mut rope = rope(&[b"", b"ab", b"", b"c", b"defg"]);
        assert_eq!(rope.remaining(), 7);
        assert_eq!(rope.chunk(), b"ab");
        rope.advance(2);
        assert_eq!(rope.chunk(), b"c");
        assert_eq!(rope.get_u16(), u16::from_be_bytes(*b"cd"));
        assert_eq!(rope.copy_to_bytes(2), "ef");
        rope.advance(1);
        assert!(!rope.has_remaining());
        assert_eq!(rope.chunk(), b"");
    }

    #[test]
    fn a_copy_becomes_a_vec_where_it_lies() {
        let piece = Bytes::from(vec![7u8; 1 << 20]);
        let mut rope = Rope::default();
        rope.push(piece.clone());
        rope.push(piece);
        for len in [1 << 20, 1 << 19] {
            let copy = rope.copy_to_bytes(len);
            let lies = copy.as_ptr();
            let taken = Vec::from(copy);
            assert_eq!((taken.as_ptr(), taken.len()), (lies, len));
            assert_eq!(lies.align_offset(4), 0);
        }
    }

    #[test]
    #[should_panic(expected = "advanced by 4 of 3")]
    fn nothing_is_read_past_the_end() {
        rope(&[b"ab", b"c"]).advance(4);
    }
}
