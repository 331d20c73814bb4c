#!/bin/bash
# An array of batch jobs, one task per run, for: {{folder}}
# A task becomes the script of its run, which requeues or continues it as it does a job of its own.
{{options}}
#SBATCH --array={{tasks}}
#SBATCH --output={{output}}

scripts=(
{{scripts}}
)
exec bash "${scripts[$SLURM_ARRAY_TASK_ID]}"
