//! The pods of this Node, as the API has them: who they are, and who is gone.

use std::{collections::HashMap, sync::Arc};

use netd_domain::PodIdentity;
use tokio::sync::{mpsc, watch};

use crate::{
    annotations::AnnotationPrefix,
    api::ApiServer,
    follow::Follower,
    followed::{News, PodsOf},
    options::ApiAccess,
    pod::PodFacts,
};

/// News of the API that waits for the loop.
const NEWS: usize = 256;

/// The pods of this Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pods {
    /// By the uid that the runtime knows.
    by_uid: HashMap<String, PodFacts>,
    /// All pods were listed once.
    is_synced: bool,
    /// Why the API can't be followed now; what is known of pods is what it was.
    pub problem: Option<String>,
}

impl Pods {
    /// What the API says of a pod. `None`: nothing, or it is another pod of that name.
    pub fn get(&self, pod: &PodIdentity) -> Option<&PodFacts> {
        self.by_uid.get(&pod.uid).filter(|facts| {
            (&facts.identity.namespace, &facts.identity.name) == (&pod.namespace, &pod.name)
        })
    }

    /// Whether the API says that there is no such pod. A pod without a uid, which is not of
    /// Kubernetes, is nothing that it could know. Where it knows no pod at all the Node may have
    /// another name than this one.
    pub fn is_gone(&self, pod: &PodIdentity) -> bool {
        self.is_synced
            && self.problem.is_none()
            && !pod.uid.is_empty()
            && !self.by_uid.is_empty()
            && !self.by_uid.contains_key(&pod.uid)
    }

    /// Takes news of the API.
    pub(crate) fn ingest(&mut self, news: News<PodFacts>) {
        match news {
            News::Failed(why) => {
                self.problem = Some(why);
                return;
            }
            News::Works => {}
            News::Listed(all) => {
                let by_uid = all.into_iter().map(|pod| (pod.identity.uid.clone(), pod));
                (self.by_uid, self.is_synced) = (by_uid.collect(), true);
            }
            News::Changed(pod) => {
                self.by_uid.insert(pod.identity.uid.clone(), *pod);
            }
            News::Deleted(pod) => {
                self.by_uid.remove(&pod.identity.uid);
            }
        }
        self.problem = None;
    }
}

/// Follows the pods of the Node with this name until nobody reads what is returned.
pub fn follow(access: ApiAccess, node_name: String) -> watch::Receiver<Arc<Pods>> {
    let (news, mut told) = mpsc::channel(NEWS);
    let (tell, view) = watch::channel(Arc::default());
    let api = Arc::new(ApiServer::new(access, AnnotationPrefix::default()));
    tokio::spawn(Follower { api, what: PodsOf(node_name), news }.run());
    tokio::spawn(async move {
        let mut pods = Pods::default();
        loop {
            let news = tokio::select! {
                news = told.recv() => news,
                () = tell.closed() => None,
            };
            let Some(news) = news else { return };
            pods.ingest(news);
            // What waits already is told together.
            while let Ok(news) = told.try_recv() {
                pods.ingest(news);
            }
            tell.send_if_modified(|old| {
                let is_new = **old != pods;
                if is_new {
                    *old = Arc::new(pods.clone());
                }
                is_new
            });
        }
    });
    view
}
