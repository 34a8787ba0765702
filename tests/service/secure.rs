//! TLS with real certificates, and what is refused to listen at all.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use negbank::client::{Client, ClientError, Options, Security, floats, rows};
use negbank::model::Seed;
use negbank::proto::v1;
use negbank::proto::v1::banks_client::BanksClient;
use tempfile::TempDir;
use tonic::Streaming;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::authority::{Authority, Issued};
use crate::lifecycle::Process;
use crate::live::{keyed, random_rows};
use crate::tokens::token;

pub(crate) const RELOAD: &str = "server.reload_seconds=1";

/// Longer than a change of files takes to be in force.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A server's files.
pub(crate) struct Files {
    folder: TempDir,
}

impl Files {
    pub(crate) fn new(issued: &Issued) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.replace(issued);
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn replace(&self, issued: &Issued) {
        fs::write(self.path("tls.crt"), &issued.certificate).unwrap();
        fs::write(self.path("tls.key"), &issued.key).unwrap();
    }

    pub(crate) fn serve(&self, more: &[&str]) -> Process {
        let settings = [
            format!("tls.certificate={}", self.path("tls.crt").display()),
            format!("tls.key={}", self.path("tls.key").display()),
        ];
        let mut arguments = vec!["--set", &settings[0], "--set", &settings[1], "--set", RELOAD];
        arguments.extend_from_slice(more);
        Process::start(&arguments)
    }
}

pub(crate) fn trusting(authority: &Authority) -> Security {
    Security { ca: Some(authority.certificate().into_bytes()), ..Security::default() }
}

pub(crate) async fn connect(address: &str, security: Security) -> Result<Client, ClientError> {
    let options = Options { security, retries: 0, ..Options::default() };
    let client = Client::connect(address, options).await?;
    client.list_banks().await?;
    Ok(client)
}

pub(crate) fn port(server: &Process) -> &str {
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

/// HTTP/2's default window: no more is on its way to who does not read on.
pub(crate) const WINDOW: u32 = 65_535;

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
