//! Gives users and agents rights in a control plane, and waits until they count.
//!
//! No controller manager runs, so the aggregated roles (`view`, `edit`, `admin`) are empty: roles are made here.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Method;
use serde_json::{Value, json};

use super::{ApiSession, ControlPlane};
use crate::eventually;

/// How long a kube-apiserver may take to see a binding that it has stored.
const EFFECTIVE_WITHIN: Duration = Duration::from_secs(30);

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

impl ControlPlane {
    /// Creates a service account without any right, in a new namespace, and gives its token.
    pub async fn create_service_account(&self, namespace: &str, name: &str) -> Result<String> {
        let session = self.api().open().await?;
        session.create("/api/v1/namespaces", &json!({ "metadata": { "name": namespace } })).await?;
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        session.create(&accounts, &json!({ "metadata": { "name": name } })).await?;
        let request = json!({ "spec": { "expirationSeconds": 86400 } });
        let path = format!("{accounts}/{name}/token");
        let answer = session.call(Method::POST, &path, Some(&request)).await?.ok().context("request a token")?;
        let token = answer.pointer("/status/token").and_then(Value::as_str);
        Ok(token.context("a token request without a token")?.to_owned())
    }

    /// Creates the service account of an agent, which may impersonate and nothing else, and gives its token.
    pub async fn create_agent_service_account(&self, namespace: &str, name: &str) -> Result<String> {
        let token = self.create_service_account(namespace, name).await?;
        let rules = json!([
            { "apiGroups": [""], "resources": ["users", "groups", "serviceaccounts"], "verbs": ["impersonate"] },
            {
                "apiGroups": ["authentication.k8s.io"],
                // Rules know no `userextras/*`: each key stands for itself. These are a service account's, and one of an issuer.
                "resources": [
                    "uids",
                    "userextras/authentication.kubernetes.io/credential-id",
                    "userextras/authentication.kubernetes.io/node-name",
                    "userextras/authentication.kubernetes.io/node-uid",
                    "userextras/authentication.kubernetes.io/pod-name",
                    "userextras/authentication.kubernetes.io/pod-uid",
                    "userextras/example.com/issuer",
                ],
                "verbs": ["impersonate"],
            },
        ]);
        let subject = json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name });
        let user = format!("system:serviceaccount:{namespace}:{name}");
        bind(&self.api().open().await?, &user, &subject, &rules).await?;
        Ok(token)
    }

    /// Gives a user the rights of these RBAC rules in the whole cluster, e.g.
    /// `[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]`.
    pub async fn grant(&self, user: &str, rules: &Value) -> Result<()> {
        let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user });
        bind(&self.api().open().await?, user, &subject, rules).await
    }

    /// Gives a user every right on every resource and every other path.
    pub async fn grant_everything(&self, user: &str) -> Result<()> {
        let rules = json!([
            { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] },
            { "nonResourceURLs": ["*"], "verbs": ["*"] },
        ]);
        self.grant(user, &rules).await
    }
}

/// Creates a role and its binding, and waits until the kube-apiserver's own cache knows them.
async fn bind(session: &ApiSession, user: &str, subject: &Value, rules: &Value) -> Result<()> {
    let role = json!({ "metadata": { "generateName": "test-" }, "rules": rules });
    let role = session.call(Method::POST, &format!("{RBAC}/clusterroles"), Some(&role)).await?.ok()?;
    let name = role.pointer("/metadata/name").and_then(Value::as_str).context("a role without a name")?;
    let binding = json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [subject],
    });
    session.create(&format!("{RBAC}/clusterrolebindings"), &binding).await?;
    let rule = rules.get(0).context("a grant without rules")?;
    let review = json!({ "spec": { "user": user, "resourceAttributes": {
        "group": rule["apiGroups"][0], "resource": rule["resources"][0], "verb": rule["verbs"][0],
        "name": rule["resourceNames"][0],
    } } });
    eventually(EFFECTIVE_WITHIN, || async {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = session.call(Method::POST, path, Some(&review)).await.ok()?;
        (answer.body["status"]["allowed"] == true).then_some(())
    })
    .await
    .with_context(|| format!("the rights of {user} did not come into effect"))
}
