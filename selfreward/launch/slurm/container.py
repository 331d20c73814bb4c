"""The container of a batch job: what stands between `srun` with its options and a program in the image."""

from pathlib import Path

from selfreward.recipe import ApptainerSection, EnrootSection, SlurmSection


def inside(slurm: SlurmSection, working_folder: Path) -> list[str]:
    """Return the arguments of `srun` before a program; none without a container."""
    match slurm.container:
        case None:
            return []
        case ApptainerSection(image=image, binds=binds):
            gpus = ["--nv"] if slurm.gpus else []
            return ["apptainer", "exec", *gpus, *(f"--bind={bind}" for bind in binds), image]
        case EnrootSection(image=image, mounts=mounts):
            found = [f"--container-image={image}", f"--container-workdir={working_folder}"]
            return [*found, f"--container-mounts={','.join(mounts)}"] if mounts else found
