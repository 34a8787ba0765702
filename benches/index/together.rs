//! Small requests that wait at the same time: one scan for the anchors of all, beside one for each.

use negbank::bank::Bank;
use negbank::model::{SampleAnswer, SampleQuery};
use negbank::rows::{Recycler, Shared};
use negbank::sampling::{Block, Merge, Pass, search_together};

use crate::data::Clustered;
use crate::report::Case;
use crate::scan::{DIM, ENTRIES, Flat, K, ROUNDS, answer, bank, query, recall};
use crate::timing::{median_us, time_us};

pub(crate) fn measure(cases: &mut Vec<Case>) {
    let entries = Clustered::new(ENTRIES, DIM, 1);
    let bank = bank(&entries);
    let flat = Flat::new(&entries);
    for requests in [1usize, 4, 8, 16] {
        let anchors: Vec<Clustered> = (0..requests as u64).map(|number| Clustered::new(1, DIM, 2 + number)).collect();
        let queries: Vec<SampleQuery> = anchors.iter().map(query).collect();
        let mut times: [Vec<f64>; 2] = Default::default();
        let mut served: [Vec<SampleAnswer>; 2] = Default::default();
        for _ in 0..ROUNDS {
            times[0].push(time_us(|| served[0] = together(&bank, &queries)));
            times[1].push(time_us(|| served[1] = queries.iter().map(|query| answer(&bank, query, 1)).collect()));
        }
        assert_eq!(served[0], served[1], "each is answered as alone");
        let [joined, alone] = times.map(|times| median_us(times) / requests as f64);
        let recalls = served[0].iter().zip(&anchors).map(|(served, anchors)| recall(served, &flat.by_rows(anchors)));
        let recall = recalls.sum::<f64>() / requests as f64;
        cases.push(Case {
            name: format!("{requests} of 1 anchor, {ENTRIES} x {DIM}"),
            n: ENTRIES,
            batch: requests,
            k: K,
            plan: "scan",
            us_per_anchor: joined,
            recall,
            peer: "each alone",
            peer_us_per_anchor: alone,
            peer_recall: recall,
        });
    }
}

/// What a compute thread does with requests of one bank that wait at the same time.
fn together(bank: &Shared<Bank>, queries: &[SampleQuery]) -> Vec<SampleAnswer> {
    let pass = queries.first().and_then(|query| Pass::shared(&bank.read().unwrap(), false, query));
    let mut blocks: Vec<Block<'_>> = queries.iter().map(|query| Block::new(bank, query, 0..1).unwrap()).collect();
    let mut all: Vec<&mut Block<'_>> = blocks.iter_mut().collect();
    search_together(bank.into(), &mut all, pass.unwrap().0, &|| true).unwrap();
    let recycler = Recycler::default();
    let answered = blocks.into_iter().zip(queries).map(|(block, query)| {
        let mut merge = Merge::new(1, usize::MAX);
        merge.add(0, block.answer(&recycler, &|| true).unwrap()).unwrap();
        merge.finish(query.seed()).unwrap()
    });
    answered.collect()
}
