//! The bank that everything is measured on, and its server.

use negbank::client::{Client, Options, rows};
use negbank::config::{Settings, Sources};
use negbank::engine::Engine;
use negbank::grpc::Server;
use negbank::model::Seed;
use negbank::proto::v1;

pub(crate) const DIM: usize = 128;
pub(crate) const ENTRIES: u64 = 65_536;
pub(crate) const BANK: &str = "bench";

/// A server in this process.
pub(crate) struct Serving {
    pub(crate) address: String,
    pub(crate) engine: Engine,
}

pub(crate) async fn serve() -> Serving {
    let sources = Sources { flags: vec!["server.listen=127.0.0.1:0".to_owned()], ..Sources::default() };
    let settings = Settings::load(&sources).unwrap();
    let server = Server::bind(settings.server, settings.limits).await.unwrap();
    let address = server.address().unwrap().unwrap().to_string();
    let engine = Engine::start(settings.engine).unwrap();
    tokio::spawn(server.serve(engine.clone(), std::future::pending()));
    Serving { address, engine }
}

pub(crate) async fn connect(address: &str) -> Client {
    Client::connect(address, Options::default()).await.unwrap()
}

/// Creates [`BANK`] and writes its entries, in 100 classes.
pub(crate) async fn fill(address: &str) {
    let client = connect(address).await;
    let request = v1::CreateBankRequest { name: BANK.into(), dim: DIM as u32, ..Default::default() };
    client.create_bank(request).await.unwrap();
    for start in (0..ENTRIES).step_by(8_192) {
        let ids: Vec<u64> = (start..start + 8_192).collect();
        let labels = ids.iter().map(|id| (id % 100) as i64).collect();
        let embeddings = Some(rows(&random(ids.len(), start)));
        let request = v1::WriteRequest { bank: BANK.into(), ids, labels, embeddings, ..Default::default() };
        client.write(request).await.unwrap();
    }
}

/// `count` rows.
pub(crate) fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut stream = Seed(seed).stream(0, 0);
    (0..count * DIM).map(|_| stream.below(2_000_001) as f32 / 1e6 - 1.0).collect()
}

/// A request with `anchors` anchors and one draw.
pub(crate) fn request(anchors: usize, draw: v1::Draw, seed: u64) -> v1::SampleRequest {
    v1::SampleRequest {
        bank: BANK.into(),
        anchors: Some(v1::Anchors { rows: anchors as u32, ..Default::default() }),
        draws: vec![draw],
        seed: Some(seed),
        columns: vec![v1::Column::Ids.into(), v1::Column::Embeddings.into(), v1::Column::LogQ.into()],
        ..Default::default()
    }
}

pub(crate) fn uniform(k: u32, scope: v1::Scope) -> v1::Draw {
    let strategy = Some(v1::draw::Strategy::Uniform(v1::Uniform::default()));
    v1::Draw { k, strategy, scope: scope.into(), ..Default::default() }
}
