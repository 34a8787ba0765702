//! Reading.

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {at} of the record: {what}")]
pub struct Unreadable {
    /// Where, counted from the first byte of the record.
    pub at: usize,
    /// What is wrong there.
    pub what: String,
}

/// Takes values from bytes.
#[derive(Debug)]
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A complaint about what was read last.
    pub(super) fn complain(&self, what: impl Into<String>) -> Unreadable {
        Unreadable { at: self.at, what: what.into() }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Unreadable> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Unreadable> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn f32(&mut self) -> Result<f32, Unreadable> {
        self.u32().map(f32::from_bits)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Unreadable> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.complain(format!("{other} is neither 0 nor 1"))),
        }
    }

    pub(super) fn optional(&mut self) -> Result<Option<u64>, Unreadable> {
        let (there, value) = (self.flag()?, self.u64()?);
        Ok(there.then_some(value))
    }

    /// A number of things of which each takes at least `bytes` of what is left: so a wrong one reserves no memory.
    pub(super) fn count(&mut self, bytes: usize) -> Result<usize, Unreadable> {
        let count = self.u64()?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(count) {
            Ok(fits) if fits.checked_mul(bytes).is_some_and(|needed| needed <= left) => Ok(fits),
            _ => Err(self.complain(format!("{count} things of {bytes} bytes in {left} bytes"))),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let len = self.count(1)?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Unreadable> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.complain("text that is not UTF-8"))
    }

    /// A column of `count` numbers.
    pub(super) fn u64s(&mut self, count: usize) -> Result<Vec<u64>, Unreadable> {
        self.numbers(count, u64::from_le_bytes)
    }

    /// As [`Self::u64s`].
    pub(super) fn i64s(&mut self, count: usize) -> Result<Vec<i64>, Unreadable> {
        self.numbers(count, i64::from_le_bytes)
    }

    /// As [`Self::u64s`].
    pub(super) fn u32s(&mut self, count: usize) -> Result<Vec<u32>, Unreadable> {
        self.numbers(count, u32::from_le_bytes)
    }

    /// As [`Self::u64s`].
    pub(super) fn f32s(&mut self, count: usize) -> Result<Vec<f32>, Unreadable> {
        self.numbers(count, f32::from_le_bytes)
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Unreadable> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(self.complain(format!("{left} bytes too many"))),
        }
    }

    fn numbers<T, const N: usize>(&mut self, count: usize, number: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Unreadable> {
        let len = count.checked_mul(N).ok_or_else(|| self.complain(format!("{count} numbers are too many")))?;
        let (cells, _) = self.take(len)?.as_chunks::<N>();
        Ok(cells.iter().map(|&cell| number(cell)).collect())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.complain("the record ends"))
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Unreadable> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.complain(format!("{len} bytes are wanted, and the record ends")))?;
        self.at += len;
        Ok(taken)
    }
}
