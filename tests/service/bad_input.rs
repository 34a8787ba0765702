//! Bad input over real gRPC: the right code, the field, the limit and its setting; and nothing changed.

use negbank::client::{ClientError, rows};
use negbank::proto::v1;
use v1::draw::Strategy;

use crate::live::{Live, keyed, nearest, nearest_with, queue, uniform};

/// The refusal must name `field` and say `reason`.
fn assert_invalid<T: std::fmt::Debug>(result: Result<T, ClientError>, field: &str, reason: &str) {
    match result {
        Err(ClientError::InvalidArgument { violations, message }) => {
            let named = violations.iter().any(|fault| fault.field == field && fault.reason.contains(reason));
            assert!(named, "no violation of {field:?} with {reason:?} in {violations:?}");
            assert!(message.contains(reason), "the message itself must say it: {message}");
        }
        other => panic!("expected InvalidArgument on {field}, got {other:?}"),
    }
}

async fn live() -> Live {
    let live =
        Live::start(&["limits.max_k=100", "limits.max_anchors=50", "limits.max_write_rows=20", "limits.max_dim=512"]).await;
    live.create(keyed("docs", 2, 8)).await;
    live.write("docs", &[1, 2, 3], &[1.0, 0.0, 0.0, 1.0, 0.6, 0.8], &[0, 1, 1]).await;
    live.create(queue("fifo", 2, 2, 4)).await;
    live
}

fn write(ids: &[u64], x: &[f32]) -> v1::WriteRequest {
    v1::WriteRequest { bank: "docs".into(), ids: ids.to_vec(), embeddings: Some(rows(x)), ..Default::default() }
}

fn sample(draws: Vec<v1::Draw>) -> v1::SampleRequest {
    v1::SampleRequest { bank: "docs".into(), anchors: Some(anchors(&[1.0, 0.5])), draws, ..Default::default() }
}

fn anchors(x: &[f32]) -> v1::Anchors {
    v1::Anchors { embeddings: Some(rows(x)), ..Default::default() }
}

#[tokio::test]
async fn banks_are_created_right_or_not_at_all() {
    let live = live().await;
    let create = |request| live.client.create_bank(request);
    assert_invalid(create(keyed("a/b", 2, 8)).await, "name", "not a bank name");
    assert_invalid(create(keyed("", 2, 8)).await, "name", "required");
    assert_invalid(create(keyed("x", 0, 8)).await, "dim", "at least 1");
    assert_invalid(create(keyed("x", 513, 8)).await, "dim", "513 is over the limit of 512 (setting limits.max_dim)");
    assert_invalid(create(keyed("x", 2, 65)).await, "shards", "outside 1..=64");
    assert_invalid(create(queue("x", 2, 8, 0)).await, "capacity", "at least 1");
    let vast = v1::CreateBankRequest { capacity: u64::MAX, ..keyed("x", 2, 8) };
    assert_invalid(create(vast).await, "capacity", "over the limit of 100000000 (setting limits.max_entries)");
    for momentum in [1.0, -0.1, f32::NAN] {
        let request = v1::CreateBankRequest { momentum: Some(momentum), ..keyed("x", 2, 8) };
        assert_invalid(create(request).await, "momentum", "outside [0, 1)");
    }
    let request = v1::CreateBankRequest { momentum: Some(0.5), ..queue("x", 2, 8, 3) };
    assert_invalid(create(request).await, "momentum", "never moves");
    assert_invalid(create(v1::CreateBankRequest { kind: 9, ..keyed("x", 2, 8) }).await, "kind", "9 is not a BankKind");
    assert_invalid(create(v1::CreateBankRequest { metric: -1, ..keyed("x", 2, 8) }).await, "metric", "not a Metric");

    let same = create(keyed("docs", 2, 8)).await.unwrap();
    assert_eq!(same.entries, 3, "creating a bank again with the same settings answers with it");
    let other = create(v1::CreateBankRequest { metric: v1::Metric::Dot.into(), ..keyed("docs", 3, 8) }).await;
    let Err(ClientError::AlreadyExists(message)) = other else { panic!("{other:?}") };
    assert!(message.contains("dim is 2, not 3") && message.contains("metric is cosine, not dot"), "{message}");
    assert_eq!(live.client.list_banks().await.unwrap().banks.len(), 2, "nothing was created");
}

