//! The engine without the transport: the same draws, gathered and given back.

use std::sync::Arc;
use std::time::Duration;

use negbank::engine::{BankHandle, Engine};
use negbank::model::clock::Deadline;
use negbank::model::{Anchors, Call, Caller, Columns, Draw, Filters, Form, Layout, SampleQuery, Scope, Seed, Strategy};

use crate::bank::BANK;
use crate::timing::now;

/// The engine and the bank.
pub(crate) struct InProcess {
    engine: Engine,
    bank: Arc<BankHandle>,
}

/// A uniform draw for a number of anchors, as [`crate::bank::request`] asks for it.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) anchors: usize,
    pub(crate) k: usize,
    pub(crate) scope: Scope,
    pub(crate) layout: Layout,
}

impl InProcess {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self { engine: engine.clone(), bank: engine.bank(BANK).unwrap() }
    }

    pub(crate) async fn sample(&self, shape: Shape, seed: u64) -> Duration {
        let Shape { anchors, k, scope, layout } = shape;
        let draw = Draw { k, strategy: Strategy::Uniform { replace: false }, filters: Filters::default(), scope };
        let columns = Columns { ids: true, embeddings: true, log_q: true, ..Columns::default() };
        let form = Form { layout, ..Form::pooled(columns) };
        let anchors = Anchors { count: anchors, ..Anchors::default() };
        let query = SampleQuery::new(anchors, vec![draw], None, Seed(seed), form).unwrap();
        let began = now();
        let call = Call { caller: Caller::Unknown, deadline: Deadline::after(Duration::from_secs(10)) };
        self.engine.sample(&self.bank, query, &call, |answer| answer).await.unwrap();
        began.elapsed()
    }
}
