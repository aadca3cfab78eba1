# shellcheck shell=bash
# Builds Moorage's image. Sourced by build.sh, after tools.sh.

image_usage() {
  sed "s/ENVOY_VERSION/$ENVOY_VERSION/" <<'END'
usage: ./build.sh image [--tag NAME] [--base IMAGE|self] [--platform linux/ARCH]

  --tag       the image's name (moorage)
  --base      the image with Envoy that it stands on (envoyproxy/envoy:distroless-v1.40.0); 'self' makes one of
              the Envoy of PyPI and this machine's C library, and pulls nothing
  --platform  linux/amd64 or linux/arm64 (this machine's)

Environment:
  MOORAGE_IMAGE_BUILDER   docker, podman or buildah (the first of them that runs here), with options if it needs some
  MOORAGE_WASM, MOORAGE_CLI, MOORAGE_NATIVE_HASH_LIBRARY
                          the filter, the program and the native hasher, if they have been built already

The program and the native hasher run on the C library of the machine that builds them, or a later one: build them on
Debian 12, or what is as old, for Envoy's images. The hasher is for Envoy ENVOY_VERSION: on another base it is there, but
not used.
END
}

build_image() {
  local tag=moorage base=envoyproxy/envoy:distroless-v$ENVOY_VERSION platform=
  while (($#)); do
    case $1 in
      --tag) tag=${2:-} ;;
      --base) base=${2:-} ;;
      --platform) platform=${2:-} ;;
      -h | --help)
        image_usage
        return
        ;;
      *) image_bad_usage "unknown argument '$1'" ;;
    esac
    [[ ${2:-} ]] || image_bad_usage "$1 wants a value"
    shift 2
  done
  local architecture
  architecture=$(image_architecture "$platform")
  # With its options, such as those for where it keeps images.
  local builder
  read -ra builder <<<"${MOORAGE_IMAGE_BUILDER:-$(image_builder)}"
  have "${builder[0]}" || die "there is no '${builder[0]}' to build an image with"

  local native_hash=
  [[ $base != self && $base != envoyproxy/envoy:*v"$ENVOY_VERSION" ]] ||
    native_hash=/usr/local/lib/libmoorage_native_hash.so
  # podman and buildah would keep what there is after every line of the Containerfile.
  export BUILDAH_LAYERS=false
  image_folder=$(mktemp -d)
  trap 'rm -rf -- "$image_folder"' EXIT
  lay_out_image "$architecture" "$image_folder"
  if [[ $base == self ]]; then
    [[ $architecture == "$(host_architecture)" ]] ||
      die "--base self is made of this machine's files, so it is linux/$(host_architecture) only: name another base"
    base=$tag-base
    lay_out_base "$image_folder/base/root"
    step "Building the image $base"
    "${builder[@]}" build --tag "$base" --file deploy/Containerfile.base "$image_folder/base"
    [[ ${builder[0]##*/} == docker ]] || base=localhost/$base
  fi
  step "Building the image $tag, on $base"
  # An older docker takes --platform only where that is switched on.
  "${builder[@]}" build --tag "$tag" ${platform:+--platform "$platform"} --build-arg "BASE=$base" \
    --build-arg "VERSION=$(workspace_version)" --build-arg "NATIVE_HASH=$native_hash" \
    --file deploy/Containerfile "$image_folder/context"
  step "The image is $tag"
}

image_bad_usage() {
  printf 'build.sh: %s\n\n' "$1" >&2
  image_usage >&2
  exit 2
}

# The first builder that runs here. A docker without its daemon is none.
image_builder() {
  if have docker && docker version >/dev/null 2>&1; then
    printf 'docker\n'
  elif have podman; then
    printf 'podman\n'
  elif have buildah; then
    printf 'buildah\n'
  else
    die "no docker (with its daemon), podman or buildah is here to build an image with"
  fi
}

host_architecture() {
  case $(uname -m) in
    x86_64) printf 'amd64\n' ;;
    aarch64 | arm64) printf 'arm64\n' ;;
    *) uname -m ;;
  esac
}