#[tokio::test]
async fn unknown_banks_are_not_found_and_the_known_ones_are_named() {
    let live = live().await;
    let bank = || "nope".to_owned();
    let answers = [
        live.client.get_bank(v1::GetBankRequest { name: bank() }).await.err(),
        live.client.delete_bank(v1::DeleteBankRequest { name: bank() }).await.err(),
        live.client.write(v1::WriteRequest { bank: bank(), ..write(&[1], &[1.0, 0.0]) }).await.err(),
        live.client.fetch(v1::FetchRequest { bank: bank(), ids: vec![1], encoding: 0, ..Default::default() }).await.err(),
        live.client.remove(v1::RemoveRequest { bank: bank(), ids: vec![1] }).await.err(),
        live.client.sample(v1::SampleRequest { bank: bank(), ..sample(vec![nearest(1)]) }).await.err(),
    ];
    for answer in answers {
        let Some(ClientError::NotFound(message)) = answer else { panic!("{answer:?}") };
        assert_eq!(message, "there is no bank \"nope\"; there are docs, fifo");
    }
}

#[tokio::test]
async fn bad_writes_change_nothing() {
    let live = live().await;
    let before = live.client.get_bank(v1::GetBankRequest { name: "docs".into() }).await.unwrap();
    let send = |request| live.client.write(request);
    assert_invalid(send(write(&[4], &[1.0, 0.0, 0.0])).await, "embeddings.data", "a row of dimension 2 takes 8 bytes");
    assert_invalid(send(write(&[4, 5], &[1.0, 0.0, f32::NAN, 0.0])).await, "embeddings[1]", "column 0 is NaN");
    assert_invalid(send(write(&[4], &[1.0, f32::INFINITY])).await, "embeddings[0]", "column 1 is inf");
    assert_invalid(send(write(&[4, 5], &[1.0, 0.0, 0.0, 0.0])).await, "embeddings[1]", "norm zero");
    assert_invalid(send(write(&[], &[])).await, "embeddings", "the batch is empty");
    assert_invalid(send(write(&[4, 5, 6], &[1.0, 0.0, 0.0, 1.0])).await, "ids", "has 3 values for 2 rows");
    assert_invalid(send(write(&[], &[1.0, 0.0])).await, "ids", "has 0 values for 1 rows");
    assert_invalid(
        send(write(&[4], &[1.0; 42])).await,
        "embeddings",
        "21 is over the limit of 20 (setting limits.max_write_rows)",
    );

    let mut malformed = write(&[4], &[1.0, 0.0]);
    malformed.embeddings = Some(v1::Matrix { data: vec![0u8; 9].into(), ..Default::default() });
    assert_invalid(send(malformed).await, "embeddings.data", "9 bytes do not make whole rows");
    let mut both = write(&[4], &[1.0, 0.0]);
    both.embeddings.as_mut().unwrap().values = vec![1.0, 0.0];
    assert_invalid(send(both).await, "embeddings", "not both");
    assert_invalid(
        send(v1::WriteRequest { labels: vec![1, 2], ..write(&[4], &[1.0, 0.0]) }).await,
        "labels",
        "has 2 values for 1 rows",
    );
    assert_invalid(send(v1::WriteRequest { groups: vec![1, 2], ..write(&[4], &[1.0, 0.0]) }).await, "groups", "has 2 values");
    let presence = v1::WriteRequest { labels: vec![1], has_label: vec![1, 0].into(), ..write(&[4], &[1.0, 0.0]) };
    assert_invalid(send(presence).await, "has_label", "has 2 bytes for 1 values");
    assert_invalid(
        send(v1::WriteRequest { momentum: Some(1.5), ..write(&[4], &[1.0, 0.0]) }).await,
        "momentum",
        "outside [0, 1)",
    );
    for (weight, says) in [(-0.5, "is -0.5: a weight"), (f32::NAN, "is NaN"), (f32::INFINITY, "is inf")] {
        let weighted = v1::WriteRequest { weights: vec![1.0, weight], ..write(&[4, 5], &[1.0, 0.0, 0.0, 1.0]) };
        assert_invalid(send(weighted).await, "weights[1]", says);
    }
    let weighted = v1::WriteRequest { weights: vec![1.0, 2.0], ..write(&[4], &[1.0, 0.0]) };
    assert_invalid(send(weighted).await, "weights", "has 2 values for 1 rows");
    let wide = v1::Matrix { dim: 4, ..rows(&[1.0; 8]) };
    let elsewhere = v1::WriteRequest { bank: "fifo".into(), embeddings: Some(wide), ..Default::default() };
    assert_invalid(send(elsewhere).await, "embeddings", "has rows of dimension 4, and the bank's is 2");
    let in_queue = v1::WriteRequest { bank: "fifo".into(), momentum: Some(0.1), ..write(&[4], &[1.0, 0.0]) };
    assert_invalid(send(in_queue).await, "momentum", "never moves");

    let remove = |ids: Vec<u64>| live.client.remove(v1::RemoveRequest { bank: "docs".into(), ids });
    assert_invalid(remove(Vec::new()).await, "ids", "at least one");
    assert_invalid(remove(vec![1; 21]).await, "ids", "limits.max_write_rows");
    let fetch =
        |ids, encoding| live.client.fetch(v1::FetchRequest { bank: "docs".into(), ids, encoding, ..Default::default() });
    assert_invalid(fetch(Vec::new(), 0).await, "ids", "at least one");
    assert_invalid(fetch(vec![1], 77).await, "encoding", "77 is not an EmbeddingEncoding");

    let after = live.client.get_bank(v1::GetBankRequest { name: "docs".into() }).await.unwrap();
    assert_eq!(before, after, "a refused request changed the bank");
}

