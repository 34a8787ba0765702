//! Who makes a call, and until when.

use std::net::IpAddr;
use std::sync::Arc;

use super::clock::Deadline;

/// Whom the machine is shared with: all calls of one caller have one share between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Caller {
    /// One who carries neither a token nor an address; all of them are one.
    #[default]
    Unknown,
    /// The owner of a token, by its subject.
    Subject(Arc<str>),
    /// A machine.
    Peer(IpAddr),
    /// The ranks of a staged write, together.
    Stage,
}

/// A call as the engine sees it.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who makes it.
    pub caller: Caller,
    /// Until when an answer is of use.
    pub deadline: Deadline,
}
