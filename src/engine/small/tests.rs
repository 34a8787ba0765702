//! Requests that one scan answers are answered as if each were alone, whatever becomes of the others.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Company;
use crate::bank::Bank;
use crate::engine::EngineError;
use crate::engine::costs::{Costs, Effort};
use crate::engine::job::{Job, Run};
use crate::engine::pool::Pool;
use crate::engine::query::{self, Of, Wanted};
use crate::engine::served::Served;
use crate::model::clock::{self, Deadline};
use crate::model::{
    Anchors, Applied, BankKind, BankSpec, Call, Caller, Choose, Columns, Draw, Filters, Form, Ids, Layout, Lists, Matrix,
    Metric, Mutation, Nearest, ReasonCounts, SampleAnswer, SampleQuery, Scope, ScoreRules, Seed, Strategy, Stream, WriteBatch,
};
use crate::rows::{Recycler, Shared};

const DIM: usize = 24;
const ENTRIES: u64 = 4_000;
const LABELS: u64 = 7;
const MINUTE: Duration = Duration::from_secs(60);

struct Fixture {
    state: Arc<Shared<Bank>>,
    served: Arc<Served>,
    costs: Arc<Costs>,
    recycler: Recycler,
}

type Answered = Result<SampleAnswer, EngineError>;

impl Fixture {
    fn new(metric: Metric) -> Self {
        let spec = BankSpec::new(DIM as u32, metric, BankKind::Keyed { momentum: 0.5, capacity: None }, 4).unwrap();
        let mut bank = Bank::new(spec);
        let ids: Vec<u64> = (0..ENTRIES).collect();
        let labels = ids.iter().map(|id| (id % 11 != 3).then_some((id % LABELS) as i64)).collect();
        let groups = ids.iter().map(|id| Some(id / 5)).collect();
        let rows = rows(ENTRIES as usize, metric, &mut Seed(1).stream(0, 0));
        let batch = WriteBatch::new(&spec, Ids::Given(ids), rows, Some(labels), Some(groups), Some(6), None).unwrap();
        let mutation = Mutation::Write(batch);
        bank.reserve(&bank.arrivals(&mutation)).unwrap();
        bank.apply(&mutation, 0, usize::MAX, &mut Applied::default());
        let (served, costs) = (Arc::new(Served::new(true)), Arc::default());
        Self { state: Arc::new(Shared::new(bank)), served, costs, recycler: Recycler::default() }
    }

    /// The job of a request, and where its answer comes in.
    fn job(&self, query: &SampleQuery, wanted: &Wanted) -> (Job, mpsc::Receiver<Answered>) {
        let (reply, answer) = mpsc::channel();
        (self.job_for(query, wanted, Box::new(move |answered| drop(reply.send(answered)))), answer)
    }

    fn job_for(&self, query: &SampleQuery, wanted: &Wanted, answer: Box<dyn FnOnce(Answered) + Send>) -> Job {
        let of = Of { bank: &self.state, index: None, served: &self.served, costs: &self.costs };
        let mut jobs = query::jobs(of, query.clone(), &self.recycler, wanted, answer).unwrap();
        assert_eq!(jobs.len(), 1, "of one block");
        jobs.remove(0)
    }

    fn alone(&self, query: &SampleQuery) -> Answered {
        let (job, answer) = self.job(query, &Wanted::until(Deadline::after(MINUTE)));
        job.go();
        answer.recv().unwrap()
    }

    fn joined(&self) -> (u64, u64) {
        self.served.tally().joined
    }
}

