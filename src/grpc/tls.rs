//! TLS: what is spoken with the certificates, and connections that speak it.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::config::TlsConfig;
use super::expiry::{CLIENT_CA, Expiry};
use super::reloaded::{File, Reloaded};
use super::sparing::Sparing;

/// A client that has not shaken hands by then is let go of.
const HANDSHAKE_SECONDS: u32 = 10;

/// Handshakes at once; more connections wait for their turn.
const HANDSHAKES: usize = 1_024;

/// When there are more, whoever takes longer than a second loses its place: who stalls must not keep others out.
const CROWD: usize = 256;

static FAILED: Sparing = Sparing::new();

/// Reads the certificates of the settings.
///
/// # Errors
/// Which file is wrong, and what is wrong with it.
pub(super) fn load(config: &TlsConfig) -> Result<Arc<Reloaded<Loaded>>, String> {
    let TlsConfig { certificate, key, client_ca } = config.clone();
    let named = [("tls.certificate", Some(certificate)), ("tls.key", Some(key)), (CLIENT_CA, client_ca)];
    let files = named.into_iter().filter_map(|(setting, path)| Some(File { setting, path: path? })).collect();
    Reloaded::load("certificates", files, |files| {
        let [certificate, key, ca @ ..] = files else { return Err("a file is missing".to_owned()) };
        let loaded = Loaded::of(certificate, key, ca.first())?;
        loaded.tell();
        Ok(loaded)
    })
}

/// A file and its contents.
type Pem<'a> = (&'a File, &'a [u8]);

/// The certificates of one moment.
#[derive(Debug)]
pub(super) struct Loaded {
    server: Arc<ServerConfig>,
    pub(super) expiries: Vec<Expiry>,
}

impl Loaded {
    fn of(certificate: &Pem<'_>, key: &Pem<'_>, client_ca: Option<&Pem<'_>>) -> Result<Self, String> {
        let chain = certificates(certificate)?;
        let roots = client_ca.map(certificates).transpose()?;
        let mut expiries = Vec::from_iter(Expiry::of(certificate.0.setting, &chain));
        expiries.extend(client_ca.zip(roots.as_ref()).and_then(|(ca, roots)| Expiry::of(ca.0.setting, roots)));
        Ok(Self { server: Arc::new(server_config(chain, key, client_ca.zip(roots))?), expiries })
    }

    /// Tells of ends that are near, or past.
    pub(super) fn tell(&self) {
        self.expiries.iter().for_each(Expiry::tell);
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    (key_file, key): &Pem<'_>,
    client_roots: Option<(&Pem<'_>, Vec<CertificateDer<'static>>)>,
) -> Result<ServerConfig, String> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|fault| key_file.wrong(fault))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(|fault| fault.to_string())?;
    let builder = match client_roots {
        Some(((file, _), client_roots)) => {
            let mut roots = RootCertStore::empty();
            for root in client_roots {
                roots.add(root).map_err(|fault| file.wrong(fault))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|fault| file.wrong(fault))?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|fault| key_file.wrong(format_args!("it does not go with tls.certificate: {fault}")))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates((file, pem): &Pem<'_>) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(file.wrong("there is no certificate in it")),
        Ok(found) => Ok(found),
        Err(fault) => Err(file.wrong(fault)),
    }
}

/// Shakes hands on connections as they come. A client that fails to is its own problem, and logged.
pub(super) fn secured(
    incoming: impl Stream<Item = io::Result<TcpStream>>,
    tls: Arc<Reloaded<Loaded>>,
) -> impl Stream<Item = io::Result<SecureStream>> {
    let places = Arc::new(());
    let shaken = incoming.map(move |accepted| {
        let place = Arc::clone(&places);
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.get().server));
        async move {
            let stream = match accepted {
                Ok(stream) => stream,
                Err(fault) => return Some(Err(fault)),
            };
            let peer = stream.peer_addr().ok();
            let fault = match shake(acceptor.accept(stream), place).await {
                Ok(stream) => return Some(Ok(SecureStream(stream))),
                Err(fault) => fault,
            };
            if let Some(untold) = FAILED.turn() {
                tracing::info!(?peer, fault, untold, "a TLS handshake failed");
            }
            None
        }
    });
    shaken.buffer_unordered(HANDSHAKES).filter_map(std::future::ready)
}

/// Shakes hands; each handshake that is under way has a clone of `place`.
async fn shake(handshake: Accept<TcpStream>, place: Arc<()>) -> Result<TlsStream<TcpStream>, String> {
    let mut handshake = pin!(handshake);
    let mut seconds = 0;
    loop {
        match timeout(Duration::from_secs(1), &mut handshake).await {
            Ok(shaken) => return shaken.map_err(|fault| fault.to_string()),
            Err(_) => seconds += 1,
        }
        let crowded = Arc::strong_count(&place) > CROWD;
        if seconds == HANDSHAKE_SECONDS || crowded {
            return Err(format!(
                "it took longer than {seconds} s{}",
                if crowded { ", and others wait for its place" } else { "" }
            ));
        }
    }
}

/// A connection that speaks TLS.
#[derive(Debug)]
pub(super) struct SecureStream(TlsStream<TcpStream>);

impl Connected for SecureStream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for SecureStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
