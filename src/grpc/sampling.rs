//! The Sampling service.

use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status};

use super::access::{self, Role};
use super::convert::{self, Limits};
use super::frame::Frame;
use super::inbound::Received;
use super::shared_frames::SharedFrames;
use super::writing::Write;
use super::{call, lookup, status};
use crate::engine::{BankHandle, Condition, Engine, MemoryPart, MemoryShare};
use crate::model::{Call, Invalid, SampleAnswer, SampleQuery, Seed};
use crate::proto::v1;
use crate::proto::v1::sampling_server::Sampling;
use crate::telemetry::Work;

/// Draws negatives.
#[derive(Debug)]
pub(super) struct SamplingService {
    pub(super) engine: Engine,
    pub(super) limits: Limits,
    pub(super) shared: SharedFrames,
}

#[tonic::async_trait]
impl Sampling for SamplingService {
    async fn sample(&self, request: Request<v1::SampleRequest>) -> Result<Response<v1::SampleResponse>, Status> {
        let access = access::of(&request)?;
        let call = call::of(&request, &access);
        let received = request.extensions().get().cloned();
        let mut request = request.into_inner();
        let role = if request.write.is_some() { Role::Write } else { Role::Read };
        let bank = lookup::bank(&self.engine, &access, role, &request.bank)?;
        let at_least = convert::position(&request.at_least).map_err(|e| status::invalid(&e))?;
        let condition = Condition { at_least, min_entries: request.min_entries, wait: request.wait_for_entries };
        let seed = Seed::from_entropy().map_err(|_| Status::internal("the system gives no entropy: set the request's seed"))?;
        let write = request.write.take().map(|write| self.write(write, received.clone(), &bank)).transpose()?;
        let key = (write.is_none() && SharedFrames::takes(&request)).then(|| request.encode_to_vec());
        let query = convert::query(request, bank.spec(), seed, &self.limits).map_err(|e| status::invalid(&e))?;
        Work::current().attribute("negbank.anchors", || query.anchors().count as i64);
        // What is wrong with a request is told before it waits.
        self.engine.await_condition(&bank, condition, call.deadline).await.map_err(|e| status::engine(&e))?;
        let (entries, position) = bank.now().map_err(|e| status::engine(&e))?;
        let whole = entries <= self.limits.max_scored_entries;
        let query = if whole { query } else { query.over_candidates(self.limits.softmax_candidates) };
        let most = convert::check_size(&query, bank.spec(), entries, &self.limits).map_err(|e| status::invalid(&e))?;
        let held = Received::held(received.as_ref()) + key.as_ref().map_or(0, Vec::len);
        let take = || self.engine.ledger().take_beside(MemoryPart::Answers, most, held).map_err(|e| status::engine(&e));
        let frame = match key {
            Some(key) => {
                self.shared
                    .get(position, key, async || {
                        // Once for all who wait for it.
                        self.draw(&bank, query, (received, take()?), &call).await
                    })
                    .await?
            }
            None => {
                let frame = self.draw(&bank, query, (received, take()?), &call).await?;
                match write {
                    Some(write) => convert::written(frame, &write.apply(&self.engine, &call).await?),
                    None => frame,
                }
            }
        };
        let mut response = Response::new(v1::SampleResponse::default());
        response.extensions_mut().insert(frame);
        Ok(response)
    }
}

impl SamplingService {
    /// Draws. What accounts for the request and for its answer is held by the work, which its caller may leave before it is done.
    async fn draw(
        &self,
        bank: &BankHandle,
        query: SampleQuery,
        (received, held): (Option<Received>, MemoryShare),
        call: &Call,
    ) -> Result<Frame, Status> {
        let (dim, encoding) = (bank.spec().dim(), query.form().encoding);
        let candidates = query.candidates();
        let encode = move |mut answer: SampleAnswer| {
            Work::current().attribute("negbank.plans", || plans(&answer));
            Work::current().attribute("negbank.rows", || answer.rows.len as i64);
            answer.draws.iter_mut().zip(candidates).for_each(|(draw, candidates)| draw.candidates = candidates);
            let frame = convert::sampled(answer, dim, encoding).held_by(held);
            drop(received);
            frame
        };
        self.engine.sample(bank, query, call, encode).await.map_err(|e| status::engine(&e))
    }

    /// The write that a request to `bank` carries, checked.
    fn write(&self, mut write: v1::WriteRequest, received: Option<Received>, bank: &Arc<BankHandle>) -> Result<Write, Status> {
        if write.bank.is_empty() {
            bank.name().as_str().clone_into(&mut write.bank);
        }
        if write.bank != bank.name().as_str() {
            let reason = format!("is {:?}, and the request samples from {}: a request is of one bank", write.bank, bank.name());
            return Err(status::invalid(&Invalid::one("write.bank", reason)));
        }
        Write::prepare(write, received, Arc::clone(bank), &self.limits)
    }
}

/// By which plan each draw was answered.
fn plans(answer: &SampleAnswer) -> String {
    let names: Vec<String> = answer.draws.iter().map(|draw| format!("{:?}", draw.plan).to_lowercase()).collect();
    names.join(" ")
}
