//! What each request of the load asks for.

use negbank::model::Stream;
use negbank::proto::v1;

use crate::{DIM, ENTRIES, MAX_MEMORY, number};

/// From the environment: `ANCHORS` a request (256), and `ROWS` of each anchor that are answered with their embeddings (0: the id of the nearest
/// alone).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) anchors: usize,
    pub(crate) rows: u32,
}

/// The load that promises are made of.
const PROMISED: Shape = Shape { anchors: 256, rows: 0 };

/// Answers with embeddings for which there is memory at once.
const LARGE_ANSWERS: usize = 32;

impl Shape {
    pub(crate) fn given() -> Self {
        let whole = |name: &str, default: usize| number(name, default as f64) as usize;
        Self { anchors: whole("ANCHORS", PROMISED.anchors), rows: whole("ROWS", PROMISED.rows as usize) as u32 }
    }

    pub(crate) fn is_promised(self) -> bool {
        self == PROMISED
    }

    /// The largest that an answer's embeddings can be, in bytes.
    pub(crate) fn answer_bytes(self) -> usize {
        self.anchors * self.rows as usize * DIM * size_of::<f32>()
    }

    /// The server's `memory.max_bytes`.
    pub(crate) fn max_memory(self) -> usize {
        MAX_MEMORY + LARGE_ANSWERS * self.answer_bytes()
    }

    /// Of another load than the promised one the report stands beside the other.
    pub(crate) fn report(self) -> String {
        if self.is_promised() { "overload.json".to_owned() } else { format!("overload-{}x{}.json", self.anchors, self.rows) }
    }

    /// Seeded, so that it is a scan.
    pub(crate) fn request(self, random: &mut Stream) -> v1::SampleRequest {
        let ids = (0..self.anchors).map(|_| random.below(ENTRIES)).collect();
        let nearest = v1::draw::Strategy::Nearest(v1::Nearest::default());
        let embeddings = (self.rows > 0).then_some(v1::Column::Embeddings.into());
        v1::SampleRequest {
            bank: "docs".into(),
            anchors: Some(v1::Anchors { ids, ..Default::default() }),
            draws: vec![v1::Draw { k: self.rows.max(1), strategy: Some(nearest), ..Default::default() }],
            columns: [v1::Column::Ids.into()].into_iter().chain(embeddings).collect(),
            seed: Some(1),
            ..Default::default()
        }
    }
}
