//! Who may call what (decision 0014).

mod caller;
mod layer;
mod tokens;

pub use caller::Role;
pub(super) use caller::{Access, of};
pub(super) use layer::AccessLayer;
pub(super) use tokens::Tokens;
pub use tokens::{Entry, fingerprint};