#[tokio::test]
async fn bad_requests_for_negatives_are_refused() {
    let live = live().await;
    let send = |request| live.client.sample(request);
    assert_invalid(send(sample(vec![])).await, "draws", "has 0 draws");
    assert_invalid(send(sample(vec![uniform(1); 17])).await, "draws", "has 17 draws: 1 to 16");
    assert_invalid(send(sample(vec![uniform(0)])).await, "draws[0].k", "at least 1");
    assert_invalid(send(sample(vec![uniform(1), nearest(101)])).await, "draws[1].k", "limit of 100 (setting limits.max_k)");
    assert_invalid(send(sample(vec![v1::Draw { k: 1, ..Default::default() }])).await, "draws[0]", "no strategy");
    let anchors_of = |anchors| v1::SampleRequest { anchors: Some(anchors), ..sample(vec![nearest(1)]) };
    assert_invalid(send(anchors_of(anchors(&[1.0, 0.0, 1.0]))).await, "anchors.embeddings.data", "dimension 2");
    assert_invalid(send(anchors_of(anchors(&[0.0, 0.0]))).await, "anchors.embeddings[0]", "norm zero");
    assert_invalid(
        send(anchors_of(anchors(&[1.0; 102]))).await,
        "anchors",
        "51 is over the limit of 50 (setting limits.max_anchors)",
    );
    assert_invalid(
        send(anchors_of(v1::Anchors { rows: 1, ..Default::default() })).await,
        "anchors.embeddings",
        "scored draw needs",
    );
    assert_invalid(send(anchors_of(v1::Anchors::default())).await, "anchors", "there are none");
    assert_invalid(send(v1::SampleRequest { anchors: None, ..sample(vec![uniform(1)]) }).await, "anchors", "there are none");
    let unknown = v1::Anchors { ids: vec![1, 99], ..Default::default() };
    assert_invalid(send(anchors_of(unknown)).await, "anchors.ids[1]", "no entry of id 99");
    let uneven = v1::Anchors { labels: vec![1, 2], ..anchors(&[1.0, 0.0]) };
    assert_invalid(send(anchors_of(uneven)).await, "anchors.labels", "has 2 rows for 1 anchors");
    let counted = v1::Anchors { rows: 3, ..anchors(&[1.0, 0.0]) };
    assert_invalid(send(anchors_of(counted)).await, "anchors.rows", "is 3, but the columns have 1 rows");

    let filtered = |filters| v1::SampleRequest { filters: Some(filters), ..sample(vec![uniform(1)]) };
    let same_label = v1::Filters { exclude_same_label: true, ..Default::default() };
    assert_invalid(send(filtered(same_label)).await, "draws[0].filters.exclude_same_label", "needs the anchors' labels");
    let itself = v1::Filters { exclude_self: Some(true), ..Default::default() };
    assert_invalid(send(filtered(itself)).await, "draws[0].filters.exclude_self", "needs anchors.ids");
    let many = v1::Filters { exclude_ids: vec![1; 5_000], ..Default::default() };
    assert_invalid(send(filtered(many)).await, "filters.exclude_ids", "limits.max_filter_values");
    assert_invalid(
        send(v1::SampleRequest { columns: vec![55], ..sample(vec![uniform(1)]) }).await,
        "columns[0]",
        "55 is not a Column",
    );

    let narrow = |nearest| sample(vec![nearest_with(3, nearest)]);
    assert_invalid(
        send(narrow(v1::Nearest { window: Some(2), ..Default::default() })).await,
        "draws[0].nearest.window",
        "below k = 3",
    );
    assert_invalid(
        send(narrow(v1::Nearest { candidates: Some(4), skip: 2, ..Default::default() })).await,
        "draws[0].nearest.candidates",
        "below skip + k = 5",
    );
    assert_invalid(
        send(narrow(v1::Nearest { choose: 9, ..Default::default() })).await,
        "draws[0].nearest.choose",
        "9 is not a Choose",
    );
    let softmax = v1::Nearest { choose: v1::Choose::Softmax.into(), beta: f32::NAN, ..Default::default() };
    assert_invalid(send(narrow(softmax)).await, "draws[0].nearest.beta", "must be finite");
    let aged = v1::Filters { max_age: Some(3), ..Default::default() };
    assert_invalid(send(filtered(aged)).await, "draws[0].filters.max_age", "needs the request's step");
    let ruled = |rules| narrow(v1::Nearest { rules: Some(rules), ..Default::default() });
    let rules = v1::ScoreRules { margin: Some(0.1), ..Default::default() };
    assert_invalid(send(ruled(rules)).await, "draws[0].nearest.rules", "anchor 0 has none");
    let rules = v1::ScoreRules { max_score: Some(f32::NAN), ..Default::default() };
    assert_invalid(send(ruled(rules)).await, "draws[0].nearest.rules.max_score", "must be finite");
    let rules = v1::ScoreRules { min_score: Some(0.5), max_score: Some(0.1), ..Default::default() };
    assert_invalid(send(ruled(rules)).await, "draws[0].nearest.rules.min_score", "no score passes");

    let positives = v1::IdLists { values: vec![42], counts: Vec::new() };
    let request = v1::SampleRequest {
        anchors: Some(v1::Anchors { positive_ids: Some(positives), ..anchors(&[1.0, 0.0]) }),
        ..ruled(v1::ScoreRules { margin: Some(0.1), ..Default::default() })
    };
    assert_invalid(send(request).await, "anchors.positive_ids[0]", "no entry of id 42 to score");
    let lists = v1::IdLists { values: vec![1, 2, 3], counts: vec![1] };
    let request = anchors_of(v1::Anchors { denied_ids: Some(lists), ..anchors(&[1.0, 0.0]) });
    assert_invalid(send(request).await, "anchors.denied_ids", "counts add up to 1, but there are 3 values");
}

