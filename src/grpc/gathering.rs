//! The Gathering service.

use tonic::{Request, Response, Status};

use super::access::{self, Role};
use super::convert::{self, Limits};
use super::frame::Frame;
use super::inbound::Received;
use super::outbound::Held;
use super::{deadline, status};
use crate::engine::{Contribution, Engine, MemoryPart};
use crate::proto::v1;
use crate::proto::v1::gathering_server::Gathering;

/// Exchanges rows between ranks.
#[derive(Debug)]
pub(super) struct GatheringService {
    pub(super) engine: Engine,
    pub(super) limits: Limits,
}

#[tonic::async_trait]
impl Gathering for GatheringService {
    async fn gather(&self, request: Request<v1::GatherRequest>) -> Result<Response<v1::GatherResponse>, Status> {
        let (deadline, received) = (deadline::of(&request), request.extensions().get::<Received>().cloned());
        access::of(&request)?.may(Role::Write, &request.get_ref().group)?;
        let request = request.into_inner();
        let readable = request.readable;
        let contribution = convert::contribution(request, &self.limits).map_err(|e| status::invalid(&e))?;
        let contribution = Contribution { held: Received::held(received.as_ref()), ..contribution };
        let gathered = self.engine.gather(contribution, deadline);
        // The rows are in the gather's account now, or were refused.
        received.iter().for_each(Received::pass_on);
        let gathered = gathered.await.map_err(|e| status::engine(&e))?;
        let frame = if readable {
            let bytes = convert::bytes_of_readable(&gathered);
            let copy = self.engine.ledger().take_beside(MemoryPart::Answers, bytes, gathered.memory());
            let copy = copy.map_err(|e| status::engine(&e))?;
            convert::readable(&gathered).holding(Held::of((gathered, copy)))
        } else {
            let pieces = gathered.encoded(|gathered| convert::gathered(gathered).into_pieces());
            Frame::of(pieces).holding(Held::of(gathered))
        };
        let mut response = Response::new(v1::GatherResponse::default());
        response.extensions_mut().insert(frame);
        Ok(response)
    }

    async fn list_gathers(
        &self,
        request: Request<v1::ListGathersRequest>,
    ) -> Result<Response<v1::ListGathersResponse>, Status> {
        let access = access::of(&request)?;
        let mut listed = convert::gathers(&self.engine.gathers());
        listed.gathers.retain(|gather| access.sees(&gather.group));
        Ok(Response::new(listed))
    }
}
