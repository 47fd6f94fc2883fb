#!/usr/bin/env bash
# Installs the servers that tests use, where it may; otherwise names those that are missing.
set -euo pipefail

export PATH="$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin)"
missing=()
while read -r program package; do
  command -v "$program" >/dev/null || missing+=("$package")
done <<'PACKAGES'
initdb postgresql
promtool prometheus
amtool prometheus-alertmanager
redis-server redis-server
rabbitmq-server rabbitmq-server
PACKAGES

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
elif [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "== not installed: ${missing[*]}; their tests are skipped (root on Debian or Ubuntu has them installed)"
else
  echo "== installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1  # with this run level the packages start nothing
  { apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >/dev/null ||
    echo "== could not install ${missing[*]}; their tests are skipped, and fail with CI=true"
fi
