//! A server inside another program.

use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::{AppError, workers};
use crate::config::Settings;
use crate::engine::Engine;
use crate::grpc::Server;

/// A server on threads of its own, which it shares with nobody who calls it. It ends with the value. Not to be dropped where
/// tokio runs.
#[derive(Debug)]
pub struct Embedded {
    /// `host:port`; empty where the settings turn TCP off.
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    runtime: Option<Runtime>,
}

impl Embedded {
    /// Starts it, and waits until its banks are recovered. Its logs are the caller's business.
    ///
    /// # Errors
    /// [`AppError`]
    pub fn start(settings: Settings) -> Result<Self, AppError> {
        let runtime = workers::runtime(settings.server.threads).thread_name("embedded").build()?;
        let engine = Engine::start(settings.engine)?;
        let server = runtime.block_on(Server::bind(settings.server, settings.limits))?;
        let address = server.address()?.map_or_else(String::new, |address| address.to_string());
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(server.serve(engine.clone(), async move { stopped.await.unwrap_or_default() }));
        runtime.block_on(engine.recovered());
        Ok(Self { address, stop: Some(stop), runtime: Some(runtime) })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
