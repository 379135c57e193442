//! The examples below each command's help.

pub(super) const MAIN: &str = "\
Examples:
  moorline quickstart                     a gateway, an agent and a demo cluster on this machine
  moorline cluster add west               register a cluster, get what its agent needs
  moorline kubeconfig west                then: kubectl --context moorline-west get pods
  moorline status                         who is connected

Exit codes: 0 done, 1 it went wrong on the way, 2 the input cannot be right.";

pub(super) const QUICKSTART: &str = "\
Examples:
  moorline quickstart
  moorline quickstart --state-dir ./moorline --write-kubeconfig ./kubeconfig
  moorline quickstart --kubeconfig ~/.kube/config --context kind-west --name west

Everything listens on loopback only. Ctrl-C stops it; the next start finds the same cluster and certificates.";

pub(super) const SERVER: &str = "\
Examples:
  moorline server --state-dir /var/lib/moorline --public-tunnel-address hub.example.com:9449
  moorline cluster list --state-dir /var/lib/moorline";

pub(super) const AGENT: &str = "\
Examples:
  moorline agent --management-cluster-addr hub.example.com:9449
  moorline agent --management-cluster-addr hub.example.com --cert-dir ./west --kubeconfig ~/.kube/config --context west

Where a flag may be repeated, its variable holds one value a line.";

pub(super) const RBAC: &str = "\
Examples:
  moorline agent rbac | kubectl --context west apply -f -
  moorline agent rbac --user-prefix hub: --allow-group hub:dev --map-user ann@example.com=ann --no-extra
  moorline agent rbac --constrained --verb get,list,watch --resource pods,pods/log,deployments.apps --no-extra

Give it the flags that the agent runs with: those that say whom the server may act as decide, the others are left out of
account. Whoever applies the roles must have all rights in them.";

pub(super) const CLUSTER: &str = "\
Examples:
  moorline cluster add west --label region=eu
  moorline cluster manifest west
  moorline cluster list -o wide
  moorline cluster get west -o yaml
  moorline cluster describe west
  moorline cluster delete west";

pub(super) const CLUSTER_ADD: &str = "\
Examples:
  moorline cluster add west | kubectl --context west apply -f -
  moorline cluster add west --replicas 2 --user-prefix hub: --allow-group hub:dev | kubectl --context west apply -f -
  moorline cluster add west -o kustomize --output-dir ./west && kubectl --context west apply -k ./west
  moorline cluster add west -o helm > values.yaml && helm install -n moorline --create-namespace -f values.yaml ...
  moorline cluster add west --join -o yaml | kubectl --context west apply -f -
  moorline cluster add west --dialect guardian | kubectl --context west apply -f -
  moorline cluster add west --dialect guardian --certificate west.crt --key west.key | kubectl --context west apply -f -
  moorline cluster add west --output-dir ./west
  moorline-agent --cert-dir ./west --management-cluster-addr \"$(cat ./west/management-cluster-addr)\"

What is printed holds the agent's key: pipe it, or keep it as you keep keys. To apply it again is harmless.";

pub(super) const CLUSTER_MIGRATE: &str = "\
Examples:
  moorline cluster migrate west | kubectl --context west apply -f -
  moorline cluster migrate west --dialect guardian -o files --output-dir ./west
  moorline cluster describe west              # both certificates, until the new agent carries requests

The agent before stays connected, and is let in again, until one that speaks the new dialect is connected and a request went
through it to the kube-apiserver and back. Then its certificates are retired, and its sessions cut. Whoever lost what was
printed runs the same again; --dialect with the one before goes back.";

pub(super) const CLUSTER_MANIFEST: &str = "\
Examples:
  kubectl apply -f west.yaml                  # a ManagedCluster named west, with the store kubernetes
  moorline cluster manifest west | kubectl --context west apply -f -

It takes the right to create the cluster. A cluster that has a certificate gets no other: revoke that one first.";

pub(super) const CLUSTER_LIST: &str = "\
Examples:
  moorline cluster list
  moorline cluster list -o name
  moorline cluster list -o json | jq -r '.items[].metadata.name'";

pub(super) const CLUSTER_GET: &str = "\
Examples:
  moorline cluster get west
  moorline cluster get west -o yaml";

pub(super) const CLUSTER_DESCRIBE: &str = "\
Examples:
  moorline cluster describe west
  moorline cluster describe west -o json | jq '.events[] | select(.type == \"Warning\")'

Events are kept in the memory of the server: the newest 64 of each cluster since it started.";

pub(super) const CLUSTER_DELETE: &str = "\
Examples:
  moorline cluster delete west
  moorline cluster delete west east";

pub(super) const CLUSTER_REVOKE: &str = "\
Examples:
  moorline cluster revoke west";

pub(super) const CLUSTER_RENAME: &str = "\
Examples:
  moorline cluster add new-name
  moorline cluster delete old-name";

pub(super) const CA: &str = "\
Examples:
  moorline ca status
  moorline ca rotate
  moorline ca finish --abandon gone-for-ever";

pub(super) const CA_STATUS: &str = "\
Examples:
  moorline ca status
  moorline ca status -o json";

pub(super) const CA_ROTATE: &str = "\
Examples:
  moorline ca rotate && moorline ca status";

pub(super) const CA_FINISH: &str = "\
Examples:
  moorline ca finish
  moorline ca finish --abandon west --abandon east";

pub(super) const CA_ABORT: &str = "\
Examples:
  moorline ca abort && moorline ca finish";

