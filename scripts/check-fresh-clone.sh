#!/usr/bin/env bash
# Does the README's promise hold on a machine that has never seen this project?
# Clones HEAD into an empty directory and runs, with the time of each: npm ci; npm start until its ready line,
# then Ctrl-C, after which no process of it may be left; npm test.
#
#   scripts/check-fresh-clone.sh [--as-user NAME] [--home-0700] [--ready REGEX] [--skip-tests] [--keep]
#
#   --as-user NAME   run as that ordinary user (needs root)
#   --home-0700      clone into a home directory that nobody else may enter
#   --ready REGEX    what the ready line of npm start looks like (default: Cloudphone .*ready, any case)
#   --skip-tests     leave npm test out
#   --keep           leave the clone and the logs where they are
#
# Exit code 0 if all of it held; 1 with the reason of the first failure otherwise; 2 for wrong usage.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
as_user='' closed_home=false ready='cloudphone.*ready' tests=true keep=false
ready_within_s=180 gone_within_s=20
first_port=30000 last_port=30006

usage() { sed -n '2,/^set -/{/^# \{0,1\}/s///p}' "${BASH_SOURCE[0]}"; }
while (($# > 0)); do
  case $1 in
    --as-user) as_user=${2:?--as-user needs a name}; shift 2 ;;
    --home-0700) closed_home=true; shift ;;
    --ready) ready=${2:?--ready needs a regular expression}; shift 2 ;;
    --skip-tests) tests=false; shift ;;
    --keep) keep=true; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "unknown option: $1" >&2; usage >&2; exit 2 ;;
  esac
done

