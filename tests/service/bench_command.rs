//! `negbank bench`, the real binary: what it prints, what it leaves alone, and how it ends.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use negbank::client::{Client, Options};
use negbank::proto::v1;
use serde_json::Value;

use crate::lifecycle::Process;
use crate::live::{keyed, queue, random_rows};

/// A small run.
const SHORT: &[&str] = &["--duration", "0.5", "--warm-up", "0.1", "--anchors", "16", "--k", "8"];

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_negbank"));
    command.arg("bench").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ran(arguments: &[&str]) -> Output {
    bench(&[SHORT, arguments].concat()).output().unwrap()
}

fn json(output: &Output) -> Value {
    let complaint = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|fault| panic!("not one JSON object: {fault}; {complaint}"))
}

/// What it said on standard error, which must be one line.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

async fn filled(client: &Client, request: v1::CreateBankRequest, entries: u64) {
    let (name, dim) = (request.name.clone(), request.dim as usize);
    client.create_bank(request).await.unwrap();
    let ids: Vec<u64> = (0..entries).collect();
    let floats = random_rows(&mut negbank::model::Seed(1).stream(0, 0), ids.len(), dim);
    let labels = ids.iter().map(|id| (id % 5) as i64).collect();
    let embeddings = Some(negbank::client::rows(&floats));
    client.write(v1::WriteRequest { bank: name, ids, embeddings, labels, ..Default::default() }).await.unwrap();
}

async fn sequence(client: &Client, name: &str) -> u64 {
    client.get_bank(v1::GetBankRequest { name: name.to_owned() }).await.unwrap().sequence
}

