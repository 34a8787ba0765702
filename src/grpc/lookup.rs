//! Banks by name, for callers that may use them.

use std::sync::Arc;

use tonic::Status;

use super::access::{Access, Role};
use super::status;
use crate::engine::{BankHandle, Engine, EngineError};
use crate::telemetry::Work;

/// The bank of that name, for a caller who may use it so.
pub(super) fn bank(engine: &Engine, access: &Access, role: Role, name: &str) -> Result<Arc<BankHandle>, Status> {
    access.may(role, name)?;
    Work::current().attribute("negbank.bank", || name.to_owned());
    engine.bank(name).map_err(|fault| refused(access, fault))
}

/// The status of what the engine refused, without the names of banks that the caller may not know of.
pub(super) fn refused(access: &Access, fault: EngineError) -> Status {
    let fault = match fault {
        EngineError::NotFound { name, mut known, .. } if *access != Access::Anyone => {
            known.retain(|bank| access.sees(bank.as_str()));
            let total = known.len();
            EngineError::NotFound { name, known, total }
        }
        other => other,
    };
    status::engine(&fault)
}
