//! Who may talk to etcd, and what is said to whom may not.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use netd_store::{
    LeaseStore as _, Store as _, StoreError,
    etcd::{EtcdOptions, EtcdStore, EtcdTls, Rpc},
};
use testbed::{
    block_on, case,
    etcd::{EtcdCluster, EtcdSetup, TlsFiles},
};

use super::{next, until, write, write_at_last};

/// An authority and a certificate for the members' addresses, signed by it.
fn certificates(directory: &Path, setup: &EtcdSetup) -> Result<TlsFiles> {
    fs::create_dir_all(directory)?;
    let names: Vec<String> = setup.places.iter().map(|p| format!("IP:{}", p.address)).collect();
    let names = names.join(",");
    let script = format!(
        "new='openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'
         $new -x509 -subj /CN=authority -keyout ca.key -out ca.pem
         $new -subj /CN=etcd -addext subjectAltName={names} \
             -addext extendedKeyUsage=serverAuth,clientAuth -keyout key.pem -out etcd.csr
         openssl x509 -req -in etcd.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
             -days 2 -copy_extensions copy -out cert.pem"
    );
    let made = Command::new("sh").args(["-ec", &script]).current_dir(directory).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| directory.join(name);
    Ok(TlsFiles { ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem") })
}

fn with(files: &TlsFiles) -> EtcdTls {
    EtcdTls {
        ca_file: Some(files.ca.clone()),
        cert_file: Some(files.cert.clone()),
        key_file: Some(files.key.clone()),
    }
}

#[test]
fn tls_with_certificates_of_both_sides() -> Result<()> {
    case(|bed| {
        let mut setup = EtcdSetup::on_loopback(3);
        let files = certificates(&bed.directory().join("tls"), &setup)?;
        let foreign = certificates(&bed.directory().join("foreign"), &setup)?;
        setup.tls = Some(files.clone());
        let mut cluster = EtcdCluster::start_with(&bed.directory().join("etcd"), setup)?;
        let open = |tls: EtcdTls| -> Result<_> {
            let mut options = EtcdOptions::new(cluster.endpoints());
            options.tls = Some(tls);
            Ok(EtcdStore::open(options)?)
        };
        let good = open(with(&files))?;
        let nameless = open(EtcdTls { cert_file: None, key_file: None, ..with(&files) })?;
        let distrusting = open(with(&foreign))?;
        let impostor = open(EtcdTls { ca_file: Some(files.ca.clone()), ..with(&foreign) })?;
        let renewed = std::sync::Arc::clone(&impostor);
        let system = open(EtcdTls { ca_file: None, ..with(&files) })?;
        let plain = cluster.endpoints().iter().map(|e| e.replace("https", "http")).collect();
        let plain = EtcdStore::open(EtcdOptions::new(plain))?;
        block_on(async {
            let after = write(&good, "/t/a", "1").await?;
            let mut watch = good.watch("/t/", after).await?;
            for (who, store) in [
                ("without a certificate", nameless),
                ("of another authority", distrusting),
                ("with another's certificate", impostor),
                ("trusting the system", system),
                ("without TLS", plain),
            ] {
                let start = Instant::now();
                let error = store.get("/t/a").await.unwrap_err();
                println!("{who}: {error}");
                ensure!(matches!(error, StoreError::Unavailable(_)), "{who}: {error}");
                ensure!(error.to_string().contains("://127."), "{who}: {error}");
                ensure!(start.elapsed() < Duration::from_secs(4), "{who}: {:?}", start.elapsed());
            }
            // Files that have changed are used without opening the store again.
            fs::copy(&files.cert, &foreign.cert)?;
            fs::copy(&files.key, &foreign.key)?;
            renewed.get("/t/a").await?;
            let leader = cluster.leader()?;
            cluster.kill(leader)?;
            write_at_last(&good, "/t/a", "2").await?;
            until(&mut watch, "/t/a", "2").await?;
            Ok(())
        })
    })
}

/// A cluster with users, whose tokens last 2 s.
fn with_users(bed: &testbed::Bed, members: usize) -> Result<EtcdCluster> {
    let mut setup = EtcdSetup::on_loopback(members);
    setup.arguments = vec!["--auth-token-ttl=2".to_owned()];
    let cluster = EtcdCluster::start_with(&bed.directory().join("etcd"), setup)?;
    for command in [
        "user add root:top",
        "user grant-role root root",
        "user add netd:secret",
        "role add net",
        "role grant-permission net --prefix=true readwrite /net/",
        "user grant-role netd net",
        "auth enable",
    ] {
        cluster.ctl(&command.split(' ').collect::<Vec<_>>())?;
    }
    Ok(cluster)
}

fn user(cluster: &EtcdCluster, name: &str, password: &str) -> Result<std::sync::Arc<EtcdStore>> {
    let mut options = EtcdOptions::new(cluster.endpoints());
    options.user = Some((name.to_owned(), password.to_owned()));
    options.quiet_time = Duration::from_millis(200);
    Ok(EtcdStore::open(options)?)
}

#[test]
fn a_user_whose_token_ends() -> Result<()> {
    case(|bed| {
        let mut cluster = with_users(bed, 3)?;
        let store = user(&cluster, "netd", "secret")?;
        block_on(async {
            let after = write(&store, "/net/a", "1").await?;
            let mut watch = store.watch("/net/", after).await?;
            let lease = store.grant(Duration::from_secs(60)).await?;
            // Longer than a token lasts.
            tokio::time::sleep(Duration::from_secs(4)).await;
            write(&store, "/net/a", "2").await?;
            store.keep_alive(lease).await?;
            until(&mut watch, "/net/a", "2").await?;
            // A new watch with a token that has ended.
            let revision = store.list("/net/").await?.revision;
            tokio::time::sleep(Duration::from_secs(4)).await;
            let mut second = store.watch("/net/", revision).await?;
            // A killed member takes its tokens with it.
            for member in [0, 1, 2] {
                cluster.kill(member)?;
                cluster.start_member(member)?;
            }
            let value = format!("{:?}", Instant::now());
            write_at_last(&store, "/net/a", &value).await?;
            until(&mut watch, "/net/a", &value).await?;
            until(&mut second, "/net/a", &value).await?;
            ensure!(store.metrics().read(Rpc::Authenticate).count >= 1);
            Ok(())
        })
    })
}

/// A user's password is changed in etcd and in the file, in whichever order.
#[test]
fn a_password_that_is_changed_is_used_without_a_restart() -> Result<()> {
    case(|bed| {
        let cluster = with_users(bed, 1)?;
        let file = bed.directory().join("password");
        fs::write(&file, "secret\n")?;
        let mut options = EtcdOptions::new(cluster.endpoints());
        options.user = Some(("netd".to_owned(), String::new()));
        options.password_file = Some(file.clone());
        options.quiet_time = Duration::from_millis(200);
        let store = EtcdStore::open(options)?;
        let in_etcd = |password: &str| -> Result<()> {
            for command in [
                "user delete netd",
                &format!("user add netd:{password}"),
                "user grant-role netd net",
            ] {
                let login = ["--user", "root:top"];
                let words: Vec<_> = login.into_iter().chain(command.split(' ')).collect();
                cluster.ctl(&words)?;
            }
            Ok(())
        };
        block_on(async {
            let after = write(&store, "/net/a", "1").await?;
            let mut watch = store.watch("/net/", after).await?;
            in_etcd("second")?;
            let refused = store.get("/net/a").await.unwrap_err().to_string();
            println!("{refused}");
            fs::write(&file, "second\nno password\n")?;
            write_at_last(&store, "/net/a", "2").await?;
            until(&mut watch, "/net/a", "2").await?;
            // The other way round: until etcd follows, the old token may go on.
            fs::write(&file, "third\n")?;
            in_etcd("third")?;
            write_at_last(&store, "/net/a", "3").await?;
            until(&mut watch, "/net/a", "3").await?;
            // A file that is away for a moment is no reason to give up.
            fs::remove_file(&file)?;
            in_etcd("fourth")?;
            let away = store.get("/net/a").await.unwrap_err().to_string();
            ensure!(away.contains("password"), "{away}");
            fs::write(&file, "fourth")?;
            write_at_last(&store, "/net/a", "4").await?;
            until(&mut watch, "/net/a", "4").await?;
            Ok(())
        })
    })
}

#[test]
fn who_may_not_is_told_why() -> Result<()> {
    case(|bed| {
        let cluster = with_users(bed, 1)?;
        let refused = |error: StoreError, said: &str| -> Result<()> {
            println!("{error}");
            let StoreError::Failed { path, reason } = error else { panic!("{error:?}") };
            ensure!(path == cluster.endpoint(0) && reason.contains(said), "{path}: {reason}");
            Ok(())
        };
        block_on(async {
            let wrong = user(&cluster, "netd", "guess")?;
            refused(wrong.get("/net/a").await.unwrap_err(), "authentication failed")?;
            refused(wrong.grant(Duration::from_secs(9)).await.unwrap_err(), "authentication")?;
            let anonymous = EtcdStore::open(EtcdOptions::new(cluster.endpoints()))?;
            refused(anonymous.get("/net/a").await.unwrap_err(), "user name is empty")?;
            let store = user(&cluster, "netd", "secret")?;
            refused(write(&store, "/other/a", "1").await.unwrap_err(), "permission denied")?;
            refused(store.list("/other/").await.unwrap_err(), "permission denied")?;
            let mut watch = store.watch("/other/", 1).await?;
            let error = next(&mut watch).await?.unwrap_err().to_string();
            ensure!(error.contains("permission denied"), "{error}");
            Ok(())
        })
    })
}

/// A user who is given to an etcd that knows none, until it does.
#[test]
fn a_user_before_there_are_any() -> Result<()> {
    case(|bed| {
        let cluster = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        let store = user(&cluster, "root", "top")?;
        block_on(async {
            let after = write(&store, "/t/a", "1").await?;
            let mut watch = store.watch("/t/", after).await?;
            for command in ["user add root:top", "user grant-role root root", "auth enable"] {
                cluster.ctl(&command.split(' ').collect::<Vec<_>>())?;
            }
            let (first, second) =
                (write(&store, "/t/a", "2").await, write(&store, "/t/a", "3").await);
            ensure!(second.is_ok(), "{first:?}, then {second:?}");
            until(&mut watch, "/t/a", "3").await?;
            Ok(())
        })
    })
}

/// Nobody there, and a host that answers no packet: an error in time that says who.
#[test]
fn out_of_reach() -> Result<()> {
    case(|bed| {
        let cluster = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        let live = cluster.endpoint(0);
        // Nobody listens there.
        let dead = live.replace("2379", "1");
        // A listener that accepts no connection: its queue is full.
        let full = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = full.local_addr()?;
        let _queue: Vec<_> = (0..200)
            .map_while(|_| {
                std::net::TcpStream::connect_timeout(&address, Duration::from_millis(20)).ok()
            })
            .collect();
        let silent = format!("http://{address}");
        block_on(async {
            let store = EtcdStore::open(EtcdOptions::new(vec![dead.clone(), silent.clone()]))?;
            let start = Instant::now();
            let error = store.list("/t/").await.unwrap_err().to_string();
            println!("{:?}: {error}", start.elapsed());
            ensure!(start.elapsed() < Duration::from_millis(3500), "{:?}", start.elapsed());
            ensure!(error.contains(&dead) && error.contains("refused"), "{error}");
            ensure!(error.contains(&silent), "{error}");
            // One of three that works is enough, and from then on it is the first.
            let store = EtcdStore::open(EtcdOptions::new(vec![dead, silent, live]))?;
            write(&store, "/t/a", "1").await?;
            let start = Instant::now();
            write(&store, "/t/a", "2").await?;
            ensure!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
            Ok(())
        })
    })
}
