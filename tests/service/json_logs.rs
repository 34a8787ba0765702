//! Logs that programs read.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use negbank::client::{Client, Options};
use serde_json::Value;

use crate::hostile::connected;
use crate::live::keyed;

/// From the start over a refusal and a drain, whatever is said, and by whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_an_object_with_time_level_target_and_message() {
    let data = tempfile::tempdir().unwrap();
    let dir = format!("durability.dir={}", data.path().display());
    let settings = ["log.format=json", "log.filter=negbank=debug", "http.listen=none", &dir, "server.max_message_bytes=65536"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_negbank"));
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(settings.into_iter().flat_map(|setting| ["--set", setting]));
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let (said, lines) = mpsc::channel::<String>();
    let reading = std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| said.send(line).unwrap()));
    let mut objects = Vec::new();
    let address = loop {
        objects.push(object(&lines.recv_timeout(Duration::from_secs(60)).expect("it says that it serves")));
        if let Some(address) = objects.last().and_then(|object| object["fields"]["address"].as_str()) {
            break address.to_owned();
        }
    };
    let client = Client::connect(&address, Options::default()).await.unwrap();
    client.create_bank(keyed("a \"quoted\" name", 2, 1)).await.expect_err("no such names");
    client.create_bank(keyed("docs", 2, 1)).await.unwrap();
    drop((client, connected(&address).await));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    reading.join().unwrap();
    objects.extend(lines.iter().map(|line| object(&line)));
    let messages: Vec<&str> = objects.iter().filter_map(|object| object["fields"]["message"].as_str()).collect();
    for message in ["serving", "ready", "drained"] {
        assert!(messages.contains(&message), "{message} in {messages:?}");
    }
}

fn object(line: &str) -> Value {
    let object: Value = serde_json::from_str(line).unwrap_or_else(|fault| panic!("{fault}: {line}"));
    for key in ["timestamp", "level", "target"] {
        assert!(object[key].is_string(), "{key} in {line}");
    }
    assert!(object["fields"]["message"].is_string(), "a message in {line}");
    object
}
