//! Figures, printed and in `target/reports/index.json`.

use serde_json::{Value, json};

/// One case beside what it is compared with.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) n: usize,
    pub(crate) batch: usize,
    pub(crate) k: usize,
    pub(crate) plan: &'static str,
    pub(crate) us_per_anchor: f64,
    pub(crate) recall: f64,
    pub(crate) peer: &'static str,
    pub(crate) peer_us_per_anchor: f64,
    pub(crate) peer_recall: f64,
}

impl Case {
    /// How many times as long as the peer it takes.
    fn ratio(&self) -> f64 {
        self.us_per_anchor / self.peer_us_per_anchor
    }

    fn value(&self) -> Value {
        json!({
            "name": self.name,
            "n": self.n,
            "batch": self.batch,
            "k": self.k,
            "plan": self.plan,
            "us_per_anchor": self.us_per_anchor,
            "recall": self.recall,
            "peer": self.peer,
            "peer_us_per_anchor": self.peer_us_per_anchor,
            "peer_recall": self.peer_recall,
            "ratio": self.ratio(),
        })
    }
}

/// Prints the cases; the report is written only where they are all there are.
pub(crate) fn write(cases: &[Case], all: bool) {
    println!(
        "{:<28} {:>9} {:>8}  {:<12} {:>9} {:>8} {:>7}",
        "case", "us/anchor", "recall", "peer", "us/anchor", "recall", "ratio"
    );
    for case in cases {
        println!(
            "{:<28} {:>9.1} {:>8.4}  {:<12} {:>9.1} {:>8.4} {:>7.2}",
            case.name,
            case.us_per_anchor,
            case.recall,
            case.peer,
            case.peer_us_per_anchor,
            case.peer_recall,
            case.ratio()
        );
    }
    if !all {
        return;
    }
    let report = json!({ "cases": cases.iter().map(Case::value).collect::<Vec<_>>() });
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/reports");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("index.json"), format!("{report:#}\n")).unwrap();
}
