//! What a bank's own description tells.

use super::findings::Findings;
use crate::client::messages as v1;

/// Below it, approximate answers miss more than they should.
const GOOD_RECALL: f32 = 0.9;
/// Fewer checks tell little.
const CHECKS: u64 = 5;

/// Looks at every bank.
pub(super) fn check(banks: &[v1::Bank], findings: &mut Findings) {
    for bank in banks {
        let what = format!("bank {}", bank.name);
        let before = findings.0.len();
        if let Some(share) = bank.recovering {
            findings.warn(&what, format!("is being recovered: {:.0} % read", share * 100.0));
        }
        if let Some(damage) = &bank.damage {
            findings.warn(&what, format!("takes no writes, and is what it was before the damage: {damage}"));
        }
        if let Some(index) = &bank.index {
            recall(index, &what, findings);
        }
        for stage in &bank.stages {
            let missing: Vec<String> = stage.missing_ranks.iter().map(ToString::to_string).collect();
            let (step, world) = (stage.step, stage.world_size);
            findings.warn(&what, format!("the staged write of step {step} waits for ranks {} of {world}", missing.join(", ")));
        }
        if findings.0.len() == before {
            findings.ok(&what, standing(bank));
        }
    }
}

fn recall(index: &v1::Index, what: &str, findings: &mut Findings) {
    if index.reason.contains("failed") {
        findings.warn(what, format!("{}; answers stay right", index.reason));
    }
    if let Some(recall) = index.recall.filter(|recall| *recall < GOOD_RECALL && index.recall_samples >= CHECKS) {
        let mend = "ask for more (nearest.ef), for exact answers (nearest.accuracy), or build a denser graph (index.m)";
        findings.warn(what, format!("recall is {recall:.3} over {} checks: {mend}", index.recall_samples));
    }
}

fn standing(bank: &v1::Bank) -> String {
    let mut said = format!("{} entries, sequence {}", bank.entries, bank.sequence);
    if let Some(step) = bank.step {
        said += &format!(", step {step}");
    }
    if let Some(index) = &bank.index {
        said += &match index.state() {
            v1::IndexState::Serving => format!(", graph of {} entries, {} scanned beside it", index.indexed, index.scanned),
            v1::IndexState::Building => ", graph is being built".to_owned(),
            _ => format!(", {}", index.reason),
        };
        said += &index.recall.map_or_else(String::new, |recall| format!(", recall {recall:.3}"));
    }
    if bank.durability() == v1::Durability::Memory {
        said += ", in memory only";
    }
    if let Some(last) = bank.lost_after {
        said += &format!(", a power cut may have taken acknowledged writes after sequence {last}");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::super::findings::{Findings, Verdict};
    use super::check;
    use crate::client::messages as v1;

    fn verdicts(bank: v1::Bank) -> (usize, String) {
        let mut findings = Findings::default();
        check(&[bank], &mut findings);
        (findings.count(Verdict::Warning), findings.to_string())
    }

    #[test]
    fn only_what_is_amiss_is_a_warning() {
        let index = v1::Index { recall: Some(0.99), recall_samples: 50, reason: "built".into(), ..Default::default() };
        let bank = v1::Bank { name: "a".into(), entries: 5, index: Some(index.clone()), ..Default::default() };
        let (warnings, said) = verdicts(bank.clone());
        assert!(warnings == 0 && said.contains("5 entries") && said.contains("recall 0.990"), "{said}");

        let (warnings, said) = verdicts(v1::Bank { lost_after: Some(41), ..bank.clone() });
        assert!(warnings == 0 && said.contains("after sequence 41"), "{said}");

        let few = v1::Index { recall: Some(0.2), recall_samples: 1, ..index.clone() };
        assert_eq!(verdicts(v1::Bank { index: Some(few), ..bank.clone() }).0, 0, "one check tells little");
        let poor = v1::Index { recall: Some(0.2), recall_samples: 9, reason: "the build failed".into(), ..index };
        let (warnings, said) = verdicts(v1::Bank { recovering: Some(0.4), ..bank.clone() });
        assert!(warnings == 1 && said.contains("40 % read") && !said.contains("entries"), "{said}");
        let damage = Some("log-1 at byte 9".to_owned());
        let (warnings, said) = verdicts(v1::Bank { damage, ..bank.clone() });
        assert!(warnings == 1 && said.contains("log-1 at byte 9") && !said.contains("entries"), "{said}");
        let stage = v1::OpenStage { step: 7, world_size: 4, missing_ranks: vec![1, 3], ..Default::default() };
        let (warnings, said) = verdicts(v1::Bank { index: Some(poor), stages: vec![stage], ..bank });
        assert!(warnings == 3 && said.contains("nearest.ef") && said.contains("ranks 1, 3 of 4"), "{said}");
    }
}
