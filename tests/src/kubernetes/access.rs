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

/// Kubernetes' programs, by the names of their accounts. The token is the file's name.
pub(super) const PROGRAMS: [&str; 3] = ["kube-controller-manager", "kube-scheduler", "kube-proxy"];

/// Who may come with which token: an administrator, the programs, and kubelets.
fn tokens() -> String {
    let mut text = "admins-token,admin,admin,\"system:masters\"\n".to_owned();
    for name in PROGRAMS {
        text += &format!("{name},system:{name},{name}\n");
    }
    for node in KUBELETS {
        text += &format!("{node},system:node:{node},{node},\"system:nodes\"\n");
    }
    text
}

/// The nodes that a cluster may have.
pub(super) const KUBELETS: [&str; 3] = ["n1", "n2", "n3"];

/// Makes all of them.
pub(super) fn make(host: &Host) -> Result<()> {
    fs::create_dir_all(file(host, ""))?;
    write(host, "tokens.csv", &tokens())?;
    // The second one is the Service `kubernetes`.
    write(host, "names", &format!("subjectAltName=IP:{},IP:10.96.0.1\n", host.v4))?;
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
    for name in PROGRAMS.into_iter().chain(KUBELETS) {
        kubeconfig(host, name, &format!("token: {name}"))?;
    }
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