#[tokio::test]
async fn ranks_kept_over_the_limit_are_refused_before_work_is_done() {
    let live = Live::start(&["limits.max_ranked=1000"]).await;
    live.create(keyed("docs", 2, 8)).await;
    let ask = |anchors: usize, window: u32| {
        let wide = || nearest_with(1, v1::Nearest { skip: 1, window: Some(window), ..Default::default() });
        live.client.sample(v1::SampleRequest {
            bank: "docs".into(),
            anchors: Some(anchors_of(anchors)),
            draws: vec![wide(), wide()],
            ..Default::default()
        })
    };
    assert_invalid(ask(10, 50).await, "draws", "1020 ranks would be kept");
    assert_invalid(ask(10, 50).await, "draws", "over the limit of 1000 (setting limits.max_ranked)");
    assert!(ask(10, 49).await.is_ok());
    assert_invalid(ask(200, 7).await, "draws", "1024 ranks would be kept");
}

fn anchors_of(count: usize) -> v1::Anchors {
    anchors(&[1.0, 0.5].repeat(count))
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_before_work_is_done() {
    let live = Live::start(&["limits.max_answer_bytes=65536"]).await;
    live.create(keyed("wide", 1024, 8)).await;
    let ids: Vec<u64> = (0..40).collect();
    live.write("wide", &ids, &vec![1.0; 40 * 1024], &[]).await;
    let request = |columns| v1::SampleRequest {
        bank: "wide".into(),
        anchors: Some(v1::Anchors { rows: 10, ..Default::default() }),
        draws: vec![uniform(8)],
        columns,
        ..Default::default()
    };
    assert_invalid(
        live.client.sample(request(Vec::new())).await,
        "draws",
        "over the limit of 65536 (setting limits.max_answer_bytes)",
    );
    let fetch = v1::FetchRequest { bank: "wide".into(), ids: vec![1; 40], ..Default::default() };
    assert_invalid(live.client.fetch(fetch).await, "ids", "over the limit of 65536 (setting limits.max_answer_bytes)");
    let ids_only = live.client.sample(request(vec![v1::Column::Ids.into()])).await.unwrap();
    assert_eq!(ids_only.draws[0].indices.len(), 80, "the cheaper form that the error names is served");
}

#[tokio::test]
async fn a_passed_deadline_and_what_never_has_room_have_their_codes() {
    let live = live().await;
    let hurried = live.client.with_timeout(std::time::Duration::from_nanos(1));
    let answer = hurried.sample(sample(vec![nearest(1)])).await;
    assert!(matches!(answer, Err(ClientError::DeadlineExceeded(_))), "{answer:?}");

    let small = Live::start(&["limits.max_entries=2"]).await;
    small.create(keyed("docs", 2, 8)).await;
    small.write("docs", &[1, 2, 1], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], &[]).await;
    match small.client.write(write(&[2, 3], &[1.0, 0.0, 0.0, 1.0])).await {
        Err(ClientError::ResourceExhausted { message, .. }) => assert!(message.contains("limits.max_entries"), "{message}"),
        other => panic!("{other:?}"),
    }
    small.write("docs", &[2, 1], &[1.0, 0.0, 0.0, 1.0], &[]).await;

    let tiny = Live::start(&["compute.queue=1"]).await;
    tiny.create(keyed("docs", 2, 8)).await;
    let request =
        v1::SampleRequest { anchors: Some(v1::Anchors { rows: 1_000, ..Default::default() }), ..sample(vec![uniform(1)]) };
    match tiny.client.sample(request).await {
        Err(ClientError::ResourceExhausted { message, retry_after }) => {
            assert!(message.contains("over the limit of 1 (setting compute.queue)"), "{message}");
            assert_eq!(retry_after, None, "it will never have room: {message}");
        }
        other => panic!("{other:?}"),
    }
    let Err(ClientError::Unavailable { message, .. }) =
        negbank::client::Client::connect("127.0.0.1:1", negbank::client::Options::default()).await
    else {
        panic!("nobody listens there")
    };
    assert!(message.contains("negbank serve"), "{message}");
}

