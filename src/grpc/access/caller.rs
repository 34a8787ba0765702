//! What a caller may do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tonic::{Request, Status};

/// What a token allows; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reading and drawing.
    Read,
    /// Writing and removing entries, and gathers.
    Write,
    /// Creating and deleting banks, and checkpoints.
    Admin,
}

impl std::fmt::Display for Role {
    /// As the token file spells it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        })
    }
}

/// Whom a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::grpc) struct Caller {
    /// The name in the token file; tokens of one subject are one caller.
    pub(in crate::grpc) subject: Arc<str>,
    pub(super) role: Role,
    pub(super) banks: Vec<String>,
}

/// Who makes a call, as far as the server asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::grpc) enum Access {
    /// No tokens are asked for.
    Anyone,
    /// The owner of a token.
    Caller(Arc<Caller>),
}

/// Who makes the call that a request is of.
///
/// # Errors
/// INTERNAL where nobody asked, so that a service without the layer serves nothing.
pub(in crate::grpc) fn of<T>(request: &Request<T>) -> Result<Access, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::internal("the call was not checked for who makes it"))
}

impl Access {
    /// Refuses what the caller may not do with the bank, or the group of gathers, of that name.
    ///
    /// # Errors
    /// PERMISSION_DENIED, which does not tell whether there is such a bank.
    pub(in crate::grpc) fn may(&self, role: Role, name: &str) -> Result<(), Status> {
        let Self::Caller(caller) = self else { return Ok(()) };
        if !caller.reaches(name) {
            let message = format!("{:?} may not use {name:?}: its token is for {}", caller.subject, caller.banks.join(", "));
            return Err(Status::permission_denied(message));
        }
        if caller.role < role {
            let (subject, has) = (&caller.subject, caller.role);
            let message = format!("{subject:?} has the role {has} for {name:?}, and this takes {role}");
            return Err(Status::permission_denied(message));
        }
        Ok(())
    }

    /// Whether the caller may know of the bank.
    pub(in crate::grpc) fn sees(&self, name: &str) -> bool {
        self.may(Role::Read, name).is_ok()
    }
}

impl Caller {
    fn reaches(&self, name: &str) -> bool {
        self.banks.iter().any(|pattern| fits(pattern, name))
    }
}

/// Whether a name fits a pattern, in which `*` stands for any characters, none included.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Access, Caller, Role, fits};

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name) in [("*", "x"), ("a*", "a"), ("a*c", "abc"), ("a*b*c", "a-b-b-c"), ("*b", "ab"), ("a", "a")] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("a*", "ba"), ("a*c", "ac-"), ("a*b*c", "acb"), ("ab*ba", "aba"), ("", "a")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_role_includes_those_before_it_for_its_banks_only() {
        let of = |role| Access::Caller(Arc::new(Caller { subject: "s".into(), role, banks: vec!["mine-*".to_owned()] }));
        assert!(of(Role::Admin).may(Role::Read, "mine-1").is_ok());
        assert!(of(Role::Write).may(Role::Write, "mine-1").is_ok());
        assert!(of(Role::Write).may(Role::Admin, "mine-1").is_err());
        assert!(of(Role::Read).may(Role::Write, "mine-1").is_err());
        assert!(of(Role::Admin).may(Role::Read, "yours").is_err());
        assert!(!of(Role::Read).sees("yours"));
        assert!(Access::Anyone.may(Role::Admin, "yours").is_ok());
    }
}
