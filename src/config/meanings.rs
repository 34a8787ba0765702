//! What each setting means, in a line, as `negbank config` prints it.

/// The meaning of a setting.
pub(super) fn of(key: &str) -> &'static str {
    MEANINGS.iter().find(|(of, _)| *of == key).map_or("", |(_, meaning)| meaning)
}

/// The setting that a key that is none was perhaps meant to be: one of the same name in another part, or else one that few slips away.
pub(super) fn closest(key: &str) -> Option<&'static str> {
    let name = |key: &str| key.rsplit_once('.').map_or(key, |(_, name)| name).to_owned();
    let known = || MEANINGS.iter().map(|(known, _)| *known);
    let slips = |known: &&str| strsim::osa_distance(key, known);
    known().find(|known| name(known) == name(key)).or_else(|| {
        let nearest = known().min_by_key(slips)?;
        (slips(&nearest) <= 1 + key.len() / 8).then_some(nearest)
    })
}

/// By key, in their order.
const MEANINGS: &[(&str, &str)] = &[
    ("auth.tokens", "File of the tokens that calls need, made by `negbank token`; none: nobody is asked for one."),
    ("checkpoints.keep", "Checkpoints of a bank that are kept when another is made; 0: all."),
    ("checkpoints.location", "Where checkpoints are kept: a directory or s3://bucket/prefix; none: there are none."),
    ("checkpoints.memory_bytes", "Bytes of rows that writes may make a checkpoint copy aside before it fails."),
    (
        "checkpoints.spool",
        "Folder that a checkpoint is written to before it is uploaded; none: in durability.dir, else the system's for temporary files.",
    ),
    ("compute.queue", "Blocks of anchors that may wait for a compute thread; more are refused."),
    ("compute.threads", "Compute threads; 0: one a core."),
    (
        "compute.write_queue",
        "Writes that may wait for a bank's committer; more are refused, and of one caller more than there is room left.",
    ),
    (
        "durability.damaged",
        "A bank whose log is damaged in the middle: refuse, or read_only: served as it was before the damage.",
    ),
    ("durability.dir", "Folder in which banks outlive the server; none: they end with it."),
    (
        "durability.interval_ms",
        "What a bank of policy interval may lose in a power cut, in milliseconds; two syncs, where one takes longer than half of it.",
    ),
    ("durability.policy", "Policy of a bank that is created without one: memory, interval or always."),
    ("durability.segment_bytes", "Bytes after which a log begins a new file."),
    ("durability.snapshot_log_bytes", "Bytes of log that are not worth a snapshot."),
    (
        "durability.snapshot_memory_bytes",
        "Bytes of rows that writes may make a snapshot copy aside before it fails; for the next, writes wait.",
    ),
    ("gather.keep_seconds", "How long an answer is kept for ranks that ask again."),
    ("gather.max_bytes", "Bytes of one gather's rows; more are refused."),
    ("gather.max_gathers", "Gathers that wait or are kept at once."),
    ("gather.max_total_bytes", "Bytes of all gathers together."),
    (
        "http.insecure_listen",
        "Answer probes and metrics where others can reach them: they are never encrypted and ask for no token.",
    ),
    ("http.listen", "Address of /livez, /readyz and /metrics; none: nobody may ask, and nothing is measured."),
    ("index.cpu_percent", "Share of the time that threads build graphs for."),
    ("index.drift_percent", "Similarity to what was indexed below which an entry is scanned instead, in percent of a cosine."),
    ("index.ef_construction", "Candidates of a graph's construction."),
    ("index.enabled", "Whether large keyed banks are searched by a graph."),
    ("index.keep", "Whether graphs are kept in durability.dir, so that a server that starts again need not build them."),
    ("index.m", "Neighbours of a graph's node."),
    ("index.max_percent", "Share of a bank that may be scanned beside its graph; beyond it the scan serves alone."),
    (
        "index.mean_drift_percent",
        "Mean similarity to what was indexed below which a graph is built anew, in percent of a cosine.",
    ),
    ("index.min_entries", "Entries below which a bank has no graph."),
    ("index.rebuild_percent", "Share of a bank scanned beside its graph at which another is built."),
    ("index.threads", "Threads that build graphs; 0: half of the cores."),
    ("limits.max_anchors", "Anchors of a request."),
    ("limits.max_answer_bytes", "Size of an answer, estimated from above before work is done."),
    ("limits.max_banks", "Banks of the server."),
    ("limits.max_dim", "Floats in an embedding."),
    ("limits.max_entries", "Entries of a bank: the capacity of a queue, the growth of a keyed bank."),
    ("limits.max_fetch_rows", "Ids of a fetch, rows of a scan's chunk."),
    ("limits.max_filter_values", "Labels and ids listed in one filter."),
    ("limits.max_k", "Entries that one draw picks for one anchor; also the skip, window and candidates of nearest."),
    ("limits.max_listed_ids", "Ids and scores listed for the anchors of a request, each list over all anchors."),
    ("limits.max_picks", "Picks of a request: anchors times the sum of the draws' k."),
    ("limits.max_ranked", "Ranks that a search keeps at once, over up to 64 anchors and all scored draws of a request."),
    ("limits.max_ranks", "Ranks of a staged write or a gather."),
    ("limits.max_scored_entries", "Entries of a bank that softmax and band draws score for each anchor."),
    ("limits.max_staged_rows", "Rows of a bank's staged writes that wait for their ranks."),
    ("limits.max_stages", "Staged writes of a bank that wait for their ranks."),
    ("limits.max_write_rows", "Rows of a write, ids of a removal."),
    (
        "limits.softmax_candidates",
        "In a bank too large to be scored whole, a softmax draw is over so many nearest of each anchor.",
    ),
    ("log.filter", "What is logged, as in info or negbank=debug,tower_http=debug."),
    ("log.format", "text, or json: an object a line."),
    (
        "memory.max_bytes",
        "What banks, their graphs and copies, requests and answers may take; 0: four fifths of what the system has.",
    ),
    ("memory.write_percent", "Share of that from which on no bank is made, and none grows."),
    (
        "server.answer_seconds",
        "A client that reads nothing of its answer for so long is cut, and one that has not read it to its end after ten times as long.",
    ),
    ("server.default_deadline_seconds", "Deadline of calls that carry none; within it any request must have come whole."),
    ("server.drain_seconds", "After SIGTERM, calls in flight may take this long; then the process ends."),
    (
        "server.insecure_listen",
        "Listen where others can reach it though calls are not encrypted, or nobody is asked who makes them.",
    ),
    ("server.keepalive_seconds", "A client that says nothing for so long is asked whether it still lives."),
    (
        "server.keepalive_timeout_seconds",
        "A client that does not answer that within this time, or takes nothing for both together, is cut.",
    ),
    ("server.listen", "Address for gRPC; none: no TCP."),
    (
        "server.max_connection_age_seconds",
        "A connection that lasts longer, a tenth more or less, is asked to end, and cut server.drain_seconds later; 0: never.",
    ),
    (
        "server.max_connections",
        "Connections at once, over TCP and the Unix socket; what comes when there are as many is closed.",
    ),
    ("server.max_inbound_bytes", "Bytes of all requests that are received, wait or are worked on."),
    ("server.max_message_bytes", "Largest request taken."),
    (
        "server.max_metadata_bytes",
        "Bytes of a call's metadata at most; a call with more is refused, and with four times as much its connection ends.",
    ),
    ("server.reload_seconds", "How often certificates and tokens are looked at for changes."),
    ("server.threads", "Threads that read requests and send answers; 0: half of the cores."),
    ("server.unix_socket", "Path of a Unix socket to listen on as well."),
    (
        "tls.certificate",
        "The server's certificate and those between it and its authority's, in PEM; none: calls are not encrypted.",
    ),
    ("tls.client_ca", "Certificates of the authorities of clients, in PEM; none: clients need none."),
    ("tls.key", "The certificate's private key, in PEM."),
    ("traces.endpoint", "Where a collector takes OTLP over gRPC, as in http://127.0.0.1:4317; none: no call is traced."),
    ("traces.sample_per_million", "Of a million calls that come without a trace, how many begin one."),
    ("traces.service_name", "What the server is called in traces."),
];

#[cfg(test)]
mod tests {
    use super::{MEANINGS, closest};
    use crate::config::{Settings, Sources};

    #[test]
    fn every_setting_says_what_it_means() {
        let (_, effective) = Settings::explain(&Sources::default()).unwrap();
        let told: Vec<&str> = MEANINGS.iter().map(|(key, _)| *key).collect();
        assert_eq!(effective.iter().map(|setting| setting.key.as_str()).collect::<Vec<_>>(), told);
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        for (given, meant) in [
            ("limit.max_dim", "limits.max_dim"),
            ("server.max_k", "limits.max_k"),
            ("compute.thread", "compute.threads"),
            ("durability.polciy", "durability.policy"),
            ("index.enable", "index.enabled"),
        ] {
            assert_eq!(closest(given), Some(meant));
        }
        for stranger in ["", "x", "graph.layers", "server.colour"] {
            assert_eq!(closest(stranger), None, "{stranger}");
        }
    }
}
