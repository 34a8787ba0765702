//! What the acknowledged changes make of a bank by the naive model, which shares no code with the server.

use negbank::client::floats;
use negbank::proto::v1;

use super::BankKind;
use super::writer::Change;
use crate::mirror::{Mirror, banks};
use crate::model::{ModelBank, ModelRow};

pub(super) struct Replay {
    model: ModelBank,
    dim: usize,
    /// The model reckons in f64; what is not the same entry is further away than rounding in one cycle.
    apart: f64,
}

impl Replay {
    pub(super) fn of(bank: &BankKind) -> Self {
        let capacity = (bank.capacity > 0).then_some(bank.capacity as usize);
        let mut model = ModelBank::new(v1::Metric::Cosine, capacity, 0.5);
        model.dtype = bank.dtype;
        // Two f16 below 1 that are neighbours are 2^-11 apart.
        Self { model, dim: bank.dim, apart: if bank.dtype == v1::Dtype::F32 { 1e-4 } else { 2e-3 } }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        let request = match change {
            Change::Write(request) => request,
            Change::Remove(request) => {
                self.model.remove(&request.ids);
                return;
            }
        };
        let floats = floats(request.embeddings.as_ref().unwrap());
        let row = |(at, x): (usize, &[f32])| ModelRow {
            id: request.ids.get(at).copied(),
            x: x.to_vec(),
            label: request.labels.get(at).map(|&label| Some(label)),
            group: request.groups.get(at).map(|&group| Some(group)),
            weight: request.weights.get(at).copied(),
        };
        let rows: Vec<ModelRow> = floats.chunks(self.dim).enumerate().map(row).collect();
        self.model.write(&rows, request.step, None);
    }

    /// Counts the entries of a server's bank that are not the model's, in the order in which they came. The model takes over how the server
    /// rounded the others, so that the difference does not add up.
    pub(super) async fn compare(&mut self, address: &str, bank: &str) -> u64 {
        let mut mirror = Mirror::default();
        mirror.follow(&banks(address).await, bank, 0).await;
        let mut wrong = mirror.entries.len().abs_diff(self.model.entries.len()) as u64;
        for (there, expected) in mirror.entries.into_values().zip(&mut self.model.entries) {
            let columns = (there.id, there.label, there.group, there.weight, there.step);
            let is_same = columns == (expected.id, expected.label, expected.group, expected.weight, expected.step)
                && there.row.len() == expected.row.len()
                && there.row.iter().zip(&expected.row).all(|(got, want)| (f64::from(*got) - want).abs() < self.apart);
            wrong += u64::from(!is_same);
            expected.row = there.row.into_iter().map(f64::from).collect();
        }
        if wrong > 0 {
            println!("{bank}: {wrong} entries are not the model's");
        }
        wrong
    }
}