# image_architecture PLATFORM: which one is meant; this machine's if it is empty.
image_architecture() {
  case $1 in
    '') host_architecture ;;
    linux/amd64 | linux/arm64) printf '%s\n' "${1#linux/}" ;;
    *) die "--platform must be linux/amd64 or linux/arm64, not '$1'" ;;
  esac
}

workspace_version() { sed -n '/^\[workspace.package\]$/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml; }

# lay_out_image ARCHITECTURE FOLDER: all that the image gets, with the rights that it has there.
lay_out_image() {
  local wasm=${MOORAGE_WASM:-} program=${MOORAGE_CLI:-} hasher=${MOORAGE_NATIVE_HASH_LIBRARY:-}
  if [[ -z $wasm ]]; then
    build_filter
    wasm=moorage.wasm
  fi
  if [[ -z $program ]]; then
    step "Building the program moorage for linux/$1, optimised"
    build_for_image "$1" release moorage-cli moorage
    program=$image_file
  fi
  if [[ -z $hasher ]]; then
    step "Building the native hasher for linux/$1"
    build_for_image "$1" native moorage-native-hash libmoorage_native_hash.so
    hasher=$image_file
  fi
  mkdir -p -- "$2/context/cache"
  install -m 0644 -- "$wasm" "$2/context/moorage.wasm"
  install -m 0755 -- "$program" "$2/context/moorage"
  install -m 0644 -- "$hasher" "$2/context/libmoorage_native_hash.so"
}

# build_for_image ARCHITECTURE PROFILE PACKAGE FILE: leaves in image_file where what was built is.
build_for_image() {
  if [[ $1 == "$(host_architecture)" ]]; then
    cargo build --profile "$2" --package "$3"
    image_file=$(cargo_target_dir)/$2/$4
    return
  fi
  local machine target linker
  case $1 in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
  esac
  target=$machine-unknown-linux-gnu linker=$machine-linux-gnu-gcc
  [[ -d $(rustc --print sysroot)/lib/rustlib/$target/lib ]] ||
    die "Rust's $target is missing, to build for linux/$1: 'rustup target add $target'"
  have "$linker" ||
    die "$linker is missing, to build for linux/$1: install it (Debian: apt-get install gcc-${machine/_/-}-linux-gnu)"
  local name=${target//-/_}
  env "CARGO_TARGET_${name^^}_LINKER=$linker" "CC_$name=$linker" \
    cargo build --profile "$2" --package "$3" --target "$target"
  image_file=$(cargo_target_dir)/$target/$2/$4
}

# lay_out_base ROOT: a root file system with Envoy, and no more than it and the program moorage need.
lay_out_base() {
  ensure_envoy
  local root=$1 envoy certificates=/etc/ssl/certs/ca-certificates.crt library
  envoy=$(envoy_binary)
  [[ -r $certificates ]] || die "$certificates is missing: install it (Debian: apt-get install ca-certificates)"
  # The folders that anybody may write to are what a read-only root gets a tmpfs for.
  mkdir -p -- "$root"/{etc/ssl/certs,usr/local/bin,tmp,var/tmp}
  chmod 1777 -- "$root/tmp" "$root/var/tmp"
  install -m 0755 -- "$envoy" "$root/usr/local/bin/envoy"
  install -m 0644 -- "$certificates" "$root$certificates"
  printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
  # At the paths that the loader is told: of it, of Envoy and of the program.
  while read -r library; do
    install -D -m 0755 -- "$library" "$root$library"
  done < <(libraries_of "$envoy" "$image_folder"/context/{moorage,libmoorage_native_hash.so})
}

# libraries_of PROGRAM...: the shared libraries that they need, and the loader.
libraries_of() { ldd "$@" | sed -n 's/.*=> \(\/[^ ]*\) (.*/\1/p; s/^[[:space:]]*\(\/[^ ]*ld-[^ ]*\) (.*/\1/p' | sort -u; }
