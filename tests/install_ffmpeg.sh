#!/bin/sh
# Install what torchcodec needs: FFmpeg's shared libraries (package ffmpeg), by apt, as root.
# Instant where they are there. Where they cannot be installed it says why those tests will be skipped, and exits 0:
# the tests decide by themselves, and REQUIRE=torchcodec turns such a skip into a failure.
set -u

PATH="$PATH:/usr/sbin:/sbin"

there() {
    ldconfig -p 2>/dev/null | grep -q libavdevice
}

skip() {
    echo "tests/install_ffmpeg.sh: the tests of torchcodec will be SKIPPED: $1" >&2
    exit 0
}

there && exit 0
[ "$(id -u)" = 0 ] || skip "no FFmpeg libraries, and installing them needs root"
command -v apt-get >/dev/null 2>&1 || skip "no FFmpeg libraries, and there is no apt-get (install ffmpeg by hand)"

log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
echo "tests/install_ffmpeg.sh: installing FFmpeg's libraries" >&2
if ! { apt-get update && apt-get install -y --no-install-recommends ffmpeg; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    skip "apt-get failed, see above and $log"
fi
rm -f "$log"
there || skip "apt-get succeeded, yet libavdevice is not found"
