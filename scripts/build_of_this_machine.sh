#!/bin/sh
# Prints which builds of torch and vLLM `make setup` installs here: cuda or cpu. Where a GPU seems to be there but its
# driver cannot be used, it prints why and what to do, and fails: an environment for the CPU would be slow without a word.
command -v nvidia-smi >/dev/null || { echo cpu; exit 0; }
advice="fix the driver, or choose a build: make setup BUILD=cpu, or BUILD=cuda (for a GPU node whose home this is)"
if ! answer=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1); then
    case $answer in
        *"No devices were found"*) echo cpu; exit 0 ;; # as on a login node
    esac
    echo "nvidia-smi fails: $answer; $advice" >&2
    exit 1
fi
driver=$(printf '%s\n' "$answer" | head -n 1)
major=${driver%%.*}
case $major in
    '' | *[!0-9]*) echo "nvidia-smi names no driver version but '$driver'; $advice" >&2; exit 1 ;;
esac
if [ "$major" -lt 580 ]; then
    echo "the NVIDIA driver is version $driver, and the build of torch for CUDA 13 needs 580 or newer; install a newer driver, or choose: make setup BUILD=cpu, or BUILD=cuda where CUDA's package for forward compatibility is installed" >&2
    exit 1
fi
echo cuda
