#!/bin/sh
# Install what the Slurm tests need: slurm-wlm, slurmdbd, munge and mariadb-server, by apt, as root.
# Instant where all are there. Where they cannot be installed it says why the tests will be skipped, and exits 0:
# the tests decide by themselves, and REQUIRE=slurm turns such a skip into a failure.
set -u

PATH="$PATH:/usr/sbin:/sbin"
POLICY=/usr/sbin/policy-rc.d

missing() {
    for program in slurmctld slurmd slurmdbd srun munged mariadbd mariadb-install-db; do
        command -v "$program" >/dev/null 2>&1 || printf '%s ' "$program"
    done
}

skip() {
    echo "tests/slurm/install.sh: the Slurm tests will be SKIPPED: $1" >&2
    exit 0
}

absent=$(missing)
[ -z "$absent" ] && exit 0
[ "$(id -u)" = 0 ] || skip "missing ${absent}and installing needs root"
command -v apt-get >/dev/null 2>&1 || skip "missing ${absent}and there is no apt-get (install Slurm, munge and MariaDB by hand)"

# The packages would start munge, mariadb and the Slurm daemons as services. The tests bring up daemons of their own
# under a folder of their own, so a policy for the time of the installation keeps the services from starting.
if [ ! -e "$POLICY" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$POLICY" && chmod 755 "$POLICY"
    trap 'rm -f "$POLICY"' EXIT
    trap 'exit 130' INT TERM
fi

log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
echo "tests/slurm/install.sh: installing Slurm, munge and MariaDB (missing: $absent)" >&2
if ! { apt-get update && apt-get install -y --no-install-recommends slurm-wlm slurmdbd munge mariadb-server; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    skip "apt-get failed, see above and $log"
fi
rm -f "$log"
absent=$(missing)
[ -z "$absent" ] || skip "apt-get succeeded, yet these are still missing: $absent"
