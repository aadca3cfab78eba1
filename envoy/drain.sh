#!/usr/bin/env bash
# Drains an Envoy before it is stopped: no new requests come, and those under way go on to their end.
# It returns when nothing is under way any more (status 0) or the limit is reached (status 3), and leaves
# it to its caller to end Envoy then: systemd, Kubernetes and `./build.sh run` do that anyway.
#
# Needs bash and nothing else, so that it runs in Envoy's own image.
set -uo pipefail

usage() {
  cat <<'END'
usage: drain.sh [--admin HOST:PORT] [--grace SECONDS] [--limit SECONDS] [--stat-prefix NAME]

  --admin        Envoy's admin page (127.0.0.1:9901)
  --grace        how long new connections are still taken after the health check has begun to fail, so
                 that load balancers see that first (5)
  --limit        how long to wait for what is under way, after that (300)
  --stat-prefix  stat_prefix of the listener's connection manager (registry)
END
}

admin=127.0.0.1:9901 grace=5 limit=300 stat_prefix=registry
readonly GONE=4

main() {
  read_arguments "$@"
  admin_call POST /healthcheck/fail >/dev/null ||
    fail "Envoy's admin page at $admin does not answer: nothing was drained"
  say "the health check fails now; new connections are taken for another $grace s"
  sleep "$grace"
  admin_call POST "/drain_listeners$(only_for_clients)" >/dev/null || fail "Envoy at $admin does not stop listening"
  wait_for_requests
}

read_arguments() {
  while (($#)); do
    case $1 in
      --admin) admin=${2:-} ;;
      --grace) grace=${2:-} ;;
      --limit) limit=${2:-} ;;
      --stat-prefix) stat_prefix=${2:-} ;;
      -h | --help)
        usage
        exit
        ;;
      *) bad_usage "unknown argument '$1'" ;;
    esac
    (($# > 1)) || bad_usage "$1 wants a value"
    shift 2
  done
  [[ $admin =~ ^[^:/]+:[0-9]+$ ]] || bad_usage "--admin wants HOST:PORT, not '$admin'"
  [[ $grace =~ ^[0-9]+$ && $limit =~ ^[0-9]+$ ]] || bad_usage "--grace and --limit want whole seconds"
}

bad_usage() {
  printf 'drain.sh: %s\n\n' "$1" >&2
  usage >&2
  exit 2
}

say() { printf 'drain: %s\n' "$*"; }

fail() {
  printf 'drain.sh: %s\n' "$*" >&2
  exit 1
}

# A listener `spool` is Envoy's own, and uploads under way still need it: then only listeners for clients stop, which their
# `traffic_direction` tells.
only_for_clients() {
  [[ -z $(admin_call GET '/stats?filter=^http\.spool\.downstream_rq_active$') ]] || printf '?inboundonly'
}

# Waits until nothing is under way. What is said is said when it changes, not every time.
wait_for_requests() {
  local deadline=$((SECONDS + limit)) figures requests unsent said=
  while :; do
    figures=$(under_way)
    case $? in
      0) ;;
      "$GONE")
        say "Envoy has ended by itself"
        return
        ;;
      *) exit 1 ;;
    esac
    read -r requests unsent <<<"$figures"
    if ((requests == 0 && unsent == 0)); then
      say "nothing is under way any more"
      return
    fi
    if ((SECONDS >= deadline)); then
      say "$(told "$requests") after $limit s: cut off"
      exit 3
    fi
    [[ $requests == "$said" ]] || say "$(told "$requests"), $((deadline - SECONDS)) s at most"
    said=$requests
    sleep 0.5
  done
}

told() {
  if (($1 > 0)); then
    printf 'requests under way: %s' "$1"
  else
    printf 'clients are still to take the ends of their answers'
  fi
}

# How many requests of the registry are under way, and how many bytes of answers Envoy still holds since their clients are
# slow to take them: to Envoy those requests have ended. Returns $GONE if nobody answers.
under_way() {
  local prefix=http.$stat_prefix.downstream_ lines name value requests= unsent=
  lines=$(admin_call GET "/stats?filter=^http\\.$stat_prefix\\.downstream_(rq_active|cx_tx_bytes_buffered)\$") || return "$GONE"
  while IFS=' ' read -r name value; do
    case $name in
      "${prefix}rq_active:") requests=$value ;;
      "${prefix}cx_tx_bytes_buffered:") unsent=$value ;;
    esac
  done <<<"$lines"
  [[ $requests && $unsent ]] || fail "Envoy has no figures ${prefix}*: is --stat-prefix right?"
  printf '%s %s\n' "$requests" "$unsent"
}

# admin_call METHOD PATH: prints the body of the answer; fails if it is not 200.
admin_call() (
  exec 2>/dev/null
  exec 3<>"/dev/tcp/${admin%:*}/${admin##*:}" || exit 1
  printf '%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' \
    "$1" "$2" "$admin" >&3
  IFS=' ' read -r -t 5 _ status _ <&3 && [[ $status == 200 ]] || exit 1
  # To the end of the headers. The body of these answers is a line, and may come in chunks.
  while IFS= read -r -t 5 line <&3 && [[ $line != $'\r' ]]; do :; done
  while IFS= read -r -t 5 line <&3 || [[ -n $line ]]; do
    line=${line%$'\r'}
    [[ $line =~ ^[0-9a-f]*$ ]] || printf '%s\n' "$line"
  done
)

main "$@"