pub(super) const CA_IMPORT: &str = "\
Examples:
  moorline ca import-previous --cert backup/tunnel-ca.crt --key backup/tunnel-ca.key --state-dir /var/lib/moorline";

pub(super) const USER: &str = "\
Examples:
  moorline user add ann --group dev > ann.token
  moorline user list
  moorline user revoke ann";

pub(super) const TOKEN: &str = "\
Examples:
  moorline token create west
  moorline token list";

pub(super) const TOKEN_CREATE: &str = "\
Examples:
  moorline token create west > west.token
  moorline token create west --ttl 30m -o json | jq -r .token

The token works once: the agent that joins by it makes its own key, and gets the cluster's certificate for it. It takes the
right to `create` the resource `managedclusters/token` of the gateway's API group.";

pub(super) const TOKEN_LIST: &str = "\
Examples:
  moorline token list
  moorline token list -o json";

pub(super) const TOKEN_REVOKE: &str = "\
Examples:
  moorline token revoke 0123456789ab";

pub(super) const JOIN: &str = "\
Examples:
  moorline agent join --token-file ./west.token --cert-dir ./certs && moorline agent --cert-dir ./certs
  moorline agent join - --cert-dir ./certs < west.token

HTTPS_PROXY and NO_PROXY are honoured. The token is sent only to a server whose authority has the key that the token pins.
Whoever was interrupted runs the same again, with the same token.";

pub(super) const USER_ADD: &str = "\
Examples:
  moorline user add ann --group dev --group ops > ann.token
  moorline user add ann --group dev --write-kubeconfig ./ann.kubeconfig --cluster west
  moorline user add ci --uid 7f3c -o json | jq -r .token

It takes the right to `create` the resource `users` of the gateway's API group, and to `impersonate` the user, the groups
and the uid: nobody gives others more than they could take.";

pub(super) const USER_LIST: &str = "\
Examples:
  moorline user list
  moorline user list -o json";

pub(super) const USER_REVOKE: &str = "\
Examples:
  moorline user revoke ann
  moorline user revoke --token-id 1f0c9a7be2d4";

pub(super) const AUTH: &str = "\
Examples:
  moorline auth can-i get managedclusters west";

pub(super) const CAN_I: &str = "\
Examples:
  moorline auth can-i get managedclusters west
  moorline auth can-i create managedclusters --as ann --as-group dev --as-uid 7
  moorline auth can-i impersonate groups ops
  moorline auth can-i get managedclusters west --quiet && echo welcome";

pub(super) const KUBECONFIG: &str = "\
Examples:
  moorline kubeconfig west
  moorline kubeconfig west --set-current --kubeconfig ./kubeconfig
  moorline kubeconfig west --stdout > west.yaml";

pub(super) const LOGIN: &str = "\
Examples:
  moorline login --server https://gateway.example:9443 --certificate-authority ca.crt \\
      --issuer-url https://login.example.com --client-id moorline --cluster west
  moorline login --issuer-url https://login.example.com --client-id moorline --grant device-code

The client must be a public one, with the redirect URI http://localhost (any port). Tokens are kept in the directory
moorline/tokens of your cache directory, readable for you only; kubectl asks `moorline credential` for them.";

pub(super) const CREDENTIAL: &str = "\
Examples:
  moorline credential --issuer-url https://login.example.com --client-id moorline

Contexts that `moorline login` writes let kubectl run it. It refreshes the token where it is about to end.";

pub(super) const STATUS: &str = "\
Examples:
  moorline status
  moorline status -o wide
  moorline status --check > /dev/null || echo look at it
  moorline status --server https://gateway.example:9443 --certificate-authority ca.crt --token-file token

A certificate is warned about when a sixth of its life is left, or two weeks where the gateway does not say how long that
is; that of a Guardian, which cannot renew it, when sixty days are left. Exit codes: 0 the gateway answered, however its
clusters fare; with --check, 1 where a cluster is not connected or a certificate is about to end; 1 also where the gateway
did not answer, 2 for input that cannot be right.";

pub(super) const DOCTOR: &str = "\
Examples:
  moorline doctor
  moorline doctor -o json | jq '.findings[] | select(.verdict != \"OK\")'
  moorline doctor --tunnel-address hub.example.com:9449

It changes nothing. Exit codes: 0 nothing failed (there may be warnings), 1 something did, 2 the input cannot be right.";

pub(super) const COMPLETION: &str = "\
Examples:
  source <(moorline completion bash)
  moorline completion zsh > \"${fpath[1]}/_moorline\"
  moorline completion fish > ~/.config/fish/completions/moorline.fish";

pub(super) const VERSION: &str = "\
Examples:
  moorline version
  moorline version --client";

pub(super) const STORE: &str = "\
Examples:
  moorline store export --state-dir /var/lib/moorline > clusters.yaml
  moorline store import clusters.yaml --cluster-store kubernetes --kubeconfig ~/.kube/config";

pub(super) const STORE_EXPORT: &str = "\
Examples:
  moorline store export --state-dir /var/lib/moorline > clusters.yaml
  moorline store export --cluster-store kubernetes --kubeconfig ~/.kube/config -o json

Stop the server of an embedded store before. The tunnel's authority is not in it: keep tunnel-ca.crt and tunnel-ca.key of
the state directory apart, since agents trust no other.";

pub(super) const STORE_IMPORT: &str = "\
Examples:
  moorline store import clusters.yaml --cluster-store kubernetes --kubeconfig ~/.kube/config
  moorline store export --cluster-store kubernetes | moorline store import - --state-dir ./restored

Clusters that are there already keep it from beginning, unless they are just so. Those that are not in the file stay.";
