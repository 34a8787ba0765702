//! Who makes a call, and until when.

use std::net::IpAddr;

use tonic::Request;

use super::access::Access;
use super::connection::Line;
use super::deadline;
use crate::model::{Call, Caller};

/// The call that a request is of. Whoever has a token is its subject; else whoever calls from one address is one caller.
pub(super) fn of<T>(request: &Request<T>, access: &Access) -> Call {
    let caller = match access {
        Access::Caller(known) => Caller::Subject(known.subject.clone()),
        Access::Anyone => peer(request).map_or(Caller::Unknown, Caller::Peer),
    };
    Call { caller, deadline: deadline::of(request) }
}

fn peer<T>(request: &Request<T>) -> Option<IpAddr> {
    request.extensions().get::<Line>().and_then(|line| line.peer)
}
