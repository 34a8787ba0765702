//! `negbank doctor`: whether a deployment does what it should, from outside.

mod access;
mod banks;
mod certificates;
mod clock;
mod findings;
mod limits;

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use findings::{Findings, Verdict};

use super::bench::stopwatch::Stopwatch;
use super::connection::told;
use super::figures::Figures;
use super::remote::Remote;
use crate::client::Client;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Asks only whether calls are taken, as a container's health check does: /readyz, and nothing is printed if they are.
    #[arg(long)]
    ready: bool,
    /// Fails on warnings too.
    #[arg(long)]
    strict: bool,
    /// Prints the findings as a JSON array.
    #[arg(long, conflicts_with = "ready")]
    json: bool,
}

const CALLS: u32 = 5;
const SLOW: Duration = Duration::from_millis(50);
const CLOCKS_APART: Duration = Duration::from_secs(5);

pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.ready && !args.remote.has_probes() {
        return Err("--ready asks the probes: leave out --probes none".into());
    }
    if args.ready {
        let answer = runtime.block_on(args.remote.get("/readyz")).map_err(|fault| fault.to_string())?;
        return if answer.status == 200 { Ok(()) } else { Err(answer.body.trim_end().into()) };
    }
    let findings = runtime.block_on(examine(&args.remote));
    if args.json {
        writeln!(std::io::stdout().lock(), "{:#}", findings.json())?;
    } else {
        write!(std::io::stdout().lock(), "{findings}")?;
    }
    let bad = findings.count(Verdict::Failure) + if args.strict { findings.count(Verdict::Warning) } else { 0 };
    if bad == 0 { Ok(()) } else { Err(format!("{bad} of {} checks ask for attention", findings.0.len()).into()) }
}

async fn examine(remote: &Remote) -> Findings {
    let mut findings = Findings::default();
    if remote.has_probes() {
        probes(remote, &mut findings).await;
    } else {
        findings.skip("probes", "not asked: readiness, clock, load, limits and the ends of certificates are not known");
    }
    match remote.connect().await {
        Ok(client) => calls(remote, &client, &mut findings).await,
        Err(fault) => findings.fail("calls", told(fault.as_ref())),
    }
    findings
}

async fn probes(remote: &Remote, findings: &mut Findings) {
    match remote.get("/readyz").await {
        Ok(answer) if answer.status == 200 => {
            findings.ok("probes", "ready: calls are taken");
            // After the first line, one for each thing that is amiss all the same.
            answer.body.lines().skip(1).for_each(|complaint| findings.warn("probes", complaint));
            match answer.date.as_deref().and_then(clock::distance) {
                Some(apart) if apart > CLOCKS_APART => findings.warn(
                    "clock",
                    format!("the server's is {} s from this machine's: certificates may look expired", apart.as_secs()),
                ),
                Some(_) => findings.ok("clock", format!("within {} s of this machine's", CLOCKS_APART.as_secs())),
                None => findings.warn("clock", "the probes don't tell the server's time"),
            }
        }
        Ok(answer) => {
            let mut lines = answer.body.lines();
            findings.fail("probes", lines.next().unwrap_or("not ready"));
            lines.for_each(|line| findings.warn("probes", line));
        }
        Err(fault) => findings.fail("probes", fault.to_string()),
    }
    match remote.figures().await {
        Ok(figures) => {
            load(&figures, findings);
            limits::check(&figures, findings);
            certificates::check(&figures, findings);
        }
        Err(fault) => findings.fail("metrics", fault.to_string()),
    }
}

/// What was answered since the server started.
fn load(figures: &Figures, findings: &mut Findings) {
    let calls = |code: &[(&str, &str)]| figures.sum("negbank_grpc_request_seconds_count", code);
    let (all, refused) = (calls(&[]), calls(&[("code", "8")]));
    let failed = calls(&[("code", "2")]) + calls(&[("code", "13")]) + calls(&[("code", "15")]);
    let waited = figures.sum("negbank_compute_queue_seconds_sum", &[]);
    let pieces = figures.sum("negbank_compute_queue_seconds_count", &[]);
    let wait = if pieces > 0.0 { 1e3 * waited / pieces } else { 0.0 };
    if failed > 0.0 {
        findings
            .warn("load", format!("{failed} of {all} calls failed through no fault of the caller: the server's log says why"));
    }
    if refused > 0.01 * all {
        let limits =
            "each was told which limit: of work (compute.queue), of memory (memory.max_bytes, memory.write_percent), ...";
        findings.warn("load", format!("{refused} of {all} calls were refused (RESOURCE_EXHAUSTED): {limits}"));
    }
    let said = format!("{all} calls so far, {refused} refused; work waited {wait:.2} ms for a thread on average");
    if failed == 0.0 && refused <= 0.01 * all {
        findings.ok("load", said);
    }
}

async fn calls(remote: &Remote, client: &Client, findings: &mut Findings) {
    let mut listed = None;
    let watch = Stopwatch::start();
    for _ in 0..CALLS {
        match client.list_banks().await {
            Ok(answer) => listed = Some(answer.banks),
            Err(fault) => return findings.fail("calls", told(&fault)),
        }
    }
    let each = watch.elapsed() / CALLS;
    let banks = listed.unwrap_or_default();
    let said = format!("{} banks listed in {:.2} ms", banks.len(), each.as_secs_f64() * 1e3);
    if each > SLOW {
        findings.warn("calls", format!("{said}: the network is slow, or one of the machines busy"));
    } else {
        findings.ok("calls", said);
    }
    access::check(remote, findings).await;
    banks::check(&banks, findings);
}

#[cfg(test)]
mod tests {
    use super::findings::{Findings, Verdict};
    use super::{Figures, load};

    #[test]
    fn refusals_and_failures_are_told() {
        let warnings = |code: &str, count: u64| {
            let text = format!(
                "negbank_grpc_request_seconds_count{{method=\"m\",code=\"0\"}} 1000\n\
                 negbank_grpc_request_seconds_count{{method=\"m\",code=\"{code}\"}} {count}\n"
            );
            let mut findings = Findings::default();
            load(&Figures::parse(&text), &mut findings);
            findings.count(Verdict::Warning)
        };
        assert_eq!((warnings("8", 5), warnings("8", 50), warnings("13", 1), warnings("3", 900)), (0, 1, 1, 0));
    }
}
