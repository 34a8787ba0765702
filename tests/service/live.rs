//! A live server in this process, on a port of its own, and a client of it.

use negbank::client::{Client, Options, rows};
use negbank::config::{Settings, Sources};
use negbank::engine::Engine;
use negbank::grpc::Server;
use negbank::proto::v1;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) struct Live {
    pub(crate) client: Client,
    /// `host:port`.
    pub(crate) address: String,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl Live {
    /// Starts a server with `settings` (`key=value`) over the defaults, and connects to it.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let mut flags = vec!["server.listen=127.0.0.1:0".to_owned()];
        flags.extend(settings.iter().map(|&setting| setting.to_owned()));
        let settings = Settings::load(&Sources { flags, ..Sources::default() }).unwrap();
        let engine = Engine::start(settings.engine).unwrap();
        engine.recovered().await;
        let server = Server::bind(settings.server, settings.limits).await.unwrap();
        let address = server.address().unwrap().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let serving = async move {
            let stopped = async move { stopped.await.unwrap_or_default() };
            server.serve(engine, stopped).await.unwrap();
        };
        let server = tokio::spawn(serving);
        let client = Client::connect(&address, Options::default()).await.unwrap();
        Self { client, address, stop: Some(stop), server: Some(server) }
    }

    pub(crate) async fn create(&self, request: v1::CreateBankRequest) -> v1::Bank {
        self.client.create_bank(request).await.unwrap()
    }

    pub(crate) async fn write(&self, bank: &str, ids: &[u64], embeddings: &[f32], labels: &[i64]) -> v1::WriteResponse {
        let request = v1::WriteRequest {
            bank: bank.to_owned(),
            ids: ids.to_vec(),
            embeddings: Some(rows(embeddings)),
            labels: labels.to_vec(),
            ..Default::default()
        };
        self.client.write(request).await.unwrap()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

/// A keyed cosine bank's settings.
pub(crate) fn keyed(name: &str, dim: u32, shards: u32) -> v1::CreateBankRequest {
    v1::CreateBankRequest { name: name.to_owned(), dim, shards, ..Default::default() }
}

pub(crate) fn queue(name: &str, dim: u32, shards: u32, capacity: u64) -> v1::CreateBankRequest {
    v1::CreateBankRequest { kind: v1::BankKind::Queue.into(), capacity, ..keyed(name, dim, shards) }
}

pub(crate) fn uniform(k: u32) -> v1::Draw {
    v1::Draw { k, strategy: Some(v1::draw::Strategy::Uniform(v1::Uniform::default())), filters: None, ..Default::default() }
}

pub(crate) fn nearest(k: u32) -> v1::Draw {
    nearest_with(k, v1::Nearest::default())
}

pub(crate) fn nearest_with(k: u32, nearest: v1::Nearest) -> v1::Draw {
    v1::Draw { k, strategy: Some(v1::draw::Strategy::Nearest(nearest)), filters: None, ..Default::default() }
}

/// Every column.
pub(crate) fn all_columns() -> Vec<i32> {
    (v1::Column::Ids as i32..=v1::Column::Weights as i32).collect()
}

/// `count` rows of `dim` floats in [-1, 1).
pub(crate) fn random_rows(random: &mut negbank::model::Stream, count: usize, dim: usize) -> Vec<f32> {
    (0..count * dim).map(|_| random.below(1 << 24) as f32 / 8_388_608.0 - 1.0).collect()
}
