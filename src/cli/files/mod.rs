//! Banks as files: columns in safetensors, or each in an .npy of its own. Rows are read and written in pieces, so that no file is ever
//! in memory as a whole.

mod column;
mod input;
mod npy;
mod output;
mod safetensors;

use std::path::Path;

pub(super) use column::{Dtype, Name};
pub(super) use input::Input;
pub(super) use output::Output;

/// A file's format, which its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Safetensors,
    Npy,
}

impl Format {
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npy") => Ok(Self::Npy),
            _ => Err(format!("{}: a file of this kind is not known; .safetensors and .npy are", path.display())),
        }
    }
}
