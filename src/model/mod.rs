//! The vocabulary of negbank: plain values, valid by construction, that every other room speaks.
//!
//! Nothing here imports another room. Raw clocks and raw randomness live here, in [`clock`] and [`seed`], and nowhere else.

pub mod anchors;
pub mod answer;
pub mod bank_name;
pub mod bank_spec;
pub mod caller;
pub mod checkpoint;
pub mod clock;
pub mod draw;
pub mod dtype;
pub mod durability;
pub mod encoding;
pub mod excess;
pub mod filters;
pub mod form;
pub mod hardness;
pub mod image;
pub mod invalid;
pub mod matrix;
pub mod metric;
pub mod mutation;
pub mod origin;
pub mod position;
pub mod query;
pub mod score_rules;
pub mod seed;
pub mod stage;

pub use anchors::{Anchors, Combine, Lists, Views};
pub use answer::{DrawAnswer, GraphRead, Plan, Reason, ReasonCounts, SampleAnswer, ServedRows, SharedSet};
pub use bank_name::BankName;
pub use bank_spec::{BankKind, BankSpec};
pub use caller::{Call, Caller};
pub use checkpoint::{Checkpoint, Tag};
pub use draw::{Band, Choose, Draw, Nearest, Scope, Search, Softmax, Strategy};
pub use dtype::{Dtype, Half};
pub use durability::Durability;
pub use encoding::Encoding;
pub use excess::Excess;
pub use filters::Filters;
pub use form::{Columns, Form, Layout};
pub use hardness::Hardness;
pub use image::{BadImage, BankImage, ShardImage, WriterImage};
pub use invalid::{Invalid, Violation};
pub use matrix::Matrix;
pub use metric::Metric;
pub use mutation::{Applied, BatchColumns, Ids, Mutation, WriteBatch};
pub use origin::{Origin, Writer};
pub use position::{Lineage, Position};
pub use query::SampleQuery;
pub use score_rules::{ScoreRange, ScoreRules};
pub use seed::{Exponential, Noise, Seed, Stream};
pub use stage::{Stage, StageAt};
