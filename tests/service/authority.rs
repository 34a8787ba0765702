//! An authority that issues certificates, for tests of TLS.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::until(name, 2_090)
    }

    /// One whose own certificate ends when that year begins.
    pub(crate) fn until(name: &str, year: i32) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> String {
        self.0.as_ref().pem()
    }

    pub(crate) fn server(&self, name: &str) -> Issued {
        self.issue(&[name], ExtendedKeyUsagePurpose::ServerAuth, 2_090)
    }

    pub(crate) fn expired(&self, name: &str) -> Issued {
        self.issue(&[name], ExtendedKeyUsagePurpose::ServerAuth, 2_020)
    }

    pub(crate) fn client(&self) -> Issued {
        self.issue(&["trainer"], ExtendedKeyUsagePurpose::ClientAuth, 2_090)
    }

    pub(crate) fn expired_client(&self) -> Issued {
        self.issue(&["trainer"], ExtendedKeyUsagePurpose::ClientAuth, 2_020)
    }

    fn issue(&self, names: &[&str], purpose: ExtendedKeyUsagePurpose, last_year: i32) -> Issued {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages.push(purpose);
        params.not_before = date_time_ymd(2_019, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        Issued { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}
