//! How embeddings are sent back.

/// How embeddings are sent back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Little-endian f32.
    #[default]
    F32,
    /// Readable numbers.
    Floats,
    /// Little-endian f16.
    F16,
    /// Little-endian bf16.
    Bf16,
}

impl Encoding {
    /// Bytes of one float on the wire.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::Floats => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}
