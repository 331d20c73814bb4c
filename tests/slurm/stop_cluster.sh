#!/usr/bin/env bash
# Stop the cluster that start_cluster.sh started in DIR, and nothing else: every process is
# identified by the PID *and* start time recorded at launch, or is a child of such a process.
#   bash stop_cluster.sh DIR [--purge]      --purge also removes DIR
set -uo pipefail
PURGE=0; DIR=
for a in "$@"; do case $a in --purge) PURGE=1 ;; *) DIR=$a ;; esac; done
DIR=${DIR:?the folder of the cluster}
[[ $DIR == /* ]] || DIR=$PWD/$DIR
export PATH=$PATH:/usr/sbin:/sbin SLURM_CONF=$DIR/slurm.conf
[ -d "$DIR/pids" ] || { echo "stop_cluster: nothing recorded in $DIR"; exit 0; }

starttime() { # PID -> start time; nothing when it is gone or a zombie that init has not reaped yet
  sed -E 's/^.*\) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" {print $20}'
}
recorded() { # NAME -> its PID if that very process still runs
  local pid start
  [ -r "$DIR/pids/$1" ] && read -r pid start <"$DIR/pids/$1" || return 1
  [ -n "${start:-}" ] && [ "$(starttime "$pid")" = "$start" ] && echo "$pid"
}
end() { # PID START: TERM, up to 10 s, KILL
  local i
  [ "$(starttime "$1")" = "$2" ] || return 0
  kill -TERM "$1" 2>/dev/null
  for i in $(seq 50); do [ "$(starttime "$1")" = "$2" ] || return 0; sleep 0.2; done
  kill -KILL "$1" 2>/dev/null
}

# 1. jobs first, while the daemons can still end them properly
if recorded slurmctld >/dev/null && timeout 5 scontrol ping 2>/dev/null | grep -q "is UP"; then
  timeout 10 squeue -h -a -o %A 2>/dev/null | sort -u | xargs -r timeout 10 scancel --full 2>/dev/null
  for _ in $(seq 60); do [ -z "$(timeout 5 squeue -h -a 2>/dev/null)" ] && break; sleep 0.25; done
fi
# 2. step daemons that are left are children of our slurmd; remember them before it goes
steps=()
for f in "$DIR"/pids/slurmd.*; do
  [ -e "$f" ] || continue
  p=$(recorded "$(basename "$f")") || continue
  for c in $(cat /proc/"$p"/task/*/children 2>/dev/null); do steps+=("$c $(starttime "$c")"); done
done
# 3. daemons, in reverse order of start
for n in $(cd "$DIR/pids" && ls slurmd.* 2>/dev/null) slurmctld munged; do
  [ -e "$DIR/pids/$n" ] || continue
  if p=$(recorded "$n"); then end "$p" "$(starttime "$p")"; echo "stop_cluster: stopped $n ($p)"; fi
  rm -f "$DIR/pids/$n"
done
for s in "${steps[@]:-}"; do [ -n "$s" ] && end ${s% *} ${s#* }; done
rmdir "$DIR/pids" 2>/dev/null
[ $PURGE = 1 ] && rm -rf "$DIR"
exit 0
