//! How near a server is to what it may take.

use indicatif::{HumanBytes, HumanCount};

use super::findings::Findings;
use crate::cli::figures::Figures;

/// From this share of a limit on it asks for attention.
const NEARLY: f64 = 0.8;
/// Below it a thousand ranks, each with a connection, are turned away.
const FEW_FILES: f64 = 4_096.0;

struct Limit {
    what: String,
    taken: Option<f64>,
    most: Option<f64>,
    unit: Unit,
    /// What a server at the limit does, and what to change.
    then: String,
}

#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Number,
}

/// Looks at memory, files, disks, banks and work that waits; what an older server does not tell is left out.
pub(super) fn check(figures: &Figures, findings: &mut Findings) {
    let limits = of_process(figures).into_iter().chain(of_disks(figures)).chain(of_banks(figures));
    let mut sound = Vec::new();
    for Limit { what, taken, most, unit, then } in limits {
        let Some((taken, most)) = taken.zip(most) else { continue };
        let said = format!("{what} {} of {}", unit.of(taken), unit.of(most));
        if taken >= NEARLY * most {
            findings.warn("limits", format!("{said}; {then}"));
        } else {
            sound.push(said);
        }
    }
    if figures.least("process_max_fds").is_some_and(|most| most < FEW_FILES) {
        findings.warn("limits", "few files may be open, and each connection is one: raise the hard limit (ulimit -Hn)");
    }
    if !sound.is_empty() {
        findings.ok("limits", sound.join(", "));
    }
}

fn of_process(figures: &Figures) -> [Limit; 2] {
    [
        Limit {
            what: "memory".into(),
            taken: figures.total("negbank_memory_bytes"),
            most: figures.least("negbank_memory_write_limit_bytes"),
            unit: Unit::Bytes,
            then: "then banks do not grow: memory.max_bytes, memory.write_percent".into(),
        },
        Limit {
            what: "open files".into(),
            taken: figures.least("process_open_fds"),
            most: figures.least("process_max_fds"),
            unit: Unit::Number,
            then: "then connections are not accepted: the process's limit of open files (ulimit -n)".into(),
        },
    ]
}

fn of_disks(figures: &Figures) -> impl Iterator<Item = Limit> {
    figures.by("negbank_disk_size_bytes", "folder").map(|(folder, size)| {
        let (_, free) = figures.by("negbank_disk_free_bytes", "folder").find(|(of, _)| *of == folder).unwrap_or((folder, size));
        let fails = if folder == "durability.dir" { "writes fail until a restart" } else { "checkpoints fail" };
        Limit {
            what: format!("disk of {folder}"),
            taken: Some(size - free),
            most: Some(size),
            unit: Unit::Bytes,
            then: format!("then {fails}: more space there"),
        }
    })
}

fn of_banks(figures: &Figures) -> [Limit; 3] {
    [
        Limit {
            what: "banks".into(),
            taken: Some(figures.count("negbank_bank_entries") as f64),
            most: figures.least("negbank_banks_limit"),
            unit: Unit::Number,
            then: "then none is created: limits.max_banks".into(),
        },
        Limit {
            what: "entries of the largest bank".into(),
            taken: figures.largest("negbank_bank_entries").or(Some(0.0)),
            most: figures.least("negbank_bank_entries_limit"),
            unit: Unit::Number,
            then: "then it takes no new ones: limits.max_entries".into(),
        },
        Limit {
            what: "waiting work".into(),
            taken: figures.total("negbank_compute_waiting_jobs"),
            most: figures.least("negbank_compute_waiting_jobs_limit"),
            unit: Unit::Number,
            then: "then more is refused: compute.queue, compute.threads".into(),
        },
    ]
}

impl Unit {
    fn of(self, amount: f64) -> String {
        match self {
            _ if amount.is_infinite() => "any".to_owned(),
            Self::Bytes => HumanBytes(amount as u64).to_string(),
            Self::Number => HumanCount(amount as u64).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::{Findings, Verdict};
    use super::{Figures, check};

    fn examined(text: &str) -> (usize, String) {
        let mut findings = Findings::default();
        check(&Figures::parse(text), &mut findings);
        (findings.count(Verdict::Warning), findings.to_string())
    }

    #[test]
    fn what_is_nearly_full_is_a_warning_and_the_rest_one_line() {
        let sound = "negbank_memory_bytes{part=\"rows\"} 1073741824\nnegbank_memory_bytes{part=\"graphs\"} 0\n\
                     negbank_memory_write_limit_bytes 4294967296\nprocess_open_fds 20\nprocess_max_fds 1048576\n\
                     negbank_bank_entries{bank=\"a\"} 5\nnegbank_bank_entries{bank=\"b\"} 7000\nnegbank_banks_limit 1024\n\
                     negbank_bank_entries_limit 100000000\nnegbank_disk_free_bytes{folder=\"durability.dir\"} 60000000000\n\
                     negbank_disk_size_bytes{folder=\"durability.dir\"} 100000000000\n\
                     negbank_disk_free_bytes{folder=\"checkpoints.location\"} 5000000000\n\
                     negbank_disk_size_bytes{folder=\"checkpoints.location\"} 9000000000\n";
        let (warnings, said) = examined(sound);
        assert_eq!(warnings, 0, "{said}");
        for says in ["memory 1.00 GiB of 4.00 GiB", "open files 20 of 1,048,576", "banks 2 of 1,024", "7,000 of 100,000,000"] {
            assert!(said.contains(says), "{said}");
        }
        for (series, full, says) in [
            ("negbank_memory_write_limit_bytes", "1200000000", "banks do not grow: memory.max_bytes"),
            ("process_max_fds", "4096", ""),
            ("process_max_fds", "1024", "ulimit -Hn"),
            ("negbank_disk_free_bytes{folder=\"durability.dir\"}", "9000000000", "writes fail until a restart"),
            ("negbank_disk_free_bytes{folder=\"checkpoints.location\"}", "9000", "disk of checkpoints.location 8.38 GiB of"),
            ("negbank_banks_limit", "2", "limits.max_banks"),
            ("negbank_bank_entries_limit", "7500", "limits.max_entries"),
        ] {
            let changed: String =
                sound.lines().filter(|line| !line.starts_with(series)).map(|line| format!("{line}\n")).collect();
            let (warnings, said) = examined(&format!("{changed}{series} {full}\n"));
            assert!(warnings == usize::from(!says.is_empty()) && said.contains(says), "{series}: {said}");
        }
    }

    #[test]
    fn no_limit_is_never_near_and_what_is_not_told_not_judged() {
        let (warnings, said) = examined("negbank_memory_bytes{part=\"rows\"} 7\nnegbank_memory_write_limit_bytes +Inf\n");
        assert!(warnings == 0 && said.contains("of any"), "{said}");
        assert_eq!(examined("").0, 0);
    }
}
