#!/usr/bin/env bash
# Start a throw-away real Slurm on this machine: a controller and nodes n1, n2 with made-up CPUs and GPUs, all files in
# DIR, loopback only, no systemd, no cgroups, a munge key of its own.
#
#   bash start_cluster.sh DIR; . DIR/env.sh          (exports SLURM_CONF)
#   bash stop_cluster.sh DIR [--purge]               stops exactly what this script started
#
# Needs root, and installs the packages slurm-wlm and munge where they are missing. SLURM_TEST_PORT (17817) is the first
# of a block of ports. Partitions: main; low (preempted by high: requeued); fleeting (preempted by high: cancelled); high.
set -euo pipefail

DIR=${1:?the folder of the cluster}
NODES=2 CPUS=4 GPUS=2
PORT=${SLURM_TEST_PORT:-17817}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
T0=$SECONDS

die() { echo "start_cluster: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "must run as root (slurmd starts jobs for any user)"
[[ $DIR == /* ]] || DIR=$PWD/$DIR
[[ $DIR != *[[:space:]]* ]] || die "DIR must not contain blanks: $DIR"

# ---------------------------------------------------------------- packages
need=()
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
have slurmctld || need+=(slurmctld)
have slurmd    || need+=(slurmd)
have sbatch    || need+=(slurm-client)
have munged    || need+=(munge)
if [ ${#need[@]} -gt 0 ]; then
  echo "start_cluster: apt-get install ${need[*]}"
  export DEBIAN_FRONTEND=noninteractive
  aptlog=$(mktemp)
  # RUNLEVEL=1: the packages' own services are not started, also where no policy-rc.d forbids it
  install_pkgs() { RUNLEVEL=1 apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${need[@]}" >>"$aptlog" 2>&1; }
  install_pkgs || { apt-get update -qq >>"$aptlog" 2>&1 && install_pkgs; } || { cat "$aptlog" >&2; die "apt-get failed"; }
  rm -f "$aptlog"
fi
export PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF=$DIR/slurm.conf

# ---------------------------------------------------------------- already up?
starttime() { # PID -> start time; nothing when it is gone or a zombie
  sed -E 's/^.*\) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" {print $20}'
}
alive() { # NAME -> 0 when the process this script recorded under NAME still runs
  local pid start
  [ -r "$DIR/pids/$1" ] && read -r pid start <"$DIR/pids/$1" &&
    [ -n "${start:-}" ] && [ "$(starttime "$pid")" = "$start" ]
}
n_up() { sinfo -h -N -o '%N %T' 2>/dev/null | awk '$2 ~ /^(idle|mixed|allocated|completing)$/ {print $1}' | sort -u | grep -c . || true; }
usage() {
  cat <<TXT
cluster:  $NODES nodes up, partitions: $(sinfo -h -o %P | sort -u | tr '\n' ' ') ($(sinfo -V))
use it:   . $DIR/env.sh          (exports SLURM_CONF=$SLURM_CONF)
logs:     $DIR/log/{slurmctld,slurmd.n1,...}.log; finished jobs: $DIR/log/jobcomp.log
stop it:  bash $HERE/stop_cluster.sh $DIR
TXT
}
all_alive() { local n; for n in "$DIR"/pids/*; do alive "${n##*/}" || return 1; done; }   # sinfo alone is up to a minute late
if [ -f "$DIR/slurm.conf" ] && all_alive && [ "$(n_up)" = "$NODES" ]; then
  echo "start_cluster: already running in $DIR"; usage; exit 0
fi
if [ -d "$DIR/pids" ]; then bash "$HERE/stop_cluster.sh" "$DIR" >/dev/null; fi   # half-dead leftovers

# ---------------------------------------------------------------- files
mkdir -p "$DIR"; chmod 0755 "$DIR"
rm -rf "$DIR"/{state,spool,pids,run,log,munge,gpu}   # a fresh cluster each time: job ids start at 1
mkdir -p "$DIR"/{state,spool,pids,run,log,munge,gpu}
HOST=$(hostname -s)
CTLD_PORT=$PORT; NODE_PORT=$((PORT+10))
NODELIST="n[1-$NODES]"
MEM=$(awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo)

cat >"$DIR/slurm.conf" <<CONF
ClusterName=selfreward
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$CTLD_PORT
AuthType=auth/munge
CredType=cred/munge
# cred_expire, at least 5, is also how long a requeued job waits before it may start again
AuthInfo=socket=$DIR/run/munge.socket,cred_expire=5
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
LogTimeFormat=iso8601
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
# no cgroups, no systemd in a container
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.log
AccountingStorageType=accounting_storage/none
# more CPUs, memory and GPUs than the machine has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
# quick turn-around for tests
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
KillWait=5
MinJobAge=300
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=60
BatchStartTimeout=20
CompleteWait=0
ReturnToService=2
TreeWidth=64
JobRequeue=1
EnforcePartLimits=ALL
# a job in partition "high" takes the place of one in "low": SIGCONT+SIGTERM (or the job's
# own --signal), GraceTime seconds, SIGKILL, requeue
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=$NODELIST NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$NODE_PORT-$((NODE_PORT+NODES-1))] CPUs=$CPUS RealMemory=$MEM Gres=gpu:$GPUS State=UNKNOWN
PartitionName=main Nodes=$NODELIST Default=YES PriorityTier=10 PreemptMode=OFF DefaultTime=10 MaxTime=INFINITE State=UP
PartitionName=low  Nodes=$NODELIST PriorityTier=1  PreemptMode=REQUEUE GraceTime=10 DefaultTime=10 State=UP
PartitionName=fleeting Nodes=$NODELIST PriorityTier=1 PreemptMode=CANCEL GraceTime=10 DefaultTime=10 State=UP
PartitionName=high Nodes=$NODELIST PriorityTier=20 PreemptMode=OFF DefaultTime=10 State=UP
CONF
# links to /dev/null stand for the GPU devices (slurmd wants character devices, and mknod needs
# a privilege that some containers lack): Slurm then sets CUDA_VISIBLE_DEVICES per job and task
for ((i = 0; i < GPUS; i++)); do ln -sfn /dev/null "$DIR/gpu/gpu$i"; done
echo "NodeName=$NODELIST Name=gpu File=$DIR/gpu/gpu[0-$((GPUS-1))]" >"$DIR/gres.conf"
echo "CgroupAutomount=no" >"$DIR/cgroup.conf"
cat >"$DIR/env.sh" <<CONF
export SLURM_CONF=$DIR/slurm.conf
CONF

# ---------------------------------------------------------------- daemons
launch() { # NAME CMD... : in its own session, detached from our pipes, PID + start time recorded
  local name=$1; shift
  setsid "$@" </dev/null >>"$DIR/log/$name.out" 2>&1 &
  local pid=$!
  sleep 0.2
  echo "$pid $(starttime "$pid")" >"$DIR/pids/$name"
}
fail() { echo "start_cluster: $*" >&2; tail -n 15 "$DIR"/log/*.out "$DIR"/log/slurm*.log >&2 2>/dev/null || true
         bash "$HERE/stop_cluster.sh" "$DIR" >&2 || true; exit 1; }
wait_for() { # SECONDS WHAT CMD... ; a recorded daemon that has died ends the wait at once
  local end=$((SECONDS + $1)) what=$2 n; shift 2
  until "$@" >/dev/null 2>&1; do
    for n in $(ls "$DIR/pids"); do alive "$n" || fail "$n died while waiting for $what"; done
    [ $SECONDS -lt $end ] || fail "timed out: $what"
    sleep 0.3
  done
}

dd if=/dev/urandom of="$DIR/munge/munge.key" bs=128 count=1 status=none
chmod 0700 "$DIR/munge"; chmod 0400 "$DIR/munge/munge.key"
launch munged munged --foreground --force --num-threads=2 \
  --socket="$DIR/run/munge.socket" --key-file="$DIR/munge/munge.key" --seed-file="$DIR/munge/seed" \
  --pid-file="$DIR/run/munged.pid" --log-file="$DIR/log/munged.log"
wait_for 15 munged sh -c "munge -n -S $DIR/run/munge.socket | unmunge -S $DIR/run/munge.socket"

launch slurmctld slurmctld -D -i -f "$SLURM_CONF"
wait_for 30 slurmctld sh -c 'scontrol ping | grep -q "is UP"'
for ((i = 1; i <= NODES; i++)); do
  mkdir -p "$DIR/spool/n$i"
  launch "slurmd.n$i" slurmd -D -N "n$i" -f "$SLURM_CONF"
done
all_up() { [ "$(n_up)" = "$NODES" ]; }
wait_for 40 "$NODES nodes idle" all_up
echo "start_cluster: ready after $((SECONDS - T0)) s"
sinfo -N -o '%N %P %T %c CPUs %G'
usage
