//! When certificates end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use rustls::pki_types::CertificateDer;

use super::reloaded::Reloaded;
use super::tls::Loaded;
use crate::model::clock;

/// How long before its end a certificate is spoken of.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// The setting of the authorities of clients.
pub(super) const CLIENT_CA: &str = "tls.client_ca";

/// The end of the certificates of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry {
    /// The setting that names the file.
    pub(super) setting: &'static str,
    /// Seconds since 1970 at which the first of them ends.
    pub(super) ends: i64,
}

impl Expiry {
    /// Of the certificates of the file that `setting` names. Whether they can be used is for TLS to say: what has no end is left out.
    pub(super) fn of(setting: &'static str, certificates: &[CertificateDer<'_>]) -> Option<Self> {
        let end = |der: &CertificateDer<'_>| {
            let (_, read) = x509_parser::parse_x509_certificate(der).ok()?;
            Some(read.validity().not_after.timestamp())
        };
        certificates.iter().filter_map(end).min().map(|ends| Self { setting, ends })
    }

    /// Says so if the end is near, or past.
    pub(super) fn tell(&self) {
        let &Self { setting, ends } = self;
        let left = ends - (clock::unix_millis() / 1_000) as i64;
        if left <= 0 {
            let refused =
                if setting == CLIENT_CA { "the server refuses the clients of it" } else { "clients refuse the server" };
            tracing::error!(setting, "a certificate has ended: {refused}");
        } else if left < SOON.as_secs() as i64 {
            tracing::warn!(setting, hours = left / 3_600, "a certificate ends soon");
        }
    }
}

/// Tells Prometheus.
#[derive(Debug)]
pub(super) struct Expiries(pub(super) Arc<Reloaded<Loaded>>);

impl Collector for Expiries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Unix time at which the first certificate of a file ends";
        let mut family = encoder.encode_descriptor("certificate_expiry_timestamp_seconds", help, None, MetricType::Gauge)?;
        for Expiry { setting, ends } in &self.0.get().expiries {
            ConstGauge::new(*ends).encode(family.encode_family(&[("setting", *setting)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::Expiry;

    #[test]
    fn the_first_to_end_counts() {
        let until = |year| {
            let mut params = CertificateParams::new(vec!["negbank".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let expiry = Expiry::of("tls.certificate", &[until(2031), b"no certificate".to_vec().into(), until(2030)]).unwrap();
        assert_eq!(expiry.ends, 1_893_456_000, "2030-01-01");
        assert_eq!(Expiry::of("tls.certificate", &[]), None);
    }
}
