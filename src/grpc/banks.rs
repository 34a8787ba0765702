//! The Banks service.

use tonic::{Request, Response, Status};

use super::access::{self, Role};
use super::convert::{self, Limits};
use super::inbound::Received;
use super::outbound::Held;
use super::scan::{self, Chunks};
use super::writing::Write;
use super::{call, lookup, status};
use crate::engine::{Condition, Engine, EngineError, MemoryPart};
use crate::model::Mutation;
use crate::proto::v1;
use crate::proto::v1::banks_server::Banks;

/// Creates, fills, reads and deletes banks.
#[derive(Debug)]
pub(super) struct BanksService {
    pub(super) engine: Engine,
    pub(super) limits: Limits,
}

/// Bytes of an entry's columns in an answer at most.
const BYTES_OF_ENTRY: usize = 64;

#[tonic::async_trait]
impl Banks for BanksService {
    type ScanStream = Chunks;

    async fn stalest(&self, request: Request<v1::StalestRequest>) -> Result<Response<v1::StalestResponse>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        let request = request.into_inner();
        let bank = lookup::bank(&self.engine, &access, Role::Read, &request.bank)?;
        let at_least = convert::position(&request.at_least).map_err(|e| status::invalid(&e))?;
        let condition = Condition { at_least, ..Condition::default() };
        let k = convert::stalest_k(&request, &self.limits).map_err(|e| status::invalid(&e))?;
        self.engine.await_condition(&bank, condition, call.deadline).await.map_err(|e| status::engine(&e))?;
        let (entries, _) = bank.now().map_err(|e| status::engine(&e))?;
        // The entries, and the message that is made of them.
        let most = 2 * k.min(entries) * BYTES_OF_ENTRY;
        let held = self.engine.ledger().take(MemoryPart::Answers, most).map_err(|e| status::engine(&e))?;
        let stalest = self.engine.stalest(&bank, k, &call).await.map_err(|e| status::engine(&e))?;
        let mut response = Response::new(convert::stalest(&stalest));
        response.extensions_mut().insert(Held::of(held));
        Ok(response)
    }

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        let bank = lookup::bank(&self.engine, &access, Role::Read, &request.get_ref().bank)?;
        scan::chunks(self, bank, request.get_ref(), &call).await
    }

    async fn create_bank(&self, request: Request<v1::CreateBankRequest>) -> Result<Response<v1::Bank>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        let may_create = access.may(Role::Admin, &request.get_ref().name);
        if may_create.is_err() {
            access.may(Role::Write, &request.get_ref().name)?;
        }
        let (name, spec) = convert::spec(request.get_ref(), &self.limits).map_err(|e| status::invalid(&e))?;
        let durability = convert::durability(request.get_ref().durability).map_err(|e| status::invalid(&e))?;
        let bank = match may_create {
            Ok(()) => self.engine.create_bank(name, spec, durability).await.map_err(|e| status::engine(&e))?,
            // Every rank asks for the bank that it writes to; where it is there already, nothing is created.
            Err(refused) => {
                let there = match self.engine.bank(name.as_str()) {
                    Err(soon @ EngineError::Recovering { .. }) => return Err(status::engine(&soon)),
                    there => there.ok().filter(|bank| *bank.spec() == spec),
                };
                let same = there.filter(|bank| durability.is_none_or(|durability| bank.durability() == durability));
                same.ok_or(refused)?
            }
        };
        let info = self.engine.describe(&bank, &call).await.map_err(|e| status::engine(&e))?;
        Ok(Response::new(convert::described(&info)))
    }

    async fn get_bank(&self, request: Request<v1::GetBankRequest>) -> Result<Response<v1::Bank>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        access.may(Role::Read, &request.get_ref().name)?;
        if let Some(info) = self.engine.recovering_bank(&request.get_ref().name).map_err(|e| status::engine(&e))? {
            return Ok(Response::new(convert::described(&info)));
        }
        let bank = lookup::bank(&self.engine, &access, Role::Read, &request.get_ref().name)?;
        let info = self.engine.describe(&bank, &call).await.map_err(|e| status::engine(&e))?;
        Ok(Response::new(convert::described(&info)))
    }

    async fn list_banks(&self, request: Request<v1::ListBanksRequest>) -> Result<Response<v1::ListBanksResponse>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        // In this order, so that one that is served meanwhile is not missed.
        let mut infos = self.engine.recovering().map_err(|e| status::engine(&e))?;
        let served = self.engine.banks();
        infos.retain(|coming| access.sees(coming.name.as_str()) && served.iter().all(|bank| *bank.name() != coming.name));
        for bank in served.into_iter().filter(|bank| access.sees(bank.name().as_str())) {
            infos.push(self.engine.describe(&bank, &call).await.map_err(|e| status::engine(&e))?);
        }
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        let banks = infos.iter().map(convert::described).collect();
        Ok(Response::new(v1::ListBanksResponse { banks }))
    }

    async fn delete_bank(&self, request: Request<v1::DeleteBankRequest>) -> Result<Response<v1::DeleteBankResponse>, Status> {
        let access = access::of(&request)?;
        access.may(Role::Admin, &request.get_ref().name)?;
        let deleted = self.engine.delete_bank(&request.get_ref().name).await;
        let entries = deleted.map_err(|e| lookup::refused(&access, e))?;
        Ok(Response::new(v1::DeleteBankResponse { entries: entries as u64 }))
    }

    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        let received = request.extensions().get().cloned();
        let request = request.into_inner();
        let bank = lookup::bank(&self.engine, &access, Role::Write, &request.bank)?;
        let write = Write::prepare(request, received, bank, &self.limits)?;
        Ok(Response::new(write.apply(&self.engine, &call).await?))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        let received = request.extensions().get::<Received>().cloned();
        let request = request.into_inner();
        let bank = lookup::bank(&self.engine, &access, Role::Read, &request.bank)?;
        let at_least = convert::position(&request.at_least).map_err(|e| status::invalid(&e))?;
        let condition = Condition { at_least, ..Condition::default() };
        let (ids, encoding) = convert::fetch_ids(request, bank.spec(), &self.limits).map_err(|e| status::invalid(&e))?;
        self.engine.await_condition(&bank, condition, call.deadline).await.map_err(|e| status::engine(&e))?;
        let most = ids.len() * (encoding.bytes() * bank.spec().dim() + BYTES_OF_ENTRY);
        let held = self.engine.ledger().take_beside(MemoryPart::Answers, most, Received::held(received.as_ref()));
        let held = held.map_err(|e| status::engine(&e))?;
        let fetched = self.engine.fetch(&bank, ids, encoding, &call).await.map_err(|e| status::engine(&e))?;
        let mut response = Response::new(v1::FetchResponse::default());
        response.extensions_mut().insert(convert::fetched(fetched, bank.spec().dim(), encoding).held_by(held));
        Ok(response)
    }

    async fn remove(&self, request: Request<v1::RemoveRequest>) -> Result<Response<v1::RemoveResponse>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        let request = request.into_inner();
        let bank = lookup::bank(&self.engine, &access, Role::Write, &request.bank)?;
        let ids = convert::remove_ids(request, &self.limits).map_err(|e| status::invalid(&e))?;
        let mutation = Mutation::Remove(ids);
        let applied = self.engine.mutate(&bank, mutation, &call).await.map_err(|e| status::engine(&e))?;
        let position = bank.position(applied.sequence).to_bytes().to_vec().into();
        Ok(Response::new(v1::RemoveResponse { removed: applied.removed, sequence: applied.sequence, position }))
    }
}
