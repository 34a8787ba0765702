//! Writing.

/// Appends values to bytes.
#[derive(Debug)]
pub(super) struct Sink<'a>(pub(super) &'a mut Vec<u8>);

impl Sink<'_> {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    /// A presence byte, and the value if there is one.
    pub(super) fn optional(&mut self, value: Option<u64>) {
        self.u8(value.is_some().into());
        self.u64(value.unwrap_or_default());
    }

    /// Their number, and the bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// The numbers of a column; whoever reads it knows how many there are.
    pub(super) fn u64s(&mut self, values: &[u64]) {
        self.numbers(values, u64::to_le_bytes);
    }

    /// As [`Self::u64s`].
    pub(super) fn i64s(&mut self, values: &[i64]) {
        self.numbers(values, i64::to_le_bytes);
    }

    /// As [`Self::u64s`].
    pub(super) fn u32s(&mut self, values: &[u32]) {
        self.numbers(values, u32::to_le_bytes);
    }

    /// As [`Self::u64s`].
    pub(super) fn f32s(&mut self, values: &[f32]) {
        self.numbers(values, f32::to_le_bytes);
    }

    fn numbers<T: bytemuck::NoUninit, const N: usize>(&mut self, values: &[T], bytes: impl Fn(T) -> [u8; N]) {
        if cfg!(target_endian = "little") {
            self.0.extend_from_slice(bytemuck::cast_slice(values));
        } else {
            values.iter().for_each(|&value| self.0.extend_from_slice(&bytes(value)));
        }
    }
}
