//! What a client shows, and whom it trusts.

use std::fmt;

use http::HeaderValue;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::ClientError;

/// How a certificate begins in PEM.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Credentials of a connection. Nothing of it is printed.
#[derive(Clone, Default)]
pub struct Security {
    /// The token that the server knows the caller by; `None`: the server asks for none.
    pub token: Option<String>,
    /// Certificates of the authorities that the server's certificate may be of, in PEM; `None`: those that the system trusts.
    pub ca: Option<Vec<u8>>,
    /// The client's own certificate and its key, in PEM, for a server that wants one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that the server's certificate must be of; `None`: the host of the address.
    pub server_name: Option<String>,
}

impl Security {
    /// The metadata that a call carries.
    ///
    /// # Errors
    /// [`ClientError::InvalidArgument`] for what is no token, and for a file of authorities that has no certificate.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, ClientError> {
        if self.ca.as_ref().is_some_and(|pem| !pem.windows(CERTIFICATE.len()).any(|part| part == CERTIFICATE)) {
            let message =
                "`ca` has no certificate in it: the PEM file of the authority's certificate is wanted, not of a key".to_owned();
            return Err(ClientError::InvalidArgument { message, violations: Vec::new() });
        }
        let Some(token) = &self.token else { return Ok(None) };
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
            let message = "the token has characters that no token has".to_owned();
            ClientError::InvalidArgument { message, violations: Vec::new() }
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// How TLS is spoken.
    pub(super) fn tls(&self) -> ClientTlsConfig {
        let mut tls = match &self.ca {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        if let Some((certificate, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        tls
    }

    /// Whether anything is given that only TLS makes use of.
    pub(super) fn wants_tls(&self) -> bool {
        self.ca.is_some() || self.identity.is_some() || self.server_name.is_some()
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").field("token", &self.token.is_some()).finish_non_exhaustive()
    }
}
