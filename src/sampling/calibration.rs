//! Measuring what scans and walks cost, when a bank has got a graph.

use super::block::{BLOCK, answer_block};
use super::source::Source;
use crate::model::{Anchors, Columns, Draw, Filters, Form, Nearest, Plan, SampleQuery, Scope, Search, Seed, Strategy};
use crate::rows::Recycler;

/// Ranks that are searched for: what trainers ask for most.
const K: usize = 64;

/// Searches for some of the bank's own entries, one at a time and more and more together, by a scan and by the graph, with and
/// without what has their label; the planner learns from them as from any other.
pub fn calibrate(source: Source<'_>, wanted: &dyn Fn() -> bool) {
    let mut batch = 1;
    while batch <= BLOCK && wanted() {
        for (plan, exclude_same_label) in [(Plan::Scan, false), (Plan::Graph, false), (Plan::Graph, true)] {
            let filters = Filters { exclude_same_label, ..Filters::default() };
            if let Some(query) = query(source, batch, plan, filters) {
                // Nobody waits for the answer; one that is refused teaches nothing.
                let _taught = answer_block(source, &query, 0..query.anchors().count, &Recycler::default(), wanted);
            }
        }
        batch *= 2;
    }
}

fn query(source: Source<'_>, batch: usize, plan: Plan, filters: Filters) -> Option<SampleQuery> {
    let ids: Vec<u64> = {
        let bank = source.bank.read().ok()?;
        let slots = |shard: &crate::bank::Shard| {
            let slots = shard.roster().iter().step_by(shard.roster().len().div_ceil(batch).max(1));
            slots.map(|&slot| shard.columns().id(slot)).collect::<Vec<u64>>()
        };
        bank.shards().iter().flat_map(slots).take(batch).collect()
    };
    let nearest = Nearest { search: Search { approximate: true, ef: None, plan: Some(plan) }, ..Nearest::top(K) };
    let draw = Draw { k: K, strategy: Strategy::Nearest(nearest), filters, scope: Scope::PerAnchor };
    let anchors = Anchors { count: ids.len(), ids: Some(ids), ..Anchors::default() };
    let form = Form::pooled(Columns { ids: true, ..Columns::default() });
    SampleQuery::new(anchors, vec![draw], None, Seed(0), form).ok()
}
