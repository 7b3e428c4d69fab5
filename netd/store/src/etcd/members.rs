//! The members of the cluster: one is talked to, another when that one fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use etcd_client::{Client, Error};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    EtcdOptions,
    cluster_identity::ClusterIdentity,
    error::{AttemptError, Refusal, RequestError, judge},
    metrics::{RequestMetrics, Rpc},
};
use crate::StoreError;

/// Whether a request that may have been done may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is the same as once.
    Yes,
    /// Only if it is sure that it was not done.
    IfNotDone,
}

/// One member. Its client is made when it is needed and thrown away with the first
/// failure: a new one connects again, reads the certificates and logs in.
struct Member {
    endpoint: String,
    /// With a number, so that only the client that has failed is thrown away.
    client: Mutex<(u64, Option<Client>)>,
}

/// How long one member may take, counted from the start of the attempt.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connect: Duration,
    answer: Duration,
}

/// All members.
pub(super) struct Members {
    all: Vec<Member>,
    /// The place of the one that answered last.
    current: AtomicUsize,
    options: EtcdOptions,
    pub metrics: Arc<RequestMetrics>,
    pub identity: Mutex<ClusterIdentity>,
    /// Where connections live, whoever needs them first: not on the API's thread.
    home: Option<Handle>,
}

impl Members {
    pub(super) fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        options.check()?;
        let member =
            |endpoint: &String| Member { endpoint: endpoint.clone(), client: Mutex::default() };
        Ok(Self {
            all: options.endpoints.iter().map(member).collect(),
            // Not the first one for all nodes.
            current: AtomicUsize::new(fastrand::usize(..options.endpoints.len().max(1))),
            options,
            metrics: Arc::default(),
            identity: Mutex::default(),
            home: Handle::try_current().ok(),
        })
    }

    pub(super) fn options(&self) -> &EtcdOptions {
        &self.options
    }

    /// The name of a member, for people.
    pub(super) fn endpoint(&self, at: usize) -> &str {
        self.all.get(at).map_or("etcd", |member| &member.endpoint)
    }

    /// Sends a request to one member after the other until one answers.
    pub(super) async fn call<T, F>(
        &self,
        rpc: Rpc,
        repeat: Repeat,
        request: impl Fn(Client) -> F,
    ) -> Result<T, RequestError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_some(rpc, repeat, request).await.map(|(_, answer)| answer)
    }

    /// As [`Self::call`], and says who answered.
    pub(super) async fn call_some<T, F>(
        &self,
        rpc: Rpc,
        repeat: Repeat,
        request: impl Fn(Client) -> F,
    ) -> Result<(usize, T), RequestError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + self.options.request_timeout;
        let first = self.current.load(Relaxed);
        let mut missed = Vec::new();
        for tried in 0..self.all.len() {
            let at = (first + tried) % self.all.len();
            let left = deadline.saturating_duration_since(Instant::now());
            // What can be repeated leaves time for the others; so does connecting.
            let share = left / u32::try_from(self.all.len() - tried).unwrap_or(u32::MAX);
            let answer = if repeat == Repeat::Yes { share } else { left };
            match self.attempt(at, rpc, Limits { connect: share, answer }, &request).await {
                Ok(answer) => {
                    self.current.store(at, Relaxed);
                    return Ok((at, answer));
                }
                Err(AttemptError::Refused(why, text)) => {
                    let endpoint = self.endpoint(at).to_owned();
                    return Err(RequestError::Refused { endpoint, why, text });
                }
                Err(AttemptError::NotDone(text)) => missed.push(self.named(at, &text)),
                Err(AttemptError::Unknown(text)) if repeat == Repeat::Yes => {
                    missed.push(self.named(at, &text));
                }
                Err(AttemptError::Unknown(text)) => {
                    missed.push(self.named(at, &format!("{text} (it may have been done)")));
                    self.current.store((at + 1) % self.all.len(), Relaxed);
                    break;
                }
            }
        }
        let why = missed.join("; ");
        Err(RequestError::Unavailable(format!("etcd gave no answer ({}): {why}", rpc.name())))
    }

    /// Sends a request to one member, at most for the request timeout.
    pub(super) async fn call_one<T, F>(
        &self,
        at: usize,
        rpc: Rpc,
        request: impl Fn(Client) -> F,
    ) -> Result<T, RequestError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let limit = self.options.request_timeout;
        let limits = Limits { connect: limit, answer: limit };
        match self.attempt(at, rpc, limits, &request).await {
            Ok(answer) => Ok(answer),
            Err(AttemptError::Refused(why, text)) => {
                Err(RequestError::Refused { endpoint: self.endpoint(at).to_owned(), why, text })
            }
            Err(AttemptError::NotDone(text) | AttemptError::Unknown(text)) => {
                Err(RequestError::Unavailable(self.named(at, &text)))
            }
        }
    }

    /// What happened at a member, and a guess where the cause hides: TLS tells a client
    /// whose certificate is not taken only after it has connected, and the alert may get
    /// lost with the connection.
    fn named(&self, at: usize, text: &str) -> String {
        let endpoint = self.endpoint(at);
        let hint = match endpoint.starts_with("https:") {
            true if text.contains("connection closed") => " (does etcd take the certificate?)",
            false if text.starts_with("connection error") => " (is it an https endpoint?)",
            _ => "",
        };
        format!("{endpoint}: {text}{hint}")
    }

    async fn attempt<T, F>(
        &self,
        at: usize,
        rpc: Rpc,
        limits: Limits,
        request: impl Fn(Client) -> F,
    ) -> Result<T, AttemptError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Some(member) = self.all.get(at) else {
            return Err(AttemptError::NotDone("there is no such member".to_owned()));
        };
        let silent = |limit: Duration| format!("no answer within {} ms", limit.as_millis());
        let deadline = Instant::now() + limits.answer;
        let connecting = timeout(limits.connect, self.client(member)).await;
        let (number, client) =
            connecting.unwrap_or_else(|_| Err(AttemptError::NotDone(silent(limits.connect))))?;
        let start = Instant::now();
        let answer = match timeout_at(deadline, request(client)).await {
            Ok(answer) => answer.map_err(judge),
            Err(_) => Err(AttemptError::Unknown(silent(limits.answer))),
        };
        self.metrics.record(rpc, start.elapsed(), answer.is_err());
        let answer = answer.map_err(|error| self.with_password_of_the_file(error));
        if let Err(
            AttemptError::NotDone(_)
            | AttemptError::Unknown(_)
            | AttemptError::Refused(Refusal::Setup, _),
        ) = answer
        {
            member.forget(number);
        }
        answer
    }

    /// A client that is connected has the password that was in the file then. The next one
    /// reads it again.
    fn with_password_of_the_file(&self, error: AttemptError) -> AttemptError {
        match error {
            AttemptError::Refused(Refusal::Setup, text)
                if self.options.password_file.is_some()
                    && text.contains("authentication failed") =>
            {
                AttemptError::NotDone(text)
            }
            other => other,
        }
    }

    async fn client(&self, member: &Member) -> Result<(u64, Client), AttemptError> {
        if let (number, Some(client)) = &*member.client.lock() {
            return Ok((*number, client.clone()));
        }
        let client = match self.connect(member, true).await {
            // As other clients of etcd, which netd's configuration may be copied from.
            Err(AttemptError::Refused(Refusal::Setup, text)) if text.contains("is not enabled") => {
                self.connect(member, false).await?
            }
            made => made?,
        };
        let mut slot = member.client.lock();
        slot.0 += 1;
        slot.1 = Some(client.clone());
        Ok((slot.0, client))
    }

    /// Connects, truly so only if there is a user to log in; else the first request does.
    async fn connect(&self, member: &Member, with_user: bool) -> Result<Client, AttemptError> {
        let not_done = |error: StoreError| AttemptError::NotDone(error.to_string());
        let options = self.options.connect_options(with_user).map_err(not_done)?;
        let start = Instant::now();
        let endpoint = member.endpoint.clone();
        let made = async move { Client::connect([endpoint], Some(options)).await };
        let made = match &self.home {
            Some(home) => {
                home.spawn(made).await.map_err(|e| AttemptError::NotDone(e.to_string()))?
            }
            None => made.await,
        };
        if with_user && self.options.user.is_some() {
            self.metrics.record(Rpc::Authenticate, start.elapsed(), made.is_err());
        }
        made.map_err(|error| match judge(error) {
            AttemptError::Unknown(text) => AttemptError::NotDone(text),
            other => other,
        })
    }

    /// A stream of this member has failed: its connection may be dead.
    pub(super) fn distrust(&self, at: usize) {
        if let Some(member) = self.all.get(at) {
            member.client.lock().1 = None;
        }
        let next = (at + 1) % self.all.len().max(1);
        let _ = self.current.compare_exchange(at, next, Relaxed, Relaxed);
    }
}

impl Member {
    fn forget(&self, number: u64) {
        let mut slot = self.client.lock();
        if slot.0 == number {
            slot.1 = None;
        }
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("options", &self.options).finish_non_exhaustive()
    }
}
