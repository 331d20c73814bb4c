#!/bin/bash
# A batch job of `selfreward submit`, for: {{run_folder}}
# Made of launch.slurm in the recipe; submit writes it anew. To change more than its keys, set launch.slurm.template.
{{options}}

# -- Where the job works, and its log: one file per job and attempt ------------------------------------------------
cd {{working_folder}} || exit 4
jobs={{jobs_file}}
id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} id=${id:-$SLURM_JOB_ID}
attempt=${SLURM_RESTART_COUNT:-0}                  # of this job; requeueing keeps the id and counts here
restarts=$(( ${1:-0} + attempt ))                  # of this job and of those that it continues
export SELFREWARD_LOG={{logs_folder}}/slurm-$id-$attempt.log
exec >>"$SELFREWARD_LOG" 2>&1
echo "job $id, attempt $attempt, on $SLURM_JOB_NODELIST, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
if grep -qs "\"continues\": \"$id\"" "$jobs"; then
    echo "another job continues this one: nothing to do"
    exit 0
fi
# USR1 before the time limit or a preemption, TERM at the end: the program drops its unfinished shard, exits with 75.
stopping= program=
stop() { stopping=1; [ -n "$program" ] && kill -USR1 "$program" 2>/dev/null; }
trap stop USR1 TERM

# -- Environment ---------------------------------------------------------------------------------------------------
{{environment}}
# The program starts no work that cannot end before Slurm's signal comes.
unset SELFREWARD_END_TIME
end=$(squeue -h -j "$id" -o %e)           # "N/A" without a limit
if [ -n "$end" ] && end=$(date -d "$end" +%s 2>/dev/null); then export SELFREWARD_END_TIME=$((end - {{signal_s}})); fi

# -- Several nodes: what runs on the others ------------------------------------------------------------------------
{{start_nodes}}

# -- The program, once, on the first node --------------------------------------------------------------------------
{{command}} </dev/null &
program=$!
if [ -n "$stopping" ]; then stop; fi                # the signal came before

# -- The next attempt: this job again, or, where Slurm does not allow that, another job ----------------------------
next=
continue_later() {
    [ -n "$next" ] && return                       # never twice
    # A job that is being ended already was cancelled (or Slurm requeues it), unless this attempt of it is preempted.
    local job; job=$(scontrol show job -o "$id")
    if [[ -n $job && $job != *JobState=RUNNING* ]]; then
        [[ $job == *PreemptTime=2* && ! ${job#*PreemptTime=} < ${job#*StartTime=} ]] || return
    fi
    if [ "$restarts" -ge {{max_restarts}} ]; then
        next=none
        echo "launch.slurm.max_restarts: all {{max_restarts}} restarts are used; raise it and submit the recipe again"
        return
    fi
    local answer
    if answer=$(scontrol requeue "$id" 2>&1) || [[ $answer == *"pending execution"* ]]; then
        next=requeued
        echo "requeued"
        return
    fi
    # The variables of this job would be options and counters of the next one.
    local this=$id
    if answer=$(unset $(compgen -e SLURM_ | grep -vx SLURM_CONF) SELFREWARD_LOG
        sbatch --parsable --dependency=afterany:"$this" {{script}} $((restarts + 1))); then
        next=${answer%%;*}
        printf '{"id": "%s", "continues": "%s"}\n' "$next" "$this" >>"$jobs"
        echo "requeueing is off here; job $next continues this one"
    else
        echo "neither requeued nor continued; submit the recipe again to resume the run"
    fi
}

# -- The end of the program, or a signal ---------------------------------------------------------------------------
while :; do
    wait "$program"; code=$?                       # returns at once when a signal came
    kill -0 "$program" 2>/dev/null || break
    # Finished shards are safe whatever happens: arrange the next attempt before Slurm kills this one.
    timeout 5 tail --pid="$program" -f /dev/null
    if [ -n "$stopping" ] && kill -0 "$program" 2>/dev/null; then continue_later; fi
done
wait "$program"; code=$?
if [ $code -eq 75 ] || { [ -n "$stopping" ] && [ $code -gt 128 ]; }; then
    continue_later
elif [[ $next =~ ^[0-9]+$ ]]; then
    scancel "$next"                                # finished or failed in the meantime: there is nothing to continue
fi
echo "ended with exit code $code"
if [ "$next" = requeued ]; then sleep 60; fi       # until Slurm ends this attempt
exit $code
