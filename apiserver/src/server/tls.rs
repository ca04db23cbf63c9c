//! The server's keys and certificates: an authority made once, and a server certificate signed anew at every start, because the
//! addresses it must name may have changed. Clients only keep the authority.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{StartError, files};
use crate::object::entropy;

/// What the listeners and the kubeconfig need.
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    /// The authority's certificate, PEM.
    pub(super) authority: String,
}

fn failed(error: impl std::fmt::Display) -> StartError {
    StartError::Certificate(error.to_string())
}

/// Loads or makes the authority (`ca.crt`, `ca.key`), and makes `tls.crt` and `tls.key`.
pub(super) fn identity(
    data: &Path,
    addresses: &[SocketAddr],
    sans: &[String],
) -> Result<Identity, StartError> {
    let (certificate_path, key_path) = (data.join("ca.crt"), data.join("ca.key"));
    let stored = (files::read(&certificate_path)?, files::read(&key_path)?);
    let params = authority_params()?;
    let (authority, key) = match stored {
        (Some(certificate), Some(key)) => (certificate, KeyPair::from_pem(&key).map_err(failed)?),
        _ => {
            let key = KeyPair::generate().map_err(failed)?;
            let certificate = params.self_signed(&key).map_err(failed)?.pem();
            files::write_private(&key_path, &key.serialize_pem())?;
            files::write_public(&certificate_path, &certificate)?;
            (certificate, key)
        }
    };
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().map_err(failed)?;
    let certificate = server_params(addresses, sans)?
        .signed_by(&server_key, &issuer)
        .map_err(failed)?;
    files::write_private(&data.join("tls.key"), &server_key.serialize_pem())?;
    files::write_public(&data.join("tls.crt"), &certificate.pem())?;

    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity {
        config: Arc::new(config),
        authority,
    })
}

/// The same at every start, so that the issuer of a new server certificate matches the stored authority.
fn authority_params() -> Result<CertificateParams, StartError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name = named("margay embedded store authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    long(&mut params);
    Ok(params)
}

fn server_params(
    addresses: &[SocketAddr],
    sans: &[String],
) -> Result<CertificateParams, StartError> {
    let mut params = CertificateParams::new(names(addresses, sans)).map_err(failed)?;
    params.distinguished_name = named("margay embedded store");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    long(&mut params);
    Ok(params)
}

fn serial() -> Result<[u8; 16], StartError> {
    let mut serial = entropy::bytes::<16>().map_err(failed)?;
    // Positive and of full length, as RFC 5280 section 4.1.2.2 wants.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

/// Everything clients may call this server by.
fn names(addresses: &[SocketAddr], sans: &[String]) -> Vec<String> {
    let own = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ];
    let mut names: BTreeSet<String> = own.iter().map(|name| (*name).to_owned()).collect();
    names.extend(
        addresses
            .iter()
            .map(SocketAddr::ip)
            .filter(|ip: &IpAddr| !ip.is_unspecified())
            .map(|ip| ip.to_string()),
    );
    names.extend(sans.iter().cloned());
    names.into_iter().collect()
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// No clock decides over a lab: valid from long ago until far away.
fn long(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_stays_and_the_server_certificate_follows_the_addresses() {
        let directory = tempfile::tempdir().unwrap();
        let first = identity(directory.path(), &[], &[]).unwrap();
        let certificate = std::fs::read_to_string(directory.path().join("tls.crt")).unwrap();
        let second = identity(
            directory.path(),
            &["10.0.0.1:1".parse().unwrap()],
            &["store.example".into()],
        )
        .unwrap();
        assert_eq!(first.authority, second.authority);
        assert_ne!(
            certificate,
            std::fs::read_to_string(directory.path().join("tls.crt")).unwrap()
        );
    }

    #[test]
    fn unspecified_addresses_are_no_names() {
        let names = names(
            &[
                "0.0.0.0:1".parse().unwrap(),
                "[2001:db8::1]:1".parse().unwrap(),
            ],
            &["x".into()],
        );
        assert!(names.contains(&"2001:db8::1".to_owned()) && names.contains(&"x".to_owned()));
        assert!(!names.contains(&"0.0.0.0".to_owned()));
    }
}
