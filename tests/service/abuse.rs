//! Requests that no client should send, each in one field: unknown enum values, floats that are no numbers, absurd counts.

use negbank::client::{Client, ClientError, rows};
use negbank::proto::v1;

use crate::live::{keyed, nearest_with, queue, uniform};

const BANK: &str = "abused";

/// One request that must be refused, and the field that the refusal must name.
#[expect(clippy::large_enum_variant, reason = "a hundred of them")]
enum Bad {
    Create(v1::CreateBankRequest, &'static str),
    Write(v1::WriteRequest, &'static str),
    Fetch(v1::FetchRequest, &'static str),
    Stalest(v1::StalestRequest, &'static str),
    Sample(Box<v1::SampleRequest>, &'static str),
}

/// Sends every bad request; each must be refused as invalid, by the name of its field, and change nothing.
pub(crate) async fn everything(client: &Client) {
    client.create_bank(keyed(BANK, 2, 8)).await.unwrap();
    client.write(write()).await.unwrap();
    let before = bank(client).await;
    let (enums, floats, counts) = (unknown_enums(), bad_floats(), absurd_counts());
    assert!(enums.len() >= 15 && floats.len() >= 40 && counts.len() >= 20);
    for bad in enums.into_iter().chain(floats).chain(counts) {
        let (refused, field) = send(client, bad).await;
        let Some(ClientError::InvalidArgument { message, violations }) = refused else { panic!("{field}: {refused:?}") };
        assert!(violations.iter().any(|fault| fault.field.starts_with(field)), "{field} is not named in {message}");
        assert!(message.len() < 4_000, "{message}");
    }
    assert_eq!(bank(client).await, before);
    harmless_extremes(client).await;
    client.delete_bank(v1::DeleteBankRequest { name: BANK.into() }).await.unwrap();
}

async fn bank(client: &Client) -> v1::Bank {
    client.get_bank(v1::GetBankRequest { name: BANK.into() }).await.unwrap()
}

async fn send(client: &Client, bad: Bad) -> (Option<ClientError>, &'static str) {
    match bad {
        Bad::Create(request, field) => (client.create_bank(request).await.err(), field),
        Bad::Write(request, field) => (client.write(request).await.err(), field),
        Bad::Fetch(request, field) => (client.fetch(request).await.err(), field),
        Bad::Stalest(request, field) => (client.stalest(request).await.err(), field),
        Bad::Sample(request, field) => (client.sample(*request).await.err(), field),
    }
}

fn write() -> v1::WriteRequest {
    let embeddings = Some(rows(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.8]));
    v1::WriteRequest { bank: BANK.into(), ids: vec![1, 2, 3], labels: vec![1, 1, 2], embeddings, ..Default::default() }
}

fn sample(draw: v1::Draw) -> v1::SampleRequest {
    let anchors = v1::Anchors { embeddings: Some(rows(&[1.0, 0.5])), ..Default::default() };
    v1::SampleRequest { bank: BANK.into(), anchors: Some(anchors), draws: vec![draw], ..Default::default() }
}

fn sampled(request: v1::SampleRequest, field: &'static str) -> Bad {
    Bad::Sample(Box::new(request), field)
}

fn anchored(anchors: v1::Anchors, field: &'static str) -> Bad {
    sampled(v1::SampleRequest { anchors: Some(anchors), ..sample(uniform(1)) }, field)
}

fn unknown_enums() -> Vec<Bad> {
    let mut bad = Vec::new();
    for unknown in [-1, 9, i32::MAX] {
        let matrix = || Some(v1::Matrix { dtype: unknown, ..rows(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.8]) });
        let fetch = v1::FetchRequest { bank: BANK.into(), ids: vec![1], encoding: unknown, ..Default::default() };
        bad.extend([
            Bad::Create(v1::CreateBankRequest { kind: unknown, ..keyed("x", 2, 8) }, "kind"),
            Bad::Create(v1::CreateBankRequest { metric: unknown, ..keyed("x", 2, 8) }, "metric"),
            Bad::Create(v1::CreateBankRequest { dtype: unknown, ..keyed("x", 2, 8) }, "dtype"),
            Bad::Write(v1::WriteRequest { embeddings: matrix(), ..write() }, "embeddings"),
            Bad::Fetch(fetch, "encoding"),
            sampled(v1::SampleRequest { encoding: unknown, ..sample(uniform(1)) }, "encoding"),
            sampled(v1::SampleRequest { layout: unknown, ..sample(uniform(1)) }, "layout"),
            sampled(v1::SampleRequest { columns: vec![1, unknown], ..sample(uniform(1)) }, "columns[1]"),
            sampled(sample(v1::Draw { scope: unknown, ..uniform(1) }), "draws[0].scope"),
            sampled(sample(nearest_with(1, v1::Nearest { choose: unknown, ..Default::default() })), "draws[0].nearest.choose"),
            anchored(v1::Anchors { embeddings: matrix(), ..Default::default() }, "anchors.embeddings"),
        ]);
    }
    bad
}

fn bad_floats() -> Vec<Bad> {
    let mut bad = Vec::new();
    for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let rules = |rules: v1::ScoreRules, field| {
            let scores = v1::ScoreLists { values: vec![0.5], counts: Vec::new() };
            let anchors = v1::Anchors { positive_scores: Some(scores), ..sample(uniform(1)).anchors.unwrap() };
            let draw = nearest_with(1, v1::Nearest { rules: Some(rules), ..Default::default() });
            sampled(v1::SampleRequest { anchors: Some(anchors), ..sample(draw) }, field)
        };
        let beta = |choose| v1::Nearest { choose, beta: x, ..Default::default() };
        let scores = |values| Some(v1::ScoreLists { values, counts: Vec::new() });
        let values = || Some(v1::Matrix { values: vec![1.0, 0.0, 0.0, 1.0, 1.0, x], ..Default::default() });
        let bytes = || Some(rows(&[1.0, 0.0, x, 1.0, 0.6, 0.8]));
        let one = |matrix| v1::Anchors { embeddings: matrix, ..Default::default() };
        let halves = || {
            let bits: Vec<u8> =
                [1.0, 1.0, 1.0, 1.0, x, 1.0].iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
            Some(v1::Matrix { data: bits.into(), dtype: v1::Dtype::F16.into(), ..Default::default() })
        };
        bad.extend([
            Bad::Create(v1::CreateBankRequest { momentum: Some(x), ..keyed("x", 2, 8) }, "momentum"),
            Bad::Write(v1::WriteRequest { momentum: Some(x), ..write() }, "momentum"),
            Bad::Write(v1::WriteRequest { weights: vec![1.0, x, 1.0], ..write() }, "weights"),
            Bad::Write(v1::WriteRequest { embeddings: values(), ..write() }, "embeddings[2]"),
            Bad::Write(v1::WriteRequest { embeddings: bytes(), ..write() }, "embeddings[1]"),
            Bad::Write(v1::WriteRequest { embeddings: halves(), ..write() }, "embeddings[2]"),
            anchored(one(values()), "anchors.embeddings[2]"),
            anchored(one(bytes()), "anchors.embeddings[1]"),
            anchored(
                v1::Anchors { positive_scores: scores(vec![x]), rows: 1, ..Default::default() },
                "anchors.positive_scores",
            ),
            sampled(sample(nearest_with(1, beta(v1::Choose::Softmax.into()))), "draws[0].nearest.beta"),
            sampled(sample(nearest_with(1, beta(v1::Choose::Top.into()))), "draws[0].nearest.beta"),
            rules(v1::ScoreRules { min_score: Some(x), ..Default::default() }, "draws[0].nearest.rules.min_score"),
            rules(v1::ScoreRules { max_score: Some(x), ..Default::default() }, "draws[0].nearest.rules.max_score"),
            rules(
                v1::ScoreRules { max_positive_fraction: Some(x), ..Default::default() },
                "draws[0].nearest.rules.max_positive_fraction",
            ),
            rules(v1::ScoreRules { margin: Some(x), ..Default::default() }, "draws[0].nearest.rules.margin"),
            rules(v1::ScoreRules { within: Some(x), ..Default::default() }, "draws[0].nearest.rules.within"),
        ]);
    }
    bad
}

fn absurd_counts() -> Vec<Bad> {
    const MOST: u32 = u32::MAX;
    let with = |nearest| sample(nearest_with(1, nearest));
    let lists = |counts: Vec<u32>| v1::IdLists { values: vec![7], counts };
    let two = |lists| v1::Anchors { denied_ids: Some(lists), rows: 2, ..Default::default() };
    let stage = |rank, world_size| Some(v1::Stage { rank, world_size, ..Default::default() });
    let origin = |writer: &str, number| Some(v1::Origin { writer: writer.to_owned(), number, ..Default::default() });
    let wide = v1::Matrix { dim: MOST, ..rows(&[1.0, 0.0]) };
    let stalest = |k| v1::StalestRequest { bank: BANK.into(), k, ..Default::default() };
    vec![
        Bad::Create(v1::CreateBankRequest { dim: MOST, ..keyed("x", 2, 8) }, "dim"),
        Bad::Create(v1::CreateBankRequest { shards: MOST, ..keyed("x", 2, 8) }, "shards"),
        Bad::Create(queue("x", 2, 8, u64::MAX), "capacity"),
        Bad::Create(v1::CreateBankRequest { name: "n".repeat(1 << 20), ..keyed("x", 2, 8) }, "name"),
        Bad::Write(v1::WriteRequest { embeddings: Some(wide.clone()), ..write() }, "embeddings"),
        Bad::Write(v1::WriteRequest { stage: stage(0, MOST), ..write() }, "stage"),
        Bad::Write(v1::WriteRequest { stage: stage(MOST, 4), ..write() }, "stage"),
        Bad::Write(v1::WriteRequest { stage: stage(0, 0), ..write() }, "stage"),
        Bad::Write(v1::WriteRequest { origin: origin("w", 0), ..write() }, "origin"),
        Bad::Write(v1::WriteRequest { origin: origin(&"w".repeat(200), 1), ..write() }, "origin"),
        Bad::Stalest(stalest(MOST), "k"),
        Bad::Stalest(stalest(0), "k"),
        sampled(sample(uniform(MOST)), "draws[0].k"),
        sampled(v1::SampleRequest { draws: vec![uniform(1); 5_000], ..sample(uniform(1)) }, "draws"),
        sampled(v1::SampleRequest { columns: vec![77; 100_000], ..sample(uniform(1)) }, "columns[0]"),
        sampled(with(v1::Nearest { skip: MOST, ..Default::default() }), "draws[0].nearest.skip"),
        sampled(with(v1::Nearest { window: Some(MOST), ..Default::default() }), "draws[0].nearest.window"),
        sampled(with(v1::Nearest { candidates: Some(MOST), ..Default::default() }), "draws[0].nearest.candidates"),
        anchored(v1::Anchors { rows: MOST, ..Default::default() }, "anchors"),
        anchored(v1::Anchors { embeddings: Some(wide), ..Default::default() }, "anchors.embeddings"),
        anchored(two(lists(vec![MOST, MOST])), "anchors.denied_ids"),
        anchored(two(lists(vec![MOST, 2])), "anchors.denied_ids"),
        anchored(two(lists(vec![0, 0, 1])), "anchors.denied_ids"),
        anchored(two(lists(vec![1; 1 << 20])), "anchors.denied_ids"),
    ]
}

/// Numbers that are large and mean something all the same.
async fn harmless_extremes(client: &Client) {
    let filters = |filters| v1::SampleRequest { filters: Some(filters), step: Some(u64::MAX), ..sample(uniform(3)) };
    let aged = filters(v1::Filters { max_age: Some(u64::MAX), ..Default::default() });
    assert_eq!(client.sample(aged).await.unwrap().draws[0].n, [3], "every age passes");
    let future = filters(v1::Filters { min_step: Some(u64::MAX), ..Default::default() });
    assert_eq!(client.sample(future).await.unwrap().draws[0].n, [0], "no entry is of so late a step");
    let patient = v1::SampleRequest { min_entries: u64::MAX, ..sample(uniform(1)) };
    assert!(matches!(client.sample(patient).await, Err(ClientError::FailedPrecondition(_))));

    // Filters are data, so lists that contradict each other are no mistake: nothing passes, and the answer says why.
    let none = v1::Filters { only_labels: vec![1, 2], exclude_labels: vec![2, 1], ..Default::default() };
    for draw in [uniform(3), nearest_with(3, v1::Nearest::default())] {
        let answer = client.sample(v1::SampleRequest { filters: Some(none.clone()), ..sample(draw) }).await.unwrap();
        let draw = &answer.draws[0];
        assert_eq!((&draw.counts[..], &draw.n[..], draw.indices.len()), (&[0][..], &[0][..], 0));
        let short = &draw.shortfalls[..];
        assert!(short.len() == 1 && short[0].reason() == v1::Reason::TooFew && short[0].count == 3, "{short:?}");
    }
}
