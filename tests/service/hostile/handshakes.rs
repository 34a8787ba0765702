//! Clients that stall in the handshake of TLS.

use super::*;

/// A server that speaks TLS, and the folder of its files.
fn encrypted(authority: &Authority) -> (Process, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let issued = authority.server("localhost");
    let settings = [("tls.certificate", issued.certificate), ("tls.key", issued.key)].map(|(setting, pem)| {
        let file = folder.path().join(setting);
        std::fs::write(&file, pem).unwrap();
        format!("{setting}={}", file.display())
    });
    (Process::start(&["--set", &settings[0], "--set", &settings[1]]), folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_of_tls_that_never_ends_is_given_up() {
    let (began, authority) = (clock::now(), Authority::new("ours"));
    let (server, _folder) = encrypted(&authority);
    let before = server.memory();
    // A record of 512 bytes, slowly.
    let handshakes = many(|| {
        let address = server.address.clone();
        async move {
            let heard = dribble(address, [&[22, 3, 1, 2, 0][..], &[0; 512]].concat(), 5).await;
            assert!(heard.is_empty(), "there is nothing to say to half a greeting: {heard:?}");
        }
    });
    let security = Security { ca: Some(authority.certificate().into_bytes()), ..Security::default() };
    let port = server.address.rsplit_once(':').unwrap().1;
    let options = Options { security, ..Options::default() };
    let client = Client::connect(&format!("https://localhost:{port}"), options).await.expect("others find a place");
    client.list_banks().await.expect("others are served");
    all_end(handshakes).await;
    bounded(&server, before, MANY * CONNECTION, "300 connections");
    let log = log_of(server).await;
    told(&log, "a TLS handshake failed", began);
    told(&log, "and others wait for its place", began);
}

/// Passes on what is said over TLS, of each greeting one half at once and the other later. Returns the port.
async fn hesitating(server: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, server) = (listener.local_addr().unwrap().port(), server.to_owned());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let server = server.clone();
            tokio::spawn(async move {
                let mut greeting = [0; 4_096];
                let said = client.read(&mut greeting).await.unwrap();
                let mut server = TcpStream::connect(server).await.unwrap();
                let (one, other) = greeting[..said].split_at(said / 2);
                server.write_all(one).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1_300)).await;
                server.write_all(other).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_shake_hands_slowly_get_in_beside_many_who_stall() {
    let authority = Authority::new("ours");
    let (server, _folder) = encrypted(&authority);
    let mut stalled = Vec::new();
    for _ in 0..MANY {
        stalled.push(TcpStream::connect(&server.address).await.unwrap());
    }
    let address = format!("https://localhost:{}", hesitating(&server.address).await);
    let security = Security { ca: Some(authority.certificate().into_bytes()), ..Security::default() };
    let clients = many(|| {
        let (address, options) =
            (address.clone(), Options { security: security.clone(), retries: 0, connect_timeout: LONG, ..Options::default() });
        async move {
            let client = Client::connect(&address, options).await.expect("a client that says something finds a place");
            client.list_banks().await.unwrap();
        }
    });
    all_end(clients).await;
    // Whoever says nothing is closed.
    let mut heard = [0];
    assert!(matches!(timeout(LONG, stalled[0].read(&mut heard)).await, Ok(Ok(0))), "who stalls is held");
}
