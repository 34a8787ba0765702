//! What lies behind a frame that is not whole.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use super::frames::{ALIGNMENT, HEADER_WITH_CLAIM, Header};

/// Bytes of the file that are in memory at a time: as much as it may have behind the frame, it may be half a gigabyte.
const PIECE: usize = 1 << 20;

/// The frames that can still be told behind one that is not whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    /// Bytes of the file that were on disk when one of them was written.
    pub(super) synced: u64,
    /// How many of them are whole.
    pub(super) whole: u64,
}

impl Behind {
    /// Those behind byte `at`. Where frames have a number, only those count that have it; else whatever looks like one, and tells that all
    /// before it was on disk.
    pub(super) fn of(file: &File, at: u64, number: Option<u64>) -> io::Result<Self> {
        Self::in_pieces(file, at, number, PIECE)
    }

    fn in_pieces(file: &File, at: u64, number: Option<u64>, piece: usize) -> io::Result<Self> {
        let header_in = |bytes: &[u8]| {
            let (header, _) = Header::decode(bytes)?;
            number.is_none_or(|number| header.claim.is_some_and(|claim| claim.file == number)).then_some(header)
        };
        let mut window = Window { file, piece: piece.max(HEADER_WITH_CLAIM), at, bytes: Vec::new() };
        let mut behind = Self::default();
        // If its header is whole, it is known what is its own: a payload may look like frames.
        let own = header_in(window.look(at)?).map_or(Some(ALIGNMENT as u64), |header| header.whole());
        let mut next = own.and_then(|own| at.checked_add(own));
        while let Some(from) = next {
            let bytes = window.look(from)?;
            if bytes.is_empty() {
                break;
            }
            let Some(header) = header_in(bytes) else {
                next = from.checked_add(ALIGNMENT as u64);
                continue;
            };
            let claimed = number.and(header.claim).map(|claim| claim.synced);
            behind.synced = behind.synced.max(claimed.unwrap_or(from));
            let payload = from.saturating_add(Header::len(header.claim.is_some()) as u64);
            behind.whole += u64::from(window.checksum(payload, header.length)? == Some(header.payload));
            next = header.whole().and_then(|whole| from.checked_add(whole));
        }
        Ok(behind)
    }
}

