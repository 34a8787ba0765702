//! Small requests that wait at the same time share a scan of their bank, and each is answered as if it were alone: the same bits, its own
//! filters, its own moment.

use std::cell::Cell;
use std::time::Duration;

use negbank::bank::Bank;
use negbank::client::{Client, Code, Options, rows};
use negbank::model::{
    Anchors, BankKind, BankSpec, Columns, Draw, Filters, Form, Ids, Matrix, Metric, Mutation, Nearest, SampleAnswer,
    SampleQuery, Scope, ScoreRules, Seed, Strategy, Stream, WriteBatch,
};
use negbank::proto::v1;
use negbank::rows::{Recycler, Shared};
use negbank::sampling::{Block, Merge, Part, Pass, search_together};

use crate::lifecycle::Process;
use crate::live::{all_columns, keyed, nearest, nearest_with, random_rows, uniform};
use crate::probes::{free, get, value};
use crate::settling::apply;

const DIM: usize = 32;
const ENTRIES: u64 = 20_000;
const LABELS: u64 = 5;
/// Callers that ask at the same time, on one compute thread.
const CALLERS: u64 = 24;
const ROUNDS: u64 = 400;

/// A small request, another for each number.
fn request(number: u64) -> v1::SampleRequest {
    let mut random = Seed(number).stream(0, 0);
    let count = 1 + random.below(3) as usize;
    let k = 1 + random.below(30) as u32;
    let labels: Vec<i64> = (0..count).map(|_| random.below(LABELS) as i64).collect();
    let filters = match number % 4 {
        0 => v1::Filters { exclude_same_label: true, ..Default::default() },
        1 => v1::Filters { exclude_labels: vec![1, 2], ..Default::default() },
        2 => v1::Filters { exclude_ids: (0..ENTRIES).step_by(7).collect(), ..Default::default() },
        _ => v1::Filters::default(),
    };
    let choose = v1::Nearest { window: Some(3 * k), choose: v1::Choose::Uniform.into(), ..Default::default() };
    let draws = match number % 3 {
        0 => vec![nearest(k)],
        1 => vec![nearest_with(k, choose)],
        _ => vec![nearest(k), uniform(k)],
    };
    v1::SampleRequest {
        bank: "joined".into(),
        anchors: Some(v1::Anchors {
            embeddings: Some(rows(&random_rows(&mut random, count, DIM))),
            labels,
            ..Default::default()
        }),
        draws,
        filters: Some(filters),
        seed: Some(number),
        columns: all_columns(),
        ..Default::default()
    }
}

/// Asks for a large answer, which keeps the thread at work meanwhile.
fn large() -> v1::SampleRequest {
    let embeddings = Some(rows(&random_rows(&mut Seed(0).stream(0, 0), 128, DIM)));
    let anchors = Some(v1::Anchors { embeddings, ..Default::default() });
    v1::SampleRequest { bank: "joined".into(), anchors, draws: vec![nearest(10)], seed: Some(1), ..Default::default() }
}

