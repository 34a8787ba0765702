//! Who may call: TLS with real certificates, tokens, and what is refused to listen at all.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use negbank::client::{Client, ClientError, Code, Options, Security, floats, rows};
use negbank::model::Seed;
use negbank::proto::v1;
use negbank::proto::v1::banks_client::BanksClient;
use tempfile::TempDir;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::authority::{Authority, Issued};
use crate::lifecycle::Process;
use crate::live::{keyed, random_rows, uniform};

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
    assert!(says.contains("https://host:port"), "calls in clear text: {says}");
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

/// HTTP/2's default window: no more is on its way to who does not read on.
const WINDOW: u32 = 65_535;

/// Entries of the bank that is scanned, and their floats: 62 windows.
const ENTRIES: usize = 16_000;
const DIM: usize = 64;

/// Takes the next chunk of a scan; false at its end.
async fn next(scan: &mut Streaming<v1::ScanChunk>, ids: &mut Vec<u64>, values: &mut Vec<f32>) -> bool {
    let Some(chunk) = scan.message().await.expect("the stream is cut") else { return false };
    let rows = chunk.rows.unwrap_or_default();
    ids.extend(&rows.ids);
    values.extend(rows.embeddings.iter().flat_map(floats));
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_a_stream_that_goes_on() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let files = Files::new(&before.server("localhost"));
    let server = files.serve(&["--set", "limits.max_answer_bytes=65536"]);
    let address = format!("https://localhost:{}", port(&server));
    let client = connect(&address, trusting(&before)).await.unwrap();
    let as_they_are = v1::CreateBankRequest { metric: v1::Metric::Dot.into(), ..keyed("b", DIM as u32, 1) };
    client.create_bank(as_they_are).await.unwrap();
    let (ids, values) = ((0..ENTRIES as u64).collect::<Vec<_>>(), random_rows(&mut Seed(1).stream(0, 0), ENTRIES, DIM));
    let (written, embeddings) = (ids.clone(), Some(rows(&values)));
    client.write(v1::WriteRequest { bank: "b".into(), ids: written, embeddings, ..Default::default() }).await.unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(before.certificate()));
    let endpoint = Endpoint::from_shared(address.clone()).unwrap().tls_config(tls).unwrap();
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let mut banks = BanksClient::new(endpoint.connect().await.unwrap());
    let scan = banks.scan(v1::ScanRequest { bank: "b".into(), ..Default::default() }).await.unwrap();
    let (mut scan, mut read, mut read_values) = (scan.into_inner(), Vec::new(), Vec::new());
    while read.len() < ENTRIES / 8 {
        assert!(next(&mut scan, &mut read, &mut read_values).await);
    }

    fs::write(files.path("tls.key"), "no key").unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    connect(&address, trusting(&before)).await.unwrap();
    files.replace(&after.server("localhost"));
    let taken_up = async {
        while connect(&address, trusting(&after)).await.is_err() {
            // On and on, but not to the end.
            if read.len() < ENTRIES / 2 {
                assert!(next(&mut scan, &mut read, &mut read_values).await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, taken_up).await.unwrap();
    assert!(connect(&address, trusting(&before)).await.is_err(), "the certificate before is still shown");
    let left = (values.len() - read_values.len()) * 4;
    assert!(left > 16 * WINDOW as usize, "{left} bytes are still to be sent under the certificate before");
    while next(&mut scan, &mut read, &mut read_values).await {}
    assert!(read == ids && read_values == values, "{} of {ENTRIES} entries, as they were written", read.len());
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

/// Whether a text has a line of a key in it, as it is or as the numbers of its bytes.
fn shows(text: &str, key: &str) -> bool {
    key.lines().filter(|line| !line.starts_with("-----")).any(|line| {
        let bytes: Vec<String> = line.bytes().map(|byte| byte.to_string()).collect();
        text.contains(line) || text.contains(&bytes.join(", "))
    })
}

/// The server's files where the line breaks of its key were lost: as the key, and, in one file with the certificate, as that.
fn spoiled(issued: &Issued) -> Vec<Issued> {
    let keys = ["", " ", "\\n"].map(|instead| issued.key.replace('\n', instead));
    let alone = keys.clone().map(|key| Issued { certificate: issued.certificate.clone(), key });
    let combined = keys.map(|key| Issued { certificate: format!("{}{key}", issued.certificate), key: issued.key.clone() });
    alone.into_iter().chain(combined).collect()
}

#[test]
fn a_key_that_cannot_be_read_is_shown_to_nobody() {
    let authority = Authority::new("ours");
    let good = authority.server("localhost");
    for bad in spoiled(&good) {
        let files = Files::new(&bad);
        let set = |setting: &str, name: &str| format!("{setting}={}", files.path(name).display());
        let refused = Command::new(env!("CARGO_BIN_EXE_negbank"))
            .args(["serve", "--listen", "127.0.0.1:0", "--set", "http.listen=none"])
            .args(["--set", &set("tls.certificate", "tls.crt"), "--set", &set("tls.key", "tls.key")])
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
        assert!(!refused.status.success() && said.contains("it is not PEM"), "{said}");
        assert!(!shows(&said, &good.key), "it shows the key");
    }

    let servers: Vec<_> = spoiled(&good)
        .into_iter()
        .map(|bad| {
            let files = Files::new(&good);
            let server = files.serve(&[]);
            files.replace(&bad);
            (server, files)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(2_500));
    for (server, _files) in servers {
        let logged = server.killed();
        assert!(logged.contains("changed and are wrong, those before stay in force: tls."), "{logged}");
        assert!(logged.contains("it is not PEM") && !shows(&logged, &good.key), "it shows the key");
    }
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
    let (key, certificate, tokens) = ("tls.key=/nowhere", "tls.certificate=/nowhere", "auth.tokens=/nowhere");
    assert!(serve(&[key, certificate, tokens]).contains("tls.certificate: /nowhere: No such file"));
    let there = format!("tls.certificate={}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
    assert!(serve(&[&there, key, tokens]).contains("tls.key: /nowhere: No such file"));
    assert!(serve(&[tokens, "server.insecure_listen=true"]).contains("auth.tokens: /nowhere: No such file"));

    // Only one of both: the refusal names what is missing, and the word that does without.
    let refused = serve(&[key, certificate]);
    assert!(refused.contains("auth.tokens or tls.client_ca, or server.insecure_listen = true"), "{refused}");
    assert!(!refused.contains("set tls.certificate"), "that is there: {refused}");
    let refused = serve(&[tokens]);
    assert!(refused.contains("set tls.certificate and tls.key, or server.insecure_listen = true"), "{refused}");
    assert!(!refused.contains("auth.tokens"), "that is there: {refused}");
}

#[test]
fn an_address_that_others_reach_is_served_with_credentials_or_the_word() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.server("localhost"));
    fs::write(files.path("clients.crt"), authority.certificate()).unwrap();
    let tokens = files.path("tokens.toml");
    token(&tokens, "operator", "admin", "*");
    let of = |setting: &str, name: &str| format!("{setting}={}", files.path(name).display());
    let (certificate, key) = (of("tls.certificate", "tls.crt"), of("tls.key", "tls.key"));
    let (clients, tokens) = (of("tls.client_ca", "clients.crt"), of("auth.tokens", "tokens.toml"));
    let word = "server.insecure_listen=true".to_owned();
    for settings in [
        vec![&word],
        vec![&certificate, &key, &tokens],
        vec![&certificate, &key, &clients],
        vec![&certificate, &key, &word],
        vec![&tokens, &word],
    ] {
        let mut arguments = vec!["--listen", "0.0.0.0:0"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting.as_str()]));
        let process = Process::start_at("address=", &arguments);
        assert!(process.address.starts_with("0.0.0.0:"), "{settings:?}");
    }
}
