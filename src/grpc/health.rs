//! The health of the whole server and of each service, as grpc.health.v1 has it.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::banks::BanksService;
use super::checkpoints::CheckpointsService;
use super::gathering::GatheringService;
use super::sampling::SamplingService;
use crate::engine::Health;
use crate::proto::v1::banks_server::BanksServer;
use crate::proto::v1::checkpoints_server::CheckpointsServer;
use crate::proto::v1::gathering_server::GatheringServer;
use crate::proto::v1::sampling_server::SamplingServer;

/// The whole server has no name.
const WHOLE: &str = "";
const BANKS: &str = BanksServer::<BanksService>::NAME;
const SERVICES: [&str; 4] = [
    BANKS,
    SamplingServer::<SamplingService>::NAME,
    GatheringServer::<GatheringService>::NAME,
    CheckpointsServer::<CheckpointsService>::NAME,
];

/// Says how the services are while they are served.
#[derive(Debug)]
pub(super) struct Announcer {
    reporter: HealthReporter,
    following: JoinHandle<()>,
}

/// What there is to say: whether all banks are recovered, and whether all take writes.
type Said = (bool, bool);

impl Announcer {
    /// Says how it stands now, before it returns, and whatever becomes of that.
    pub(super) async fn follow(reporter: HealthReporter, mut engine: watch::Receiver<Health>) -> Self {
        let mut said = of(&engine.borrow_and_update());
        say(&reporter, said).await;
        let following = {
            let reporter = reporter.clone();
            tokio::spawn(async move {
                // An error here means that the engine is gone, and the server with it.
                while engine.changed().await.is_ok() {
                    let now = of(&engine.borrow_and_update());
                    // Whoever watches hears of changes only.
                    if now != said {
                        said = now;
                        say(&reporter, said).await;
                    }
                }
            })
        };
        Self { reporter, following }
    }

    /// No more calls are taken: that is its last word.
    pub(super) async fn drain(self) {
        self.following.abort();
        let _ended = self.following.await;
        for service in SERVICES.into_iter().chain([WHOLE]) {
            self.reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
    }
}

fn of(health: &Health) -> Said {
    (health.recovering == 0, health.unwritable.is_empty())
}

async fn say(reporter: &HealthReporter, (recovered, writable): Said) {
    for service in SERVICES.into_iter().chain([WHOLE]) {
        let serves = recovered && (writable || service != BANKS);
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status(service, status).await;
    }
}
