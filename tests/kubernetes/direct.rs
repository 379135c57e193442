//! The scenarios straight to a kube-apiserver, with nothing in between: the proof that the rig is right.

use moorline_testkit::kubernetes::{Credential, Kubectl};
use tokio::sync::OnceCell;

use crate::stage::{Caller, Stage, cluster};

async fn stage(version: Kubectl) -> Option<Stage> {
    static CALLERS: OnceCell<[Caller; 2]> = OnceCell::const_new();
    let cluster = cluster(0).await?;
    let plane = &cluster.plane;
    let [master, nobody] = CALLERS
        .get_or_init(|| async {
            [("master", "system:masters"), ("powerless", "nobodies")].map(|(user, group)| {
                let certificate = plane.client_certificate(user, group).unwrap();
                let credential = Credential::Certificate(&certificate);
                Caller {
                    kubeconfig: plane.kubeconfig(user, &credential).unwrap(),
                    prefix: String::new(),
                    user: user.to_owned(),
                    groups: vec![group.to_owned(), "system:authenticated".to_owned()],
                    via: None,
                }
            })
        })
        .await;
    Stage::set(cluster, version, master, nobody).await
}

crate::scenarios::play_all!(crate::direct::stage);
