//! TLS: what is spoken with the certificates.

use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::config::TlsConfig;
use super::expiry::{CLIENT_CA, Expiry};
use super::reloaded::{File, Reloaded};

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
    pub(super) server: Arc<ServerConfig>,
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
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|fault| key_file.wrong(in_our_words(&fault, "private key")))?;
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
        Err(fault) => Err(file.wrong(in_our_words(&fault, "certificate"))),
    }
}

/// What is wrong with a file in which a `wanted` should be. The parser quotes the line that it could not read, and where the line breaks
/// were lost that is the whole file, a private key too: none of its words are used.
fn in_our_words(fault: &PemError, wanted: &str) -> String {
    let lost = "perhaps its line breaks were lost, or are written as \\n";
    match fault {
        PemError::MissingSectionEnd { .. } => format!("it is not PEM: a BEGIN line has no END line after it; {lost}"),
        PemError::IllegalSectionStart { .. } => format!("it is not PEM: a BEGIN line does not end as it should; {lost}"),
        PemError::Base64Decode(_) => "it is not PEM: what stands between a BEGIN line and an END line is not base64".to_owned(),
        PemError::NoItemsFound => format!("there is no {wanted} in it"),
        PemError::SectionTooLarge => "it is not PEM: it is too large".to_owned(),
        _ => "it is not PEM".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};

    use super::{File, Loaded};

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_a_word_of_it() {
        let pair = KeyPair::generate().unwrap();
        let (certificate, key) =
            (CertificateParams::new(Vec::new()).unwrap().self_signed(&pair).unwrap().pem(), pair.serialize_pem());
        let [of_certificate, of_key] =
            ["tls.certificate", "tls.key"].map(|setting| File { setting, path: PathBuf::from(setting) });
        let loaded = |certificate: &str, key: &str| {
            Loaded::of(&(&of_certificate, certificate.as_bytes()), &(&of_key, key.as_bytes()), None).map(drop)
        };
        assert_eq!(loaded(&certificate, &key), Ok(()));
        let secret = key.lines().nth(1).unwrap();
        let bytes = secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        let end = key.lines().last().unwrap();
        for (broken, says) in [
            (key.replace('\n', ""), "no END line"),
            (key.replace('\n', " "), "no END line"),
            (key.replace('\n', "\\n"), "does not end as it should"),
            (key.replace(end, ""), "no END line"),
            (key.replace(secret, &format!("!{secret}")), "not base64"),
            (secret.to_owned(), "there is no "),
        ] {
            let combined = format!("{certificate}{broken}");
            for (setting, wrong) in [("tls.key", loaded(&certificate, &broken)), ("tls.certificate", loaded(&combined, &key))] {
                // Beside a certificate, what is no section is a comment.
                let Err(wrong) = wrong else {
                    assert!(setting == "tls.certificate" && broken == secret, "{broken} is taken");
                    continue;
                };
                assert!(wrong.starts_with(setting) && wrong.contains(says), "{wrong}");
                assert!(!wrong.contains(secret) && !wrong.contains(&bytes[..40]), "it shows the key");
            }
        }
    }
}
