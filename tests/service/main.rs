//! What the service promises, tried on real servers over real gRPC and held against a naive model.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::print_stdout,
    reason = "tests may fail loudly, and a scenario reads best in one piece"
)]

mod abandoned;
mod abuse;
mod authority;
mod background_sync;
mod bad_callers;
mod bad_input;
mod bank_model;
mod bench_command;
mod checkpoints;
mod clients_certificates;
mod coded;
mod concurrent;
mod connections;
mod contended;
mod crash;
mod cut;
mod cut_lines;
mod deleted;
mod drain;
mod durable;
mod ended;
mod exact;
mod faults;
mod flips;
mod formats;
mod forms;
mod frequencies;
mod full_disk;
mod gather;
mod gather_memory;
mod given_up;
mod graph;
mod graph_builds;
mod half_precision;
mod hard_filter;
mod hopeless;
mod hostile;
mod joined;
mod json_logs;
mod judge;
mod kept_graphs;
mod laws;
mod lifecycle;
mod live;
mod many_writers;
mod mirror;
mod mirrors;
mod model;
mod overload;
mod overrun;
mod patient;
mod permissions;
mod positives;
mod power;
mod probes;
mod random_requests;
mod raw;
mod readme;
mod recovering;
mod refresh;
mod reproducible;
mod restored_over;
mod scan;
mod secure;
mod settling;
mod short_answers;
mod slow_line;
mod strays;
mod strikes;
mod tails;
mod tokens;
mod traces;
mod twice;
mod uniformity;
mod unix_socket;
mod untaken;
mod varied_formats;
mod waiting;
mod writes;
