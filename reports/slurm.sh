#!/bin/bash
# A study on the nodes of a Slurm job: a Ray node on each, and `mosld-bench run` on the first.
#
#   sbatch --nodes=2 --gpus-per-node=8 --time=1-0 reports/slurm.sh smollm2 --methods all
#
# What follows the script's name goes to `mosld-bench run`. Weights have to be seen by every node, under the same path or in
# the folder that its MOSLD_BENCH_MODEL_ROOT names; what else trials read is sent to nodes that lack it. `mosld-bench` and
# `ray` have to be on PATH: activate the environment before sbatch, or where this script is told to below.
#
#SBATCH --job-name=mosld-bench
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --signal=B:TERM@120    # two minutes before the time is over the run ends as by Ctrl-C; finished trials are kept

set -euo pipefail
: "${SLURM_JOB_ID:?start this script by sbatch, such as: sbatch --nodes=2 reports/slurm.sh smollm2}"
# source /path/to/venv/bin/activate

nodes=${SLURM_JOB_NUM_NODES:-1}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p) # and not `head`, whose end would break the pipe
# The address of this node's name, or where that is the node's own alone (127.0.1.1), its first other one.
ip=$(getent ahostsv4 "$(hostname)" | awk '$1 !~ /^127\./ && !ip { ip = $1 } END { print ip }' || true)
[ -n "$ip" ] || ip=$(hostname --all-ip-addresses | awk '{ for (i = NF; i; i--) if ($i ~ /^[0-9.]+$/) ip = $i; print ip }')
port=$((20000 + SLURM_JOB_ID % 10000)) # so that two jobs on one node do not meet
address=$ip:$port

# Without this token nobody else on these nodes can give the cluster work.
RAY_AUTH_TOKEN=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

started=()
stop() {
    trap '' TERM INT
    [ ${#started[@]} -eq 0 ] || kill -TERM "${started[@]}" 2>/dev/null || true
    wait || true
}
trap stop EXIT

cores=(--num-cpus="${SLURM_CPUS_ON_NODE:-$(nproc)}")
ray start --head --node-ip-address="$ip" --port="$port" --include-dashboard=false "${cores[@]}" --block &
started+=($!)
if [ "$nodes" -gt 1 ]; then
    srun --overlap --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$first" \
        --cpus-per-task="${SLURM_CPUS_ON_NODE:-$(nproc)}" ray start --address="$address" "${cores[@]}" --block &
    started+=($!)
fi

python - "$address" "$nodes" <<'PYTHON'
import sys, time
import ray
address, wanted, end, here = sys.argv[1], int(sys.argv[2]), time.monotonic() + 300, 0
while here < wanted:
    if time.monotonic() > end:
        sys.exit(f"{here} of {wanted} Ray nodes have come up within five minutes; the lines above say why.")
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="CRITICAL")
        here = sum(node["Alive"] for node in ray.nodes())
    except (ConnectionError, RuntimeError):
        pass  # the first node is not up yet
    time.sleep(0.5)
PYTHON

mosld-bench run "$@" --ray-address "$address" &
study=$!
started+=("$study")
trap 'kill -TERM "$study"' TERM INT
status=0
wait "$study" || status=$?
if [ "$status" -gt 128 ] && kill -0 "$study" 2>/dev/null; then # `wait` ended by the signal, the run has still to end
    status=0
    wait "$study" || status=$?
fi
exit "$status"
