//! A client whose certificate has ended is let in no more than one without.

use std::fs;

use negbank::client::{Client, ClientError, Options, Security};

use crate::authority::{Authority, Issued};
use crate::lifecycle::Process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_certificate_has_ended_is_not_let_in() {
    let (authority, folder) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let Issued { certificate, key } = authority.server("localhost");
    let mut arguments = Vec::new();
    for (setting, content) in [("certificate", certificate), ("key", key), ("client_ca", authority.certificate())] {
        let file = folder.path().join(setting);
        fs::write(&file, content).unwrap();
        arguments.extend(["--set".to_owned(), format!("tls.{setting}={}", file.display())]);
    }
    let server = Process::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let address = format!("https://localhost:{}", server.address.rsplit_once(':').unwrap().1);
    let ca = authority.certificate().into_bytes();
    banks_seen(&address, &ca, authority.client()).await.unwrap();

    banks_seen(&address, &ca, authority.expired_client()).await.unwrap_err();
    let logged = server.killed().to_lowercase();
    assert!(logged.contains("a tls handshake failed") && logged.contains("expired"), "{logged}");
}

/// How many banks a client with this certificate is shown.
async fn banks_seen(address: &str, ca: &[u8], own: Issued) -> Result<usize, ClientError> {
    let identity = Some((own.certificate.into_bytes(), own.key.into_bytes()));
    let security = Security { ca: Some(ca.to_vec()), identity, ..Security::default() };
    let client = Client::connect(address, Options { security, retries: 0, ..Options::default() }).await?;
    Ok(client.list_banks().await?.banks.len())
}
