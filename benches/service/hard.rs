//! Hard negatives, 256 anchors x 64, the anchor's own label excluded, of clustered rows: what is served beside the engine alone.

use std::time::Duration;

use negbank::client::{Client, rows};
use negbank::model::clock::Deadline;
use negbank::model::{
    Anchors, Call, Caller, Columns, Draw, Filters, Form, Layout, Matrix, Metric, Nearest, SampleQuery, Scope, Seed, Strategy,
};
use negbank::proto::v1;
use tokio::runtime::Runtime;

use crate::bank::{DIM, ENTRIES, Serving, connect};
use crate::clustered::Clustered;
use crate::timing::{Times, now};

const HARD: &str = "bench-hard";
const ANCHORS: usize = 256;
const K: usize = 64;
const ROUNDS: usize = 31;

/// Times of a whole request with its rows.
pub(crate) struct Hard {
    pub(crate) engine: Times,
    pub(crate) served: Times,
}

impl Hard {
    /// Rate of what is served, of the engine's.
    pub(crate) fn ratio(&self) -> f64 {
        self.engine.median_ms() / self.served.median_ms()
    }
}

pub(crate) fn measure(client: &Runtime, serving: &Serving) -> Hard {
    let anchors = Clustered::new(ANCHORS, DIM, 2);
    let measured = client.block_on(async {
        let connection = connect(&serving.address).await;
        fill(&connection).await;
        let bank = serving.engine.bank(HARD).unwrap();
        let mut measured = Hard { engine: Times::default(), served: Times::default() };
        for round in 0..=ROUNDS {
            let query = query(&anchors);
            let call = Call { caller: Caller::Unknown, deadline: Deadline::after(Duration::from_secs(60)) };
            let began = now();
            drop(serving.engine.sample(&bank, query, &call, |answer| answer).await.unwrap());
            let of_engine = began.elapsed();
            let request = request(&anchors);
            let began = now();
            drop(connection.sample_columns(request).await.unwrap());
            let of_served = began.elapsed();
            // The first round warms up.
            if round > 0 {
                measured.engine.push(of_engine);
                measured.served.push(of_served);
            }
        }
        measured
    });
    println!(
        "\nhard negatives, {ANCHORS} x {K} of {ENTRIES} clustered rows, own label excluded, with rows: engine {:.2} ms, served {:.2} ms (quartiles {:.2} to {:.2}), {:.2} of the engine's rate",
        measured.engine.median_ms(),
        measured.served.median_ms(),
        measured.served.quantile_ms(0.25),
        measured.served.quantile_ms(0.75),
        measured.ratio(),
    );
    measured
}

async fn fill(client: &Client) {
    let request = v1::CreateBankRequest { name: HARD.into(), dim: DIM as u32, ..Default::default() };
    client.create_bank(request).await.unwrap();
    let entries = Clustered::new(ENTRIES as usize, DIM, 1);
    for start in (0..ENTRIES as usize).step_by(8_192) {
        let range = start..start + 8_192;
        let request = v1::WriteRequest {
            bank: HARD.into(),
            ids: range.clone().map(|id| id as u64).collect(),
            labels: entries.labels[range.clone()].to_vec(),
            embeddings: Some(rows(&range.flat_map(|id| entries.row(id).to_vec()).collect::<Vec<f32>>())),
            ..Default::default()
        };
        client.write(request).await.unwrap();
    }
}

fn query(anchors: &Clustered) -> SampleQuery {
    let nearest = Nearest::top(K);
    let filters = Filters { exclude_same_label: true, ..Filters::default() };
    let draw = Draw { k: K, strategy: Strategy::Nearest(nearest), filters, scope: Scope::PerAnchor };
    let columns = Columns { ids: true, embeddings: true, scores: true, ..Columns::default() };
    let anchors = Anchors {
        count: ANCHORS,
        embeddings: Some(Matrix::new("anchors", DIM, Metric::Cosine, anchors.rows.clone()).unwrap()),
        labels: Some(anchors.labels.iter().copied().map(Some).collect()),
        ..Anchors::default()
    };
    SampleQuery::new(anchors, vec![draw], None, Seed(1), Form { layout: Layout::Pooled, ..Form::pooled(columns) }).unwrap()
}

fn request(anchors: &Clustered) -> v1::SampleRequest {
    let strategy = Some(v1::draw::Strategy::Nearest(v1::Nearest::default()));
    v1::SampleRequest {
        bank: HARD.into(),
        anchors: Some(v1::Anchors {
            embeddings: Some(rows(&anchors.rows)),
            labels: anchors.labels.clone(),
            ..Default::default()
        }),
        draws: vec![v1::Draw { k: K as u32, strategy, ..Default::default() }],
        filters: Some(v1::Filters { exclude_same_label: true, ..Default::default() }),
        columns: vec![v1::Column::Ids.into(), v1::Column::Embeddings.into(), v1::Column::Scores.into()],
        seed: Some(1),
        ..Default::default()
    }
}
