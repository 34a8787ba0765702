//! What it costs to gather rows here, and elsewhere.

use super::{Part, Seat};
use crate::model::{Dtype, Invalid};

/// Refuses rows of which as many from every rank would pass `limit`: decided of one request alone, so that equal ranks are all
/// refused at once.
pub(super) fn check_size(part: &Part, seat: Seat, limit: usize) -> Result<(), Invalid> {
    let world = seat.world_size() as usize;
    let total = part.bytes().saturating_mul(world);
    if total <= limit {
        return Ok(());
    }
    let (rows, dim) = (part.rows(), part.dim());
    // A ring all-gather: each rank sends and receives the parts of all others once (Thakur et al. 2005, section 4.1).
    let ring = part.embeddings().len().saturating_mul(world - 1);
    let halves = if part.dtype() == Dtype::F32 { "; F16 or BF16 would be half the bytes" } else { "" };
    let reason = format!(
        "{rows} rows x {dim} from each of {world} ranks take {total} bytes, over the limit of {limit} (setting gather.max_bytes), and \
         the server would send them {world} times at every step; an all-gather on the trainers' own network \
         (torch.distributed.all_gather_into_tensor) moves {ring} bytes into and out of each rank instead: {} at 100 Gbit/s, {} at \
         10 Gbit/s{halves}",
        time(ring, 100.0),
        time(ring, 10.0),
    );
    Err(Invalid::one("embeddings", reason))
}

/// How long `bytes` take on a link of so many gigabits a second.
fn time(bytes: usize, gigabits: f64) -> String {
    let milliseconds = bytes as f64 * 8.0 / (gigabits * 1e6);
    if milliseconds < 10.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::{Part, Seat, check_size};
    use crate::model::Dtype;

    #[test]
    fn a_refusal_says_what_the_trainers_own_network_would_take() {
        // CLIP's batch: 32,768 pairs over 256 ranks, 512 floats.
        let part = Part::new((512, Dtype::F32, vec![0; 128 * 512 * 4].into()), Vec::new(), None, None).unwrap();
        let refused = check_size(&part, Seat::new(0, 256).unwrap(), 32 << 20).unwrap_err().to_string();
        for says in
            ["over the limit of 33554432 (setting gather.max_bytes)", "moves 66846720 bytes", "5.3 ms at 100", "53 ms at 10"]
        {
            assert!(refused.contains(says), "{says:?} is not in {refused}");
        }
        assert_eq!(check_size(&part, Seat::new(0, 100).unwrap(), 32 << 20), Ok(()));
    }
}