#[test]
fn a_table_is_printed_for_a_server_of_its_own() {
    let output = ran(&["--entries", "2000", "--dim", "16", "--draw", "nearest", "--exclude-same-label"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for part in ["2,000 entries x 16 f32, cosine", "requests", "negatives", "p99.9", "plans: scan", "that failed: none"] {
        assert!(printed.contains(part), "no {part:?} in\n{printed}");
    }
}

#[test]
fn json_tells_all_of_it_and_nothing_else() {
    let mixture = ["--draw", "uniform:k=3", "--draw", "nearest:k=5,skip=1", "--form", "per-anchor", "--encoding", "f16"];
    let load = ["--entries", "3000", "--dim", "16", "--dtype", "bf16", "--writers", "1", "--concurrency", "3", "--json"];
    let output = ran(&[&mixture[..], &load].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let told = json(&output);
    let requests = &told["requests"];
    let answered = requests["answered"].as_u64().unwrap();
    assert!(answered > 0 && requests["failed"] == 0, "{told:#}");
    assert_eq!(requests["negatives"].as_u64(), Some(answered * 16 * 8));
    assert_eq!(requests["plans"]["scan"].as_u64(), Some(answered));
    assert!(requests["bytes"].as_u64().unwrap() > answered * 16 * 8 * 16 * 2, "rows of 16 halves: {told:#}");
    let latency = |name: &str| requests["latency_ms"][name].as_f64().unwrap();
    assert!(0.0 < latency("p50") && latency("p50") <= latency("p99") && latency("p99.9") <= latency("max"), "{told:#}");
    assert!(told["writes"]["rows"].as_u64().unwrap() > 0, "{told:#}");
    assert_eq!((&told["bank"]["entries"], &told["bank"]["dtype"]), (&Value::from(3_000), &Value::from("bf16")));
}

#[test]
fn shortfalls_are_counted() {
    let one_label = ["--entries", "1000", "--dim", "8", "--only-label", "61", "--k", "900", "--json"];
    let told = json(&bench(&[&SHORT[..6], &one_label].concat()).output().unwrap());
    assert!(told["requests"]["shortfalls"]["too_few"].as_u64().unwrap() > 0, "{told:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_that_was_there_is_only_read_unless_writing_is_allowed() {
    let server = Process::start(&[]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    filled(&client, keyed("docs", 8, 8), 500).await;
    filled(&client, queue("recent", 8, 8, 400), 400).await;
    for bank in ["docs", "recent"] {
        let existing = ["--address", &server.address, "--bank", bank, "--draw", "nearest", "--json"];
        let told = json(&ran(&existing));
        assert!(told["requests"]["answered"].as_u64().unwrap() > 0 && told["bank"]["created"] == false, "{told:#}");
        assert_eq!(sequence(&client, bank).await, 1, "it was written to");

        let refused = complaint(&ran(&[&existing[..], &["--writers", "1"]].concat()));
        assert!(refused.contains(bank) && refused.contains("--write"), "{refused}");
        assert_eq!(sequence(&client, bank).await, 1, "it was written to");

        let told = json(&ran(&[&existing[..], &["--writers", "1", "--write"]].concat()));
        let written = told["writes"]["answered"].as_u64().unwrap();
        assert!(written > 0 && sequence(&client, bank).await > written, "{told:#}");
        let after = client.get_bank(v1::GetBankRequest { name: bank.to_owned() }).await.unwrap();
        assert_eq!(after.labels, 5, "entries are written again as they are");
    }
    let created = json(&ran(&["--address", &server.address, "--entries", "1000", "--dim", "8", "--json"]));
    assert_eq!(created["bank"]["created"], true);
    let left: Vec<String> = client.list_banks().await.unwrap().banks.into_iter().map(|bank| bank.name).collect();
    assert_eq!(left, ["docs", "recent"], "the bank of the run is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_told_in_one_line() {
    let server = Process::start(&[]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("empty", 8, 8)).await.unwrap();
    let at = ["--address", server.address.as_str()];
    let missing = complaint(&ran(&[&at[..], &["--bank", "absent"]].concat()));
    assert!(missing.contains("absent") && missing.contains("empty"), "it names the banks there are: {missing}");
    let empty = complaint(&ran(&[&at[..], &["--bank", "empty"]].concat()));
    assert!(empty.contains("nothing to draw"), "{empty}");
    let too_many = complaint(&ran(&["--entries", "1000", "--draw", "uniform:k=70000"]));
    assert!(too_many.contains("70000") && too_many.contains("limits.max_k"), "{too_many}");
    let nobody = complaint(&ran(&["--address", "127.0.0.1:1"]));
    assert!(nobody.contains("no negbank answers at 127.0.0.1:1"), "{nobody}");
    let names: Vec<String> = client.list_banks().await.unwrap().banks.into_iter().map(|bank| bank.name).collect();
    assert_eq!(names, ["empty"]);
}

#[test]
fn bad_options_are_refused_with_what_was_wanted() {
    for (options, part) in [
        (&["--draw", "farthest"][..], "softmax and band"),
        (&["--draw", "nearest:skip=two"], "a number is wanted"),
        (&["--duration", "soon"], "seconds are wanted"),
        (&["--form", "heap"], "per-anchor"),
        (&["--bank", "docs"], "--address"),
        (&["--address", "127.0.0.1:1", "--bank", "docs", "--dim", "8"], "cannot be used with"),
        (&["--concurrency", "0"], "1..="),
        (&["--set", "limits.max_kk=1"], "limits.max_kk"),
    ] {
        let output = bench(options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty() && said.contains(part), "{options:?}: {said}");
    }
}

/// A run of many seconds against a server that is there.
fn long_run(server: &Process, more: &[&str]) -> Child {
    let data = ["--address", &server.address, "--entries", "1000", "--dim", "8", "--json"];
    let child = bench(&[&SHORT[4..], &data, more].concat()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    child
}

#[test]
fn a_server_that_dies_half_way_is_told_of_with_what_it_served() {
    let server = Process::start(&[]);
    let child = long_run(&server, &["--duration", "4", "--warm-up", "0"]);
    server.killed();
    let output = child.wait_with_output().unwrap();
    let (told, said) = (json(&output), String::from_utf8_lossy(&output.stderr));
    assert!(told["requests"]["answered"].as_u64().unwrap() > 0, "{told:#}");
    assert!(told["requests"]["errors"]["UNAVAILABLE"]["count"].as_u64().unwrap() > 0, "{told:#}");
    assert!(output.status.success(), "some calls were answered: {said}");
    assert!(said.contains("could not be removed") && said.lines().count() == 1, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_it_with_the_summary_and_without_the_bank() {
    let server = Process::start(&[]);
    let child = long_run(&server, &["--duration", "600", "--warm-up", "0"]);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let told = json(&output);
    assert!(output.status.success() && told["interrupted"] == true, "{output:?}");
    assert!(told["requests"]["answered"].as_u64().unwrap() > 0 && told["elapsed_s"].as_f64().unwrap() < 60.0, "{told:#}");
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    assert!(client.list_banks().await.unwrap().banks.is_empty());
}

#[test]
fn a_run_of_which_every_request_failed_is_a_failure() {
    let server = Process::start(&[]);
    let child = long_run(&server, &["--warm-up", "3", "--duration", "1"]);
    server.killed();
    let output = child.wait_with_output().unwrap();
    let (told, said) = (json(&output), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && said.contains("requests failed, the first: "), "{said}");
    assert_eq!(told["requests"]["answered"], 0, "{told:#}");
}
