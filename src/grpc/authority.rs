//! The `:authority` in a header block (HPACK, RFC 7541), where it is a socket's path.

use std::ops::Range;

/// A HEADERS frame that holds a whole header block, with its host put right if it is a path. What can't be read stays as it is, for
/// h2 to refuse.
pub(super) fn with_host(mut frame: Vec<u8>) -> Vec<u8> {
    let Some(value) = path_of(&frame) else { return frame };
    // Never longer than what it replaces, so that the decoder's table of recent fields forgets none that the encoder remembers.
    let host = &HOST[..HOST.len().min(value.string.len())];
    let mut text = vec![host.len() as u8];
    text.extend_from_slice(host);
    frame.splice(value.length.start..value.string.end, text);
    let [_, high, middle, low] = ((frame.len() - HEAD) as u32).to_be_bytes();
    frame[..3].copy_from_slice(&[high, middle, low]);
    frame
}

const HOST: &[u8] = b"localhost";

/// Bytes of a frame's head.
const HEAD: usize = 9;

const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// Where a string is: its length's bytes, then its own.
struct Text {
    length: Range<usize>,
    string: Range<usize>,
    huffman: bool,
}

/// The value of the first `:authority` that is written out and is a path.
fn path_of(frame: &[u8]) -> Option<Text> {
    let flags = *frame.get(4)?;
    let (mut at, mut end) = (HEAD, frame.len());
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(HEAD)?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    while at < end {
        let first = *frame.get(at)?;
        // The bits of the first byte that are a number's, by the kind of field.
        let (bits, written_out) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, after) = integer(frame, at, bits)?;
        at = after;
        if !written_out {
            continue;
        }
        let mut is_authority = index == 1;
        if index == 0 {
            let name = text(frame, at)?;
            is_authority = !name.huffman && frame.get(name.string.clone())? == b":authority";
            at = name.string.end;
        }
        let value = text(frame, at)?;
        at = value.string.end;
        // Clients write paths out; those that compress know better than to send them.
        if is_authority && !value.huffman && frame.get(value.string.clone())?.iter().any(|byte| b"/%".contains(byte)) {
            return (at <= end).then_some(value);
        }
    }
    None
}

fn text(frame: &[u8], at: usize) -> Option<Text> {
    let huffman = *frame.get(at)? & 0x80 != 0;
    let (length, start) = integer(frame, at, 7)?;
    let end = start.checked_add(length).filter(|&end| end <= frame.len())?;
    Some(Text { length: at..start, string: start..end, huffman })
}

/// A number that begins in the lowest `bits` of a byte, and where it ends (RFC 7541, 5.1).
fn integer(frame: &[u8], mut at: usize, bits: u32) -> Option<(usize, usize)> {
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*frame.get(at)?) & most;
    at += 1;
    if value < most {
        return Some((value, at));
    }
    for shift in [0, 7, 14] {
        let byte = *frame.get(at)?;
        at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::with_host;

    /// A frame of these flags.
    fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
        [&[high, middle, low, 1, flags, 0, 0, 0, 1], payload].concat()
    }

    fn literal(value: &str) -> Vec<u8> {
        [&[value.len() as u8], value.as_bytes()].concat()
    }

    #[test]
    fn a_path_becomes_a_host_and_all_else_stays() {
        for (path, host) in
            [("%2Frun%2Fnegbank.sock", "localhost"), ("/run/a.sock", "localhost"), ("%2Fs", "loca"), ("/s", "lo")]
        {
            // Indexed fields, a size update, a literal of an indexed name, the authority in each of three forms, another field.
            let before = [&[0x83, 0x86, 0x3f, 0xe1, 0x1f, 0x04][..], &literal("/negbank.v1.Banks/Write")].concat();
            let after = [&[0x40][..], &literal("te"), &literal("trailers")].concat();
            for kind in [vec![0x41], vec![0x01], [&[0x40][..], &literal(":authority")].concat()] {
                let with = |value: &str| [&before[..], &kind, &literal(value), &after].concat();
                assert_eq!(with_host(frame(0x4, &with(path))), frame(0x4, &with(host)));
                let prioritised = |value: &str| [&[0, 0, 0, 0, 9][..], &with(value)].concat();
                assert_eq!(with_host(frame(0x24, &prioritised(path))), frame(0x24, &prioritised(host)));
                let padded = |value: &str| [&[3][..], &with(value), &[0, 0, 0]].concat();
                assert_eq!(with_host(frame(0xc, &padded(path))), frame(0xc, &padded(host)));
                let good = frame(0x4, &with("negbank.example:7700"));
                assert_eq!(with_host(good.clone()), good);
            }
        }
    }

    proptest! {
        /// Whatever comes, nothing panics, the frame's length is right and it never grows.
        #[test]
        fn any_bytes_give_a_frame(flags in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let before = frame(flags, &payload);
            let after = with_host(before.clone());
            prop_assert!(after.len() <= before.len());
            let length = usize::from(after[1]) << 8 | usize::from(after[2]);
            prop_assert_eq!(length + 9, after.len());
        }
    }
}
