//! How etcd is reached: checked when the store is opened, used at each connection.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use hyper::Uri;

use crate::StoreError;

/// Where Debian keeps the authorities that it trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// An idle connection with a watch is pinged this often; etcd hangs up on clients
/// that ping more often than every 5 s (`--grpc-keepalive-min-time`).
const PING_EVERY: Duration = Duration::from_secs(6);
/// A member that does not answer a ping within this time has gone.
const PONG_WITHIN: Duration = Duration::from_secs(2);

/// How etcd is reached.
#[derive(Clone)]
pub struct EtcdOptions {
    /// `http://HOST:PORT` or `https://HOST:PORT`, one for each member, at least one.
    pub endpoints: Vec<String>,
    /// For `https` endpoints; `None` trusts the system's authorities and shows no
    /// certificate.
    pub tls: Option<EtcdTls>,
    /// Name and password; not used with an etcd that has no authentication.
    pub user: Option<(String, String)>,
    /// File whose first line is the user's password, instead of the one in `user`. It is read
    /// at each new connection, and a failed authentication makes one: a password that was
    /// changed is used without a restart.
    pub password_file: Option<PathBuf>,
    /// The longest that one request may take, all members tried.
    pub request_timeout: Duration,
    /// A watch that hears nothing for this long asks where etcd is, so that it can be
    /// resumed from there; shorter than etcd keeps its history (compaction).
    pub quiet_time: Duration,
}

/// Certificates, PEM files. They are read at each new connection, so renewed ones
/// are used without a restart.
#[derive(Debug, Clone, Default)]
pub struct EtcdTls {
    /// Authorities that etcd's certificate has to be signed by; else the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
}

impl EtcdOptions {
    /// Requests of 3 s, no certificates, no user.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            tls: None,
            user: None,
            password_file: None,
            request_timeout: Duration::from_secs(3),
            quiet_time: Duration::from_secs(60),
        }
    }

    /// Whether all of it can be used; reads the files, sends nothing.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.endpoints.is_empty() {
            return wrong("etcd", "no endpoint is given; name at least one, as http://HOST:2379");
        }
        for endpoint in &self.endpoints {
            self.check_endpoint(endpoint)?;
        }
        if self.request_timeout.is_zero() || self.quiet_time.is_zero() {
            return wrong("etcd", "a time of nothing; give requests and quiet watches some");
        }
        if self.user.as_ref().is_some_and(|(name, _)| name.is_empty()) {
            return wrong("etcd", "the user's name is empty; give one, or no user");
        }
        self.connect_options(true).map(drop)
    }

    fn check_endpoint(&self, endpoint: &str) -> Result<(), StoreError> {
        let usable = endpoint.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && matches!(uri.path(), "" | "/")
                && uri.query().is_none()
        });
        match usable.as_ref().and_then(Uri::scheme_str) {
            None => wrong(
                &endpoint.escape_debug().to_string(),
                "this is no endpoint of etcd; write http://HOST:PORT or https://HOST:PORT",
            ),
            Some("http") if self.tls.is_some() => {
                wrong(endpoint, "certificates are given, but it is no https endpoint; write https")
            }
            Some(_) => Ok(()),
        }
    }

    /// What a new connection is made with, with or without the user. Reads the certificates.
    pub(super) fn connect_options(&self, with_user: bool) -> Result<ConnectOptions, StoreError> {
        let members = u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX).max(1);
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.request_timeout / members)
            .with_keep_alive(PING_EVERY, PONG_WITHIN)
            // etcd takes pings of a connection without a stream for an attack.
            .with_keep_alive_while_idle(false)
            // A member without a leader refuses at once instead of waiting for one.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = self.user.as_ref().filter(|_| with_user) {
            let password = match &self.password_file {
                Some(file) => password_in(file)?,
                None => password.clone(),
            };
            options = options.with_user(name, &password);
        }
        if self.endpoints.iter().any(|e| e.starts_with("https:")) {
            options = options.with_tls(self.tls.clone().unwrap_or_default().load()?);
        }
        Ok(options)
    }
}

