# Shared by the scripts; to be sourced. Callers set -euo pipefail.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Installs the Debian packages that are missing: as root, or through sudo.
need_apt() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  local as=()
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || die "please install these Debian packages first: ${missing[*]}"
    as=(sudo -n)
  fi
  "${as[@]}" apt-get update -qq
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# The folder of PostgreSQL's server programs.
postgres_bin() {
  local dir
  dir=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
  [ -n "$dir" ] || dir=$(dirname "$(readlink -f "$(command -v postgres || true)")" 2>/dev/null || true)
  [ -x "$dir/initdb" ] || die "PostgreSQL's server programs are missing: install the package postgresql"
  printf '%s\n' "$dir"
}

free_port() {
  node --input-type=module -e "import { freePort } from '$root/crates/server/e2e/support/port.mjs'; console.log(await freePort())"
}

# initdb and postgres refuse to run as root: an ordinary user runs them then.
as_postgres() {
  if [ "$(id -u)" -eq 0 ]; then
    (cd / && runuser -u "$postgres_user" -- "$@")
  else
    "$@"
  fi
}

# What a script leaves behind it; one that has more to do defines its own.
at_exit() { stop_postgres; }
trap at_exit EXIT

# Starts a private PostgreSQL in a new folder and exports DATABASE_URL. It is
# stopped, and the folder removed, when the script ends.
start_postgres() {
  local bin port
  bin=$(postgres_bin)
  postgres_user=$(id -u postgres >/dev/null 2>&1 && echo postgres || echo nobody)
  local tmp=${TMPDIR:-/tmp}
  as_postgres test -w "$tmp" -a -x "$tmp" || tmp=/tmp
  postgres_dir=$(mktemp -d "$tmp/starling-postgres.XXXXXX")
  [ "$(id -u)" -ne 0 ] || chown "$postgres_user" "$postgres_dir"
  as_postgres "$bin/initdb" -D "$postgres_dir/data" -U starling --auth trust --encoding UTF8 --locale C.UTF-8 --no-sync >"$postgres_dir.log" 2>&1 ||
    { cat "$postgres_dir.log" >&2; die "initdb failed"; }
  port=$(free_port)
  # No fsync: what is tested here is not the disk, and the folder goes anyway.
  as_postgres "$bin/pg_ctl" -D "$postgres_dir/data" -w -t 60 -l "$postgres_dir/data/server.log" -o \
    "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$postgres_dir -c fsync=off -c synchronous_commit=on -c max_connections=300" \
    start >>"$postgres_dir.log" 2>&1 || { cat "$postgres_dir.log" >&2; die "PostgreSQL did not start"; }
  "$bin/createdb" -h 127.0.0.1 -p "$port" -U starling starling
  export DATABASE_URL="postgres://starling@127.0.0.1:$port/starling"
}

stop_postgres() {
  [ -n "${postgres_dir:-}" ] || return 0
  as_postgres "$(postgres_bin)/pg_ctl" -D "$postgres_dir/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$postgres_dir" "$postgres_dir.log"
  postgres_dir=
}

# Builds the web app, unless what it is built from is what it was built from.
web_build() {
  local dir="$root/frontend" stamp sum
  stamp="$dir/node_modules/.starling-build"
  sum=$(cd "$dir" && find src public index.html vite.config.ts package-lock.json -type f ! -name '*.test.*' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
  if [ -f "$dir/dist/index.html" ] && [ "$sum" = "$(cat "$stamp" 2>/dev/null)" ]; then return 0; fi
  say "building the web app"
  (cd "$dir" && npm run --silent build -- --logLevel warn)
  printf '%s' "$sum" >"$stamp"
}

# npm ci, unless what is installed is what the lock file says.
npm_install() {
  local dir=$1 stamp
  [ -f "$dir/package-lock.json" ] || return 0
  stamp="$dir/node_modules/.starling-lock"
  cmp -s "$dir/package-lock.json" "$stamp" 2>/dev/null && return 0
  say "npm ci in ${dir#"$root"/}"
  (cd "$dir" && npm ci --no-audit --no-fund --loglevel=error)
  cp "$dir/package-lock.json" "$stamp"
}
