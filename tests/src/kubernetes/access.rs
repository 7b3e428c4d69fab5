//! Keys, certificates and tokens of an API server and its clients.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use crate::host::Host;

/// A file of the API server's.
pub(super) fn file(host: &Host, name: &str) -> PathBuf {
    host.directory().join("pki").join(name)
}

pub(super) fn write(host: &Host, name: &str, text: &str) -> Result<()> {
    Ok(fs::write(file(host, name), text)?)
}

/// Makes all of them.
pub(super) fn make(host: &Host) -> Result<()> {
    fs::create_dir_all(file(host, ""))?;
    write(host, "tokens.csv", "admins-token,admin,admin,\"system:masters\"\n")?;
    write(host, "names", &format!("subjectAltName=IP:{}\n", host.v4))?;
    openssl(
        host,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
        -subj /CN=test -keyout ca.key -out ca.crt",
    )?;
    openssl(
        host,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -subj /CN=kube-apiserver -keyout server.key -out server.csr",
    )?;
    openssl(
        host,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 \
        -extfile names -out server.crt",
    )?;
    openssl(host, "genrsa -out accounts.key 2048")?;
    openssl(host, "rsa -in accounts.key -pubout -out accounts.pub")?;
    let netd = file(host, "netd.token");
    kubeconfig(host, "admin", "token: admins-token")?;
    kubeconfig(host, "netd", &format!("tokenFile: {}", netd.display()))
}

fn kubeconfig(host: &Host, account: &str, user: &str) -> Result<()> {
    let (ip, ca) = (host.v4, file(host, "ca.crt"));
    let text = format!(
        "apiVersion: v1\nkind: Config\n\
         clusters: [{{name: c, cluster: {{server: \"https://{ip}:6443\", certificate-authority: {}}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
        ca.display()
    );
    write(host, &format!("{account}.kubeconfig"), &text)
}

fn openssl(host: &Host, arguments: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(arguments.split_whitespace()).current_dir(file(host, ""));
    let output = command.output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl {arguments}: {messages}");
    Ok(())
}
