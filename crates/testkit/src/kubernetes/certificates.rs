//! The certificates and keys of one control plane, made anew for each.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// Everything that a kube-apiserver needs, as PEM.
pub(super) struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    pub(super) server: String,
    pub(super) server_key: String,
    pub(super) service_account_key: String,
    pub(super) service_account_public_key: String,
}

/// A client certificate that the control plane takes as a user.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
}

impl Certificates {
    pub(super) fn generate() -> Result<Self> {
        let mut authority = parameters("test-kubernetes-ca", Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?).context("sign the authority")?;

        let names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc"];
        let mut server = parameters("kube-apiserver", names.map(str::to_owned).to_vec())?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = KeyPair::generate()?;
        let server = server.signed_by(&server_key, &authority).context("sign the server")?;
        let service_account_key = KeyPair::generate()?;
        Ok(Self {
            authority,
            server: server.pem(),
            server_key: server_key.serialize_pem(),
            service_account_key: service_account_key.serialize_pem(),
            service_account_public_key: service_account_key.public_key_pem(),
        })
    }

    pub(super) fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    pub(super) fn client(&self, user: &str, group: &str) -> Result<ClientCertificate> {
        let mut client = parameters(user, Vec::new())?;
        client.distinguished_name.push(DnType::OrganizationName, group);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = client.signed_by(&key, &self.authority).context("sign the client")?;
        Ok(ClientCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn parameters(common_name: &str, names: Vec<String>) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(names).context("certificate names")?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    parameters.not_before = now - Duration::hours(1);
    parameters.not_after = now + Duration::days(2);
    Ok(parameters)
}
