//! What is asked for and can never be had.

/// More than a limit allows, whatever becomes free: trying again won't help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}, over the limit of {limit} (setting {setting}): trying again won't help; {instead}, or raise the setting")]
pub struct Excess {
    /// Who needs how much of what.
    pub what: String,
    /// The limit.
    pub limit: usize,
    /// The setting that changes it.
    pub setting: &'static str,
    /// What to do but raise it.
    pub instead: &'static str,
}
