//! The last places that changed.

use super::state::Place;

/// The places of the last [`Recent::LEN`] changes. Change number r lies at r modulo the length.
#[derive(Debug, Default)]
pub(super) struct Recent {
    places: Vec<Place>,
}

impl Recent {
    const LEN: u64 = 16_384;

    /// Notes change number `revision`; they come in order, from 1 on.
    pub(super) fn note(&mut self, revision: u64, place: Place) {
        let at = (revision % Self::LEN) as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, place);
        }
        self.places[at] = place;
    }

    /// The places of changes `after + 1 ..= last`; `None` if some are forgotten.
    pub(super) fn between(&self, after: u64, last: u64) -> Option<impl Iterator<Item = Place> + '_> {
        let remembered = last.saturating_sub(after) < Self::LEN;
        remembered.then(|| (after + 1..=last).map(|revision| self.places[(revision % Self::LEN) as usize]))
    }
}
