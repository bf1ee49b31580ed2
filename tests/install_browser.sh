#!/bin/sh
# Install what the tests of HTML pages need: a headless Chromium, by apt, as root.
# Instant where one starts. Where none can be installed it says why those tests will be skipped, and exits 0:
# the tests decide by themselves, and REQUIRE=browser turns such a skip into a failure.
set -u

starts() {
    for program in chromium-headless-shell chromium chromium-browser google-chrome; do
        command -v "$program" >/dev/null 2>&1 && "$program" --version >/dev/null 2>&1 && return 0
    done
    return 1
}

skip() {
    echo "tests/install_browser.sh: the tests in a browser will be SKIPPED: $1" >&2
    exit 0
}

starts && exit 0
[ "$(id -u)" = 0 ] || skip "no Chromium, and installing one needs root"
command -v apt-get >/dev/null 2>&1 || skip "no Chromium, and there is no apt-get (install one by hand)"

log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
echo "tests/install_browser.sh: installing a headless Chromium" >&2
# The shell without windows is half the size; older releases have the whole browser only.
if ! { apt-get update && { apt-get install -y --no-install-recommends chromium-headless-shell ||
        apt-get install -y --no-install-recommends chromium; }; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    skip "apt-get failed, see above and $log"
fi
rm -f "$log"
starts || skip "apt-get succeeded, yet no Chromium starts"
