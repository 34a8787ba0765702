//! Positives on request, and several views of an anchor: each equals what is asked for in another way.

use negbank::client::rows;
use negbank::model::Seed;
use negbank::proto::v1;
use v1::draw::Strategy;

use crate::live::{Live, keyed, nearest, random_rows};

const DIM: usize = 8;
const ANCHORS: usize = 5;

/// Half of the entries have label 0, and the others a label of some twenty.
async fn filled(live: &Live, entries: u64) {
    live.create(keyed("docs", DIM as u32, 4)).await;
    let x = random_rows(&mut Seed(1).stream(0, 0), entries as usize, DIM);
    for start in (0..entries).step_by(10_000) {
        let ids: Vec<u64> = (start..(start + 10_000).min(entries)).collect();
        let request = v1::WriteRequest {
            bank: "docs".into(),
            embeddings: Some(rows(&x[start as usize * DIM..][..ids.len() * DIM])),
            labels: ids.iter().map(|id| if id % 2 == 0 { 0 } else { (id / 40) as i64 }).collect(),
            groups: ids.iter().map(|id| id / 20).collect(),
            ids,
            ..Default::default()
        };
        live.client.write(request).await.unwrap();
    }
}

fn request(draw: v1::Draw, filters: v1::Filters) -> v1::SampleRequest {
    let labels: Vec<i64> = vec![0, 3, 4, 3, 9];
    v1::SampleRequest {
        bank: "docs".into(),
        anchors: Some(v1::Anchors {
            embeddings: Some(rows(&random_rows(&mut Seed(2).stream(0, 0), ANCHORS, DIM))),
            groups: labels.iter().map(|label| label.unsigned_abs() * 3).collect(),
            labels,
            ..Default::default()
        }),
        draws: vec![draw],
        filters: Some(filters),
        columns: vec![v1::Column::Ids.into(), v1::Column::Scores.into(), v1::Column::Labels.into(), v1::Column::Groups.into()],
        layout: v1::Layout::PerAnchor.into(),
        seed: Some(5),
        ..Default::default()
    }
}

/// One anchor of a request alone.
fn alone(request: &v1::SampleRequest, at: usize) -> v1::SampleRequest {
    let mut alone = request.clone();
    let anchors = alone.anchors.as_mut().unwrap();
    let x = negbank::client::floats(anchors.embeddings.as_ref().unwrap());
    anchors.embeddings = Some(rows(&x[at * DIM..(at + 1) * DIM]));
    anchors.labels = vec![anchors.labels[at]];
    anchors.groups = vec![anchors.groups[at]];
    alone
}

/// Lists that are looked at in the closing hold, and ones that are so long that the bank is searched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nearest_of_the_same_label_are_those_of_a_search_by_that_label() {
    for entries in [2_000, 30_000] {
        let live = Live::start(&[]).await;
        filled(&live, entries).await;
        let own = v1::Filters { only_same_label: true, exclude_same_group: Some(false), ..Default::default() };
        let asked = request(nearest(12), own);
        let answer = live.client.sample(asked.clone()).await.unwrap();
        let (draw, ids) = (&answer.draws[0], &answer.rows.as_ref().unwrap().ids);
        assert_eq!(draw.counts, [12; ANCHORS]);
        for at in 0..ANCHORS {
            let mut one = alone(&asked, at);
            let label = one.anchors.as_ref().unwrap().labels[0];
            let filters = v1::Filters { only_labels: vec![label], exclude_same_group: Some(false), ..Default::default() };
            one.filters = Some(filters);
            let one = live.client.sample(one).await.unwrap();
            assert_eq!(one.rows.unwrap().ids, ids[at * 12..(at + 1) * 12], "{entries} entries, anchor {at}");
            assert_eq!((one.draws[0].n[0], &one.draws[0].scores[..]), (draw.n[at], &draw.scores[at * 12..(at + 1) * 12]));
        }
        // Of one's own group, which is not excluded then.
        let group = v1::Filters { only_same_group: true, ..Default::default() };
        let answer = live.client.sample(request(nearest(12), group)).await.unwrap();
        let groups = answer.rows.unwrap().groups;
        let expected: Vec<u64> = [0, 9, 12, 9, 27].into_iter().flat_map(|group| [group; 12]).collect();
        assert_eq!((groups, &answer.draws[0].n[..]), (expected, &[20; ANCHORS][..]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_views_score_by_the_largest_or_the_mean_of_their_scores() {
    let live = Live::start(&[]).await;
    filled(&live, 500).await;
    let all = || v1::Filters { exclude_same_group: Some(false), ..Default::default() };
    let by_view = live.client.sample(request(nearest(500), all())).await.unwrap();
    let scores_of = |answer: &v1::SampleResponse, at: usize| {
        let ids = &answer.rows.as_ref().unwrap().ids[at * 500..(at + 1) * 500];
        let mut scores = vec![0.0; 500];
        ids.iter().zip(&answer.draws[0].scores[at * 500..]).for_each(|(&id, &score)| scores[id as usize] = score);
        scores
    };
    let each: Vec<Vec<f32>> = (0..ANCHORS).map(|at| scores_of(&by_view, at)).collect();
    for (combine, by) in [(v1::Combine::Max, "max"), (v1::Combine::Mean, "mean")] {
        let mut views = request(nearest(500), all());
        let anchors = views.anchors.as_mut().unwrap();
        (anchors.views, anchors.combine, anchors.labels, anchors.groups) = (5, combine.into(), vec![0], vec![0]);
        let answer = live.client.sample(views).await.unwrap();
        assert_eq!((answer.draws[0].plan(), answer.draws[0].n[0]), (v1::Plan::Scan, 500));
        let got = scores_of(&answer, 0);
        for id in 0..500 {
            let of_views = each.iter().map(|scores| scores[id]);
            let expected = match combine {
                v1::Combine::Mean => of_views.reduce(|a, b| a + b).unwrap() / 5.0,
                _ => of_views.fold(f32::NEG_INFINITY, f32::max),
            };
            assert_eq!(got[id].to_bits(), expected.to_bits(), "{by} of entry {id}");
        }
        assert!(answer.draws[0].scores.is_sorted_by(|a, b| a >= b));
    }
}

/// Positives are drawn as others are: by any strategy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_strategy_serves_only_what_shares_the_label() {
    let live = Live::start(&[]).await;
    filled(&live, 2_000).await;
    let own = v1::Filters { only_same_label: true, exclude_same_group: Some(false), ..Default::default() };
    for strategy in [
        Strategy::Uniform(v1::Uniform::default()),
        Strategy::Weighted(v1::Weighted::default()),
        Strategy::Balanced(v1::Balanced::default()),
        Strategy::Nearest(v1::Nearest::default()),
        Strategy::Softmax(v1::Softmax::default()),
        Strategy::Band(v1::Band::default()),
    ] {
        let draw = v1::Draw { k: 10, strategy: Some(strategy), ..Default::default() };
        let answer = live.client.sample(request(draw, own.clone())).await.unwrap();
        let expected: Vec<i64> = [0, 3, 4, 3, 9].into_iter().flat_map(|label| [label; 10]).collect();
        assert_eq!(answer.rows.unwrap().labels, expected, "{strategy:?}");
        assert_eq!(answer.draws[0].n, [1_020, 20, 20, 20, 20]);
    }
}
