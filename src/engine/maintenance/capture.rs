//! Copying a bank's rows in short holds, and learning what changed meanwhile.

use crate::bank::{Bank, Place, Shard};
use crate::index::{BuildError, Delta, Freezer, Frozen, Spot, Taken};
use crate::model::Metric;
use crate::rows::Shared;
use crate::sampling::{tell, tell_since};

/// Floats copied in one hold of the bank's lock: about 50 microseconds.
const FLOATS_PER_HOLD: usize = 32 << 10;

/// Rows that the middle of an l2 bank is estimated from.
const SAMPLED: usize = 1_024;

/// Writes told in one hold.
const TOLD: u64 = 512;

/// How often everything is looked at again because writers were faster.
const TRIES: usize = 3;

/// Copies the rows of `bank`. Of rows that are written meanwhile it copies what they were or what they are.
pub(super) fn copy(bank: &Shared<Bank>, go_on: &dyn Fn() -> bool) -> Result<(Frozen, Taken), BuildError> {
    let centre = centre(bank)?;
    let (mut freezer, taken, shards, per_hold) = {
        let bank = held(bank)?;
        let (spec, entries) = (bank.spec(), bank.entries());
        // Room for what is written while it is copied; what finds none is new.
        let freezer = Freezer::new(spec.metric(), spec.dim(), entries + entries / 16, &centre)?;
        let taken = Taken { sequence: bank.sequence(), revision: bank.revision() };
        (freezer, taken, bank.shards().len(), (FLOATS_PER_HOLD / spec.dim()).max(8) as u32)
    };
    let mut scratch = Vec::new();
    for shard in 0..shards {
        let mut slot = 0;
        loop {
            if !go_on() {
                return Err(stopped());
            }
            let bank = held(bank)?;
            let state = &bank.shards()[shard];
            let end = (state.columns().len() as u32).min(slot + per_hold);
            if slot >= end {
                break;
            }
            for slot in (slot..end).filter(|&slot| state.columns().is_occupied(slot)) {
                let spot = Spot { shard: shard as u32, slot, occupied_at: state.columns().occupied_at(slot) };
                freezer.add(spot, state.rows().row(slot).floats(&mut scratch));
            }
            slot = end;
        }
    }
    Ok((freezer.finish(), taken))
}

/// Tells `delta` what lies in every slot, then of what was written meanwhile.
pub(super) fn tell_all(delta: &mut Delta, bank: &Shared<Bank>, go_on: &dyn Fn() -> bool) -> Result<(), BuildError> {
    for _ in 0..TRIES {
        delta.knows(held(bank)?.revision());
        every_slot(delta, bank, go_on)?;
        loop {
            let bank = held(bank)?;
            if !tell_since(delta, &bank, TOLD) {
                break;
            }
            if delta.known() == bank.revision() {
                return Ok(());
            }
        }
    }
    Err(BuildError::Stopped("writes came faster than they could be followed".to_owned()))
}

fn every_slot(delta: &mut Delta, bank: &Shared<Bank>, go_on: &dyn Fn() -> bool) -> Result<(), BuildError> {
    let (shards, per_hold) = {
        let bank = held(bank)?;
        (bank.shards().len(), (FLOATS_PER_HOLD / bank.spec().dim()).max(8) as u32)
    };
    let mut scratch = Vec::new();
    for shard in 0..shards {
        let mut slot = 0;
        loop {
            if !go_on() {
                return Err(stopped());
            }
            let bank = held(bank)?;
            let end = (bank.shards()[shard].columns().len() as u32).min(slot + per_hold);
            if slot >= end {
                break;
            }
            (slot..end).for_each(|slot| tell(delta, &bank, Place { shard: shard as u32, slot }, &mut scratch));
            slot = end;
        }
    }
    Ok(())
}

/// The mean of some rows of an l2 bank; of others nobody needs it.
fn centre(bank: &Shared<Bank>) -> Result<Vec<f32>, BuildError> {
    let bank = held(bank)?;
    if bank.spec().metric() != Metric::L2 {
        return Ok(Vec::new());
    }
    let mut sum = vec![0.0f64; bank.spec().dim()];
    let (mut count, mut scratch) = (0, Vec::new());
    let wanted = SAMPLED / bank.shards().len().max(1) + 1;
    let sampled = |shard: &Shard| shard.roster().len().div_ceil(wanted).max(1);
    for shard in bank.shards() {
        for &slot in shard.roster().iter().step_by(sampled(shard)) {
            let row = shard.rows().row(slot).floats(&mut scratch);
            sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            count += 1;
        }
    }
    Ok(sum.into_iter().map(|sum| (sum / f64::from(count.max(1))) as f32).collect())
}

pub(super) fn stopped() -> BuildError {
    BuildError::Stopped("the bank or the server is going away".to_owned())
}

pub(super) fn held(bank: &Shared<Bank>) -> Result<crossbeam_utils::sync::ShardedLockReadGuard<'_, Bank>, BuildError> {
    bank.read().map_err(|poisoned| BuildError::Stopped(poisoned.to_string()))
}