async fn asked(client: Client, numbers: Vec<u64>) -> Vec<v1::SampleResponse> {
    let mut answers = Vec::new();
    for number in numbers {
        answers.push(client.sample(request(number)).await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_ask_at_once_get_what_each_gets_alone() {
    let http = free();
    let server = Process::start(&["--set", "compute.threads=1", "--set", &format!("http.listen={http}")]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("joined", DIM as u32, 4)).await.unwrap();
    let (ids, x) = ((0..ENTRIES).collect::<Vec<_>>(), random_rows(&mut Seed(9).stream(0, 0), ENTRIES as usize, DIM));
    let labels = ids.iter().map(|id| (id % LABELS) as i64).collect();
    let write = v1::WriteRequest { bank: "joined".into(), ids, embeddings: Some(rows(&x)), labels, ..Default::default() };
    client.write(write).await.unwrap();
    let joined = || value(&get(http, "/metrics").1, "negbank_joined_requests_total{bank=\"joined\"}");

    let numbers: Vec<u64> = (0..CALLERS * 2).collect();
    let alone = asked(client.clone(), numbers.clone()).await;
    assert!(joined() < 0.5, "one after the other nothing waits");
    let mut rounds = 0;
    while joined() < 40.0 {
        rounds += 1;
        assert!(rounds < ROUNDS, "no request has shared a scan");
        let busy = tokio::spawn({
            let client = client.clone();
            async move { client.sample(large()).await.map(drop) }
        });
        // One that has no time, and one that is given up.
        let hurried = client.with_timeout(Duration::from_millis(1));
        let late = tokio::spawn(async move { hurried.sample(request(0)).await.map_err(|refused| refused.code()) });
        let given_up = tokio::spawn(asked(client.clone(), vec![1, 2, 3]));
        let callers: Vec<_> = (0..CALLERS).map(|of| tokio::spawn(asked(client.clone(), vec![2 * of, 2 * of + 1]))).collect();
        given_up.abort();
        let mut answers = Vec::new();
        for caller in callers {
            answers.extend(caller.await.unwrap());
        }
        assert_eq!(answers, alone, "round {rounds}");
        busy.await.unwrap().unwrap();
        match late.await.unwrap() {
            Ok(answer) => assert_eq!(answer, alone[0]),
            Err(code) => assert!(matches!(code, Code::DeadlineExceeded | Code::ResourceExhausted), "{code:?}"),
        }
    }
}

fn spec() -> BankSpec {
    BankSpec::new(DIM as u32, Metric::Dot, BankKind::Keyed { momentum: 0.0, capacity: None }, 4).unwrap()
}

fn write(ids: Vec<u64>, data: Vec<f32>, label: i64) -> Mutation {
    let labels = Some(vec![Some(label); ids.len()]);
    let rows = Matrix::new("embeddings", DIM, Metric::Dot, data).unwrap();
    Mutation::Write(WriteBatch::new(&spec(), Ids::Given(ids), rows, labels, None, None, None).unwrap())
}

/// Requests of one anchor, of some label or of no filter; the first two are entries of the bank.
fn queries(random: &mut Stream, count_exact: bool) -> Vec<SampleQuery> {
    let query = |number: usize| {
        let named = (number < 2).then(|| vec![number as u64]);
        let embedding = Matrix::new("anchors", DIM, Metric::Dot, random_rows(random, 1, DIM)).unwrap();
        let embeddings = named.is_none().then_some(embedding);
        let anchors = Anchors { count: 1, ids: named, embeddings, labels: Some(vec![Some(2)]), ..Anchors::default() };
        let filters = Filters { exclude_same_label: number.is_multiple_of(3), ..Filters::default() };
        let rules = ScoreRules { max_score: (number % 4 == 3).then_some(2.0), ..ScoreRules::NONE };
        let strategy = Strategy::Nearest(Nearest { rules, count_exact, ..Nearest::top(5 + number) });
        let draw = Draw { k: 5 + number, strategy, filters, scope: Scope::PerAnchor };
        let columns = Columns { ids: true, embeddings: true, labels: true, scores: true, log_q: true, ..Columns::default() };
        SampleQuery::new(anchors, vec![draw], None, Seed(number as u64), Form::pooled(columns)).unwrap()
    };
    (0..12).map(query).collect()
}

fn whole(query: &SampleQuery, part: Part) -> SampleAnswer {
    let mut merge = Merge::new(query.draws().len(), usize::MAX);
    merge.add(0, part).unwrap();
    merge.finish(query.seed()).unwrap()
}

fn alone(bank: &Shared<Bank>, query: &SampleQuery) -> SampleAnswer {
    whole(query, Block::new(bank, query, 0..1).unwrap().answer(&Recycler::default(), &|| true).unwrap())
}

/// What is drawn: all but the states of the bank that it was read from and what was examined on the way.
fn drawn(answer: &SampleAnswer) -> impl PartialEq + std::fmt::Debug {
    let draw = &answer.draws[0];
    (answer.rows.clone(), draw.indices.clone(), draw.scores.clone(), draw.counts.clone(), draw.n.clone(), draw.n_scored.clone())
}

/// Writes come in the middle of the scan that all share, and between the answers.
#[test]
fn each_answer_is_true_of_its_own_moment_while_writes_come() {
    for (seed, count_exact) in [(1, false), (2, true)] {
        let mut random = Seed(seed).stream(0, 0);
        let bank = Shared::new(Bank::new(spec()));
        apply(&bank, &write((0..ENTRIES).collect(), random_rows(&mut random, ENTRIES as usize, DIM), 1));
        let queries = queries(&mut random, count_exact);
        let pass = Pass::shared(&bank.read().unwrap(), false, &queries[0]).unwrap().0;
        assert_eq!(pass, if count_exact { Pass::Rows } else { Pass::Codes });
        let mut blocks: Vec<Block<'_>> = queries.iter().map(|query| Block::new(&bank, query, 0..1).unwrap()).collect();
        let moved = random_rows(&mut random, 600, DIM);
        let asked = Cell::new(0);
        let wanted = || {
            asked.set(asked.get() + 1);
            if asked.get() == 3 {
                // Some leave, some move, some get the anchors' own label, and an anchor is rewritten.
                apply(&bank, &Mutation::Remove((100..ENTRIES).step_by(7).collect()));
                apply(&bank, &write((2_000..2_400).collect(), moved[..400 * DIM].to_vec(), 1));
                apply(&bank, &write((3_000..3_200).collect(), moved[400 * DIM..].to_vec(), 2));
                apply(&bank, &write(vec![0], moved[..DIM].to_vec(), 2));
            }
            true
        };
        let mut all: Vec<&mut Block<'_>> = blocks.iter_mut().collect();
        assert_eq!(search_together((&bank).into(), &mut all, pass, &wanted).unwrap(), queries.len());
        assert!(asked.get() > 3, "the scan has several holds");
        for (number, (block, query)) in blocks.into_iter().zip(&queries).enumerate() {
            let answer = whole(query, block.answer(&Recycler::default(), &|| true).unwrap());
            let afterwards = alone(&bank, query);
            assert_eq!(format!("{:?}", drawn(&answer)), format!("{:?}", drawn(&afterwards)), "request {number}");
            assert!(!answer.reproducible && afterwards.reproducible, "it was read across a write");
            // The next is answered of another moment.
            apply(&bank, &write(vec![5_000 + number as u64], random_rows(&mut random, 1, DIM), 1));
        }
    }
}

#[test]
fn what_is_not_searched_together_is_searched_for_by_itself() {
    let mut random = Seed(3).stream(0, 0);
    let bank = Shared::new(Bank::new(spec()));
    apply(&bank, &write((0..ENTRIES).collect(), random_rows(&mut random, ENTRIES as usize, DIM), 1));
    let queries = queries(&mut random, false);
    let expected: Vec<SampleAnswer> = queries.iter().map(|query| alone(&bank, query)).collect();
    let blocks = || -> Vec<Block<'_>> { queries.iter().map(|query| Block::new(&bank, query, 0..1).unwrap()).collect() };
    let answered = |blocks: Vec<Block<'_>>| -> Vec<SampleAnswer> {
        let answers = blocks.into_iter().zip(&queries);
        answers.map(|(block, query)| whole(query, block.answer(&Recycler::default(), &|| true).unwrap())).collect()
    };
    let together = |blocks: &mut [Block<'_>], pass, wanted: &dyn Fn() -> bool| {
        let mut all: Vec<&mut Block<'_>> = blocks.iter_mut().collect();
        search_together((&bank).into(), &mut all, pass, wanted)
    };
    // Of another pass; by oneself; and where nobody waits any more.
    let (mut other, mut one, mut unwanted, mut all) = (blocks(), blocks(), blocks(), blocks());
    assert_eq!(together(&mut other, Pass::Rows, &|| true).unwrap(), 0);
    assert_eq!(together(&mut one[..1], Pass::Codes, &|| true).unwrap(), 0);
    assert!(together(&mut unwanted, Pass::Codes, &|| false).is_err());
    assert_eq!(together(&mut all, Pass::Codes, &|| true).unwrap(), queries.len());
    for blocks in [other, one, unwanted, all] {
        assert_eq!(answered(blocks), expected);
    }
}
