//! Clients' certificates: whose are taken, and until when.

use std::fs;

use negbank::client::{Client, ClientError, Security};

use crate::authority::{Authority, Issued};
use crate::lifecycle::Process;
use crate::probes::{free, get, value};
use crate::secure::{Files, LONG, connect, port, trusting};

/// A client that shows its own.
async fn showing(address: &str, server: &Authority, own: Issued) -> Result<Client, ClientError> {
    let identity = Some((own.certificate.into_bytes(), own.key.into_bytes()));
    connect(address, Security { identity, ..trusting(server) }).await
}

/// A server of this authority that lets in only clients of it; its files, and its address.
fn served(authority: &Authority) -> (Process, Files, String) {
    let files = Files::new(&authority.server("localhost"));
    fs::write(files.path("clients.crt"), authority.certificate()).unwrap();
    let server = files.serve(&["--set", &format!("tls.client_ca={}", files.path("clients.crt").display())]);
    let address = format!("https://localhost:{}", port(&server));
    (server, files, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_need_a_certificate_where_the_server_wants_one() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (server, _files, address) = served(&ours);
    showing(&address, &ours, ours.client()).await.unwrap();
    assert!(showing(&address, &ours, theirs.client()).await.is_err(), "a client of another authority");
    assert!(connect(&address, trusting(&ours)).await.is_err(), "a client without a certificate");
    let logged = server.killed();
    assert!(logged.contains("a TLS handshake failed"), "{logged}");
}

/// Its server is asked by nobody else, or the log may have told of others' handshakes as often as it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_certificate_has_ended_is_not_let_in() {
    let ours = Authority::new("ours");
    let (server, _files, address) = served(&ours);
    showing(&address, &ours, ours.client()).await.unwrap();
    showing(&address, &ours, ours.expired_client()).await.unwrap_err();
    let logged = server.killed().to_lowercase();
    assert!(logged.contains("a tls handshake failed") && logged.contains("expired"), "{logged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_of_clients_is_replaced_while_the_server_runs() {
    let (ours, before, after) = (Authority::new("ours"), Authority::new("before"), Authority::until("after", 2_077));
    let (files, http) = (Files::new(&ours.server("localhost")), free());
    fs::write(files.path("clients.crt"), before.certificate()).unwrap();
    let clients = format!("tls.client_ca={}", files.path("clients.crt").display());
    let server = files.serve(&["--set", &clients, "--set", &format!("http.listen={http}")]);
    let address = format!("https://localhost:{}", port(&server));
    let open = showing(&address, &ours, before.client()).await.unwrap();
    assert!(showing(&address, &ours, after.client()).await.is_err());
    let ends = || {
        let series = "negbank_certificate_expiry_timestamp_seconds{setting=\"tls.client_ca\"}";
        value(&get(http, "/metrics").1, series)
    };
    let ended = ends();

    fs::write(files.path("clients.crt"), after.certificate()).unwrap();
    let taken_up = async {
        while showing(&address, &ours, after.client()).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, taken_up).await.unwrap();
    assert!(showing(&address, &ours, before.client()).await.is_err(), "the authority before is still trusted");
    open.list_banks().await.expect("a connection that was let in goes on");
    assert!((ends() - 3_376_684_800.0).abs() < 0.5 && ended > ends(), "2077-01-01, not {}", ends());
}
