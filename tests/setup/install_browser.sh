#!/bin/sh
# Install what the tests of HTML pages need: a headless Chromium. Instant where one starts; see apt.sh for where none can be.
set -u
. "$(dirname "$0")/apt.sh"

starts() {
    for program in chromium-headless-shell chromium chromium-browser google-chrome; do
        command -v "$program" >/dev/null 2>&1 && "$program" --version >/dev/null 2>&1 && return 0
    done
    return 1
}

starts && exit 0
# The shell without windows is half the size; older releases have the whole browser only.
apt_install "the tests in a browser" chromium-headless-shell chromium
starts || skip "the tests in a browser" "apt-get succeeded, yet no Chromium starts"
