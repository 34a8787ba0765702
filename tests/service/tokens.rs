//! Tokens: what each allows, and how the server follows their file.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use negbank::client::{ClientError, Code, Security, rows};
use negbank::model::Seed;
use negbank::proto::v1;
use negbank::proto::v1::banks_client::BanksClient;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::lifecycle::Process;
use crate::live::{keyed, random_rows, uniform};
use crate::secure::{LONG, RELOAD, WINDOW, connect};

/// A token that the real command makes and adds to the file.
pub(crate) fn token(file: &Path, subject: &str, role: &str, bank: &str) -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_negbank"))
        .args(["token", "--subject", subject, "--role", role, "--bank", bank, "--append"])
        .arg(file)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn showing(token: &str) -> Security {
    Security { token: Some(token.to_owned()), ..Security::default() }
}

fn code<T>(outcome: Result<T, ClientError>) -> Code {
    outcome.map_or_else(|fault| fault.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_allows_its_role_for_its_banks_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let admin = token(&file, "operator", "admin", "*");
    let (writes, reads) = (token(&file, "trainer", "write", "text-*"), token(&file, "viewer", "read", "text-*"));
    let server = Process::start(&["--set", &format!("auth.tokens={}", file.display()), "--set", RELOAD]);
    let address = &server.address;

    assert_eq!(code(connect(address, Security::default()).await), Code::Unauthenticated);
    let wrong = "nb_0000000000000000000000000000000000000000000000000000000000000000";
    assert_eq!(code(connect(address, showing(wrong)).await), Code::Unauthenticated);
    let operator = connect(address, showing(&admin)).await.unwrap();
    let trainer = connect(address, showing(&writes)).await.unwrap();
    let viewer = connect(address, showing(&reads)).await.unwrap();

    for name in ["text-1", "images"] {
        operator.create_bank(keyed(name, 2, 1)).await.unwrap();
    }
    assert_eq!(code(trainer.create_bank(keyed("text-2", 2, 1)).await), Code::PermissionDenied);
    // A rank asks for the bank as it wants it, whoever made it.
    assert_eq!(trainer.create_bank(keyed("text-1", 2, 1)).await.unwrap().name, "text-1");
    assert_eq!(code(trainer.create_bank(keyed("text-1", 3, 1)).await), Code::PermissionDenied);
    assert_eq!(code(trainer.create_bank(keyed("images", 2, 1)).await), Code::PermissionDenied);
    assert_eq!(code(viewer.create_bank(keyed("text-1", 2, 1)).await), Code::PermissionDenied);
    let write = |bank: &str| v1::WriteRequest {
        bank: bank.to_owned(),
        ids: vec![1, 2],
        embeddings: Some(rows(&[1.0, 0.0, 0.0, 1.0])),
        ..Default::default()
    };
    trainer.write(write("text-1")).await.unwrap();
    assert_eq!(code(trainer.write(write("images")).await), Code::PermissionDenied);
    assert_eq!(code(trainer.write(write("unknown")).await), Code::PermissionDenied, "it says which banks there are");
    assert_eq!(code(viewer.write(write("text-1")).await), Code::PermissionDenied);
    let sample = |write: Option<v1::WriteRequest>| v1::SampleRequest {
        bank: "text-1".into(),
        anchors: Some(v1::Anchors { rows: 1, ..Default::default() }),
        draws: vec![uniform(1)],
        write,
        ..Default::default()
    };
    viewer.sample(sample(None)).await.unwrap();
    assert_eq!(code(viewer.sample(sample(Some(write("text-1")))).await), Code::PermissionDenied);
    trainer.sample(sample(Some(write("text-1")))).await.unwrap();
    let gather = v1::GatherRequest { group: "text-1".into(), world_size: 1, ..Default::default() };
    assert_eq!(code(viewer.gather(gather.clone()).await), Code::PermissionDenied);
    assert_ne!(code(trainer.gather(gather).await), Code::PermissionDenied);
    let remove = v1::RemoveRequest { bank: "text-1".into(), ids: vec![1] };
    assert_eq!(code(viewer.remove(remove.clone()).await), Code::PermissionDenied);
    trainer.remove(remove).await.unwrap();
    for bank in ["text-1", "images"] {
        assert_eq!(code(trainer.delete_bank(v1::DeleteBankRequest { name: bank.into() }).await), Code::PermissionDenied);
    }

    let seen: Vec<String> = viewer.list_banks().await.unwrap().banks.into_iter().map(|bank| bank.name).collect();
    assert_eq!(seen, ["text-1"]);
    let unknown = viewer.get_bank(v1::GetBankRequest { name: "text-9".into() }).await.unwrap_err().to_string();
    assert!(unknown.contains("text-1") && !unknown.contains("images"), "{unknown}");

    // Health answers everybody, or Kubernetes would need a token.
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    let (logged, text) = (server.killed(), fs::read_to_string(&file).unwrap());
    for secret in [&admin, &writes, &reads] {
        assert!(!logged.contains(secret.as_str()) && !text.contains(secret.as_str()), "a token is kept or logged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_taken_out_of_its_file_is_refused_on_connections_that_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let old = token(&file, "trainer", "admin", "*");
    let server = Process::start(&["--set", &format!("auth.tokens={}", file.display()), "--set", RELOAD]);
    let client = connect(&server.address, showing(&old)).await.unwrap();
    fs::write(&file, "[[tokens]]\nsubject = 1").unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    client.list_banks().await.expect("a file that makes no sense locks nobody out");

    fs::remove_file(&file).unwrap();
    let new = token(&file, "trainer", "admin", "*");
    let taken_up = async {
        while connect(&server.address, showing(&new)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, taken_up).await.unwrap();
    assert_eq!(code(client.list_banks().await), Code::Unauthenticated);
}

/// A call is judged when it begins: what it was allowed then it does to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_goes_on_to_its_end_though_its_token_is_taken_out_of_the_file() {
    const ENTRIES: usize = 16_000;
    const DIM: usize = 64;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let old = token(&file, "trainer", "admin", "*");
    let tokens = format!("auth.tokens={}", file.display());
    let server = Process::start(&["--set", &tokens, "--set", RELOAD, "--set", "limits.max_answer_bytes=65536"]);
    let client = connect(&server.address, showing(&old)).await.unwrap();
    client.create_bank(keyed("b", DIM as u32, 1)).await.unwrap();
    let embeddings = Some(rows(&random_rows(&mut Seed(1).stream(0, 0), ENTRIES, DIM)));
    let ids: Vec<u64> = (0..ENTRIES as u64).collect();
    client.write(v1::WriteRequest { bank: "b".into(), ids: ids.clone(), embeddings, ..Default::default() }).await.unwrap();

    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let shown = format!("Bearer {old}").parse().unwrap();
    let show = |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("authorization", tonic::metadata::MetadataValue::clone(&shown));
        Ok(request)
    };
    let mut banks = BanksClient::with_interceptor(endpoint.connect().await.unwrap(), show);
    let request = v1::ScanRequest { bank: "b".into(), ..Default::default() };
    let mut scan = banks.scan(request.clone()).await.unwrap().into_inner();
    let mut scanned = scan.message().await.unwrap().unwrap().rows.unwrap_or_default().ids;

    fs::remove_file(&file).unwrap();
    let new = token(&file, "trainer", "admin", "*");
    let taken_up = async {
        while connect(&server.address, showing(&new)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, taken_up).await.unwrap();
    assert_eq!(code(client.list_banks().await), Code::Unauthenticated);
    let left = (ENTRIES - scanned.len()) * DIM * 4;
    assert!(left > 16 * WINDOW as usize, "{left} bytes are still to be sent to who has no token any more");
    while let Some(chunk) = scan.message().await.expect("the stream is cut") {
        scanned.extend(chunk.rows.unwrap_or_default().ids);
    }
    assert_eq!(scanned, ids);
    assert_eq!(banks.scan(request).await.unwrap_err().code(), tonic::Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_tokens_that_is_gone_is_told_of_once_and_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (file, aside) = (folder.path().join("tokens.toml"), folder.path().join("aside"));
    let own = token(&file, "trainer", "admin", "*");
    let server = Process::start(&["--set", &format!("auth.tokens={}", file.display()), "--set", RELOAD]);
    let client = connect(&server.address, showing(&own)).await.unwrap();
    fs::rename(&file, &aside).unwrap();
    // Some looks that find it gone, and one that finds it.
    tokio::time::sleep(Duration::from_millis(2_700)).await;
    client.list_banks().await.expect("a file that is gone locks nobody out");
    fs::rename(&aside, &file).unwrap();
    tokio::time::sleep(Duration::from_millis(1_700)).await;
    client.list_banks().await.unwrap();
    let logged = server.killed();
    let gone = format!("the tokens stay as they were: auth.tokens: {}: No such file", file.display());
    assert_eq!(logged.matches(&gone).count(), 1, "{logged}");
    assert_eq!(logged.matches("the files of the tokens can be read again").count(), 1, "{logged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_tokens_that_hangs_is_told_of_and_followed_when_it_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (file, aside) = (folder.path().join("tokens.toml"), folder.path().join("aside"));
    let own = token(&file, "trainer", "admin", "*");
    let text = fs::read(&file).unwrap();
    let server = Process::start(&["--set", &format!("auth.tokens={}", file.display()), "--set", RELOAD]);
    let client = connect(&server.address, showing(&own)).await.unwrap();
    // Whoever opens a pipe waits until somebody writes to it: as on a mount whose server is gone.
    assert!(Command::new("mkfifo").arg(&aside).status().unwrap().success());
    fs::rename(&aside, &file).unwrap();
    tokio::time::sleep(Duration::from_millis(4_000)).await;
    client.list_banks().await.expect("a file that hangs locks nobody out");

    let mut pipe = fs::OpenOptions::new().write(true).open(&file).expect("the server reads it");
    fs::write(&aside, &text).unwrap();
    fs::rename(&aside, &file).unwrap();
    pipe.write_all(&text).unwrap();
    drop(pipe);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let new = token(&file, "another", "admin", "*");
    let taken_up = async {
        while connect(&server.address, showing(&new)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, taken_up).await.expect("the file is followed no more");
    let logged = server.killed();
    let hangs = "the tokens stay as they were: their files could not be read within 2s";
    assert_eq!(logged.matches(hangs).count(), 1, "{logged}");
    assert_eq!(logged.matches("the files of the tokens can be read again").count(), 1, "{logged}");
}