fail() { echo "✘ $*" >&2; exit 1; }
say() { printf '• %s\n' "$*"; }
# What this run has started, and nobody else's: by a mark in the inherited environment, which also finds what has
# detached itself or become another user, and by the clone's path as directory or argument, for what was given a
# clean environment (or, as Postgres' children do, has written its title over it).
mark="CLOUDPHONE_FRESH_CLONE=$$-$(date +%s)"
ours() {
  local pid dir
  for dir in /proc/[0-9]*; do
    pid=${dir#/proc/}
    if grep -zqxF "$mark" "$dir/environ" 2>/dev/null \
      || [[ "$(readlink "$dir/cwd" 2>/dev/null)/" == "$work"/* ]] \
      || tr '\0' ' ' 2>/dev/null <"$dir/cmdline" | grep -F "$work/" >/dev/null; then
      [[ $pid == "$$" || $pid == "$BASHPID" ]] || echo "$pid"
    fi
  done
}

work=$(mktemp -d "${TMPDIR:-/tmp}/cloudphone-fresh-XXXXXX")
home=$work/home
clone=$home/cloudphone
mkdir "$home"

clean_up() {
  local pid
  for pid in $(ours); do kill -KILL "$pid" 2>/dev/null || true; done
  if $keep; then say "kept: $work"; else rm -rf "$work"; fi
}
trap clean_up EXIT

if [[ -n $as_user ]]; then
  ((EUID == 0)) || fail '--as-user needs root'
  id "$as_user" >/dev/null 2>&1 || fail "no such user: $as_user"
fi

# An empty environment but for what a login gives and how this machine reaches the network, so that nothing else of
# the caller's shell helps.
run() {
  local become=() network=() name
  [[ -z $as_user ]] || become=(setpriv --reuid "$as_user" --regid "$(id -g "$as_user")" --init-groups)
  for name in NODE_EXTRA_CA_CERTS SSL_CERT_FILE HTTP_PROXY HTTPS_PROXY NO_PROXY npm_config_registry; do
    [[ -z ${!name-} ]] || network+=("$name=${!name}")
  done
  env -i -C "$clone" HOME="$home" USER="${as_user:-$(id -un)}" PATH="$login_path" LANG=C.UTF-8 NO_COLOR=1 \
    "$mark" "${network[@]}" "${become[@]}" "$@"
}
# The caller's PATH without this project's own binaries: the clone has to bring its own Node.
login_path=$(tr ':' '\n' <<<"$PATH" | grep -v '/node_modules/' | paste -sd:)

for port in $(seq "$first_port" "$last_port"); do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "port $port is taken; stop what listens there first"; fi
done

chmod 0755 "$work" "$home"
# Without hard links: chown below must not reach the objects of the original.
git clone --quiet --no-hardlinks "$root" "$clone"
[[ -z $as_user ]] || chown -R "$as_user:" "$home"
if $closed_home; then chmod 0700 "$home"; fi
say "HEAD $(git -C "$root" rev-parse --short HEAD) in $clone, as ${as_user:-$(id -un)}, home $(stat -c %a "$home"), node $(run node -v)"
if [[ -n $(git -C "$root" status --porcelain) ]]; then say 'note: uncommitted changes are not part of this check'; fi

# --- npm ci
started=$SECONDS
run npm ci >"$work/ci.log" 2>&1 </dev/null || { tail -40 "$work/ci.log"; fail 'npm ci failed'; }
ci_s=$((SECONDS - started))
# An unapproved install script, a deprecation or an unmet peer is ours to mend. EBADENGINE is not: on a machine with an
# older Node some packages ask for a newer one, and the Node that runs them is the one npm has just installed.
if grep -Ein 'warn.*(script|deprecated|peer)' "$work/ci.log"; then fail 'npm ci warns'; fi
say "npm ci: $ci_s s, no warning about install scripts, deprecations or peers; $(grep -c 'EBADENGINE Unsupported' "$work/ci.log" || true) notes about the machine's Node"
[[ -z $(git -C "$clone" -c safe.directory="$clone" status --porcelain) ]] || fail 'npm ci changed tracked files'

# --- npm start, ready, Ctrl-C
set -m # its own process group with default signals, as a terminal would give it
started=$(date +%s%N)
run npm start >"$work/start.log" 2>&1 </dev/null &
start_pid=$!
set +m
until grep -Eiq "$ready" "$work/start.log"; do
  kill -0 "$start_pid" 2>/dev/null || { tail -40 "$work/start.log"; fail 'npm start ended before its ready line'; }
  (((($(date +%s%N) - started)) / 1000000000 < ready_within_s)) || { tail -40 "$work/start.log"; fail "npm start: no ready line within $ready_within_s s"; }
  sleep 0.1
done
start_ms=$((($(date +%s%N) - started) / 1000000))
say "npm start: ready after $start_ms ms: $(grep -Ei -m1 "$ready" "$work/start.log")"

stopping=$(date +%s%N)
kill -INT -- "-$start_pid" # Ctrl-C: the whole foreground group, npm included
wait "$start_pid" && rc=0 || rc=$?
until left=$(ours) && [[ -z $left ]]; do
  if (((($(date +%s%N) - stopping)) / 1000000000 >= gone_within_s)); then
    for pid in $left; do echo "left: $pid $(tr '\0' ' ' <"/proc/$pid/cmdline")" >&2; done
    tail -20 "$work/start.log"
    fail "Ctrl-C left processes behind after $gone_within_s s"
  fi
  sleep 0.1
done
stop_ms=$((($(date +%s%N) - stopping) / 1000000))
say "Ctrl-C: all gone after $stop_ms ms (npm's exit code $rc)"

# --- npm test
test_s='-'
if $tests; then
  started=$SECONDS
  run npm test >"$work/test.log" 2>&1 </dev/null || { tail -60 "$work/test.log"; fail 'npm test failed'; }
  test_s=$((SECONDS - started))
  tail -6 "$work/test.log"
  left=$(ours)
  [[ -z $left ]] || fail "npm test left processes behind: $left"
  say "npm test: $test_s s, no process left"
fi

printf '\n%-10s %-12s %-12s %-10s\n' 'npm ci' 'npm start' 'Ctrl-C' 'npm test'
printf '%-10s %-12s %-12s %-10s\n' "$ci_s s" "$start_ms ms" "$stop_ms ms" "$test_s s"
echo '✔ the fresh clone holds'
