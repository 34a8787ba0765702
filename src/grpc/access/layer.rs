//! Who makes a call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::caller::Access;
use super::tokens::Tokens;
use crate::grpc::connection::Line;
use crate::grpc::reloaded::Reloaded;
use crate::grpc::sparing::Sparing;

/// Finds out who makes a call and refuses whom it doesn't know; what a caller may do, the services ask. Health answers everybody.
#[derive(Debug, Clone)]
pub(in crate::grpc) struct AccessLayer {
    /// `None`: nobody is asked.
    pub(in crate::grpc) tokens: Option<Arc<Reloaded<Tokens>>>,
}

/// The service behind an [`AccessLayer`].
#[derive(Debug, Clone)]
pub(in crate::grpc) struct Checked<S> {
    inner: S,
    layer: AccessLayer,
}

const HEALTH: &str = "/grpc.health.v1.Health/";

static REFUSED: Sparing = Sparing::new();

impl AccessLayer {
    fn access(&self, path: &str, headers: &HeaderMap) -> Result<Access, Status> {
        let Some(tokens) = self.tokens.as_ref().filter(|_| !path.starts_with(HEALTH)) else { return Ok(Access::Anyone) };
        let given = headers.get(AUTHORIZATION).ok_or_else(|| {
            Status::unauthenticated("a token is asked for: give metadata `authorization: Bearer TOKEN` (setting auth.tokens)")
        })?;
        let token =
            given.to_str().ok().and_then(|text| text.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        let (_, token) = token.ok_or_else(|| Status::unauthenticated("the metadata `authorization` is not `Bearer TOKEN`"))?;
        let caller = tokens.get().find(token.trim());
        caller.map(Access::Caller).ok_or_else(|| Status::unauthenticated("the token is not known (setting auth.tokens)"))
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked { inner, layer: self.clone() }
    }
}

impl<S, Q> Service<http::Request<Q>> for Checked<S>
where
    S: Service<http::Request<Q>, Response = http::Response<Body>, Future: Send + 'static>,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Q>) -> Self::Future {
        match self.layer.access(request.uri().path(), request.headers()) {
            Ok(access) => {
                request.extensions_mut().insert(access);
                Box::pin(self.inner.call(request))
            }
            Err(refused) => {
                if let Some(untold) = REFUSED.turn() {
                    let peer = request.extensions().get::<Line>().and_then(|line| line.peer);
                    tracing::info!(?peer, why = refused.message(), untold, "a call is of nobody that is known: refused");
                }
                Box::pin(std::future::ready(Ok(refused.into_http())))
            }
        }
    }
}
