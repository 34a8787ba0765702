//! How long the server's certificates go on.

use std::time::Duration;

use super::clock;
use super::findings::Findings;
use crate::cli::figures::Figures;

/// Time enough to find out who renews them.
const SOON: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 86_400;

/// Looks at each file of certificates; a server without any tells of none.
pub(super) fn check(figures: &Figures, findings: &mut Findings) {
    judge(figures, clock::unix_seconds(), findings);
}

fn judge(figures: &Figures, now: f64, findings: &mut Findings) {
    for (setting, ends) in figures.by("negbank_certificate_expiry_timestamp_seconds", "setting") {
        let left = ends - now;
        let days = (left / DAY as f64).abs().floor();
        if left <= 0.0 {
            findings.fail("certificates", format!("{setting} ended {days} days ago: replace the file, it is read again"));
        } else if left < SOON.as_secs_f64() {
            findings.warn("certificates", format!("{setting} ends in {days} days: replace the file, it is read again"));
        } else {
            findings.ok("certificates", format!("{setting} goes on for {days} days"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::{Findings, Verdict};
    use super::{Figures, judge};

    #[test]
    fn an_end_is_told_before_it_comes() {
        let text = "negbank_certificate_expiry_timestamp_seconds{setting=\"tls.certificate\"} 1893456000\n";
        let verdict = |now: f64| {
            let mut findings = Findings::default();
            judge(&Figures::parse(text), now, &mut findings);
            (findings.0[0].verdict, findings.to_string())
        };
        for (now, expected, says) in [
            (1_893_456_000.0 - 400.0 * 86_400.0, Verdict::Ok, "goes on for 400 days"),
            (1_893_456_000.0 - 100_000.0, Verdict::Warning, "tls.certificate ends in 1 days"),
            (1_893_456_000.0 + 86_400.0, Verdict::Failure, "ended 1 days ago"),
        ] {
            let (found, said) = verdict(now);
            assert!(found == expected && said.contains(says), "{said}");
        }
        let mut findings = Findings::default();
        judge(&Figures::default(), 0.0, &mut findings);
        assert!(findings.0.is_empty(), "no TLS, no certificates");
    }
}