/// A pool of one thread that is at work until the sender is dropped.
fn busy() -> (Pool, mpsc::Sender<()>) {
    let pool = Pool::start(1, 1_000).unwrap();
    let ((started, has_started), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    let block = Job::new(Duration::from_millis(1), move || {
        started.send(()).unwrap();
        let _dropped = released.recv();
    });
    pool.submit(&call(99), vec![block]).unwrap();
    has_started.recv().unwrap();
    (pool, release)
}

fn call(number: usize) -> Call {
    Call { caller: Caller::Subject(number.to_string().into()), deadline: Deadline::after(MINUTE) }
}

fn rows(count: usize, metric: Metric, stream: &mut Stream) -> Matrix {
    let data = (0..count * DIM).map(|_| stream.below(2_000_001) as f32 / 1e6 - 1.0).collect();
    Matrix::new("rows", DIM, metric, data).unwrap()
}

fn draw(k: usize, nearest: Nearest, filters: Filters) -> Draw {
    Draw { k, strategy: Strategy::Nearest(nearest), filters, scope: Scope::PerAnchor }
}

fn own_label_excluded() -> Filters {
    Filters { exclude_same_label: true, ..Filters::default() }
}

fn form(layout: Layout) -> Form {
    let columns = Columns {
        ids: true,
        embeddings: true,
        labels: true,
        groups: true,
        steps: true,
        weights: true,
        scores: true,
        log_q: true,
    };
    Form { layout, ..Form::pooled(columns) }
}

fn anchors(count: usize, metric: Metric, stream: &mut Stream) -> Anchors {
    let labels = (0..count).map(|_| Some(stream.below(LABELS) as i64)).collect();
    Anchors { count, embeddings: Some(rows(count, metric, stream)), labels: Some(labels), ..Anchors::default() }
}

/// Requests of all kinds that may share a scan, and some that may not.
fn queries(metric: Metric) -> Vec<SampleQuery> {
    let mut stream = Seed(2).stream(0, 0);
    let mut queries = Vec::new();
    for round in 0..40u64 {
        let count = 1 + stream.below(4) as usize;
        let (k, mut of) = (1 + stream.below(20) as usize, anchors(count, metric, &mut stream));
        let (mut filters, mut nearest, mut layout) = (own_label_excluded(), Nearest::top(k), Layout::Pooled);
        let mut more = Vec::new();
        match round % 10 {
            0 => {}
            1 => filters = Filters { exclude_ids: (0..300).collect(), min_step: Some(5), ..Filters::default() },
            2 => nearest = Nearest { window: 3 * k, skip: 2, choose: Choose::Uniform, ..nearest },
            3 => nearest = Nearest { window: 2 * k, choose: Choose::Softmax { beta: 5.0, replace: true }, ..nearest },
            4 => {
                let rules = ScoreRules { margin: Some(0.05), min_score: Some(-0.9), ..ScoreRules::NONE };
                (nearest.rules, nearest.count_exact) = (rules, round > 20);
                of.positive_scores = Lists::new("scores", vec![0.4; count], &[], count).unwrap();
            }
            5 => {
                let ids = (0..count as u64).map(|at| at * 17 + round).collect();
                of = Anchors { count, ids: Some(ids), ..Anchors::default() };
                layout = Layout::PerAnchor;
            }
            6 => {
                filters = Filters { exclude_labels: vec![2, 4], exclude_unlabelled: true, ..Filters::default() };
                of.denied_ids = Lists::new("denied", (0..count as u64).collect(), &[], count).unwrap();
            }
            7 => more.push(Draw {
                strategy: Strategy::Uniform { replace: false },
                ..draw(k, nearest, Filters { exclude_same_label: true, ..Filters::default() })
            }),
            8 => more.push(draw(3, Nearest { skip: 7, ..Nearest::top(3) }, Filters::default())),
            _ => filters.only_labels = vec![1, 3],
        }
        let draws = [draw(k, nearest, filters)].into_iter().chain(more).collect();
        queries.push(SampleQuery::new(of, draws, None, Seed(round), form(layout)).unwrap());
    }
    queries
}

fn simple(count: usize, stream: &mut Stream) -> SampleQuery {
    let draws = vec![draw(5, Nearest::top(5), own_label_excluded())];
    SampleQuery::new(anchors(count, Metric::Cosine, stream), draws, None, Seed(3), form(Layout::Pooled)).unwrap()
}

#[test]
fn together_each_gets_what_it_gets_alone() {
    for metric in [Metric::Cosine, Metric::L2] {
        let fixture = Fixture::new(metric);
        let queries = queries(metric);
        let alone: Vec<SampleAnswer> = queries.iter().map(|query| fixture.alone(query).unwrap()).collect();
        assert_eq!(fixture.joined(), (0, 0));
        let (pool, release) = busy();
        let wanted = Wanted::until(Deadline::after(MINUTE));
        let submit = |(number, query): (usize, &SampleQuery)| {
            let (job, answer) = fixture.job(query, &wanted);
            pool.submit(&call(number % 9), vec![job]).unwrap();
            answer
        };
        let answers: Vec<_> = queries.iter().enumerate().map(submit).collect();
        drop(release);
        for (number, (answer, mut alone)) in answers.into_iter().zip(alone).enumerate() {
            let mut answer = answer.recv().unwrap().unwrap();
            if metric == Metric::L2 && queries[number].draws()[0].strategy.rules() != Some(&ScoreRules::NONE) {
                // Rows that a rule leaves out are examined one by one where there are few anchors, and by the tile where there are more.
                [&mut answer, &mut alone].into_iter().for_each(|of| of.draws[0].rejections = ReasonCounts::default());
            }
            assert_eq!(answer, alone, "request {number}, {metric:?}");
        }
        let (scans, requests) = fixture.joined();
        // All but those of some labels share scans, of 32 anchors at most.
        assert!(requests >= 30 && scans >= 3 && requests >= 4 * scans, "{requests} requests in {scans} scans, {metric:?}");
    }
}

#[test]
fn thirty_two_anchors_share_a_scan_and_large_requests_none() {
    let (fixture, mut stream) = (Fixture::new(Metric::Cosine), Seed(4).stream(0, 0));
    let (pool, release) = busy();
    let wanted = Wanted::until(Deadline::after(MINUTE));
    let mut answers = Vec::new();
    for count in [vec![1; 40], vec![32, 33, 64]].concat() {
        let (job, answer) = fixture.job(&simple(count, &mut stream), &wanted);
        assert_eq!(matches!(job.run, Run::Small(_)), count < 32);
        pool.submit(&call(answers.len()), vec![job]).unwrap();
        answers.push(answer);
    }
    drop(release);
    assert!(answers.iter().all(|answer| answer.recv().unwrap().is_ok()));
    assert_eq!(fixture.joined(), (2, 40), "32 and 8");
}

#[test]
fn what_befalls_one_is_its_own() {
    let (fixture, mut stream) = (Fixture::new(Metric::Cosine), Seed(5).stream(0, 0));
    let query = simple(2, &mut stream);
    let unknown = Anchors { count: 1, ids: Some(vec![999_999]), ..Anchors::default() };
    let unknown = SampleQuery::new(unknown, query.draws().to_vec(), None, Seed(1), query.form()).unwrap();
    let alone = (fixture.alone(&query).unwrap(), fixture.alone(&unknown).unwrap_err().to_string());
    let (pool, release) = busy();
    let long = || Wanted::until(Deadline::after(MINUTE));
    let (left, expired) = (long(), Wanted::until(Deadline::after(Duration::ZERO)));
    let mut answers = Vec::new();
    for (query, wanted) in [(&query, &long()), (&unknown, &long()), (&query, &left), (&query, &expired), (&query, &long())] {
        let (job, answer) = fixture.job(query, wanted);
        pool.submit(&call(answers.len()), vec![job]).unwrap();
        answers.push(answer);
    }
    let panics = fixture.job_for(&query, &long(), Box::new(|_| panic!("on purpose")));
    pool.submit(&call(9), vec![panics]).unwrap();
    left.abandon();
    drop(release);
    let mut answers = answers.into_iter().map(|answer| answer.recv().unwrap());
    let mut next = || answers.next().unwrap();
    assert_eq!(next().unwrap(), alone.0);
    assert_eq!(next().unwrap_err().to_string(), alone.1, "an id that is not there");
    assert!(matches!(next(), Err(EngineError::DeadlineExceeded)), "it was given up");
    assert!(matches!(next(), Err(EngineError::DeadlineExceeded)), "it came too late");
    assert_eq!(next().unwrap(), alone.0);
    // Who was with it in one scan is answered, and so is who comes next.
    let (job, after) = fixture.job(&query, &long());
    pool.submit(&call(1), vec![job]).unwrap();
    assert_eq!(after.recv().unwrap().unwrap(), alone.0);
    assert_eq!(fixture.joined(), (1, 3));
}

#[test]
fn each_caller_is_charged_and_no_deadline_is_put_at_risk() {
    let (fixture, mut stream) = (Fixture::new(Metric::Cosine), Seed(6).stream(0, 0));
    let query = simple(1, &mut stream);
    let within = |millis| Wanted::until(Deadline::after(Duration::from_millis(millis)));
    let small = |wanted: &Wanted| match fixture.job(&query, wanted).0 {
        Job { run: Run::Small(small), .. } => *small,
        Job { run: Run::Alone(_), .. } => panic!("it is small"),
    };
    // A request takes about a second.
    let effort = Effort::of_draws(&query, Scope::PerAnchor, 1, fixture.state.read().unwrap().spec(), (ENTRIES as usize, false));
    (0..200).for_each(|_| fixture.costs.learn(&effort, Duration::from_secs(1)));
    let (alone, now) = (fixture.costs.estimate(&effort), clock::now());
    assert!((900..1_100).contains(&alone.as_millis()), "{alone:?}");
    let first = small(&within(60_000));
    let mut company = Company::of(&first, alone, 31, now);
    assert!(!company.admits(&small(&within(1_900))), "it would be answered in the second half of its time");
    assert!(company.admits(&small(&within(3_000))));
    let more = (0..31).filter(|_| company.admits(&small(&within(60_000)))).count();
    assert!((1..5).contains(&more), "{more}: all are to be answered within half of three seconds");
    assert!(company.expected <= Duration::from_millis(1_500), "{:?}", company.expected);
    let hurried = small(&within(1_500));
    assert!(!Company::of(&hurried, alone, 31, now).admits(&small(&within(60_000))), "it has no time for others");

    // What was given up is not charged for the scan.
    let (gone, fine) = (within(60_000), within(60_000));
    let parts = [small(&fine), small(&fine), small(&gone)];
    gone.abandon();
    let began = clock::now();
    let took = super::answer_together(&parts);
    let whole = clock::now().duration_since(began);
    assert_eq!((took.len(), fixture.joined()), (3, (1, 2)));
    assert!(
        took.iter().sum::<Duration>() <= whole && took[..2].iter().all(|charged| !charged.is_zero()),
        "{took:?} of {whole:?}"
    );
}

#[test]
fn answers_come_in_the_order_of_the_queue() {
    let (fixture, mut stream) = (Fixture::new(Metric::Cosine), Seed(7).stream(0, 0));
    let (pool, release) = busy();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (done, all_done) = mpsc::channel();
    for number in 0..6usize {
        let (order, done) = (Arc::clone(&order), done.clone());
        let answer = Box::new(move |answer: Answered| {
            order.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            let _gone = done.send(answer.is_ok());
        });
        let job = fixture.job_for(&simple(1, &mut stream), &Wanted::until(Deadline::after(MINUTE)), answer);
        pool.submit(&call(number), vec![job]).unwrap();
    }
    drop((release, done));
    assert_eq!(all_done.iter().collect::<Vec<_>>(), [true; 6]);
    assert_eq!((order.lock().unwrap().clone(), fixture.joined()), ((0..6).collect(), (1, 6)));
}
