//! What HTTP/2 holds against a client.
//!
//! h2 refuses below every layer, and tonic tells nobody why a connection ended. What both say to the client is seen on its way out: of
//! each frame the head, and of the few that may refuse the first bytes.

use std::net::IpAddr;

use super::sparing::Sparing;

/// Looks for refusals in what a connection writes.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// The beginning of the frame that is being written.
    start: [u8; START],
    filled: usize,
    /// Bytes of it that are of no interest.
    pass: usize,
    told_of_metadata: bool,
    /// The connection ends for what its client did.
    refused: bool,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self { start: [0; START], filled: 0, pass: 0, told_of_metadata: false, refused: false }
    }
}

/// A refusal.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// A call's metadata are too large.
    Metadata,
    /// The connection ends.
    GoAway { reason: h2::Reason, said: String },
}

/// Length (3 bytes), type, flags and stream (4 bytes) of a frame.
const HEAD: usize = 9;

/// What is looked at of a frame at most.
const START: usize = HEAD + 64;

const HEADERS: u8 = 1;
const GO_AWAY: u8 = 7;

/// `431` in HPACK's Huffman code, and its length.
const STATUS_431: [u8; 4] = [0x83, 0x69, 0x90, 0xff];

impl Verdicts {
    /// Looks at what was written, and logs what it tells of the client.
    pub(super) fn look(&mut self, peer: Option<IpAddr>, written: &[u8]) {
        let mut refused = false;
        self.find(written, |verdict| {
            refused |= matches!(verdict, Verdict::GoAway { .. });
            verdict.tell(peer);
        });
        self.refused |= refused;
    }

    /// True once the client was told that the connection ends for what it did.
    pub(super) fn has_refused(&self) -> bool {
        self.refused
    }

    fn find(&mut self, mut written: &[u8], mut found: impl FnMut(Verdict)) {
        while !written.is_empty() {
            let passed = self.pass.min(written.len());
            self.pass -= passed;
            written = &written[passed..];
            let taken = (self.wanted() - self.filled).min(written.len());
            self.start[self.filled..self.filled + taken].copy_from_slice(&written[..taken]);
            self.filled += taken;
            written = &written[taken..];
            if self.filled == self.wanted() {
                if let Some(verdict) = self.verdict() {
                    found(verdict);
                }
                self.pass = HEAD + self.length() - self.filled;
                self.filled = 0;
            }
        }
    }

    fn length(&self) -> usize {
        usize::from(self.start[0]) << 16 | usize::from(self.start[1]) << 8 | usize::from(self.start[2])
    }

    /// Bytes of the frame to look at, as far as that is known yet.
    fn wanted(&self) -> usize {
        let tells = self.filled >= HEAD && [HEADERS, GO_AWAY].contains(&self.start[3]);
        if tells { (HEAD + self.length()).min(START) } else { HEAD }
    }

    /// What the frame tells. Of metadata only once: the second such answer of a connection is an index in a table that isn't followed here.
    fn verdict(&mut self) -> Option<Verdict> {
        let body = &self.start[HEAD..self.filled.max(HEAD)];
        match self.start[3] {
            HEADERS if !self.told_of_metadata && is_431(body) => {
                self.told_of_metadata = true;
                Some(Verdict::Metadata)
            }
            GO_AWAY => {
                let reason = u32::from_be_bytes(*body.get(4..)?.first_chunk()?).into();
                let said = String::from_utf8_lossy(&body[8..]).into_owned();
                // A connection that grows old, or a server that drains.
                (reason != h2::Reason::NO_ERROR).then_some(Verdict::GoAway { reason, said })
            }
            _ => None,
        }
    }
}

/// Whether a header block is of such an answer, whose status stands first, behind changes of the table's size.
fn is_431(block: &[u8]) -> bool {
    let resized = block.iter().take_while(|&&byte| byte & 0xe0 == 0x20).count();
    // A larger size has further bytes, of which all but the last have the highest bit.
    let mut rest = &block[resized..];
    if resized > 0 && block[resized - 1] & 0x1f == 0x1f {
        let more = rest.iter().take_while(|&&byte| byte & 0x80 != 0).count();
        rest = rest.get(more + 1..).unwrap_or_default();
    }
    // The name is the eighth of the static table; the value is remembered, or is not.
    matches!(rest.split_first(), Some((0x48 | 0x08, value)) if value.starts_with(&STATUS_431))
}

impl Verdict {
    fn tell(self, peer: Option<IpAddr>) {
        static METADATA: Sparing = Sparing::new();
        static GONE: Sparing = Sparing::new();
        match self {
            Self::Metadata => {
                if let Some(untold) = METADATA.turn() {
                    tracing::warn!(
                        ?peer,
                        untold,
                        "a call's metadata were too large (setting server.max_metadata_bytes): refused with HTTP status 431"
                    );
                }
            }
            Self::GoAway { reason, said } => {
                if let Some(untold) = GONE.turn() {
                    tracing::warn!(?peer, ?reason, said, untold, "a client broke the rules of HTTP/2 or wore them out: cut");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use h2::Reason;

    use super::{STATUS_431, Verdict, Verdicts};

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let [_, high, middle, low] = (body.len() as u32).to_be_bytes();
        [&[high, middle, low, kind, 0, 0, 0, 0, 1], body].concat()
    }

    fn status(before: &[u8], first: u8) -> Vec<u8> {
        frame(1, &[before, &[first], &STATUS_431, &[0x5f; 9]].concat())
    }

    fn go_away(reason: Reason, said: &str) -> Vec<u8> {
        frame(7, &[&[0, 0, 0, 5], &u32::from(reason).to_be_bytes()[..], said.as_bytes()].concat())
    }

    fn found(written: &[u8], piece: usize) -> Vec<Verdict> {
        let (mut verdicts, mut found) = (Verdicts::default(), Vec::new());
        for piece in written.chunks(piece) {
            verdicts.find(piece, |verdict| found.push(verdict));
        }
        found
    }

    #[test]
    fn refusals_are_found_however_they_are_written() {
        // What looks like a refusal within data is data.
        let data = frame(0, &[go_away(Reason::CANCEL, "no"), vec![7; 70_000]].concat());
        let long = frame(1, &[0x88; 300]);
        let calm = || go_away(Reason::ENHANCE_YOUR_CALM, "too_many_resets");
        let written = [
            frame(4, &[]),
            data.clone(),
            long,
            go_away(Reason::NO_ERROR, ""),
            status(&[], 0x48),
            frame(1, &[]),
            status(&[], 0x48),
            data,
            calm(),
        ];
        let expected =
            [Verdict::Metadata, Verdict::GoAway { reason: Reason::ENHANCE_YOUR_CALM, said: "too_many_resets".into() }];
        for piece in [1, 2, 7, 9, 64, 4_096, usize::MAX] {
            assert_eq!(found(&written.concat(), piece), expected, "in pieces of {piece}");
        }
        for (before, first) in [(&[0x20][..], 0x08), (&[0x20, 0x3f, 0xe1, 0x1f], 0x48), (&[0x3f, 0x01], 0x48), (&[], 0x08)] {
            assert_eq!(found(&status(before, first), usize::MAX), [Verdict::Metadata], "{before:?}");
        }
        assert_eq!(found(&status(&[], 0x49), 3), []);
        assert_eq!(found(&frame(7, &[0; 5]), 3), [], "h2 writes no such thing");
    }
}
