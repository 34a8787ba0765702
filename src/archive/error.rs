//! What can go wrong with checkpoints.

use crate::model::{BankName, Tag};

/// Why a checkpoint could not be kept, found or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The setting is no place for checkpoints.
    #[error("{location:?} is no place for checkpoints (setting checkpoints.location): {why}")]
    Location {
        /// The setting.
        location: String,
        /// Why not.
        why: String,
    },
    /// The tag is taken.
    #[error("bank {bank} has a checkpoint {tag}")]
    Exists {
        /// The bank.
        bank: BankName,
        /// The tag.
        tag: Tag,
    },
    /// There is no such checkpoint.
    #[error("bank {bank} has no checkpoint{} in {location}{}", named(tag.as_ref()), there(known))]
    Unknown {
        /// The bank.
        bank: BankName,
        /// The tag; `None`: any.
        tag: Option<Tag>,
        /// Where it was looked for.
        location: String,
        /// The tags that there are.
        known: Vec<Tag>,
    },
    /// A later program made it.
    #[error(
        "checkpoint {tag} of bank {bank} is of format {version}, and this program reads up to {reads}: use a newer negbank{instead}"
    )]
    Newer {
        /// The bank.
        bank: BankName,
        /// The tag.
        tag: Tag,
        /// Its format.
        version: u64,
        /// The newest that can be read.
        reads: u64,
        /// How to do without it; empty if it was asked for by its tag.
        instead: String,
    },
    /// It is not what was written.
    #[error("checkpoint {tag} of bank {bank} is damaged: {what}")]
    Damaged {
        /// The bank.
        bank: BankName,
        /// The tag.
        tag: Tag,
        /// What is wrong.
        what: String,
    },
    /// Nobody waits for it any more.
    #[error("the caller left")]
    GivenUp,
    /// The location or the disk refused.
    #[error("cannot {doing} {what} (setting {setting}): {why}")]
    Io {
        /// What was tried, as in "write".
        doing: &'static str,
        /// The object or file.
        what: String,
        /// The setting that names the place.
        setting: &'static str,
        /// Why not.
        why: String,
    },
}

impl ArchiveError {
    /// Of a checkpoint that can't be read when the newest is asked for and this may be it; the tags that can be read are `known`.
    pub(super) fn of_newest(self, known: &[Tag]) -> Self {
        let instead = if known.is_empty() {
            "; it may be the bank's newest, and no other can be read".to_owned()
        } else {
            format!("; it may be the bank's newest: ask for an older one by its tag{}", there(known))
        };
        match self {
            Self::Damaged { bank, tag, what } => Self::Damaged { bank, tag, what: what + &instead },
            Self::Newer { bank, tag, version, reads, .. } => Self::Newer { bank, tag, version, reads, instead },
            other => other,
        }
    }
}

/// Tags that an error names.
const NAMED: usize = 10;

fn named(tag: Option<&Tag>) -> String {
    tag.map_or_else(String::new, |tag| format!(" {tag}"))
}

fn there(tags: &[Tag]) -> String {
    if tags.is_empty() {
        return ", nor any other".to_owned();
    }
    let newest: Vec<&str> = tags.iter().rev().take(NAMED).map(Tag::as_str).collect();
    let more = if tags.len() > NAMED { format!(" and {} older ones", tags.len() - NAMED) } else { String::new() };
    format!("; there are {}{more}", newest.join(", "))
}
