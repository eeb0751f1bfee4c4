#!/usr/bin/env bash
# The Helm program, of both versions that are in use, on every shape of the chart.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need go golang-go

chart=$root/deploy/helm/coral-discovery
for version in 3.22.0 4.3.1; do
  GOBIN=$work/bin/${version%%.*} go install "helm.sh/helm/v${version%%.*}/cmd/helm@v$version" >>"$work/go.log" 2>&1
done

# template KUBERNETES CHART FLAG...: render, for that version of Kubernetes.
template() { helm template demo "$2" --namespace mesh --kube-version "$1" "${@:3}"; }

for version in 3 4; do
  helm() { "$work/bin/$version/helm" "$@"; }
  echo "-- Helm $version"
  want "package" 'Successfully packaged' helm package "$chart" --destination "$work/packed/$version"
  # What is packaged is what is installed.
  packed=$(echo "$work/packed/$version"/*.tgz)
  for values in "$chart"/ci/*-values.yaml; do
    shape=$(basename "$values" -values.yaml)
    want "lint $shape" ' 0 chart\(s\) failed' helm lint --strict "$chart" --values "$values"
    want "template $shape" 'wrote .*/deployment.yaml' \
      template 1.37.0 "$packed" --values "$values" --output-dir "$work/rendered/$version/$shape"
  done
  refuse "two replicas on memory" 'store.type is memory' template 1.37.0 "$chart" --set replicaCount=2
  refuse "an unknown value" "'replicas' not allowed" template 1.37.0 "$chart" --set replicas=2
  refuse "an old Kubernetes" 'incompatible with Kubernetes v1.26' template 1.26.9 "$chart"
  refuse "a kubelet that cannot sleep" 'drain.preStopSleep needs Kubernetes 1.30' \
    template 1.29.4 "$chart" --set drain.preStopSleep=5
  want "a kubelet that can" 'preStop:' template 1.30.0 "$chart" --set drain.preStopSleep=5
done
diff --recursive --ignore-blank-lines "$work/rendered/3" "$work/rendered/4"
ok "both render the same"
