# Ray: its head on the first node, which is this one, and a worker on each of the others. They end with this script.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$first" | awk 'NR == 1 {print $1}')
case $address in ""|127.*) address=$(hostname -I | awk '{print $1}') ;; esac      # other nodes do not reach these
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_ADDRESS=$address:$port RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_MODE=token                         # whoever sends it work needs this job's password
[ -n "$RAY_AUTH_TOKEN$RAY_AUTH_TOKEN_PATH" ] || export RAY_AUTH_TOKEN="$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
ray_log={{logs_folder}}/ray-$id-$attempt.log
ray_options="--num-cpus={{cpus}} --object-store-memory={{store}} --disable-usage-stats --block"
srun --overlap --nodes=1 --ntasks=1 --nodelist="$first" {{ray}} start --head --node-ip-address="$address" \
    --port="$port" --include-dashboard=false $ray_options </dev/null >>"$ray_log" 2>&1 &
ray=$!
trap 'kill $ray 2>/dev/null' EXIT
for ((waited = 0; ; waited++)); do
    if (: </dev/tcp/"$address"/"$port") 2>/dev/null; then break; fi
    if [ $waited -ge 120 ] || ! kill -0 $ray 2>/dev/null; then
        echo "Ray's head did not start on $first within $waited s; $ray_log has what it says"
        exit 4
    fi
    sleep 1
done
srun --overlap --nodes={{others}} --ntasks={{others}} --ntasks-per-node=1 --exclude="$first" {{ray}} start \
    --address="$RAY_ADDRESS" $ray_options </dev/null >>"$ray_log" 2>&1 &
ray="$ray $!"
