//! The server on a Unix socket.

use std::process::Command;

use negbank::client::{Client, ClientError, Options};
use negbank::proto::v1;

use crate::lifecycle::Process;
use crate::live::{Live, keyed};
use crate::readme;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_serves_alone_and_is_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("negbank.sock");
    let mut server = Process::start_on_socket(&path);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("docs", 2, 8)).await.unwrap();
    assert_eq!(client.list_banks().await.unwrap().banks[0].name, "docs");

    let second = Command::new(env!("CARGO_BIN_EXE_negbank"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--set",
            "http.listen=none",
            "--set",
            &format!("server.unix_socket={}", path.display()),
        ])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && complaint.contains("a server listens there already"), "{complaint}");
    assert!(complaint.contains("server.unix_socket") && complaint.contains(&*path.to_string_lossy()), "{complaint}");
    assert_eq!(client.list_banks().await.unwrap().banks.len(), 1, "the first one is not disturbed");

    server.signal("-TERM");
    drop(client);
    let code = tokio::task::spawn_blocking(move || server.exit_code()).await.unwrap();
    assert_eq!((code, path.exists()), (Some(0), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_a_killed_server_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("negbank.sock");
    Process::start_on_socket(&path).killed();
    assert!(path.exists(), "a killed server leaves its file");
    let away = Client::connect(&format!("unix:{}", path.display()), Options::default()).await;
    let Err(ClientError::Unavailable { message, .. }) = away else { panic!("{away:?}") };
    assert!(message.contains(&*path.to_string_lossy()), "{message}");
    let server = Process::start_on_socket(&path);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    assert!(client.list_banks().await.unwrap().banks.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_listeners_serve_the_same_banks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let live = Live::start(&[&format!("server.unix_socket={}", path.display())]).await;
    live.create(keyed("docs", 2, 8)).await;
    live.write("docs", &[7], &[0.6, 0.8], &[1]).await;
    for address in [format!("unix:{}", path.display()), format!("unix://{}", path.display()), live.address.clone()] {
        let client = Client::connect(&address, Options::default()).await.unwrap();
        let fetch = v1::FetchRequest { bank: "docs".into(), ids: vec![7], ..Default::default() };
        assert_eq!(client.fetch(fetch).await.unwrap().rows.unwrap().ids, [7], "{address}");
    }
    for nothing in ["unix:", "unix://"] {
        let refused = Client::connect(nothing, Options::default()).await;
        assert!(matches!(refused, Err(ClientError::InvalidArgument { .. })), "{refused:?}");
    }
}

#[test]
fn grpcurl_reaches_the_socket() {
    let Some(grpcurl) = readme::grpcurl() else { return readme::not_tested("GRPCURL ON A UNIX SOCKET") };
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start_on_socket(&folder.path().join("negbank.sock"));
    let output = Command::new(grpcurl).args(["-plaintext", &server.address, "list"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("negbank.v1.Sampling"), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}
