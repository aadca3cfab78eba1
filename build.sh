#!/usr/bin/env bash
# The one entry point: builds Moorage's filter, runs it in a local Envoy, tests it, measures it, and
# purges a bucket of abandoned uploads.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/tools.sh
source scripts/tools.sh
# shellcheck source=scripts/image.sh
source scripts/image.sh

usage() {
  cat <<'END'
usage: ./build.sh [command]

  build   build the filter, ./moorage.wasm (the default)
  run     serve a registry on this machine: the filter in Envoy, before a local blob store
  test    run every test
  purge-uploads --older-than AGE [--dry-run] [--endpoint URL] [--bucket NAME] [--prefix FOLDER]
                [--region NAME] [--addressing path|virtual-host]
          remove uploads that were never finished and that nobody wrote to for so long ('24h'):
          from the local blob store, or from the bucket at URL with the AWS_... variables' keys
  dist    put the filter, the program moorage and the native hasher into target/dist/, with their SHA-256 sums and lists of
          what they are made of (CycloneDX), and the filter as OCI layouts (docs/module.md)
  reproduce
          build the filter a second time, of a copy of the sources elsewhere, and compare
  image [--tag NAME] [--base IMAGE|self] [--platform linux/ARCH]
          build an image with Envoy, the filter and the program moorage; --help tells more
  deny    hold the dependencies to deny.toml: licenses, sources, advisories
  bench [gc|edge|images|cores]
          measure the filter beside other registries, or only what collecting garbage costs, an edge node,
          whole images, or many workers and connections; what it finds is kept in target/bench/
  profile show where the time of a cached answer goes; what it finds is kept in target/profile/
  setup   get all the tools that 'run' and 'test' get when they need them
  help    show this

Environment:
  MOORAGE_PORT            port of the registry (5000)
  MOORAGE_ADMIN_PORT      port of Envoy's admin page (9901)
  MOORAGE_STORE_PORT      port of the local blob store (5002)
  MOORAGE_DATA            folder of the local blob store (./data); the bucket is its
                          subfolder registry/
  MOORAGE_DRAIN_SECONDS   how long 'run' waits, when it is stopped, for requests that are under way (30)
  MOORAGE_SCHEMA1_KEY     file with the P-256 key, as a JWK or PEM, by which 'run' signs schema 1
                          manifests for clients from before 2017 (none: such clients get no image)
  MOORAGE_ACCESS          file with the access control by which 'run' lets clients in: the JSON object
                          'access' of docs/access.md (none: everybody may do everything)
  MOORAGE_BENCH_SECONDS   how long one measurement of the benchmark takes (3)
  MOORAGE_BENCH_ROUNDS    how often each is made (3)
  MOORAGE_WASM_TOOLCHAIN  'rustup' or 'debian': how to build for wasm (whichever works)
END
}

main() {
  local command=${1:-build}
  shift $(($# > 0))
  [[ $command == purge-uploads || $command == bench || $command == image ]] || (($# == 0)) || bad_usage "one command at a time"
  case $command in
    build) build_filter ;;
    run) run_registry ;;
    test) run_tests ;;
    purge-uploads) purge_uploads "$@" ;;
    dist) make_dist ;;
    reproduce) reproduce_filter ;;
    image) build_image "$@" ;;
    deny) check_dependencies ;;
    bench) run_bench "$@" ;;
    profile) run_profile ;;
    setup) ensure_all_tools ;;
    help | -h | --help) usage ;;
    *) bad_usage "unknown command '$command'" ;;
  esac
}

bad_usage() {
  printf 'build.sh: %s\n\n' "$1" >&2
  usage >&2
  exit 2
}

ensure_all_tools() {
  ensure_wasm_target
  ensure_envoy
  ensure_debian_packages skopeo docker-registry openssl prometheus
  ensure_node
  ensure_wasm_bindgen_runner
  ensure_go_tools
  ensure_buildah
  ensure_podman
  ensure_podman_compose
  ensure_docker
  ensure_buildkit
  ensure_otel_collector
  ensure_mesh_config
  ensure_kubernetes_validate
  ensure_custom_resources
  ensure_garage
}