#[tokio::test]
async fn draws_out_of_range_are_refused_by_name() {
    let live = live().await;
    let send = |strategy| live.client.sample(sample(vec![v1::Draw { k: 1, strategy: Some(strategy), ..Default::default() }]));
    for alpha in [4.5, -4.5, f32::NAN] {
        let weighted = v1::Weighted { alpha: Some(alpha), ..Default::default() };
        assert_invalid(send(Strategy::Weighted(weighted)).await, "draws[0].weighted.alpha", "outside [-4, 4]");
    }
    for beta in [f32::NAN, f32::INFINITY] {
        let softmax = v1::Softmax { beta, ..Default::default() };
        assert_invalid(send(Strategy::Softmax(softmax)).await, "draws[0].softmax.beta", "must be finite");
    }
    for (lo, hi, field, reason) in [
        (1.0, 1.0, "draws[0].band.lo", "1 is outside [0, 1)"),
        (-0.1, 0.5, "draws[0].band.lo", "-0.1 is outside"),
        (f64::NAN, 0.5, "draws[0].band.lo", "NaN is outside"),
        (0.5, 0.4, "draws[0].band.hi", "0.4 is outside [lo, 1] with lo = 0.5"),
        (0.5, 1.1, "draws[0].band.hi", "1.1 is outside"),
        (0.5, f64::NAN, "draws[0].band.hi", "NaN is outside"),
    ] {
        assert_invalid(send(Strategy::Band(v1::Band { lo, hi: Some(hi), ..Default::default() })).await, field, reason);
    }
    let rules = Some(v1::ScoreRules { margin: Some(0.1), ..Default::default() });
    let softmax = Strategy::Softmax(v1::Softmax { rules, ..Default::default() });
    assert_invalid(send(softmax).await, "draws[0].softmax.rules", "anchor 0 has none");
    let band = Strategy::Band(v1::Band { rules, ..Default::default() });
    assert_invalid(send(band).await, "draws[0].band.rules", "anchor 0 has none");
    for strategy in [softmax, band] {
        let shared = v1::Draw { k: 1, strategy: Some(strategy), scope: v1::Scope::Shared.into(), ..Default::default() };
        let refused = live.client.sample(sample(vec![shared])).await;
        assert_invalid(refused, "draws[0].scope", "draw uniform, weighted or balanced");
        let unseen = v1::Anchors { rows: 1, ..Default::default() };
        let draws = vec![v1::Draw { k: 1, strategy: Some(strategy), ..Default::default() }];
        let refused = live.client.sample(v1::SampleRequest { anchors: Some(unseen), ..sample(draws) }).await;
        assert_invalid(refused, "anchors.embeddings", "a scored draw needs");
    }
}

