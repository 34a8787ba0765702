//! A kept graph that is not as it was written: it is built anew, or taken up as it was; never another.

use std::fs;
use std::path::Path;

use negbank::model::Seed;
use negbank::proto::v1;

use crate::flips::Damage;
use crate::formats::copy;
use crate::graph::{DIM, clustered, fill, kept_graph, recall, until_kept, until_served};
use crate::live::{Live, keyed, uniform};

const SETTINGS: [&str; 4] = ["index.min_entries=200", "index.m=12", "index.ef_construction=60", "index.threads=1"];

async fn started(data: &Path) -> Live {
    let data = format!("durability.dir={}", data.display());
    Live::start(&[&[data.as_str()], SETTINGS.as_slice()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_graph_is_built_anew() {
    let whole = tempfile::tempdir().unwrap();
    let live = started(whole.path()).await;
    live.create(keyed("b", DIM as u32, 2)).await;
    let mut random = Seed(5).stream(0, 0);
    fill(&live, "b", &mut random, &(0..400).collect::<Vec<_>>()).await;
    until_served(&live, "b").await;
    let content = fs::read(until_kept(whole.path(), "b").await).unwrap();
    drop(live);
    let (anchors, _) = clustered(&mut random, 20);
    let damages = Damage::all(content.len(), 30);
    let (mut taken_up, mut built) = (Vec::new(), 0);
    // Each that there is would take minutes: of the first bytes, which tell what the file is, every third.
    for damage in damages.into_iter().step_by(3).chain([Damage::Zeros(0)]) {
        let data = tempfile::tempdir().unwrap();
        copy(whole.path(), data.path());
        let path = kept_graph(data.path(), "b").unwrap();
        fs::write(&path, damage.of(&content)).unwrap();
        let live = started(data.path()).await;
        let index = until_served(&live, "b").await;
        if index.reason.contains("before the restart") {
            taken_up.push(damage);
        } else {
            assert!(index.reason.contains("built from"), "{damage:?}: {index:?}");
            built += 1;
        }
        assert_eq!(index.indexed, 400, "{damage:?}");
        let found = recall(&live, "b", &anchors, &v1::Filters::default()).await;
        assert!(found >= 0.97, "{damage:?}: {found}");
    }
    // Zeros behind the end are how a block ends that was not filled.
    assert!(taken_up.iter().all(|damage| matches!(damage, Damage::Zeros(_))), "{taken_up:?}");
    assert!(!taken_up.is_empty() && built > 40, "{built}, {taken_up:?}");
}

/// Nobody waits for a graph who needs none: the rows are there, and it follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_bank_draws_before_its_graph_is_there() {
    let (rows, dir) = (10_000, tempfile::tempdir().unwrap());
    let data = format!("durability.dir={}", dir.path().display());
    let settings = [data.as_str(), "index.min_entries=1000", "index.threads=1", "index.cpu_percent=20"];
    let live = Live::start(&settings).await;
    live.create(keyed("b", DIM as u32, 2)).await;
    fill(&live, "b", &mut Seed(6).stream(0, 0), &(0..rows).collect::<Vec<_>>()).await;
    assert!(kept_graph(dir.path(), "b").is_none(), "it is to be built after the restart");
    drop(live);
    let live = Live::start(&settings).await;
    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    let request = v1::SampleRequest { bank: "b".into(), anchors, draws: vec![uniform(5)], ..Default::default() };
    let drawn = live.client.sample(request).await.unwrap();
    assert_eq!((drawn.draws[0].counts[0], drawn.draws[0].n[0]), (5, rows as u32));
    let index = live.client.get_bank(v1::GetBankRequest { name: "b".into() }).await.unwrap().index.unwrap();
    assert!(index.state() != v1::IndexState::Serving, "{index:?}");
}
