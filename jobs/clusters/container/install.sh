#!/usr/bin/env bash
# Installs the libraries of requirements.txt in an image of Debian or Ubuntu. Both recipes beside this file run it as root.
# The last line of requirements.txt, the suite itself, is left out: a job brings its own snapshot of the code.
set -euo pipefail

place=${VIDMAE_IMAGE:-/opt/vidmae}

# python3-dev and gcc: triton compiles what starts its kernels. The last three: NCCL opens them for InfiniBand.
apt-get update
apt-get install --yes --no-install-recommends ca-certificates python3 python3-dev python3-venv gcc libc6-dev \
    libibverbs1 ibverbs-providers librdmacm1
rm -rf /var/lib/apt/lists/*

grep --invert-match '^-e ' "$place/requirements.txt" > "$place/libraries.txt"
python3 -m venv "$place/env"
"$place/env/bin/pip" install --no-cache-dir --requirement "$place/libraries.txt"
