#!/usr/bin/env bash
# Fetches Consul for tests and says where it is: Debian bullseye's package (1.8.7), since bookworm has none. It is not
# installed, only unpacked into the folder given (default node_modules/.cache/consul), from the mirror that apt is
# configured with, by package lists of its own. Whoever runs this needs apt-get and dpkg, but no rights.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=${1:-node_modules/.cache/consul}
program=$folder/usr/bin/consul
if [[ -x $program ]]; then
  echo "$program"
  exit 0
fi
for needed in apt-get dpkg dpkg-deb; do
  command -v "$needed" >/dev/null || { echo "fetch-consul: $needed is missing: this needs Debian" >&2; exit 1; }
done

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/consul-XXXXXX")
work=$(realpath "$work")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/unpacked"
: >"$work/status"

# The mirror of the first Debian source there is: deb822 files (URIs:) or lines (deb ...).
mirror=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
  grep -Eo '^(URIs:|deb( \[[^]]*\])?) +[a-z]+[^ ]*/debian/?( |$)' | grep -Eo '[a-z]+(\+[a-z]+)?:/[^ ]*' | head -n 1 || true)
mirror=${mirror:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror bullseye main" >"$work/sources.list"

apt=(apt-get -qq
  -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$work/lists" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work"
  -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root)
if ! "${apt[@]}" update >&2 || ! (cd "$work" && "${apt[@]}" download consul >&2); then
  echo "fetch-consul: $mirror does not give Debian bullseye's package consul" >&2
  exit 1
fi
dpkg -x "$work"/consul_*.deb "$work/unpacked"
# In one step, so that nobody finds the half of it; whoever was faster has won.
mv -T "$work/unpacked" "$folder" 2>/dev/null || [[ -x $program ]]
echo "$program"
