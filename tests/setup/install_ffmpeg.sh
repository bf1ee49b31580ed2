#!/bin/sh
# Install what torchcodec needs: FFmpeg's shared libraries. Instant where they are there; see apt.sh for where they cannot be.
set -u
. "$(dirname "$0")/apt.sh"

there() {
    PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep -q libavdevice
}

there && exit 0
apt_install "the tests of torchcodec" ffmpeg
there || skip "the tests of torchcodec" "apt-get succeeded, yet libavdevice is not found"
