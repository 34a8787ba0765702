//! Large columns as protobuf has them on the wire. A packed fixed-width column is its values' memory: copying it whole is ten times
//! faster than prost's loop over the values.

use bytemuck::NoUninit;
use bytes::{BufMut as _, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};

/// Bytes of a message's prefix: a flag that says it is not compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// A message's fields, one after the other.
#[derive(Debug, Default)]
pub(super) struct Fields(BytesMut);

impl Fields {
    /// No fields; `bytes` are expected.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(BytesMut::with_capacity(bytes))
    }

    /// A message with room for its prefix, no fields yet; `bytes` are expected.
    pub(super) fn message(bytes: usize) -> Self {
        let mut message = BytesMut::with_capacity(PREFIX + bytes);
        message.put_bytes(0, PREFIX);
        Self(message)
    }

    /// `repeated fixed32`, `fixed64`, `float` and their like; nothing for an empty column.
    pub(super) fn packed<T: NoUninit + ToLeBytes>(&mut self, tag: u32, values: &[T]) {
        if !values.is_empty() {
            self.length(tag, size_of_val(values));
            T::put(values, &mut self.0);
        }
    }

    /// `bytes`, or a message that is encoded already; nothing for an empty one.
    pub(super) fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.length(tag, bytes.len());
            self.0.put_slice(bytes);
        }
    }

    /// Fields encoded elsewhere.
    pub(super) fn raw(&mut self, fields: &[u8]) {
        self.0.put_slice(fields);
    }

    /// An integer or an enum, whether or not it is the default.
    pub(super) fn varint(&mut self, tag: u32, value: u64) {
        encode_key(tag, WireType::Varint, &mut self.0);
        encode_varint(value, &mut self.0);
    }

    /// The start of a field of `bytes` bytes, which must follow.
    pub(super) fn length(&mut self, tag: u32, bytes: usize) {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes as u64, &mut self.0);
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> BytesMut {
        self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Numbers of a fixed width.
pub(super) trait ToLeBytes: Sized {
    fn put(values: &[Self], bytes: &mut BytesMut);
}

macro_rules! little_endian {
    ($($number:ty),*) => {$(
        impl ToLeBytes for $number {
            fn put(values: &[Self], bytes: &mut BytesMut) {
                #[cfg(target_endian = "little")]
                bytes.put_slice(bytemuck::cast_slice(values));
                #[cfg(target_endian = "big")]
                values.iter().for_each(|value| bytes.put_slice(&value.to_le_bytes()));
            }
        }
    )*};
}

little_endian!(u32, u64, i64, f32);
