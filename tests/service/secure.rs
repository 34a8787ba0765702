//! Who may call: TLS with real certificates, tokens, and what is refused to listen at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use negbank::client::{Client, ClientError, Code, Options, Security, rows};
use negbank::proto::v1;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::authority::{Authority, Issued};
use crate::lifecycle::Process;
use crate::live::{keyed, uniform};

const RELOAD: &str = "server.reload_seconds=1";

/// Longer than a change of files takes to be in force.
const LONG: Duration = Duration::from_secs(60);

/// A server's files.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(issued: &Issued) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.replace(issued);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn replace(&self, issued: &Issued) {
        fs::write(self.path("tls.crt"), &issued.certificate).unwrap();
        fs::write(self.path("tls.key"), &issued.key).unwrap();
    }

    fn serve(&self, more: &[&str]) -> Process {
        let settings = [
            format!("tls.certificate={}", self.path("tls.crt").display()),
            format!("tls.key={}", self.path("tls.key").display()),
        ];
        let mut arguments = vec!["--set", &settings[0], "--set", &settings[1], "--set", RELOAD];
        arguments.extend_from_slice(more);
        Process::start(&arguments)
    }
}

fn trusting(authority: &Authority) -> Security {
    Security { ca: Some(authority.certificate().into_bytes()), ..Security::default() }
}

async fn connect(address: &str, security: Security) -> Result<Client, ClientError> {
    let options = Options { security, retries: 0, ..Options::default() };
    let client = Client::connect(address, options).await?;
    client.list_banks().await?;
    Ok(client)
}

fn port(server: &Process) -> &str {
    server.address.rsplit_once(':').unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_must_be_of_the_authority_of_the_name_and_of_today() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = Files::new(&ours.server("localhost")).serve(&[]);
    let address = format!("https://localhost:{}", port(&server));
    connect(&address, trusting(&ours)).await.unwrap();

    let refused = connect(&address, trusting(&theirs)).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    let by_number = format!("https://{}", server.address);
    let refused = connect(&by_number, trusting(&ours)).await.unwrap_err();
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
    let named = Security { server_name: Some("localhost".to_owned()), ..trusting(&ours) };
    connect(&by_number, named).await.unwrap();
    let refused = connect(&server.address, Security::default()).await.unwrap_err();
    // What TLS answers may be lost when it closes the connection.
    let says = refused.to_string();
    assert!(says.contains("https://host:port") || says.contains("connection broke"), "calls in clear text: {says}");
    let clear = Process::start(&[]);
    let refused = connect(&format!("https://localhost:{}", port(&clear)), trusting(&ours)).await.unwrap_err();
    assert!(refused.to_string().contains("speaks no TLS"), "{refused}");
    let refused = connect(&server.address, trusting(&ours)).await.unwrap_err();
    assert!(matches!(&refused, ClientError::InvalidArgument { .. }) && refused.to_string().contains("https://"), "{refused}");

    let old = Files::new(&ours.expired("localhost")).serve(&[]);
    let refused = connect(&format!("https://localhost:{}", port(&old)), trusting(&ours)).await.unwrap_err();
    assert!(refused.to_string().contains("expired"), "{refused}");
    let logged = old.killed();
    assert!(logged.contains("a certificate has ended") && logged.contains("tls.certificate"), "{logged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_need_a_certificate_where_the_server_wants_one() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = Files::new(&ours.server("localhost"));
    fs::write(files.path("clients.crt"), ours.certificate()).unwrap();
    let server = files.serve(&["--set", &format!("tls.client_ca={}", files.path("clients.crt").display())]);
    let address = format!("https://localhost:{}", port(&server));
    let with = |client: Issued| {
        let identity = Some((client.certificate.into_bytes(), client.key.into_bytes()));
        Security { identity, ..trusting(&ours) }
    };
    connect(&address, with(ours.client())).await.unwrap();
    assert!(connect(&address, with(theirs.client())).await.is_err(), "a client of another authority");
    assert!(connect(&address, trusting(&ours)).await.is_err(), "a client without a certificate");
    let logged = server.killed();
    assert!(logged.contains("a TLS handshake failed"), "{logged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_a_stream_that_goes_on() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let files = Files::new(&before.server("localhost"));
    let server = files.serve(&["--set", "limits.max_answer_bytes=65536"]);
    let address = format!("https://localhost:{}", port(&server));
    let client = connect(&address, trusting(&before)).await.unwrap();
    client.create_bank(keyed("b", 64, 1)).await.unwrap();
    let ids: Vec<u64> = (0..2_000).collect();
    let embeddings = Some(rows(&vec![1.0; 2_000 * 64]));
    client.write(v1::WriteRequest { bank: "b".into(), ids, embeddings, ..Default::default() }).await.unwrap();
    let mut scan = client.scan(v1::ScanRequest { bank: "b".into(), ..Default::default() }).await.unwrap();
    let mut read = scan.next().await.unwrap().unwrap().rows.unwrap().ids.len() / 8;

    fs::write(files.path("tls.key"), "no key").unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    connect(&address, trusting(&before)).await.unwrap();
    files.replace(&after.server("localhost"));
    let taken_up = async {
        while connect(&address, trusting(&after)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, taken_up).await.unwrap();
    assert!(connect(&address, trusting(&before)).await.is_err(), "the certificate before is still shown");
    while let Some(chunk) = scan.next().await.unwrap() {
        read += chunk.rows.map_or(0, |rows| rows.ids.len() / 8);
    }
    assert_eq!(read, 2_000);
    client.get_bank(v1::GetBankRequest { name: "b".into() }).await.unwrap();
    let logged = server.killed();
    assert!(logged.contains("changed and are wrong, those before stay in force"), "{logged}");
}

/// A token that the real command makes and adds to the file.
fn token(file: &Path, subject: &str, role: &str, bank: &str) -> String {
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

#[test]
fn an_address_that_others_reach_needs_credentials_or_a_word() {
    let serve = |settings: &[&str]| {
        let settings = settings.iter().flat_map(|&setting| ["--set", setting]);
        let command = Command::new(env!("CARGO_BIN_EXE_negbank"))
            .args(["serve", "--set", "http.listen=none", "--listen", "0.0.0.0:0"])
            .args(settings)
            .output()
            .unwrap();
        assert!(!command.status.success());
        String::from_utf8(command.stderr).unwrap()
    };
    let refused = serve(&[]);
    assert!(refused.contains("server.insecure_listen") && refused.contains("tls.certificate"), "{refused}");
    assert!(serve(&["tls.key=/nowhere"]).contains("tls.certificate and tls.key are wanted"));
    assert!(serve(&["tls.key=/nowhere", "tls.certificate=/nowhere"]).contains("/nowhere: No such file"));
    let there = format!("tls.certificate={}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
    assert!(serve(&[&there, "tls.key=/nowhere"]).contains("tls.key: /nowhere: No such file"));
    assert!(serve(&["auth.tokens=/nowhere"]).contains("auth.tokens: /nowhere: No such file"));
    let process = Process::start_at("address=", &["--listen", "0.0.0.0:0", "--set", "server.insecure_listen=true"]);
    assert!(process.address.starts_with("0.0.0.0:"));
}
