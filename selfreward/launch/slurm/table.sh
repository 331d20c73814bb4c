#!/bin/bash
# The job that writes the table of a group of runs when they have ended: {{folder}}
# Where runs are continued by other jobs, it writes what there is, and submits itself again to wait for those.
{{options}}
#SBATCH --job-name={{name}}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time={{minutes}}
#SBATCH --output={{output}}
#SBATCH --open-mode=append
#SBATCH --requeue

cd {{working_folder}} || exit 4
{{environment}}
exec {{command}} </dev/null
