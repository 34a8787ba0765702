//! The nearest of other labels, where all that lies nearest has the anchor's own.

use std::collections::BTreeSet;

use negbank::client::rows;
use negbank::kernels::momentum;
use negbank::model::Seed;
use negbank::proto::v1;

use crate::graph::{DIM, by, clustered, fill, served, until_served};
use crate::live::{Live, keyed, nearest_with};

const ENTRIES: u64 = 12_000;
/// As many as there are anchors.
const STRANGERS: u64 = 60;
const K: u32 = 16;
/// A label that no cluster has.
const STRANGE: i64 = 1_000;

/// Anchors, each with the label of its cluster.
struct Asked {
    x: Vec<f32>,
    labels: Vec<i64>,
}

impl Asked {
    /// What is found for each anchor among entries of other labels, by the plan that is asked for and no other.
    async fn of(&self, live: &Live, plan: v1::Plan) -> Vec<BTreeSet<u64>> {
        let request = v1::SampleRequest {
            bank: "b".to_owned(),
            anchors: Some(v1::Anchors { embeddings: Some(rows(&self.x)), labels: self.labels.clone(), ..Default::default() }),
            draws: vec![nearest_with(K, by(plan))],
            filters: Some(v1::Filters { exclude_same_label: true, ..Default::default() }),
            columns: vec![v1::Column::Ids.into(), v1::Column::Labels.into()],
            layout: v1::Layout::PerAnchor.into(),
            ..Default::default()
        };
        let answer = live.client.sample(request).await.unwrap();
        let (draw, rows) = (&answer.draws[0], answer.rows.as_ref().unwrap());
        assert_eq!(draw.plan(), plan, "{}", draw.plan_reason);
        assert!(draw.counts.iter().all(|&count| count == K), "no short answer");
        let own = self.labels.iter().flat_map(|&label| [label; K as usize]);
        assert!(own.zip(&rows.labels).all(|(own, &label)| own != label));
        served(&answer)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn walks_find_the_nearest_of_other_labels_and_strangers_amid_the_own() {
    // No graph before all is written: the strangers are in it, not scanned beside it.
    let all = format!("index.min_entries={}", ENTRIES + STRANGERS);
    let settings = [all.as_str(), "index.m=12", "index.ef_construction=100", "index.threads=1", "index.max_percent=60"];
    let live = Live::start(&settings).await;
    live.create(keyed("b", DIM as u32, 4)).await;
    let mut random = Seed(41).stream(0, 0);
    fill(&live, "b", &mut random, &(0..ENTRIES).collect::<Vec<_>>()).await;
    let (x, labels) = clustered(&mut random, STRANGERS as usize);
    // Beside each anchor one of its cluster's entries is a stranger: one in some hundred of those that lie there.
    let near = |row: &[f32]| {
        let mut row: Vec<f32> = row.iter().map(|x| x + 0.02 * random.gumbel() as f32).collect();
        momentum::normalise(&mut row);
        row
    };
    let strangers: Vec<f32> = x.chunks_exact(DIM).flat_map(near).collect();
    let ids: Vec<u64> = (ENTRIES..ENTRIES + STRANGERS).collect();
    live.write("b", &ids, &strangers, &vec![STRANGE; ids.len()]).await;
    let index = until_served(&live, "b").await;
    assert_eq!(index.indexed, ENTRIES + STRANGERS, "the strangers are in the graph: {index:?}");
    let asked = Asked { x, labels };
    let (walked, scanned) = (asked.of(&live, v1::Plan::Graph).await, asked.of(&live, v1::Plan::Scan).await);
    let (mut found, mut wanted) = ([0u32, 0], [0u32, 0]);
    for (walked, scanned) in walked.iter().zip(&scanned) {
        for id in scanned {
            let is_strange = usize::from(*id >= ENTRIES);
            wanted[is_strange] += 1;
            found[is_strange] += u32::from(walked.contains(id));
        }
    }
    let recall = |of: usize| f64::from(found[of]) / f64::from(wanted[of]);
    assert!(wanted[1] >= STRANGERS as u32 && recall(1) >= 0.98, "of strangers {found:?} of {wanted:?}");
    assert!(recall(0) >= 0.98, "{found:?} of {wanted:?}");
}
