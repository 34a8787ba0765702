//! Memory for the image of a bank that is about to be taken.

use std::thread;

use crossbeam_channel::{Receiver, TryRecvError, bounded, never};

use super::priority::give_way;
use crate::model::BankImage;

/// Got on another thread: writes wait while an image is taken, and most of that time would go by until the system has found the memory.
#[derive(Debug, Default)]
pub(super) enum ImageRoom {
    #[default]
    Unasked,
    Awaited(Receiver<BankImage>),
    Ready(BankImage),
}

impl ImageRoom {
    /// Asks for it, unless that was done, for a bank of these extents; true once it is there, or won't come.
    pub(super) fn is_ready(&mut self, extents: impl FnOnce() -> Vec<(usize, usize)>) -> bool {
        if let Self::Unasked = self {
            *self = Self::Awaited(asked(extents()));
        }
        if let Self::Awaited(room) = self {
            match room.try_recv() {
                Ok(room) => *self = Self::Ready(room),
                Err(TryRecvError::Disconnected) => *self = Self::Ready(BankImage::default()),
                Err(TryRecvError::Empty) => {}
            }
        }
        matches!(self, Self::Ready(_))
    }

    /// Hears of it when it comes, which [`Self::came`] is to be told; nothing if it is not awaited.
    pub(super) fn awaited(&self) -> Receiver<BankImage> {
        if let Self::Awaited(room) = self { room.clone() } else { never() }
    }

    /// It came; `None`: it won't come.
    pub(super) fn came(&mut self, room: Option<BankImage>) {
        *self = Self::Ready(room.unwrap_or_default());
    }

    /// What there is of it: none if nobody has waited for it.
    pub(super) fn take(&mut self) -> BankImage {
        if let Self::Ready(room) = std::mem::take(self) { room } else { BankImage::default() }
    }
}

/// A thread that gets it and ends; nothing comes of one that the system doesn't start.
fn asked(extents: Vec<(usize, usize)>) -> Receiver<BankImage> {
    let (ready, room) = bounded(1);
    let get = move || {
        give_way();
        let _unwanted = ready.send(BankImage::with_room(extents));
    };
    let _not_started = thread::Builder::new().name("image-room".into()).spawn(get);
    room
}

#[cfg(test)]
mod tests {
    use super::ImageRoom;

    #[test]
    fn it_is_asked_for_once_and_taken_once() {
        let mut room = ImageRoom::default();
        assert!(room.awaited().try_recv().is_err());
        assert!(room.take().shards.is_empty(), "whoever doesn't wait has none");
        if !room.is_ready(|| vec![(1_600, 3), (0, 0)]) {
            let came = room.awaited().recv();
            room.came(came.ok());
        }
        assert!(room.is_ready(|| unreachable!("it was asked for")));
        let taken = room.take();
        let capacities =
            taken.shards.iter().map(|shard| (shard.ids.capacity(), shard.present.capacity(), shard.free.capacity()));
        assert_eq!(capacities.collect::<Vec<_>>(), [(1_700, 1_700, 3), (0, 0, 0)]);
        assert!(matches!(room, ImageRoom::Unasked));
    }

    #[test]
    fn one_that_will_not_come_is_not_waited_for() {
        let (ended, room) = crossbeam_channel::bounded(1);
        let mut room = ImageRoom::Awaited(room);
        assert!(!room.is_ready(Vec::new));
        drop(ended);
        assert!(room.is_ready(Vec::new) && room.take().shards.is_empty());
    }
}