#[tokio::test]
async fn banks_too_large_to_be_scored_whole_are_refused_with_what_to_do() {
    let live = Live::start(&["limits.max_scored_entries=3"]).await;
    live.create(keyed("docs", 2, 8)).await;
    live.write("docs", &[1, 2, 3], &[1.0, 0.0, 0.0, 1.0, 0.6, 0.8], &[]).await;
    let softmax = v1::Draw { k: 1, strategy: Some(Strategy::Softmax(v1::Softmax::default())), ..Default::default() };
    assert!(live.client.sample(sample(vec![softmax.clone()])).await.is_ok());
    live.write("docs", &[4], &[1.0, 1.0], &[]).await;
    assert_eq!(live.client.sample(sample(vec![softmax])).await.unwrap().draws[0].candidates, 4_096);
    for strategy in [
        Strategy::Softmax(v1::Softmax { beta: -1.0, ..Default::default() }),
        Strategy::Band(v1::Band { hi: Some(1.0), ..Default::default() }),
    ] {
        let draw = v1::Draw { k: 1, strategy: Some(strategy), ..Default::default() };
        let refused = live.client.sample(sample(vec![draw])).await;
        assert_invalid(refused, "draws[0]", "4 are over the limit of 3 (setting limits.max_scored_entries): draw nearest");
    }
}

#[tokio::test]
async fn views_and_positives_that_cannot_be_are_refused() {
    let live = live().await;
    let send = |request| live.client.sample(request);
    let of = |anchors| v1::SampleRequest { anchors: Some(anchors), ..sample(vec![nearest(1)]) };
    let views = v1::Anchors { views: 2, ..anchors(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]) };
    assert_invalid(send(of(views)).await, "anchors.embeddings", "has 3 rows for 1 anchors of 2 views");
    let stored = v1::Anchors { views: 2, ids: vec![1], ..Default::default() };
    assert_invalid(send(of(stored)).await, "anchors.views", "no anchors.embeddings");
    let combined = v1::Anchors { combine: 9, ..anchors(&[1.0, 0.0]) };
    assert_invalid(send(of(combined)).await, "anchors.combine", "9 is not a Combine");

    let filtered = |filters, anchors| v1::SampleRequest { filters: Some(filters), ..of(anchors) };
    let own_label = v1::Filters { only_same_label: true, ..Default::default() };
    let own_group = v1::Filters { only_same_group: true, ..Default::default() };
    let field = "draws[0].filters.only_same_label";
    assert_invalid(send(filtered(own_label.clone(), anchors(&[1.0, 0.0]))).await, field, "needs the anchors' labels");
    let labelled = v1::Anchors { labels: vec![1], ..anchors(&[1.0, 0.0]) };
    let both = v1::Filters { exclude_same_label: true, ..own_label.clone() };
    assert_invalid(send(filtered(both, labelled)).await, field, "what exclude_same_label excludes");
    let unlabelled = v1::Anchors { labels: vec![1], has_label: vec![0].into(), ..anchors(&[1.0, 0.0]) };
    assert_invalid(send(filtered(own_label, unlabelled)).await, "anchors.labels[0]", "has no label, and only_same_label");
    let stored = v1::Anchors { ids: vec![2, 1], ..Default::default() };
    assert_invalid(send(filtered(own_group, stored)).await, "anchors.groups[1]", "has no group, and only_same_group");

    let told = v1::SampleRequest { positive_log_q: true, ..of(anchors(&[1.0, 0.0])) };
    assert_invalid(send(told.clone()).await, "positive_log_q", "needs anchors.positive_ids");
    let unknown = Some(v1::IdLists { values: vec![99], counts: Vec::new() });
    let unknown = v1::Anchors { positive_ids: unknown, ..anchors(&[1.0, 0.0]) };
    let told = v1::SampleRequest { anchors: Some(unknown), ..told };
    assert_invalid(send(told).await, "anchors.positive_ids[0]", "no entry of id 99");
}
