# Sourced by the scripts that install what tests need. Debian and Ubuntu, as root.
# Where nothing can be installed a script says why its tests will be skipped, and exits 0: the tests decide by themselves,
# and REQUIRE turns such a skip into a failure.

# skip TESTS REASON
skip() {
    echo "tests: $1 will be SKIPPED: $2" >&2
    exit 0
}

# apt_install TESTS PACKAGE...: the first of the packages that there is
apt_install() {
    tests=$1
    shift
    [ "$(id -u)" = 0 ] || skip "$tests" "$1 is missing, and installing it needs root"
    command -v apt-get >/dev/null 2>&1 || skip "$tests" "$1 is missing, and there is no apt-get (install it by hand)"
    log=$(mktemp)
    echo "tests: installing $1" >&2
    apt-get update >"$log" 2>&1
    for package in "$@"; do
        if DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package" >>"$log" 2>&1; then
            rm -f "$log"
            return
        fi
    done
    tail -n 15 "$log" >&2
    skip "$tests" "apt-get failed, see above and $log"
}
