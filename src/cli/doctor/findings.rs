//! What a check found.

use std::fmt;

use serde_json::{Value, json};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Nobody looked.
    Skipped,
    Ok,
    Warning,
    Failure,
}

/// One finding.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    what: String,
    said: String,
}

/// All findings, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn skip(&mut self, what: impl Into<String>, said: impl Into<String>) {
        self.add(Verdict::Skipped, what, said);
    }

    pub(super) fn ok(&mut self, what: impl Into<String>, said: impl Into<String>) {
        self.add(Verdict::Ok, what, said);
    }

    pub(super) fn warn(&mut self, what: impl Into<String>, said: impl Into<String>) {
        self.add(Verdict::Warning, what, said);
    }

    pub(super) fn fail(&mut self, what: impl Into<String>, said: impl Into<String>) {
        self.add(Verdict::Failure, what, said);
    }

    fn add(&mut self, verdict: Verdict, what: impl Into<String>, said: impl Into<String>) {
        self.0.push(Finding { verdict, what: what.into(), said: said.into() });
    }

    /// `[{"verdict": "ok", "check": "clock", "said": "..."}, ...]`
    pub(super) fn json(&self) -> Value {
        let told = |Finding { verdict, what, said }: &Finding| {
            let verdict = verdict.word().to_lowercase();
            json!({ "verdict": verdict, "check": what, "said": said })
        };
        self.0.iter().map(told).collect()
    }

    /// How many are as bad as that.
    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Skipped => "skip",
            Self::Ok => "ok",
            Self::Warning => "WARN",
            Self::Failure => "FAIL",
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
        for Finding { verdict, what, said } in &self.0 {
            writeln!(f, "{:<4}  {what:<width$}  {said}", verdict.word())?;
        }
        Ok(())
    }
}
