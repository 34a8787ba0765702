//! Graphs that outlive the server: kept beside the bank's files once they serve, and taken up again instead of being built anew.

use super::build::Build;
use crate::archive::has_room;
use crate::durability::{Complaint, Folder, Published};
use crate::engine::EngineError;
use crate::index::{BuildError, Delta, Generation, Loading};

/// Keeps the graph that serves. That it can't be kept costs a build after the next start.
pub(super) fn save(folder: &Folder, generation: &Generation) {
    let kept = || {
        has_room(folder.path(), generation.bytes() as u64, "durability.dir")?;
        let mut file = folder.begin_graph(generation.taken().sequence)?;
        generation.save(&mut |section| file.put(section))?;
        Ok::<Published, EngineError>(file.publish()?)
    };
    match kept() {
        Ok(Published { bytes, left }) => {
            tracing::info!(bank = %folder.record().name, bytes, "the graph is kept");
            if let Some(fault) = left {
                tracing::warn!(bank = %folder.record().name, %fault, "the graph before it stays until the next is kept");
            }
        }
        // A deleted bank's folder is gone, and nobody misses its graph.
        Err(_) if !folder.path().exists() => {}
        Err(fault) => {
            tracing::warn!(bank = %folder.record().name, %fault, "the graph is not kept: it is built again after a restart");
        }
    }
}

/// What became of a graph that was kept.
pub(super) enum Reloaded {
    /// There is none.
    None,
    /// It serves; the one before it is to be dropped where nobody waits.
    Serves(Option<Delta>),
}

impl Build<'_> {
    /// Lets the graph serve that was kept, if it still fits the bank. One that can't be read is removed, and built anew.
    pub(super) fn reload(&self, folder: &Folder) -> Result<Reloaded, BuildError> {
        let _room = self.room()?;
        let spec = folder.record().spec;
        let mut loading = Loading::new(spec.metric(), spec.dim())?;
        let read = folder.read_graph(&mut |section| loading.section(section).map_err(Complaint::Damaged));
        let generation = match read {
            Ok(false) => return Ok(Reloaded::None),
            Ok(true) => loading.finish(),
            Err(fault) => Err(fault.to_string()),
        };
        match generation {
            Ok(generation) => Ok(Reloaded::Serves(self.serve(generation)?)),
            Err(what) => {
                tracing::warn!(bank = %folder.record().name, what, "the graph that was kept is no good: it is built again");
                if let Err(fault) = folder.remove_graphs() {
                    tracing::warn!(bank = %folder.record().name, %fault, "the graph that is no good stays until another takes its place");
                }
                Ok(Reloaded::None)
            }
        }
    }
}
