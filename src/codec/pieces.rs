//! A record in pieces, so that what is large is not copied together.

use super::sink::Sink;

/// Bytes that are written one after the other; embeddings stay where they are.
#[derive(Debug, Default)]
pub struct Pieces<'a> {
    small: Vec<u8>,
    /// What comes after so many bytes of `small`.
    large: Vec<(usize, &'a [u8])>,
}

impl<'a> Pieces<'a> {
    /// Where what is small is written.
    pub(super) fn sink(&mut self) -> Sink<'_> {
        Sink(&mut self.small)
    }

    /// The numbers of a large column.
    pub(super) fn f32s(&mut self, values: &'a [f32]) {
        if cfg!(target_endian = "little") {
            self.large.push((self.small.len(), bytemuck::cast_slice(values)));
        } else {
            self.sink().f32s(values);
        }
    }

    /// All of it, in order.
    pub fn parts(&self) -> Vec<&[u8]> {
        let (mut parts, mut done) = (Vec::with_capacity(2 * self.large.len() + 1), 0);
        for &(at, large) in &self.large {
            parts.extend([&self.small[done..at], large]);
            done = at;
        }
        parts.push(&self.small[done..]);
        parts
    }

    /// All of it in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().concat()
    }
}