/// A file that is looked at from front to back.
struct Window<'a> {
    file: &'a File,
    piece: usize,
    /// Where in the file the bytes begin.
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Bytes from `from` on: a header's at least, unless the file ends before.
    fn look(&mut self, from: u64) -> io::Result<&[u8]> {
        let known = from.checked_sub(self.at).and_then(|skipped| usize::try_from(skipped).ok());
        let known = known.filter(|&skipped| skipped + HEADER_WITH_CLAIM <= self.bytes.len());
        if known.is_none() {
            self.read(from)?;
        }
        Ok(self.bytes.get(known.unwrap_or(0)..).unwrap_or_default())
    }

    fn read(&mut self, from: u64) -> io::Result<()> {
        self.at = from;
        self.bytes.resize(self.piece, 0);
        let mut filled = 0;
        // What a header tells may be more than the system takes for an offset.
        while filled < self.piece && from <= i64::MAX as u64 - self.piece as u64 {
            match self.file.read_at(&mut self.bytes[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(again) if again.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault),
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }

    /// Of so many bytes from `from` on; `None`: the file ends before.
    fn checksum(&mut self, from: u64, count: u64) -> io::Result<Option<u32>> {
        let (mut at, mut left, mut hasher) = (from, count, crc32fast::Hasher::new());
        while left > 0 {
            let bytes = self.look(at)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let now = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            hasher.update(&bytes[..now]);
            (at, left) = (at.saturating_add(now as u64), left - now as u64);
        }
        Ok(Some(hasher.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::{ALIGNMENT, Behind, HEADER_WITH_CLAIM};
    use crate::durability::frames::{self, Claim, Header};

    /// The same of a file that is in memory at once.
    fn at_once(rest: &[u8], at: u64, number: Option<u64>) -> Behind {
        let header_in = |bytes: &[u8]| {
            let (header, _) = Header::decode(bytes)?;
            number.is_none_or(|number| header.claim.is_some_and(|claim| claim.file == number)).then_some(header)
        };
        let end = |header: &Header| header.whole().map_or(usize::MAX, |whole| whole as usize);
        let mut behind = Behind::default();
        let mut from = header_in(rest).map_or(ALIGNMENT, |header| end(&header));
        while let Some(bytes) = rest.get(from..).filter(|bytes| !bytes.is_empty()) {
            let Some(header) = header_in(bytes) else {
                from += ALIGNMENT;
                continue;
            };
            let claimed = number.and(header.claim).map(|claim| claim.synced);
            behind.synced = behind.synced.max(claimed.unwrap_or(at + from as u64));
            let begin = Header::len(header.claim.is_some());
            let payload = begin.saturating_add(usize::try_from(header.length).unwrap_or(usize::MAX));
            behind.whole += u64::from(bytes.get(begin..payload).is_some_and(|bytes| crc32fast::hash(bytes) == header.payload));
            from = from.saturating_add(end(&header));
        }
        behind
    }

    /// Frames of many sizes, which of their file tell nothing, the truth, or something else; and two that are longer than any file.
    fn log(number: Option<u64>) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut begins) = (vec![0x5A; 64], Vec::new());
        for sequence in 0..40_u64 {
            let payload: Vec<u8> = (0..sequence * sequence * 7 % 331).map(|at| (at * 31 + sequence) as u8).collect();
            let strange = u64::from(sequence % 5 == 3);
            let claim = number.map(|file| Claim { file: file + strange, synced: sequence * 100 });
            let frames::Around { before, after, .. } = frames::around(0, sequence, claim, &[&payload]);
            begins.push(bytes.len());
            bytes.extend([before.as_slice(), &payload, after].concat());
        }
        for length in [u64::MAX - 60, (1 << 63) + 8] {
            let mut endless = frames::around(0, 77, number.map(|file| Claim { file, synced: 9 }), &[]).before;
            endless[8..16].copy_from_slice(&length.to_le_bytes());
            let checksum = crc32fast::hash(&endless[8..]);
            endless[4..8].copy_from_slice(&checksum.to_le_bytes());
            begins.push(bytes.len());
            bytes.extend(endless);
        }
        (bytes, begins)
    }

    #[test]
    fn a_file_looked_at_in_pieces_of_any_size_tells_what_all_of_it_does() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let (mut seen, mut most) = (0, 0);
        for number in [None, Some(7)] {
            let (whole, begins) = log(number);
            let hurt = |from: usize, to: usize| {
                let mut hurt = whole.clone();
                hurt[from..to].fill(0);
                hurt
            };
            // Without its header, without its payload, cut off within it, or as it is.
            let damaged = begins.iter().flat_map(|&begin| {
                let end = whole.len().min(begin + 60);
                [hurt(begin, begin + 20), hurt(whole.len().min(begin + 48), end), whole[..end].to_vec(), whole.clone()]
                    .map(|content| (begin, content))
            });
            for (at, content) in damaged {
                fs::write(&path, &content).unwrap();
                let file = File::open(&path).unwrap();
                let expected = at_once(&content[at..], at as u64, number);
                for piece in [0, HEADER_WITH_CLAIM, 49, 56, 63, 64, 100, 333, 1_000, 4_096, 1 << 20] {
                    let found = Behind::in_pieces(&file, at as u64, number, piece).unwrap();
                    assert_eq!(found, expected, "{number:?}: from {at} of {} in pieces of {piece}", content.len());
                }
                assert_eq!(Behind::of(&file, at as u64, number).unwrap(), expected);
                (seen, most) = (seen + 1, most.max(expected.whole));
            }
        }
        assert!(seen > 300 && most >= 39, "{seen}, {most}");
    }

    /// However long it is.
    #[test]
    fn what_is_held_of_a_file_is_a_piece() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        let mut window = super::Window { file: &file, piece: 4_096, at: 0, bytes: Vec::new() };
        assert_eq!(window.checksum(0, (1 << 20) + 5).unwrap(), Some(crc32fast::hash(&vec![0; (1 << 20) + 5])));
        assert!(window.bytes.capacity() <= 2 * 4_096 && window.checksum((1 << 30) - 7, 8).unwrap().is_none());
    }
}
