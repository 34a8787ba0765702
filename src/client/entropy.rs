//! The client's randomness: incarnations of writers, and jitter. The server's own, which is seeded, is not within its reach.

/// 64 random bits; none where the system gives none.
pub fn random() -> Option<u64> {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits).ok()?;
    Some(u64::from_le_bytes(bits))
}
