//! How every kube-apiserver of ours is told what it must know: keys, users, and a log of each request.
//! Not here: what only one of them needs.

use std::fs;
use std::io;
use std::path::Path;

/// The range of Services.
pub const SERVICES: &str = "10.96.0.0/16";

/// Who asked for what, and whether it was allowed, once it is answered; of a watch, once it has
/// begun. No bodies.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
    "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#;
const POLICY: &str = "audit.json";
/// The log's file in the server's folder.
pub const AUDIT_LOG: &str = "audit.log";

/// Where one server is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its keys and certificates (`certificates`), `tokens.csv`, and what it writes.
    pub folder: &'a Path,
    /// Where etcd listens on 127.0.0.1.
    pub etcd: u16,
    /// The address that it listens on.
    pub bind: &'a str,
    /// The address that others are told.
    pub advertise: &'a str,
    /// Its port.
    pub port: u16,
}

impl Place<'_> {
    /// What the server is told, and the file that it reads what to log from.
    ///
    /// # Errors
    /// When that file cannot be written.
    pub fn flags(&self) -> io::Result<Vec<String>> {
        fs::write(self.folder.join(POLICY), AUDIT)?;
        let file = |name: &str| self.folder.join(name).display().to_string();
        let issuer = "https://kubernetes.default.svc".to_owned();
        let flags = [
            ("etcd-servers", format!("http://127.0.0.1:{}", self.etcd)),
            ("bind-address", self.bind.to_owned()),
            ("advertise-address", self.advertise.to_owned()),
            ("secure-port", self.port.to_string()),
            ("tls-cert-file", file("tls.crt")),
            ("tls-private-key-file", file("tls.key")),
            ("cert-dir", file("certificates")),
            ("service-account-key-file", file("sa.pub")),
            ("service-account-signing-key-file", file("sa.key")),
            ("service-account-issuer", issuer),
            ("token-auth-file", file("tokens.csv")),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("service-cluster-ip-range", SERVICES.to_owned()),
            ("allow-privileged", "true".to_owned()),
            ("audit-policy-file", file(POLICY)),
            ("audit-log-path", file(AUDIT_LOG)),
        ];
        let words = flags.map(|(name, value)| format!("--{name}={value}"));
        Ok(words.into())
    }
}
