//! Finding the one large field of a message while the message arrives.

/// Where a field's bytes lie in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// They begin here and are so many.
    Found { at: usize, len: usize },
    /// What has arrived doesn't tell.
    NotYet,
    /// The message has no such field, or isn't one.
    Absent,
}

/// Looks for the `bytes` field under `path` (the numbers of the fields that lead to it) in a message of `len` bytes, of which
/// `arrived` are here. A field it doesn't look for is skipped by its length.
pub(super) fn find(arrived: &[u8], len: usize, path: &[u32]) -> Search {
    find_within(arrived, 0, len, path)
}

fn find_within(arrived: &[u8], mut at: usize, end: usize, path: &[u32]) -> Search {
    let Some((&wanted, deeper)) = path.split_first() else { return Search::Absent };
    while at < end {
        let Some(key) = varint(arrived, &mut at) else { return Search::NotYet };
        let skipped = match key & 7 {
            0 => match varint(arrived, &mut at) {
                Some(_) => 0,
                None => return Search::NotYet,
            },
            1 => 8,
            5 => 4,
            2 => {
                let Some(len) = varint(arrived, &mut at) else { return Search::NotYet };
                let Some(len) = usize::try_from(len).ok().filter(|len| *len <= end.saturating_sub(at)) else {
                    return Search::Absent;
                };
                if key >> 3 == u64::from(wanted) {
                    if deeper.is_empty() {
                        return Search::Found { at, len };
                    }
                    match find_within(arrived, at, at + len, deeper) {
                        Search::Absent => {}
                        found => return found,
                    }
                }
                len
            }
            _ => return Search::Absent,
        };
        at += skipped;
    }
    Search::Absent
}

/// The number that begins at `at`, which moves behind it; none if it hasn't arrived whole.
fn varint(arrived: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0;
    for (nth, &byte) in arrived.get(*at..)?.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * nth);
        if byte < 0x80 {
            *at += nth + 1;
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::{Search, find};
    use crate::proto::v1::{DrawAnswer, FetchResponse, Matrix, Rows, SampleResponse};

    fn rows(data: &[u8]) -> Rows {
        let embeddings = Some(Matrix { data: data.to_vec().into(), dim: 3, dtype: 2, ..Matrix::default() });
        Rows { ids: vec![1, 2], embeddings, steps: vec![u64::MAX; 40], weights: vec![1.0], ..Rows::default() }
    }

    #[test]
    fn the_field_is_found_as_soon_as_its_length_is_here() {
        let draws = vec![DrawAnswer { counts: vec![300; 9], n_shared: 1 << 30, ..DrawAnswer::default() }; 2];
        let answer = SampleResponse { rows: Some(rows(&[9; 500])), draws, seed: u64::MAX, ..SampleResponse::default() };
        let message = answer.encode_to_vec();
        let starts = message.windows(500).position(|bytes| bytes == [9; 500]).unwrap();
        for arrived in 0..=message.len() {
            let expected = if arrived < starts { Search::NotYet } else { Search::Found { at: starts, len: 500 } };
            assert_eq!(find(&message[..arrived], message.len(), &[1, 2, 1]), expected, "{arrived} bytes");
        }
    }

    #[test]
    fn a_message_without_the_field_has_none() {
        let rows = Rows { embeddings: Some(Matrix { dim: 3, ..Matrix::default() }), ..rows(&[]) };
        // The last field has the number of the one looked for, one level too high.
        let message = FetchResponse { found: vec![1; 9].into(), rows: Some(rows), sequence: 5, step: Some(1) }.encode_to_vec();
        assert_eq!(find(&message, message.len(), &[2, 2, 1]), Search::Absent);
        assert_eq!(find(&[], 0, &[1]), Search::Absent);
        assert_eq!(find(&message, message.len(), &[]), Search::Absent);
    }

    #[test]
    fn what_is_no_message_is_none() {
        for broken in [&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x0b], &[0x0a, 5, 1], &[7]] {
            assert_eq!(find(broken, broken.len(), &[1]), Search::Absent, "{broken:?}");
        }
        assert_eq!(find(&[0xff; 20], 20, &[1]), Search::NotYet);
    }
}