build_filter() {
  ensure_wasm_target
  step "Building the filter"
  wasm_cargo build --release --lib
  cp -- "$(wasm_target_dir)/$WASM_TARGET/release/moorage.wasm" moorage.wasm
  local bytes
  bytes=$(wc -c <moorage.wasm)
  step "moorage.wasm: $((bytes)) bytes ($((bytes / 1024)) KiB)"
}

build_blob_store() {
  step "Building the local blob store"
  cargo_blob_store
}

# With the native hasher, which Envoy loads on Linux only; it shares its few crates with the store.
cargo_blob_store() {
  local hasher=()
  ! has_native_hash || hasher=(--package moorage-native-hash)
  cargo build --profile local --package moorage-blob-store "${hasher[@]}"
}

has_native_hash() { [[ $(uname -s) == Linux ]]; }

# The two at the same time: the filter's last step is one long thread, and they share no crates.
build_filter_and_blob_store() {
  ensure_wasm_target
  local log
  log=$(mktemp)
  step "Building the local blob store, beside the filter"
  cargo_blob_store >"$log" 2>&1 &
  local store_build=$!
  # A Ctrl-C, or a filter that can't be built, ends the other build as well.
  trap 'kill "$store_build" 2>/dev/null || true; rm -f -- "$log"' EXIT
  build_filter
  step "Building the local blob store, so far and on:"
  tail -n +1 -f --pid="$store_build" -- "$log" 2>/dev/null &
  local failed=no
  wait "$store_build" || failed=yes
  wait $! || true
  trap - EXIT
  rm -f -- "$log"
  [[ $failed == no ]] || die "the local blob store could not be built: see cargo's message above"
}

# program NAME: where one of the native programs was built.
program() {
  printf '%s/local/%s\n' "$(cargo_target_dir)" "$1"
}

build_cli() {
  step "Building the program moorage"
  cargo build --profile local --package moorage-cli
}

