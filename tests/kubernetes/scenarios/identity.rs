//! Who one is, and what one may do.

use serde_json::Value;

use crate::stage::Stage;

pub(crate) async fn whoami(stage: &Stage) {
    let kube = &stage.kube;
    // Older kubectls have no such command; the request is the same.
    let asked = kube.run(&["auth", "whoami", "-o", "json"]).await;
    let text = if asked.code == Some(0) {
        asked.text()
    } else {
        let path = &format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", kube.prefix);
        let review = br#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
        kube.ok_with(&["create", "--raw", path, "-f", "-"], review).await
    };
    let review: Value = serde_json::from_str(&text).unwrap();
    let info = &review["status"]["userInfo"];
    assert_eq!(info["username"], stage.user.as_str());
    let groups: Vec<&str> = info["groups"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(groups, stage.groups);
}

pub(crate) async fn can_i(stage: &Stage) {
    let yes = stage.kube.run(&["auth", "can-i", "delete", "pods"]).await;
    assert_eq!((yes.code, yes.text().trim_end()), (Some(0), "yes"), "{yes:?}");
    let no = stage.powerless.run(&["auth", "can-i", "delete", "pods"]).await;
    assert_eq!((no.code, no.text().trim_end()), (Some(1), "no"), "{no:?}");
    let rules = stage.powerless.ok(&["auth", "can-i", "--list"]).await;
    assert!(rules.contains("selfsubjectreviews.authentication.k8s.io"), "{rules}");
}

/// The kube-apiserver's own refusal reaches the user as it is.
pub(crate) async fn forbidden(stage: &Stage) {
    let ended = stage.powerless.run(&["get", "secrets"]).await;
    assert_eq!(ended.code, Some(1));
    let expected = format!(
        "Error from server (Forbidden): secrets is forbidden: User \"{}\" cannot list resource \"secrets\" \
         in API group \"\" in the namespace \"{}\"",
        stage.powerless_user, stage.namespace
    );
    assert_eq!(ended.stderr.trim_end(), expected);
    let ended = stage.powerless.run(&["exec", "nothing", "--", "true"]).await;
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("is forbidden: User"), "{ended:?}");
}