fn password_in(file: &Path) -> Result<String, StoreError> {
    let text = fs::read_to_string(file).or_else(|err| {
        let text = format!("reading etcd.password_file: {err}; make it readable for netd");
        wrong(&file.display().to_string(), &text)
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

impl EtcdTls {
    fn load(&self) -> Result<TlsOptions, StoreError> {
        let authorities = self.ca_file.as_deref().unwrap_or(Path::new(SYSTEM_AUTHORITIES));
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read(authorities, "CERTIFICATE-----")?));
        match (&self.cert_file, &self.key_file) {
            (None, None) => Ok(tls),
            (Some(cert), Some(key)) => {
                let cert = read(cert, "CERTIFICATE-----")?;
                Ok(tls.identity(Identity::from_pem(cert, read(key, "PRIVATE KEY-----")?)))
            }
            (Some(alone), None) => {
                wrong(&alone.display().to_string(), "a certificate without its key; name both")
            }
            (None, Some(alone)) => {
                wrong(&alone.display().to_string(), "a key without its certificate; name both")
            }
        }
    }
}

/// A PEM file that has a section of the kind.
fn read(path: &Path, section: &str) -> Result<Vec<u8>, StoreError> {
    let shown = path.display().to_string();
    let text = fs::read(path).or_else(|err| {
        wrong(&shown, &format!("it can't be read ({err}); name a PEM file that netd may read"))
    })?;
    match String::from_utf8_lossy(&text).contains(section) {
        true => Ok(text),
        false => wrong(&shown, &format!("no PEM section ends in {section}; name a PEM file")),
    }
}

fn wrong<T>(path: &str, reason: &str) -> Result<T, StoreError> {
    Err(StoreError::Failed { path: path.to_owned(), reason: reason.to_owned() })
}

impl fmt::Debug for EtcdOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("tls", &self.tls)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut EtcdOptions)) -> String {
        let mut options = EtcdOptions::new(vec!["http://[::1]:2379".into()]);
        options.check().unwrap();
        change(&mut options);
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert!(refused(|o| o.endpoints.clear()).contains("no endpoint"));
        for bad in ["10.0.0.1:2379", "ftp://a:1", "http://", "http://a:1/v3", "http://a b", ""] {
            let said = refused(|o| o.endpoints.push(bad.into()));
            assert!(said.contains(bad) && said.contains("https://HOST:PORT"), "{said}");
        }
        assert!(refused(|o| o.tls = Some(EtcdTls::default())).contains("write https"));
        assert!(refused(|o| o.request_timeout = Duration::ZERO).contains("a time of nothing"));
        assert!(refused(|o| o.user = Some((String::new(), "x".into()))).contains("name is empty"));
    }

    #[test]
    fn certificates_come_whole() {
        let with = |ca: Option<&str>, cert: Option<&str>, key: Option<&str>| {
            refused(|o| {
                o.endpoints = vec!["https://a:1".into()];
                let [ca_file, cert_file, key_file] = [ca, cert, key].map(|p| p.map(PathBuf::from));
                o.tls = Some(EtcdTls { ca_file, cert_file, key_file });
            })
        };
        assert!(with(Some("/nowhere/ca"), None, None).contains("/nowhere/ca: it can't be read"));
        assert!(with(Some("/dev/null"), None, None).contains("no PEM section"));
        assert!(with(None, Some("/c"), None).contains("without its key"));
        assert!(with(None, None, Some("/k")).contains("without its certificate"));
    }

    #[test]
    fn the_password_is_not_shown() {
        let mut options = EtcdOptions::new(vec![]);
        options.user = Some(("root".into(), "secret".into()));
        let shown = format!("{options:?}");
        assert!(shown.contains("root") && !shown.contains("secret"), "{shown}");
    }
}