run_tests() {
  ensure_all_tools
  export_tools
  build_filter
  build_blob_store
  build_cli
  MOORAGE_WASM=$PWD/moorage.wasm
  MOORAGE_BLOB_STORE=$(program blob-store)
  MOORAGE_CLI=$(program moorage)
  export MOORAGE_WASM MOORAGE_BLOB_STORE MOORAGE_CLI
  has_native_hash && export_optional MOORAGE_NATIVE_HASH_LIBRARY "$(program libmoorage_native_hash.so)"

  local failed=()
  step "Testing: native, and through Envoy"
  # With those that plain `cargo test` leaves out, since they need what was just got.
  cargo test --workspace --no-fail-fast -- --include-ignored || failed+=("native")
  step "Testing: the same logic as wasm, under Node"
  CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$(wasm_bindgen_runner) \
    wasm_cargo test --lib --no-default-features --features schema1 || failed+=("wasm under Node")
  step "Testing: native, without schema 1"
  cargo test --lib --no-default-features || failed+=("without schema 1")

  ((${#failed[@]} == 0)) || die "tests failed: $(IFS=,; echo "${failed[*]}")"
  step "All tests passed"
}

# Tells the tests where the tools are. Stores and clients that this machine can't have are left out.
export_tools() {
  MOORAGE_ENVOY=$(envoy_binary)
  export MOORAGE_ENVOY
  export_optional MOORAGE_CONFORMANCE "$(go_tool "$CONFORMANCE")"
  export_optional MOORAGE_GARAGE "$(garage_binary)"
  export_optional MOORAGE_CRANE "$(go_tool "$CRANE")"
  export_optional MOORAGE_ORAS "$(go_tool "$ORAS")"
  export_optional MOORAGE_REGCTL "$(go_tool "$REGCTL")"
  export_optional MOORAGE_HELM "$(go_tool "$HELM")"
  export_optional MOORAGE_COSIGN "$(go_tool "$COSIGN")"
  export_optional MOORAGE_BUILDAH "$(storage_client buildah)"
  export_optional MOORAGE_PODMAN "$(storage_client podman)"
  export_optional MOORAGE_PODMAN_COMPOSE "$(podman_compose)"
  export_optional MOORAGE_DOCKER "$(docker_client)"
  export_optional MOORAGE_CTR "$(containerd_client)"
  export_optional MOORAGE_BUILDKITD "$(buildkit_tool "$BUILDKITD")"
  export_optional MOORAGE_BUILDCTL "$(buildkit_tool "$BUILDCTL")"
  export_optional MOORAGE_BUILDX "$(buildkit_tool "$BUILDX")"
  export_optional MOORAGE_OTELCOL "$(test_program otel-collector)"
  export_optional MOORAGE_ISTIO_CONFIG "$(test_program mesh-config istio-config)"
  export_optional MOORAGE_ENVOY_GATEWAY_CONFIG "$(test_program mesh-config envoy-gateway-config)"
  export_optional MOORAGE_KUBERNETES_VALIDATE "$(kubernetes_validate)"
  export_optional MOORAGE_CUSTOM_RESOURCES "$(custom_resources)"
  export_optional MOORAGE_PROMETHEUS "$(command -v prometheus)"
  export_optional MOORAGE_PROMTOOL "$(command -v promtool)"
}

# export_optional NAME PATH: tells the tests of a tool, if it is there. They leave out what needs it else,
# which a person's machine may do; CI leaves nothing out.
export_optional() {
  unset "$1"
  if [[ -x $2 ]]; then
    export "$1=$2"
  elif [[ -n ${CI:-} ]]; then
    die "there is nothing for $1, and CI must run every test: a line 'Skipped' above says why it is missing"
  fi
}

make_dist() {
  have python3 || die "python3 is missing: the lists of components are made by it; install Python 3.10 or later"
  build_filter
  step "Building the program moorage, optimised"
  cargo build --release --package moorage-cli
  local hasher=()
  if has_native_hash; then
    step "Building the native hasher"
    cargo build --profile native --package moorage-native-hash
    hasher=(libmoorage_native_hash.so)
  fi

  local dist
  dist=$(cargo_target_dir)/dist
  rm -rf -- "$dist"
  mkdir -p -- "$dist"
  cp -- moorage.wasm "$(cargo_target_dir)/release/moorage" "${hasher[@]/#/$(cargo_target_dir)/native/}" "$dist"
  step "Packing the module for registries"
  scripts/oci_layout.py image "$dist/moorage.wasm" "$dist/moorage-image"
  scripts/oci_layout.py artifact "$dist/moorage.wasm" "$dist/moorage-artifact"
  step "Listing what they are made of"
  scripts/sbom.py moorage "$dist/moorage.wasm" --target "$WASM_TARGET" >"$dist/moorage.wasm.cdx.json"
  scripts/sbom.py moorage-cli "$dist/moorage" >"$dist/moorage.cdx.json"
  ! has_native_hash || scripts/sbom.py moorage-native-hash "$dist/${hasher[0]}" >"$dist/${hasher[0]}.cdx.json"
  # A layout's index has the digests of all that is in it.
  (cd -- "$dist" && sha256sum -- moorage moorage.wasm "${hasher[@]}" ./*.cdx.json ./*/index.json >SHA256SUMS &&
    sha256sum --check --quiet SHA256SUMS)
  step "All is in $dist:"
  ls -l -- "$dist"
}

# Builds what git has, in another folder, with another target folder and another folder for the dependencies' sources.
reproduce_filter() {
  have git || die "git is missing: the copy of the sources is made by it"
  build_filter
  local module=$PWD/moorage.wasm
  # Not local: the trap runs when the function has ended.
  elsewhere=$(mktemp -d)
  trap 'rm -rf -- "$elsewhere"' EXIT
  mkdir -- "$elsewhere/the sources" "$elsewhere/cargo"
  git ls-files -z --cached --others --exclude-standard |
    xargs -0 cp --parents --no-dereference --target-directory="$elsewhere/the sources" --
  step "Building the filter once more, elsewhere"
  (cd -- "$elsewhere/the sources" && CARGO_HOME=$elsewhere/cargo CARGO_TARGET_DIR=$elsewhere/target ./build.sh build)
  cmp -- "$module" "$elsewhere/the sources/moorage.wasm" ||
    die "the two builds differ: 'strings' shows whether either names a folder of this machine"
  step "The two are the same: $(sha256sum <"$module" | cut -d ' ' -f 1)"
}

# In CI, and wherever the tool is there. The advisories are fetched, which not every machine can do.
check_dependencies() {
  ensure_cargo_tool "$CARGO_DENY" || return 0
  local deny
  deny=$(cargo_tool "$CARGO_DENY")
  step "Checking licenses, sources and bans of the dependencies"
  "$deny" --workspace --log-level error check bans licenses sources
  step "Checking the dependencies for known faults"
  local output status=0
  output=$("$deny" --workspace check advisories 2>&1) || status=$?
  if [[ $output == *"failed to fetch advisory database"* ]]; then
    step "Skipped: known faults of the dependencies, whose list can't be fetched from here"
  elif ((status)); then
    printf '%s\n' "$output" >&2
    die "a dependency has a known fault: update it, or note in deny.toml why it does not matter"
  fi
}

build_fixed_reply() {
  ensure_wasm_target
  step "Building the filter with a fixed reply"
  wasm_cargo build --release --example fixed-reply
}

run_bench() {
  [[ $# == 0 || $* =~ ^(gc|edge|images|cores)$ ]] || bad_usage "bench takes no argument but 'gc', 'edge', 'images' and 'cores'"
  have python3 || die "python3 is missing: the benchmark is written in it; install Python 3.10 or later"
  ensure_envoy
  ensure_debian_packages curl docker-registry wrk
  ensure_distribution
  build_filter
  # As fast as it gets: the less the store takes, the more there is to see of what is before it.
  step "Building the stores and the program moorage, optimised"
  cargo build --release --package moorage-blob-store --package moorage-synthetic-bucket --package moorage-cli

  MOORAGE_WASM=$PWD/moorage.wasm
  MOORAGE_ENVOY=$(envoy_binary)
  MOORAGE_BLOB_STORE=$(cargo_target_dir)/release/blob-store
  MOORAGE_SYNTHETIC_BUCKET=$(cargo_target_dir)/release/synthetic-bucket
  MOORAGE_CLI=$(cargo_target_dir)/release/moorage
  export MOORAGE_WASM MOORAGE_ENVOY MOORAGE_BLOB_STORE MOORAGE_SYNTHETIC_BUCKET MOORAGE_CLI
  if has_native_hash; then
    cargo build --profile native --package moorage-native-hash
    export_optional MOORAGE_NATIVE_HASH_LIBRARY "$(cargo_target_dir)/native/libmoorage_native_hash.so"
  fi
  export_optional MOORAGE_DISTRIBUTION "$(go_tool "$DISTRIBUTION")"
  [[ $* =~ ^(gc|edge)$ ]] || prepare_comparisons
  step "Measuring"
  python3 scripts/bench "$@"
}

# What the filter is measured beside, and with.
prepare_comparisons() {
  ensure_garage
  ensure_go_commands "$CRANE" "$VEGETA"
  export_optional MOORAGE_CRANE "$(go_tool "$CRANE")"
  export_optional MOORAGE_VEGETA "$(go_tool "$VEGETA")"
  build_fixed_reply
  MOORAGE_FIXED_REPLY=$(wasm_target_dir)/$WASM_TARGET/release/examples/fixed_reply.wasm
  export MOORAGE_FIXED_REPLY
  export_optional MOORAGE_GARAGE "$(garage_binary)"
}

run_profile() {
  have python3 || die "python3 is missing: the profile is written in it; install Python 3.10 or later"
  ensure_envoy
  ensure_node
  ensure_debian_packages valgrind
  build_fixed_reply
  step "Building the filter with the names of its functions"
  wasm_cargo build --profile profiling --lib
  step "Building the hot path natively"
  cargo build --profile profiling --example hot-path

  MOORAGE_WASM=$(wasm_target_dir)/$WASM_TARGET/profiling/moorage.wasm
  MOORAGE_FIXED_REPLY=$(wasm_target_dir)/$WASM_TARGET/release/examples/fixed_reply.wasm
  MOORAGE_HOT_PATH=$(cargo_target_dir)/profiling/examples/hot-path
  MOORAGE_ENVOY=$(envoy_binary)
  export MOORAGE_WASM MOORAGE_FIXED_REPLY MOORAGE_HOT_PATH MOORAGE_ENVOY
  step "Measuring (about a minute)"
  python3 scripts/bench/hot_path.py
}

run_registry() {
  read_settings
  ensure_envoy
  build_filter_and_blob_store

  stop_processes_at_the_end
  # In process groups of their own, so that a Ctrl-C reaches this script alone, which drains Envoy first.
  set -m
  start_blob_store
  start_envoy
  set +m
  wait_until "Envoy did not load the filter" status_is "$admin_port" /ready 200
  wait_until "the registry does not answer" is_registry "$port"
  print_welcome
  drain_when_told_to_stop
  watch_processes
}

purge_uploads() {
  build_cli
  local argument
  for argument in "$@"; do
    if [[ $argument == --endpoint ]]; then
      "$(program moorage)" purge-uploads "$@"
      return
    fi
  done
  purge_local_uploads "$@"
}

# Keys are for other stores: the local one refuses signatures.
purge_local_uploads() {
  store_port=$(port_setting MOORAGE_STORE_PORT 5002)
  is_port_taken "$store_port" || start_blob_store_for_purge
  MOORAGE_NO_SIGN_REQUEST=true \
    "$(program moorage)" purge-uploads --endpoint "http://127.0.0.1:$store_port" "$@"
}

# `run` may start meanwhile, so the port is any free one.
start_blob_store_for_purge() {
  data=${MOORAGE_DATA:-data}
  [[ -d $data/registry ]] ||
    die "nothing to purge: no blob store on port $store_port, and no folder '$data/registry'"
  data=$(realpath -- "$data")
  build_blob_store
  stop_processes_at_the_end
  run_dir=$TOOLS/run/purge-uploads-$$
  mkdir -p -- "$run_dir"
  store_port=0
  start_blob_store
  store_port=$(sed -n 's/^listening on .*://p' "$store_log")
  # Nobody reads the log from here on: a store that fails is told by its answers.
  rm -r -- "$run_dir"
}

# From here on every way out of the script, Ctrl-C included, stops what was started.
stop_processes_at_the_end() {
  trap stop_processes EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# The first signal drains, a second one ends at once.
drain_when_told_to_stop() {
  trap 'drain 130' INT
  trap 'drain 143' TERM
}

drain() {
  stop_processes_at_the_end
  step "Stopping when what is under way has ended; Ctrl-C stops at once"
  # Nobody balances loads here, so nobody has to see first that this one goes.
  envoy/drain.sh --admin "127.0.0.1:$admin_port" --grace 0 --limit "$drain_seconds" &
  wait $! || true
  exit "$1"
}

read_settings() {
  port=$(port_setting MOORAGE_PORT 5000)
  admin_port=$(port_setting MOORAGE_ADMIN_PORT 9901)
  store_port=$(port_setting MOORAGE_STORE_PORT 5002)
  if [[ $port == "$admin_port" || $port == "$store_port" || $admin_port == "$store_port" ]]; then
    die "MOORAGE_PORT, MOORAGE_ADMIN_PORT and MOORAGE_STORE_PORT must differ"
  fi
  require_free_port MOORAGE_PORT "$port"
  require_free_port MOORAGE_ADMIN_PORT "$admin_port"
  require_free_port MOORAGE_STORE_PORT "$store_port"

  drain_seconds=${MOORAGE_DRAIN_SECONDS:-30}
  [[ $drain_seconds =~ ^[0-9]+$ ]] ||
    die "MOORAGE_DRAIN_SECONDS must be whole seconds, not '$drain_seconds'"
  data=${MOORAGE_DATA:-data}
  mkdir -p -- "$data" || die "MOORAGE_DATA must be a folder that can be written, not '$data'"
  data=$(realpath -- "$data")
  schema1_key=${MOORAGE_SCHEMA1_KEY:-}
  [[ -z $schema1_key || -r $schema1_key ]] ||
    die "MOORAGE_SCHEMA1_KEY must be a file that can be read, not '$schema1_key'"
  access_file=${MOORAGE_ACCESS:-}
  [[ -z $access_file || -r $access_file ]] ||
    die "MOORAGE_ACCESS must be a file that can be read, not '$access_file'"
  run_dir=$TOOLS/run/$port
  mkdir -p -- "$run_dir"
}

port_setting() {
  local name=$1 value=${!1:-$2}
  if ! [[ $value =~ ^[1-9][0-9]{0,4}$ ]] || ((value > 65535)); then
    die "$name must be a port, 1 to 65535, not '$value'"
  fi
  printf '%s\n' "$value"
}

require_free_port() {
  if is_port_taken "$2"; then
    die "port $2 is taken: stop what listens there, or set $1 to another port"
  fi
}

is_port_taken() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start_blob_store() {
  step "Starting the blob store"
  store_log=$run_dir/blob-store.log
  : >"$store_log"
  "$(program blob-store)" --listen "127.0.0.1:$store_port" --root "$data" --bucket registry \
    </dev/null >"$store_log" 2>&1 &
  store_pid=$!
  wait_until "the blob store does not listen" grep -q '^listening on ' "$store_log"
}

start_envoy() {
  step "Starting Envoy"
  envoy_log=$run_dir/envoy.log
  write_bootstrap "$run_dir/envoy.yaml"
  "$(envoy_binary)" --config-path "$run_dir/envoy.yaml" --disable-hot-restart --log-level warning \
    </dev/null >"$envoy_log" 2>&1 &
  envoy_pid=$!
}

# Puts this machine's ports and paths into the bootstrap, which has those of envoy/settings/local.yaml. It is text that
# is replaced, so that running a registry takes no second program to be built. The quotes around the replacements keep
# bash from reading meaning into their characters.
write_bootstrap() {
  local text
  text=$(<envoy/local.yaml)
  # Each is there once, at least; a port of its own is put in before another one's number can be that.
  text=${text//'port_value: 5000'/"port_value: PORT"}
  text=${text//'port_value: 9901'/"port_value: ADMIN_PORT"}
  text=${text//'port_value: 5002'/"port_value: $store_port"}
  text=${text//'"127.0.0.1:5002"'/"\"127.0.0.1:$store_port\""}
  text=${text//'port_value: PORT'/"port_value: $port"}
  text=${text//'port_value: ADMIN_PORT'/"port_value: $admin_port"}
  text=${text//'filename: moorage.wasm'/"filename: \"$(yaml_escape "$PWD/moorage.wasm")\""}
  text=${text//'path: access.log'/"path: \"$(yaml_escape "$run_dir/access.log")\""}
  text=${text//'"legacy": {}'/"\"legacy\": { $(schema1_key_field) }$(access_field)"}
  local moorage=$'                  - name: moorage\n'
  ! has_native_hash || text=${text/"$moorage"/"$(native_hash_filter)"$'\n'"$moorage"}
  # It may hold a key.
  rm -f -- "$1"
  (umask 077 && printf '%s\n' "$text" >"$1")
}

# The filter that hashes in native code.
native_hash_filter() {
  local text
  text=$(<envoy/native-hash.yaml)
  printf '%s' "${text//'/usr/local/lib/libmoorage_native_hash.so'/"\"$(yaml_escape "$(program libmoorage_native_hash.so)")\""}"
}

# The field of the plugin's configuration that has the key: a JWK is JSON already, PEM becomes a text.
schema1_key_field() {
  [[ -n $schema1_key ]] || return 0
  local key
  key=$(<"$schema1_key")
  key=${key//$'\r'/}
  if [[ $key =~ ^[[:space:]]*\{ ]]; then
    key=${key//$'\n'/ }
  else
    key="\"${key//$'\n'/\\n}\""
  fi
  printf '"schema1_key": %s' "$key"
}

# The object of the plugin's configuration that says who may do what, on one line. Line ends are but spaces in JSON.
access_field() {
  [[ -n $access_file ]] || return 0
  local access
  access=$(<"$access_file")
  access=${access//$'\r'/}
  printf ', "access": %s' "${access//$'\n'/ }"
}

# Escapes a text for a double-quoted YAML string.
yaml_escape() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  printf '%s\n' "$text"
}

# wait_until COMPLAINT CONDITION...: polls, for 30 seconds at most, while all processes live.
wait_until() {
  local complaint=$1 deadline=$((SECONDS + 30))
  shift
  until "$@"; do
    exit_if_one_died
    if ((SECONDS >= deadline)); then
      show_logs
      die "$complaint (waited 30 seconds; logs are in $run_dir)"
    fi
    sleep 0.1
  done
}

# Is that a registry? With access control it asks who is there.
is_registry() { status_is "$1" /v2/ 200 || status_is "$1" /v2/ 401; }

# status_is PORT PATH STATUS: does a GET on this machine answer so? Needs no curl.
status_is() (
  exec 2>/dev/null
  exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
  IFS=' ' read -r -t 5 _ status _ <&3 && [[ $status == "$3" ]]
)

print_welcome() {
  local who="anybody may pull, push and delete: MOORAGE_ACCESS=file.json says who may do what"
  [[ -z $access_file ]] || who="by the rules in $access_file"
  cat <<END

Moorage serves http://127.0.0.1:$port
  access              $who
  Envoy's admin page  http://127.0.0.1:$admin_port
  images are kept in  $data/registry
  logs are in         $run_dir (envoy.log, access.log)

Try:
  curl http://127.0.0.1:$port/readyz
  curl http://127.0.0.1:$port/v2/<name>/manifests/<tag>
  skopeo inspect --tls-verify=false docker://127.0.0.1:$port/<name>:<tag>
To serve what CNCF Distribution (registry:2, registry:3) wrote, set MOORAGE_DATA to the folder whose
subfolder registry/ holds its docker/registry/v2.

Ctrl-C stops it, once requests that are under way have ended; a second one stops it at once.
END
}

# A child that ends by itself is a fault. Signals leave through the traps.
watch_processes() {
  wait -n "$store_pid" "$envoy_pid" || true
  exit_if_one_died
}

exit_if_one_died() {
  if [[ -n ${store_pid:-} ]] && ! kill -0 "$store_pid" 2>/dev/null; then
    report_death "the blob store" "$store_pid" "$store_log"
  elif [[ -n ${envoy_pid:-} ]] && ! kill -0 "$envoy_pid" 2>/dev/null; then
    report_death "Envoy" "$envoy_pid" "$envoy_log"
  fi
}

report_death() {
  local who=$1 pid=$2 log=$3 status=0
  wait "$pid" || status=$?
  show_log "$log"
  die "$who ended by itself with status $status; what else was started is stopped"
}

show_logs() {
  [[ -z ${store_log:-} ]] || show_log "$store_log"
  [[ -z ${envoy_log:-} ]] || show_log "$envoy_log"
}

show_log() {
  printf '%s\n' "--- the end of $1" >&2
  tail -n 20 -- "$1" >&2
  printf '%s\n' '---' >&2
}

# Ends all processes and waits for them, so that the ports are free when the script is gone.
stop_processes() {
  trap '' HUP INT TERM
  local pid pids=() tries=50
  for pid in ${envoy_pid:-} ${store_pid:-}; do
    kill -TERM "$pid" 2>/dev/null && pids+=("$pid")
  done
  while ((${#pids[@]} && tries-- > 0)) && kill -0 "${pids[@]}" 2>/dev/null; do
    sleep 0.1
  done
  for pid in "${pids[@]}"; do
    kill -KILL "$pid" 2>/dev/null || true
  done
  wait
}

main "$@"
